from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from ...operations import guards
from ...operations.runs import ledger_alias
from .. import installing
from ..base import TestDataCommand

HELP = "triggers that keep a purge from real rows; install, status (exit 1 where one is not awake), remove"


def add_arguments(parser: CommandParser) -> None:
    installing.add_arguments(
        parser,
        "The triggers in the database that refuse whatever a purge does to a row it did not make, and enter"
        " what the product makes under a run. Install them once migrations are through, by a role that owns"
        " the tables; it may be repeated."
        " Exit status: 0 all is well, 1 guards that were installed are not awake, 2 misuse.",
    )


def run(command: TestDataCommand, options: dict[str, Any]) -> int:
    alias = ledger_alias()
    if not guards.can_tell(alias):
        command.misuse("The tables of this app are not there yet; type 'manage.py migrate' first.")
    if options["action"] != "status" or options["sql"]:
        return installing.install_or_remove(command, options, alias, guards)
    found = guards.status(alias)
    rows = [
        {
            "table": each.table,
            "model": each.model,
            "state": each.state.value,
            "reason": each.reason,
            "since": each.installed_at or "",
        }
        for each in found
    ]
    return installing.show(command, options, found, rows)
