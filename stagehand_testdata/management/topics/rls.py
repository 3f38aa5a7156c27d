from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from ...operations import row_security
from ...operations.runs import ledger_alias
from .. import installing
from ..base import TestDataCommand

HELP = "policies that hide test rows from raw SQL; install, status (exit 1 where one is not in force), remove"


def add_arguments(parser: CommandParser) -> None:
    installing.add_arguments(
        parser,
        "The row-level security of PostgreSQL that hides the test rows of each TestDataModel, whoever asks."
        " Install it once migrations are through, by a role that owns the tables; it may be repeated."
        " Exit status: 0 all is well, 1 policies that were installed are not in force, 2 misuse.",
    )


def run(command: TestDataCommand, options: dict[str, Any]) -> int:
    alias = ledger_alias()
    if not row_security.is_possible(alias):
        command.misuse("There is no row-level security in this database: it is PostgreSQL's.")
    if options["action"] != "status" or options["sql"]:
        return installing.install_or_remove(command, options, alias, row_security)
    found = row_security.status(alias)
    rows = [{"table": each.table, "state": each.state.value, "reason": each.reason} for each in found]
    return installing.show(command, options, found, rows)
