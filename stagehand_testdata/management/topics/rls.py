from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...exceptions import Conflict
from ...operations import row_security
from ...operations.runs import ledger_alias
from ..base import DONE, LEFT, TestDataCommand

HELP = "policies that hide test rows from raw SQL; install, status (exit 1 where one is not in force), remove"


def add_arguments(parser: CommandParser) -> None:
    parser.description = (
        "The row-level security of PostgreSQL that hides the test rows of each TestDataModel, whoever asks."
        " Install it once migrations are through, by a role that owns the tables; it may be repeated."
        " Exit status: 0 all is well, 1 policies that were installed are not in force, 2 misuse."
    )
    parser.add_argument("action", choices=["install", "status", "remove"], metavar="install|status|remove")
    parser.add_argument(
        "--sql", action="store_true", help="print the statements of install or remove, and run none of them"
    )


def run(command: TestDataCommand, options: dict[str, Any]) -> int:
    alias = ledger_alias()
    if not row_security.is_possible(alias):
        command.misuse("There is no row-level security in this database: it is PostgreSQL's.")
    if options["sql"]:
        return _print_sql(command, options, alias)
    if options["action"] == "status":
        return _status(command, options, alias)
    work = row_security.install if options["action"] == "install" else row_security.remove
    try:
        changes = work(alias)
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


def _print_sql(command: TestDataCommand, options: dict[str, Any], alias: str) -> int:
    if options["action"] == "status" or options["json"]:
        command.misuse("--sql goes with install or remove, and without --json.")
    text = row_security.install_sql if options["action"] == "install" else row_security.remove_sql
    for statement in text(alias):
        command.stdout.write(statement)
    return DONE


def _status(command: TestDataCommand, options: dict[str, Any], alias: str) -> int:
    found = row_security.status(alias)
    rows = [{"table": each.table, "state": each.state.value, "reason": each.reason} for each in found]
    command.write_rows(rows, as_json=options["json"])
    return LEFT if any(each.broken for each in found) else DONE
