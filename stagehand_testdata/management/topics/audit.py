from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...exceptions import ExternalFailed
from ...operations.adoption import Candidate, adopt, candidates
from ...operations.audit import (
    ADDRESS,
    EXAMPLES,
    FLAG,
    MODEL_MISSING,
    NOT_THE_ROW,
    PREFIX,
    ROW_GONE,
    Books,
    Finding,
    Outside,
    Overdue,
    Report,
    audit,
)
from ..base import DONE, LEFT, TestDataCommand, safe

HELP = "whether the books balance, entries without a row, marked rows without an entry; exit 1 where any is"

_WHAT = {
    ROW_GONE: "entries whose row is gone",
    MODEL_MISSING: "entries of a model that is not installed",
    NOT_THE_ROW: "entries whose row is not the one we made",
    FLAG: "rows with the test flag and no entry",
    PREFIX: "rows with the prefix and no entry",
    ADDRESS: "rows with a test address and no entry",
}


def add_arguments(parser: CommandParser) -> None:
    parser.description = (
        "Count each run's entries, hold them against the rows, and look for marked rows that have no entry."
        " Changes nothing but with --adopt."
        " Exit status: 0 all holds and nothing leaks, 1 something was found, 2 misuse."
    )
    parser.add_argument("--run", metavar="TEST_ID", help="look at this run alone")
    parser.add_argument(
        "--deep", action="store_true", help="hold each row against the fingerprint of its entry as well"
    )
    parser.add_argument(
        "--external",
        action="store_true",
        help="ask the identity provider for users that carry a test's mark and that no run owns",
    )
    parser.add_argument(
        "--limit",
        type=_number,
        metavar="N",
        help=f"how many keys or runs to show of each finding (default: {EXAMPLES})",
    )
    taking = parser.add_argument_group("take marked rows into a run, once they are shown")
    taking.add_argument("--adopt", metavar="TEST_ID", help="into this run, which is opened if it never was")
    taking.add_argument("--model", metavar="APP.MODEL", help="rows of this model")
    taking.add_argument("--key", action="append", metavar="KEY", help="the row under this key; repeatable")
    taking.add_argument("--yes", action="store_true", help="do not ask")


def run(command: TestDataCommand, options: dict[str, Any]) -> int:
    looking = (
        options["run"] is not None or options["deep"] or options["external"] or options["limit"] is not None
    )
    taking = options["model"] is not None or options["key"] or options["yes"]
    if options["adopt"] is None:
        if taking:
            command.misuse("--model, --key and --yes go with --adopt TEST_ID.")
        return _look(command, options)
    if looking:
        command.misuse(
            "--adopt looks at one model's rows alone: leave out --run, --deep, --external and --limit."
        )
    if options["model"] is None or not options["key"]:
        command.misuse("Say which rows: --adopt TEST_ID --model app.Model --key KEY.")
    return _adopt(command, options)


def _look(command: TestDataCommand, options: dict[str, Any]) -> int:
    limit = EXAMPLES if options["limit"] is None else options["limit"]
    tell, done = _progress(command)
    try:
        report = audit(
            options["run"], deep=options["deep"], external=options["external"], limit=limit, progress=tell
        )
    except ExternalFailed as error:
        raise CommandError(error.message, returncode=LEFT) from None
    finally:
        done()
    if options["json"]:
        command.write_json(report.as_wire())
    else:
        _print(command, report)
    return DONE if report.clean else LEFT


def _print(command: TestDataCommand, report: Report) -> None:
    _print_books(command, report.books)
    for finding in (*report.gone, *(report.strangers or ()), *report.leaks):
        _print_finding(command, finding)
    _print_overdue(command, report.overdue)
    if report.outside is not None:
        _print_outside(command, report.outside)
    for note in report.notes:
        command.stdout.write(f"Note: {note}")
    if report.strangers is None:
        command.stdout.write("Rows were not held against their fingerprints; --deep does.")
    if report.clean:
        command.stdout.write("All holds, and nothing leaks.")


