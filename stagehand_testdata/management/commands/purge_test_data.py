"""`manage.py purge_test_data`: remove test rows, and only those that the ledger proves."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import Any

from django.core.management.base import CommandParser
from django.db import Error as DatabaseFault
from django.db import close_old_connections
from django.db.models import QuerySet

from ...exceptions import PlanChanged, PurgeHalted
from ...logs import log_error
from ...models import TestRun
from ...operations.purge.plan import EXPLANATIONS, Plan, make_plan
from ...operations.purge.purge import Outcome, due_runs, purge_run
from ...operations.reaper import Reaped, Told, reap
from ..base import DONE, LEFT, TestDataCommand, safe
from ..durations import duration, pause
from ..signals import Stop

logger = logging.getLogger(__name__)

#: How much longer each pause of `--watch` gets while the database is away, and where that ends.
BACKOFF, LONGEST_PAUSE = 2, 300.0


class Command(TestDataCommand):
    help = (
        "Remove the rows of test runs: those that the ledger proves, and no others. A real row that points at"
        " a test row stops the removal of that part, which is reported. Works with the gate closed."
        " Exit status: 0 nothing is left, 1 something is left or failed, 2 misuse."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_argument_group("which runs (at least one)")
        which.add_argument("--run", metavar="TEST_ID", help="this run")
        which.add_argument("--expired", action="store_true", help="runs past their end: the reaper")
        which.add_argument("--all", action="store_true", help="every run; asks first")
        which.add_argument("--scope", choices=TestRun.Scope.values, help="runs of this scope")
        which.add_argument(
            "--older-than",
            type=duration,
            metavar="DURATION",
            help="runs opened longer ago than 90s, 45m, 2h or 7d",
        )
        which.add_argument(
            "--limit", type=_positive, metavar="N", help="with --expired: at most N runs a round"
        )
        parser.add_argument(
            "--watch",
            type=pause,
            metavar="SECONDS",
            help="with --expired: go on until SIGTERM, with this pause between rounds (30, 30s, 2m)",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be removed, and remove nothing"
        )
        parser.add_argument(
            "--confirm",
            metavar="DIGEST",
            help="with --run: carry out this plan and no other, over the limits too; --dry-run shows it",
        )
        parser.add_argument("--yes", action="store_true", help="do not ask before --all")
        parser.add_argument(
            "--json",
            action="store_true",
            help="one JSON document on standard output; with --watch one a round",
        )
        parser.add_argument(
            "--batch-size",
            type=_positive,
            metavar="N",
            help="rows per transaction (default: PURGE_BATCH_SIZE)",
        )

    def run(self, options: dict[str, Any]) -> int:
        self._refuse_misuse(options)
        found = self._runs(options)
        if options["dry_run"]:
            return self._dry_run(found, options)
        if options["watch"]:
            return self._watch(found, options)
        if options["all"] and not options["yes"]:
            self._ask(found.count())
        # A run by its name is purged now, however often that failed.
        reaping = options["expired"] and not options["run"]
        return self._report(self._reap(found, options) if reaping else self._purge(found, options), options)

    def _refuse_misuse(self, options: dict[str, Any]) -> None:
        named, expired = options["run"], options["expired"]
        narrowing = [expired, options["scope"], options["older_than"]]
        if options["all"] and (named or any(narrowing)):
            self.misuse("--all stands alone: leave out --run, --expired, --scope and --older-than.")
        if not (options["all"] or named or any(narrowing)):
            self.misuse("Say which runs: --run TEST_ID, --expired, --scope SCOPE, --older-than 2h, or --all.")
        for name in ("watch", "limit"):
            if options[name] and (named or not expired):
                self.misuse(f"--{name} needs --expired, without --run: --expired --{name} {options[name]:g}.")
        if options["watch"] and options["dry_run"]:
            self.misuse("--watch purges again and again: leave out --dry-run.")
        if options["confirm"] is not None and (not named or options["dry_run"]):
            self.misuse("--confirm is for one plan: --run TEST_ID --confirm DIGEST, without --dry-run.")
        if named and not TestRun.objects.filter(test_id=named).exists():
            self.misuse(f"There is no run {named!r}; 'manage.py testdata runs' lists them.")

    def _runs(self, options: dict[str, Any]) -> QuerySet[TestRun]:
        return due_runs(
            test_id=options["run"],
            expired=options["expired"],
            scope=options["scope"],
            older_than=options["older_than"],
        )

    def _reap(self, found: QuerySet[TestRun], options: dict[str, Any], stop: Any = lambda: False) -> Reaped:
        return reap(
            among=found,
            limit=options["limit"],
            stop=stop,
            batch_size=options["batch_size"],
            progress=self._progress,
        )

    def _watch(self, found: QuerySet[TestRun], options: dict[str, Any]) -> int:
        """Round after round; the exit status is that of the last one."""
        wait, status = options["watch"], DONE
        with Stop() as stop:
            while not stop():
                close_old_connections()
                try:
                    status = self._report(self._reap(found.all(), options, stop), options)
                    wait = options["watch"]
                except DatabaseFault as fault:
                    log_error(logger, "a round of the reaper failed", fault)
                    status, wait = LEFT, min(wait * BACKOFF, max(LONGEST_PAUSE, options["watch"]))
                stop.sleep(wait)
        return status

    def _purge(self, found: QuerySet[TestRun], options: dict[str, Any]) -> Reaped:
        outcomes: list[Outcome] = []
        failed: list[Told] = []
        halted: list[Told] = []
        refused = f"{options['run']!r} is closed: it has no plan to confirm."
        for run in found:
            try:
                outcome = purge_run(
                    run,
                    batch_size=options["batch_size"],
                    progress=self._progress(run),
                    expect=options["confirm"],
                    only_expired=options["expired"],
                )
            except PlanChanged as changed:
                refused = changed.message  # unless another owner's run of this test ID has the plan
            except PurgeHalted as error:
                halted.append(Told(run.test_id, error.message))
            except Exception as error:  # noqa: BLE001 - purge_run has told the log; it makes the exit status 1
                # One poisoned run must not keep the others waiting.
                failed.append(Told.error(run, error))
            else:
                outcomes += [outcome] if outcome else []
        if options["confirm"] is not None and not (outcomes or failed):
            self.misuse(refused)
        return Reaped(tuple(outcomes), tuple(failed), tuple(halted))

    def _ask(self, count: int) -> None:
        if not sys.stdin.isatty():
            self.misuse("--all needs --yes where nobody can be asked.")
        try:
            answer = input(f"Purge all {count} runs, also those that tests are using now? Type 'yes': ")
        except EOFError:
            answer = ""
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
        if plan.shadows:
            self.stdout.write(f"  shadows, of which nothing is to remove: {_counts(plan.shadows)}")
        for held in plan.held:
            self._print_held(held.as_wire())
        self.stdout.write(f"  plan: {plan.digest}")

    def _print_held(self, held: dict[str, Any]) -> None:
        by = f" ({_counts(held['blockedBy'])})" if held["blockedBy"] else ""
        why = EXPLANATIONS[held["reason"]]
        self.stdout.write(self.style.WARNING(f"  stays: {safe(held['type'])} {safe(held['id'])}: {why}{by}"))

    def _report(self, reaped: Reaped, options: dict[str, Any]) -> int:
        if options["json"]:
            self._report_json(reaped, one_line=bool(options["watch"]))
        elif not (options["watch"] and reaped.nothing_new):
            self._report_text(reaped)
        return DONE if reaped.success else LEFT

    def _report_json(self, reaped: Reaped, *, one_line: bool) -> None:
        document = {
            "runs": [outcome.receipt for outcome in reaped.outcomes],
            "failed": [told.as_wire() for told in reaped.failed],
            "halted": [told.as_wire() for told in reaped.halted],
            "putOff": [told.as_wire() for told in reaped.put_off],
            "skipped": reaped.skipped,
        }
        if one_line:
            self.stdout.write(json.dumps(document, default=str))
            self.stdout.flush()
        else:
            self.write_json(document)

    def _report_text(self, reaped: Reaped) -> None:
        for outcome in reaped.outcomes:
            self._print_receipt(outcome.receipt)
        for told in reaped.failed:
            self.stderr.write(self.style.ERROR(f"{told.test_id}: failed, {safe(told.text)}"))
        for told in reaped.put_off:
            self.stderr.write(
                self.style.WARNING(f"{told.test_id}: put off, its last purge failed: {safe(told.text)}")
            )
        for told in reaped.halted:
            self.stderr.write(self.style.ERROR(f"{told.test_id}: halted. {safe(told.text)}"))
        left = sum(outcome.receipt["remaining"] for outcome in reaped.outcomes)
        failed = len(reaped.failed) + len(reaped.halted)
        self.stdout.write(f"{len(reaped.outcomes)} runs purged, {failed} failed, {left} rows left.")
        self.stdout.flush()

    def _print_receipt(self, receipt: dict[str, Any]) -> None:
        self.stdout.write(f"{receipt['testId']}: removed {_counts(receipt['removed'])}, {receipt['state']}")
        if receipt["alreadyGone"]:
            self.stdout.write(f"  already gone: {_counts(receipt['alreadyGone'])}")
        if (shadow := receipt["shadow"])["entries"]:
            sent = f"{shadow['hostStatements']} statements on the product's tables"
            self.stdout.write(f"  shadows closed: {_counts(shadow['entries'])} ({sent})")
        for held in receipt["quarantined"]:
            self._print_held(held)

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
