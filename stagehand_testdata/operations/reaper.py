"""The reaper: purge the runs that are past their end, each by itself, whoever else is at the same work.

# Note [Reapers]
Nobody is handed work and nobody keeps a lease on it. A reaper lists what is due, and asks for one run after
the other; a run that somebody holds is passed over, not waited for. The claim is the lock on the run's row,
held for one batch: a reaper that dies lets go of it, and what it had not committed is there for the next.
That it was tried is written down before, and what was tried comes after what was not: so a run that ends the
process that purges it keeps no other waiting.
Whether the run is still past its end is looked at under that lock, so a renewal that came first wins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from ..access import idempotency
from ..exceptions import PurgeHalted
from ..models import TestRun
from .purge import failures
from .purge.execute import Progress
from .purge.purge import Outcome, due_runs, purge_run

Stop = Callable[[], bool]


class Told(NamedTuple):
    """A run by its test ID, and why nothing came of its purge."""

    test_id: str
    text: str

    @classmethod
    def error(cls, run: TestRun, error: BaseException) -> Told:
        return cls(run.test_id, f"{type(error).__name__}: {error}")

    def as_wire(self) -> dict[str, str]:
        return {"testId": self.test_id, "error": self.text}


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one round came to."""

    outcomes: tuple[Outcome, ...] = ()
    #: Runs whose purge raised.
    failed: tuple[Told, ...] = ()
    #: Runs over the limits: they wait for somebody to confirm their plan.
    halted: tuple[Told, ...] = ()
    #: Runs that are past their end, but failed not long ago.
    put_off: tuple[Told, ...] = ()
    #: Runs that were passed over: somebody else is at them, or has renewed them.
    skipped: int = 0
    stopped: bool = False

    @property
    def nothing_new(self) -> bool:
        return not (self.outcomes or self.failed or self.halted)

    @property
    def success(self) -> bool:
        """Whether nothing failed, and nothing is left of any run that this round looked at."""
        left = self.failed or self.halted or self.put_off
        return not left and all(outcome.success for outcome in self.outcomes)

    def counts(self) -> dict[str, Any]:
        """The round in numbers, for a task's result."""
        receipts = [outcome.receipt for outcome in self.outcomes]
        return {
            "purged": len(receipts),
            "removed": sum(sum(receipt["removed"].values()) for receipt in receipts),
            "remaining": sum(receipt["remaining"] for receipt in receipts),
            "failed": len(self.failed),
            "halted": len(self.halted),
            "putOff": len(self.put_off),
            "skipped": self.skipped,
            "stopped": self.stopped,
        }


class _Stopped(BaseException):
    """Asked to stop between two batches: no error, so no `except Exception` may take it for one."""


def reap(
    *,
    among: QuerySet[TestRun] | None = None,
    limit: int | None = None,
    stop: Stop = lambda: False,
    batch_size: int | None = None,
    progress: Callable[[TestRun], Progress | None] | None = None,
) -> Reaped:
    """Purge the runs that are past their end, at most `limit`; first those never tried, the longest expired.

    `among` narrows them down: `due_runs(expired=True, …)`. One run that fails keeps no other waiting: it is
    put off, and told. `stop` is asked between runs and between batches; a run that is left half-way is
    finished by the next round. See Note [Reapers].
    """
    expired = due_runs(expired=True) if among is None else among
    due = expired.filter(Q(next_purge_at=None) | Q(next_purge_at__lte=Now()))
    put_off = expired.filter(next_purge_at__gt=Now()).values_list("test_id", "purge_error")
    round_ = _Round(stop, batch_size, progress, tuple(Told(*each) for each in put_off))
    tried_last = F("next_purge_at").asc(nulls_first=True)
    for pk in list(due.order_by(tried_last, "expires_at", "pk").values_list("pk", flat=True)):
        if stop():
            round_.stopped = True
        if round_.stopped or round_.tried == limit:
            break
        # Others are at the same list: by now the run may be closed, renewed or put off.
        run = due.filter(pk=pk).first()
        if run is None:
            round_.skipped += 1
        else:
            round_.take(run)
    idempotency.forget_ended()
    return round_.result()


def within(seconds: float) -> Stop:
    """A `stop` that says so once the time is over."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@dataclass(slots=True)
class _Round:
    stop: Stop
    batch_size: int | None
    progress: Callable[[TestRun], Progress | None] | None
    put_off: tuple[Told, ...]
    outcomes: list[Outcome] = field(default_factory=list)
    failed: list[Told] = field(default_factory=list)
    halted: list[Told] = field(default_factory=list)
    skipped: int = 0
    stopped: bool = False

    @property
    def tried(self) -> int:
        return len(self.outcomes) + len(self.failed) + len(self.halted)

    def take(self, run: TestRun) -> None:
        failures.begun(run)
        try:
            outcome = purge_run(
                run,
                batch_size=self.batch_size,
                progress=self._between_batches(self.progress(run) if self.progress else None),
                only_expired=True,
                wait=False,
            )
        except _Stopped:
            self.stopped = True
        except PurgeHalted as halted:
            self.halted.append(Told(run.test_id, halted.message))
        except Exception as error:  # noqa: BLE001 - purge_run has put the run off and told the log
            self.failed.append(Told.error(run, error))
        else:
            if outcome is None:
                self.skipped += 1
            else:
                self.outcomes.append(outcome)

    def _between_batches(self, show: Progress | None) -> Progress:
        def told(done: int, total: int) -> None:
            if show is not None:
                show(done, total)
            if done < total and self.stop():
                raise _Stopped

        return told

    def result(self) -> Reaped:
        return Reaped(
            tuple(self.outcomes),
            tuple(self.failed),
            tuple(self.halted),
            self.put_off,
            self.skipped,
            self.stopped,
        )