def _print_books(command: TestDataCommand, books: Books) -> None:
    command.stdout.write(
        f"{books.runs} runs: {books.created} created, {books.removed} removed + {books.live} live"
        f" + {books.gone} already gone + {books.quarantined} quarantined."
    )
    for book in books.examples:
        for problem in book.problems:
            command.stdout.write(command.style.WARNING(f"{safe(book.test_id)}: {problem}"))
    _print_more(command, books.broken - len(books.examples), "runs whose books do not hold")
    for each in books.doubled:
        text = f"{safe(each.model)} {safe(each.key)}: {each.count} entries stand for one row"
        command.stdout.write(command.style.WARNING(text))


def _print_finding(command: TestDataCommand, finding: Finding) -> None:
    keys = [f"{safe(key)} ({safe(run)})" if run else safe(key) for key, run in finding.examples]
    more = [f"{finding.count - len(keys)} more"] if keys and finding.count > len(keys) else []
    shown = f": {', '.join(keys + more)}" if keys else ""
    text = f"{safe(finding.model)}: {finding.count} {_WHAT[finding.reason]}{shown}"
    command.stdout.write(command.style.WARNING(text))


def _print_overdue(command: TestDataCommand, overdue: Overdue) -> None:
    for late in overdue.examples:
        failed = f", {late.failures} purges failed" if late.failures else ""
        error = f": {safe(late.error)}" if late.error else ""
        text = f"{safe(late.test_id)}: {late.state}, {_span(late.overdue)} past its end{failed}{error}"
        command.stdout.write(command.style.WARNING(text))
    _print_more(command, overdue.count - len(overdue.examples), "runs past their end")


def _print_outside(command: TestDataCommand, outside: Outside) -> None:
    for user, key in outside.examples:
        text = f"{safe(outside.provider)}: user {safe(user)} is no run's ({safe(key) or 'by its address'})"
        command.stdout.write(command.style.WARNING(text))
    _print_more(command, outside.count - len(outside.examples), "users at the provider that no run owns")


def _print_more(command: TestDataCommand, count: int, what: str) -> None:
    if count > 0:
        command.stdout.write(command.style.WARNING(f"{count} more {what}."))


def _adopt(command: TestDataCommand, options: dict[str, Any]) -> int:
    test_id, as_json = options["adopt"], options["json"]
    chosen = candidates(options["model"], options["key"])
    _show(command.stderr if as_json else command.stdout, chosen)
    if not options["yes"]:
        _ask(command, test_id, len(chosen))
    entries = adopt(test_id, chosen)
    if as_json:
        adopted = [
            {"model": each.model, "key": each.key_text, "type": each.type, "ordinal": each.ordinal}
            for each in entries
        ]
        command.write_json({"testId": test_id, "adopted": adopted})
    else:
        command.stdout.write(f"{len(entries)} rows are of the run {test_id} now; its purge removes them.")
    return DONE


def _show(stream: Any, chosen: Sequence[Candidate]) -> None:
    for each in chosen:
        stream.write(f"{each.model._meta.label} {safe(each.key)}")
        for name, value in each.columns.items():
            stream.write(f"  {name}: {value}")
        stream.write(f"  marks: {'; '.join(each.marks)}")


def _ask(command: TestDataCommand, test_id: str, count: int) -> None:
    if not sys.stdin.isatty():
        command.misuse("--adopt needs --yes where nobody can be asked.")
    command.stderr.write(
        f"Take {count} rows into {safe(test_id)}, whose purge deletes them? Type 'yes': ", ending=""
    )
    command.stderr.flush()
    if sys.stdin.readline().strip().lower() != "yes":
        command.misuse("Nothing was adopted.")


def _progress(command: TestDataCommand) -> tuple[Callable[[str], None] | None, Callable[[], None]]:
    """What to tell the person at the terminal, and how to wipe it away; nothing where there is no person."""
    stream: Any = command.stderr
    if not stream.isatty():
        return None, lambda: None

    def tell(what: str) -> None:
        stream.write(f"\r\033[Klooking at {what} …", ending="")
        stream.flush()

    def wipe() -> None:
        stream.write("\r\033[K", ending="")
        stream.flush()

    return tell, wipe


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"'{text}' is no number; type one from 0 up")
    return int(text)


def _span(span: dt.timedelta) -> str:
    minutes, seconds = divmod(max(int(span.total_seconds()), 0), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")]
    shown = [f"{number}{unit}" for number, unit in parts if number]
    return " ".join(shown[:2]) or "0s"
