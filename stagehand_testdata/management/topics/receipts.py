from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from ...models import Receipt
from ..base import DONE, LEFT, TestDataCommand

HELP = "what each purge did; exit 1 where the last one of a run left something"


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("--run", metavar="TEST_ID", help="of this run alone")


def run(command: TestDataCommand, options: dict[str, Any]) -> int:
    found: Any = Receipt.objects.select_related("run")
    if options["run"]:
        found = found.filter(run__test_id=options["run"])
        if not found.exists():
            command.misuse(f"There is no receipt of {options['run']!r}.")
    # Two owners may have a run of one test ID.
    bodies = [{**each.body, "at": each.created_at, "owner": each.run.owner} for each in found]
    latest = {each.run_id: each.body for each in reversed(found)}
    if options["json"]:
        command.write_json(bodies)
    else:
        kept = ("at", "testId", "owner", "state", "removed", "remaining", "digest")
        command.write_rows([{name: body[name] for name in kept} for body in bodies])
    return DONE if all(body["success"] for body in latest.values()) else LEFT
