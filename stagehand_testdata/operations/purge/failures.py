"""What a run remembers of purges that did not finish: how many in a row, why, and when the next may try.

# Note [Failures]
A run that fails again and again must neither keep the others waiting nor be forgotten. So each failure puts
its run off for longer, and from the second on it is an error in the log until a purge succeeds. Nothing here
raises: what went wrong with the purge is the news, not that it could not be written down.
"""

from __future__ import annotations

import datetime as dt
import logging
import traceback
from typing import Any

from django.db import Error as DatabaseFault
from django.db import connections, transaction
from django.db.models import Case, DateTimeField, F, Q, QuerySet, When
from django.db.models.functions import Now

from ...logs import log_error
from ...models import TestRun
from ..runs import ledger_alias, lock_or_skip

logger = logging.getLogger(__name__)

FIRST_PAUSE = dt.timedelta(minutes=1)
LONGEST_PAUSE = dt.timedelta(hours=1)
_DOUBLINGS = 6

ERROR_LENGTH = 300


def begun(run: TestRun) -> None:
    """A reaper is about to purge the run: where that ends the process, other runs come first after that."""
    _write(run, Q(), next_purge_at=Now())


def succeeded(run: TestRun) -> None:
    """Nothing of the run is left: what failed before is over."""
    marked = Q(purge_failures__gt=0) | Q(next_purge_at__isnull=False)
    _write(run, marked, purge_failures=0, next_purge_at=None, purge_error="")


def failed(run: TestRun, why: str, *, got_nowhere: bool = False, error: BaseException | None = None) -> None:
    """The purge raised, was halted or left rows: put the run off, and say so in the log.

    A warning the first time, an error from the second in a row on, or at once where the purge removed nothing
    of what was due (`got_nowhere`). `error` is what it raised, for its traceback.
    """
    said = one_line(why)
    # MariaDB assigns from left to right: the pause comes before the count that it depends on.
    _write(run, Q(), next_purge_at=_next_try(), purge_failures=F("purge_failures") + 1, purge_error=said)
    times = _failures(run)
    level = logging.ERROR if got_nowhere or times is None or times > 1 else logging.WARNING
    count = "" if times is None else f", {times} in a row"
    # Not `exc_info`: it would write the error's own text as it is, and clients may have a say in that.
    frames = "".join(traceback.format_tb(error.__traceback__)) if error else ""
    told = f"the purge of {run.test_id!r} did not finish{count}: {said!r}\n{frames}"
    logger.log(level, "%s", told.rstrip())


def one_line(text: str) -> str:
    """The text as one line without anything that cannot be printed, cut to what the ledger keeps."""
    printable = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(printable.split())[:ERROR_LENGTH]


def _next_try() -> Any:
    """By the database's clock: in a minute, in twice the time after each further failure, at most an hour."""
    pauses = [When(purge_failures=times, then=Now() + FIRST_PAUSE * 2**times) for times in range(_DOUBLINGS)]
    return Case(*pauses, default=Now() + LONGEST_PAUSE, output_field=DateTimeField())


def _write(run: TestRun, which: Q, **changes: Any) -> None:
    alias = ledger_alias()
    try:
        _drop_if_broken(alias)
        with transaction.atomic(using=alias):
            # Whoever holds the run is purging it, and will write down what came of it: nobody waits for that.
            if lock_or_skip(run) is not None:
                _row(run).filter(which).update(**changes)
    except DatabaseFault as fault:
        log_error(logger, f"what became of the purge of {run.test_id!r} could not be written down", fault)


def _failures(run: TestRun) -> int | None:
    """How often in a row by now; None where the database does not say."""
    try:
        return _row(run).values_list("purge_failures", flat=True).first()
    except DatabaseFault:
        return None


def _row(run: TestRun) -> QuerySet[TestRun]:
    return TestRun.objects.using(ledger_alias()).filter(pk=run.pk).order_by()


def _drop_if_broken(alias: str) -> None:
    """A connection that the purge lost is of no use for telling that it was lost."""
    connection = connections[alias]
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
