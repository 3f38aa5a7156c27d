"""How much there may be at a time: rows of a run, rows and open runs of a key, and of all together.

# Note [How a quota holds]
Whoever makes rows or opens a run counts afterwards, its own included, with the quota's lock in hand until it
commits: of two calls at once the second sees what the first has made. The lock of rows is taken last, so that
calls wait for one another no longer than a commit takes; nobody takes that of runs after it. Before anything
is made, what is there already comes with the query that holds the run: a call that asks for too much is
refused before it makes the first row.

Far below a limit none of that is needed: what a hundred calls at once could add does not reach it within the
few seconds for which that is remembered.

What the product itself writes under a pass is counted, and refuses no statement of the product's. A purge
asks for no quota. Where no request is being answered, the host itself is at work, and has none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.db import router
from django.db.models import Count, QuerySet, Subquery
from django.db.models.functions import Coalesce

from ..conf import settings
from ..databases import database
from ..exceptions import QuotaExceeded
from ..models import QuotaLock, TestEntity, TestRun
from .callers import HOST, Caller, current_caller

_ROWS_OF_KEY, _RUNS_OF_KEY = "quota_rows_of_key", "quota_runs_of_key"

#: What may come at once, in calls, without a look at the quota; and how long a look is good for, in seconds.
_CALLS_AT_ONCE = 100
_GOOD_FOR = 5.0

#: Until when (`time.monotonic`) there is room for all that may come, by the quota's lock and limit.
_roomy: dict[tuple[str, int], float] = {}


class Quota(NamedTuple):
    """How many of these rows of the ledger there may be."""

    name: str
    #: Whose, where it is not everybody's.
    owner: str
    limit: int
    rows: QuerySet[Any]
    #: A column that has one value in all of the rows.
    same: str
    #: What one call may add at most.
    step: int
    refusal: str

    @property
    def lock(self) -> str:
        return f"{self.name}:{self.owner}"

    @property
    def is_roomy(self) -> bool:
        return _roomy.get((self.lock, self.limit), 0) > time.monotonic()

    def note(self, count: int) -> None:
        if self.limit - count >= _CALLS_AT_ONCE * self.step:
            _roomy[self.lock, self.limit] = time.monotonic() + _GOOD_FOR

    def as_annotation(self) -> Coalesce:
        counted = self.rows.order_by().values(self.same).annotate(counted=Count("pk")).values("counted")
        return Coalesce(Subquery(counted), 0)


class Room(NamedTuple):
    """How many rows the call may still make, and what is said to it where that is not enough."""

    rows: int
    refusal: str

    def require(self, count: int) -> None:
        """Raises QuotaExceeded."""
        if count > self.rows:
            raise QuotaExceeded(self.refusal)


def prepare(owner: str) -> None:
    """Make the locks of an owner's quotas, before two of its calls at once would."""
    names = [f"{name}:{owner}" for name in (_ROWS_OF_KEY, _RUNS_OF_KEY)]
    locks = [QuotaLock(name=name) for name in names]
    QuotaLock.objects.using(_alias()).bulk_create(locks, ignore_conflicts=True)


def counts() -> dict[str, Any]:
    """What the query that holds a run is to count besides, for `room`."""
    return {quota.name: quota.as_annotation() for quota in _of_rows(current_caller()) if not quota.is_roomy}


def room(run: Any) -> Room | None:
    """What is left for a call in this run, which was read with `counts`; None where all is."""
    caller = current_caller()
    if caller is HOST:
        return None
    left = [
        Room(settings.MAX_ROWS_PER_CALL, _per_call()),
        Room(settings.MAX_ROWS_PER_RUN - run.last_ordinal, _per_run()),
    ]
    for quota in _of_rows(caller):
        count = getattr(run, quota.name, None)
        if count is not None:
            quota.note(count)
            left.append(Room(quota.limit - count, quota.refusal))
    return min(left)


def settle_rows(last_ordinal: int) -> None:
    """Raise QuotaExceeded where there is too much, now that a call's rows are entered up to this ordinal.

    The transaction must commit soon. See Note [How a quota holds].
    """
    caller = current_caller()
    if caller is not HOST and last_ordinal > settings.MAX_ROWS_PER_RUN:
        raise QuotaExceeded(_per_run())
    for quota in _of_rows(caller):
        _settle(quota)


def settle_runs() -> None:
    """The same, now that a run is open."""
    for quota in _of_runs(current_caller()):
        _settle(quota)


def _settle(quota: Quota) -> None:
    if quota.is_roomy:
        return
    _lock(quota.lock)
    count = quota.rows.using(_alias()).count()
    if count > quota.limit:
        raise QuotaExceeded(quota.refusal)
    quota.note(count)


def _of_rows(caller: Caller) -> Iterator[Quota]:
    if caller is HOST:
        return
    standing = TestEntity.objects.standing()
    step = settings.MAX_ROWS_PER_CALL
    if caller.max_live_rows is not None:
        # A closed run has none: of the many that a key has had over time only a few are looked at.
        unfinished = (TestRun.State.OPEN, TestRun.State.CLOSING)
        own = standing.filter(run__owner=caller.owner, run__state__in=unfinished)
        limit = caller.max_live_rows
        refusal = f"This access key may have {limit} rows at a time. Clean up a run that is done."
        yield Quota(_ROWS_OF_KEY, caller.owner, limit, own, "tombstone", step, refusal)
    limit = settings.MAX_LIVE_ROWS
    refusal = f"There may be {limit} test rows in all at a time (MAX_LIVE_ROWS). Clean up a run that is done."
    yield Quota("quota_rows", "", limit, standing, "tombstone", step, refusal)


def _of_runs(caller: Caller) -> Iterator[Quota]:
    if caller is HOST:
        return
    unfinished = TestRun.objects.filter(state=TestRun.State.OPEN)
    if caller.max_open_runs is not None:
        own = unfinished.filter(owner=caller.owner)
        limit = caller.max_open_runs
        refusal = f"This access key may have {limit} runs open at a time. Clean up one that is done."
        yield Quota(_RUNS_OF_KEY, caller.owner, limit, own, "state", 1, refusal)
    limit = settings.MAX_OPEN_RUNS
    refusal = f"There may be {limit} runs open in all at a time (MAX_OPEN_RUNS). Clean up one that is done."
    yield Quota("quota_runs", "", limit, unfinished, "state", 1, refusal)


def _per_call() -> str:
    return f"One call may make {settings.MAX_ROWS_PER_CALL} rows (MAX_ROWS_PER_CALL)."


def _per_run() -> str:
    return f"A run may make {settings.MAX_ROWS_PER_RUN} rows in all (MAX_ROWS_PER_RUN); go on in another one."


def _lock(name: str) -> None:
    alias = _alias()
    if database(alias).has_every_lock:
        return
    locks = QuotaLock.objects.using(alias)
    for _ in range(2):
        if locks.select_for_update().filter(pk=name).values_list("pk", flat=True):
            return
        locks.bulk_create([QuotaLock(name=name)], ignore_conflicts=True)


def _alias() -> str:
    return router.db_for_write(TestRun)
