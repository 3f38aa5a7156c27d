from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from ...models import TestEntity, TestRun
from ..base import DONE, TestDataCommand

HELP = "runs that are not closed, the newest first"


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("--closed", action="store_true", help="closed runs too")


def run(command: TestDataCommand, options: dict[str, Any]) -> int:
    found = TestRun.objects.all() if options["closed"] else TestRun.objects.unfinished()
    rows = [
        {
            "testId": each.test_id,
            "scope": each.scope,
            "state": each.state,
            "seed": each.seed,
            "openedAt": each.opened_at,
            "expiresAt": each.expires_at,
            "rows": each.entities.standing().exclude(origin=TestEntity.Origin.SHADOW).count(),
        }
        for each in found
    ]
    command.write_rows(rows, as_json=options["json"])
    return DONE
