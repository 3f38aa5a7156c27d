"""What topics share that put something up in the database: install, status and remove, and their SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from django.core.management.base import CommandError, CommandParser

from ..exceptions import Conflict
from ..operations.installing import Change
from .base import DONE, LEFT, TestDataCommand


class TableStatus(Protocol):
    @property
    def broken(self) -> bool: ...


class Installable(Protocol):
    """An operation's module."""

    def install(self, alias: str) -> Sequence[Change]: ...
    def remove(self, alias: str) -> Sequence[Change]: ...
    def install_sql(self, alias: str) -> Sequence[str]: ...
    def remove_sql(self, alias: str) -> Sequence[str]: ...


def add_arguments(parser: CommandParser, description: str) -> None:
    parser.description = description
    parser.add_argument("action", choices=["install", "status", "remove"], metavar="install|status|remove")
    parser.add_argument(
        "--sql", action="store_true", help="print the statements of install or remove, and run none of them"
    )


def install_or_remove(
    command: TestDataCommand, options: dict[str, Any], alias: str, what: Installable
) -> int:
    """Do what the action says, or print its SQL."""
    installing = options["action"] == "install"
    if options["sql"]:
        if options["action"] == "status" or options["json"]:
            command.misuse("--sql goes with install or remove, and without --json.")
        for statement in (what.install_sql if installing else what.remove_sql)(alias):
            command.stdout.write(statement)
        return DONE
    try:
        changes = (what.install if installing else what.remove)(alias)
    except Conflict as error:
        raise CommandError(error.message, returncode=LEFT) from error
    if options["json"]:
        command.write_json([{"table": each.table, "done": each.done} for each in changes])
    else:
        for each in changes:
            command.stdout.write(f"{each.table}: {each.done}")
        if not changes:
            command.stdout.write("Nothing to do.")
    return DONE


def show(
    command: TestDataCommand,
    options: dict[str, Any],
    found: Sequence[TableStatus],
    rows: Sequence[Mapping[str, Any]],
) -> int:
    """The status of each table; exit 1 where one is broken."""
    command.write_rows(rows, as_json=options["json"])
    return LEFT if any(each.broken for each in found) else DONE
