from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from ...operations.entities import settable_fields
from ...registry import get_registry
from ..base import DONE, TestDataCommand

HELP = "entity types, scenarios and operations that are registered"


def add_arguments(parser: CommandParser) -> None:
    """Nothing beside --json."""


def run(command: TestDataCommand, options: dict[str, Any]) -> int:
    registry = get_registry()
    rows = [
        {
            "kind": "entity type",
            "name": each.name,
            "of": each.model._meta.label,
            "fields": list(settable_fields(each)),
        }
        for each in registry.entity_types
    ]
    for kind, entries in (("scenario", registry.scenarios), ("operation", registry.operations)):
        rows += [{"kind": kind, "name": each.name, "of": each.description, "fields": []} for each in entries]
    command.write_rows(rows, as_json=options["json"])
    return DONE
