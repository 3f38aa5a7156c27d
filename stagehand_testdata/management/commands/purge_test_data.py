"""`manage.py purge_test_data`: remove test rows, and only those that the ledger proves."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import QuerySet

from ...logs import log_error
from ...models import TestRun
from ...operations.purge.plan import EXPLANATIONS, Plan, make_plan
from ...operations.purge.purge import Outcome, due_runs, purge_run
from ..base import DONE, LEFT, TestDataCommand
from ..durations import duration

logger = logging.getLogger(__name__)


class Command(TestDataCommand):
    help = (
        "Remove the rows of test runs: those that the ledger proves, and no others. A real row that points at"
        " a test row stops the removal of that part, which is reported. Works with the gate closed."
        " Exit status: 0 nothing is left, 1 something is left or failed, 2 misuse."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_argument_group("which runs (at least one)")
        which.add_argument("--run", metavar="TEST_ID", help="this run")
        which.add_argument("--expired", action="store_true", help="runs past their end")
        which.add_argument("--all", action="store_true", help="every run; asks first")
        which.add_argument("--scope", choices=TestRun.Scope.values, help="runs of this scope")
        which.add_argument(
            "--older-than",
            type=duration,
            metavar="DURATION",
            help="runs opened longer ago than 90s, 45m, 2h or 7d",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be removed, and remove nothing"
        )
        parser.add_argument("--yes", action="store_true", help="do not ask before --all")
        parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
        parser.add_argument(
            "--batch-size",
            type=_positive,
            metavar="N",
            help="rows per transaction (default: PURGE_BATCH_SIZE)",
        )

    def run(self, options: dict[str, Any]) -> int:
        found = self._runs(options)
        if options["dry_run"]:
            return self._dry_run(found, options)
        if options["all"] and not options["yes"]:
            self._ask(found.count())
        outcomes, failed = [], []
        for run in found:
            try:
                outcomes.append(
                    purge_run(run, batch_size=options["batch_size"], progress=self._progress(run))
                )
            except Exception as error:  # noqa: BLE001 - it is logged, and makes the exit status 1
                # One poisoned run must not keep the others waiting.
                log_error(logger, f"the purge of {run.test_id} failed", error)
                failed.append({"testId": run.test_id, "error": f"{type(error).__name__}: {error}"})
        self._report(outcomes, failed, as_json=options["json"])
        return DONE if not failed and all(outcome.success for outcome in outcomes) else LEFT

    def _runs(self, options: dict[str, Any]) -> QuerySet[TestRun]:
        named, everything = options["run"], options["all"]
        narrowing = [options["expired"], options["scope"], options["older_than"]]
        if everything and (named or any(narrowing)):
            self.misuse("--all stands alone: leave out --run, --expired, --scope and --older-than.")
        if not (everything or named or any(narrowing)):
            self.misuse("Say which runs: --run TEST_ID, --expired, --scope SCOPE, --older-than 2h, or --all.")
        if named and not TestRun.objects.filter(test_id=named).exists():
            self.misuse(f"There is no run {named!r}; 'manage.py testdata runs' lists them.")
        return due_runs(
            test_id=named,
            expired=options["expired"],
            scope=options["scope"],
            older_than=options["older_than"],
        )

    def _ask(self, count: int) -> None:
        if not sys.stdin.isatty():
            self.misuse("--all needs --yes where nobody can be asked.")
        answer = input(f"Purge all {count} runs, also those that tests are using now? Type 'yes': ")
        if answer.strip().lower() != "yes":
            self.misuse("Nothing was purged.")

    def _dry_run(self, found: QuerySet[TestRun], options: dict[str, Any]) -> int:
        plans = [make_plan(run) for run in found]
        if options["json"]:
            self.write_json({"dryRun": True, "runs": [plan.as_wire() for plan in plans]})
        else:
            for plan in plans:
                self._print_plan(plan)
            self.stdout.write(f"{len(plans)} runs looked at; nothing was changed (--dry-run).")
        return LEFT if any(plan.held for plan in plans) else DONE

    def _print_plan(self, plan: Plan) -> None:
        self.stdout.write(f"{plan.test_id}: would remove {_counts(plan.removable)}")
        if plan.gone:
            self.stdout.write(f"  already gone: {_counts(plan.gone)}")
        for held in plan.held:
            self._print_held(held.as_wire())

    def _print_held(self, held: dict[str, Any]) -> None:
        by = f" ({_counts(held['blockedBy'])})" if held["blockedBy"] else ""
        why = EXPLANATIONS[held["reason"]]
        self.stdout.write(self.style.WARNING(f"  stays: {held['type']} {held['id']}: {why}{by}"))

    def _report(self, outcomes: list[Outcome], failed: list[dict[str, str]], *, as_json: bool) -> None:
        if as_json:
            self.write_json({"runs": [outcome.receipt for outcome in outcomes], "failed": failed})
            return
        for outcome in outcomes:
            receipt = outcome.receipt
            self.stdout.write(
                f"{receipt['testId']}: removed {_counts(receipt['removed'])}, {receipt['state']}"
            )
            if receipt["alreadyGone"]:
                self.stdout.write(f"  already gone: {_counts(receipt['alreadyGone'])}")
            for held in receipt["quarantined"]:
                self._print_held(held)
        for failure in failed:
            self.stderr.write(self.style.ERROR(f"{failure['testId']}: failed, {failure['error']}"))
        left = sum(outcome.receipt["remaining"] for outcome in outcomes)
        self.stdout.write(f"{len(outcomes)} runs purged, {len(failed)} failed, {left} rows left.")

    def _progress(self, run: TestRun) -> Any:
        stream = self.stderr
        if not stream.isatty():
            return None

        def show(done: int, total: int) -> None:
            stream.write(f"\r{run.test_id}: {done:,} of {total:,} rows", ending="\n" if done >= total else "")
            stream.flush()

        return show


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of rows; type one from 1 up")
    return number


def _counts(counts: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
