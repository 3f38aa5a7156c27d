"""`manage.py testdata`: look at runs, receipts and what can be made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandParser

from ...models import Receipt, TestRun
from ...operations.entities import settable_fields
from ...registry import get_registry
from ..base import DONE, LEFT, TestDataCommand


class Command(TestDataCommand):
    help = "Look at test runs, at the receipts of their purges, and at what can be made here."

    def add_arguments(self, parser: CommandParser) -> None:
        topics = parser.add_subparsers(dest="topic", metavar="TOPIC", required=True)
        shared: dict[str, tuple[str, Callable[[dict[str, Any]], int]]] = {
            "runs": ("runs that are not closed, the newest first", self.runs),
            "receipts": (
                "what each purge did; exit 1 where the last one of a run left something",
                self.receipts,
            ),
            "types": ("entity types, scenarios and operations that are registered", self.types),
        }
        for topic, (text, action) in shared.items():
            sub = topics.add_parser(topic, help=text, description=text)
            sub.add_argument("--json", action="store_true", help="one JSON document on standard output")
            sub.set_defaults(action=action)
            if topic == "runs":
                sub.add_argument("--closed", action="store_true", help="closed runs too")
            if topic == "receipts":
                sub.add_argument("--run", metavar="TEST_ID", help="of this run alone")

    def run(self, options: dict[str, Any]) -> int:
        status: int = options["action"](options)
        return status

    def runs(self, options: dict[str, Any]) -> int:
        found = TestRun.objects.all() if options["closed"] else TestRun.objects.unfinished()
        rows = [
            {
                "testId": run.test_id,
                "scope": run.scope,
                "state": run.state,
                "seed": run.seed,
                "openedAt": run.opened_at,
                "expiresAt": run.expires_at,
                "rows": run.entities.standing().count(),
            }
            for run in found
        ]
        self._table(rows, options)
        return DONE

    def receipts(self, options: dict[str, Any]) -> int:
        found = Receipt.objects.select_related("run")
        if options["run"]:
            found = found.filter(run__test_id=options["run"])
            if not found.exists():
                self.misuse(f"There is no receipt of {options['run']!r}.")
        bodies = [{**receipt.body, "at": receipt.created_at} for receipt in found]
        latest = {body["testId"]: body for body in reversed(bodies)}
        if options["json"]:
            self.write_json(bodies)
        else:
            kept = ("at", "testId", "state", "removed", "remaining", "digest")
            self._table([{name: body[name] for name in kept} for body in bodies], options)
        return DONE if all(body["success"] for body in latest.values()) else LEFT

    def types(self, options: dict[str, Any]) -> int:
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
        rows += [
            {"kind": "scenario", "name": each.name, "of": each.description, "fields": []}
            for each in registry.scenarios
        ]
        rows += [
            {"kind": "operation", "name": each.name, "of": each.description, "fields": []}
            for each in registry.operations
        ]
        self._table(rows, options)
        return DONE

    def _table(self, rows: list[dict[str, Any]], options: dict[str, Any]) -> None:
        if options["json"]:
            self.write_json(rows)
            return
        if not rows:
            self.stdout.write("None.")
            return
        shown = [{name: _cell(value) for name, value in row.items()} for row in rows]
        widths = {name: max(len(name), *(len(row[name]) for row in shown)) for name in shown[0]}
        self.stdout.write("  ".join(name.ljust(width) for name, width in widths.items()).rstrip())
        for row in shown:
            self.stdout.write("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "nothing"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value.isoformat(sep=" ", timespec="seconds") if hasattr(value, "isoformat") else str(value)
