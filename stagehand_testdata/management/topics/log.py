from __future__ import annotations

import argparse
import datetime as dt
import json
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive, make_aware

from ...access import trail
from ...conf import settings
from ...models import AuditEntry
from ...operations.runs import ledger_alias
from ..base import DONE, TestDataCommand
from ..durations import duration

HELP = "the audit: who did what, the oldest first; prune removes what is older than AUDIT_DAYS"

#: What a spreadsheet takes for a formula where a text begins with it.
_FORMULA = ("=", "+", "-", "@")


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("action", nargs="?", choices=["show", "prune"], default="show", metavar="show|prune")
    parser.add_argument(
        "--since",
        type=_moment,
        metavar="WHEN",
        help="not before: how long ago, like 2h or 7d, or a moment like 2026-11-26T08:00",
    )
    parser.add_argument("--owner", metavar="WHO", help="of key:ID, oidc:…, user:KEY or uid:NUMBER alone")
    parser.add_argument("--run", metavar="TEST_ID", help="of runs of this test ID alone")
    parser.add_argument(
        "--format", choices=["text", "jsonl"], default="text", help="jsonl: one JSON object a line"
    )


def run(command: TestDataCommand, options: dict[str, Any]) -> int:
    asked = [name for name in ("since", "owner", "run") if options[name] is not None]
    if options["action"] == "prune":
        if asked or options["format"] != "text":
            command.misuse("prune takes no filter: AUDIT_DAYS says what goes. Type 'testdata log prune'.")
        return _prune(command, options)
    if options["json"] and options["format"] != "text":
        command.misuse("--json is one document, --format jsonl a line for each entry: choose one.")
    # Nobody may read to the end (`| head -1`): the cursor is closed before its connection.
    with closing(_each(options)) as found:
        if options["json"]:
            _write_array(command, found)
            return DONE
        write: Callable[[dict[str, Any]], str] = json.dumps if options["format"] == "jsonl" else _line
        for each in found:
            command.stdout.write(write(each))
    return DONE


def _prune(command: TestDataCommand, options: dict[str, Any]) -> int:
    days = settings.AUDIT_DAYS
    if days < 1:
        command.misuse(f"AUDIT_DAYS is {days}: set it to 1 or more days before you prune.")
    removed = trail.prune(days)
    if options["json"]:
        command.write_json({"removed": removed, "days": days})
    else:
        command.stdout.write(f"{removed} entries of the audit were older than {days} days, and are removed.")
    return DONE


def _each(options: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
    for entry in _found(options).iterator(chunk_size=500):
        yield _described(entry)


def _found(options: dict[str, Any]) -> QuerySet[AuditEntry]:
    found: QuerySet[AuditEntry] = AuditEntry.objects.using(ledger_alias()).order_by("pk")
    since = options["since"]
    if since is not None:
        found = found.filter(at__gte=Now() - since if isinstance(since, dt.timedelta) else since)
    if options["owner"] is not None:
        found = found.filter(owner=options["owner"])
    if options["run"] is not None:
        found = found.filter(test_id=options["run"])
    return found


def _described(entry: AuditEntry) -> dict[str, Any]:
    found = {
        "id": entry.pk,
        "at": entry.at.isoformat(),
        "via": entry.via,
        "asked": entry.asked,
        "operation": entry.operation,
        "owner": entry.owner,
        "keyId": entry.key_id,
        "name": entry.name,
        "address": entry.address,
        "testId": entry.test_id,
        "subject": entry.subject,
        "counts": entry.counts,
        "result": entry.result,
    }
    return {name: _harmless(value) for name, value in found.items()}


def _harmless(value: Any) -> Any:
    """No text that a spreadsheet would carry out."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _line(entry: dict[str, Any]) -> str:
    """One line of printable characters, whatever stands in it."""
    counts = ", ".join(f"{count} {name}" for name, count in entry["counts"].items())
    who = " ".join(part for part in (entry["owner"], entry["name"], entry["address"]) if part)
    subject = entry["testId"] or entry["subject"]
    what = " ".join(part for part in (entry["operation"], subject, counts) if part)
    text = f"{entry['at'][:19]}  {entry['result']:<10}  {entry['via']:<7}  {who or '-'}  {what}"
    return "".join(each if each.isprintable() else " " for each in text)


def _write_array(command: TestDataCommand, found: Iterator[dict[str, Any]]) -> None:
    """As it comes: nobody knows how long it is."""
    separator = "["
    for each in found:
        command.stdout.write(separator + json.dumps(each), ending="")
        separator = ",\n "
    command.stdout.write("]" if separator != "[" else "[]")


def _moment(text: str) -> dt.datetime | dt.timedelta:
    if re.fullmatch(r"\d+[smhd]", text):
        return duration(text)
    try:
        found = parse_datetime(text if "T" in text or " " in text else f"{text}T00:00")
        if found is not None:
            # As the database is asked for it. There it may be before the first year, or past the last.
            return (make_aware(found) if is_naive(found) else found).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is no time; type 2h, 7d, 2026-11-26 or 2026-11-26T08:00")
