"""Open, join, hold, renew and find runs.

# Note [Why the run is locked]
A creator that has not committed is invisible: a closer that looked then would see nothing to remove, and the
row would leak. So whoever makes rows holds the run's row shared until it commits, and whoever closes or
removes holds it exclusively. Creators do not wait for one another. Nothing is counted on the run's row,
because a creator that wrote there would first have to upgrade its lock, and two of them would deadlock.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from django.db import OperationalError, router, transaction
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce, Greatest, Least, Now

from .. import seeding
from ..access import quotas, sessions, trail
from ..access.callers import current_caller
from ..conf import Settings, settings
from ..databases import database
from ..exceptions import Conflict, NotFound, RunClosed, StatementTimeout, TooOld
from ..models import TestEntity, TestRun

DEFAULT_MINUTES = 60

#: What every test ID is made of; what it starts with is TEST_ID_PREFIX.
TEST_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def ledger_alias() -> str:
    """The database that holds the ledger, and so every row that can be owned."""
    return router.db_for_write(TestRun)


def cap_minutes(scope: str) -> int:
    """How long a run of this scope may live from its opening, in minutes."""
    hours = settings.MAX_AGE_HOURS
    if isinstance(hours, Mapping):
        limit = Settings.MAX_AGE_HOURS
        hours = limit.as_number(hours.get(scope, limit.default))
    return max(math.floor(hours * 60), 1)


def default_minutes(scope: str) -> int:
    """How long a run of this scope lives where nobody says: the whole cap, or an hour."""
    cap = cap_minutes(scope)
    return cap if scope == TestRun.Scope.PERSISTENT_ENVIRONMENT else min(DEFAULT_MINUTES, cap)


@contextmanager
def in_limited_time() -> Iterator[None]:
    """Within the block, and within a transaction, no statement may take STATEMENT_TIMEOUT_SECONDS.

    Raises StatementTimeout. A purge is not under it: it goes batch by batch, and is not to be stopped.
    """
    seconds = settings.STATEMENT_TIMEOUT_SECONDS
    engine = database(ledger_alias())
    with engine.limiting_statements(seconds) if seconds > 0 else nullcontext():
        try:
            yield
        except OperationalError as error:
            if seconds > 0 and engine.is_statement_timeout(error):
                raise StatementTimeout from error
            raise


@in_limited_time()
def open_or_join(
    test_id: str,
    *,
    owner: str = "",
    scope: str | None = None,
    max_age_minutes: float | None = None,
    seed: int | None = None,
    label: str = "",
    build_id: str = "",
    test_user_email: str = "",
) -> TestRun:
    """The run of this test id, opened if need be, and renewed: it never ends sooner for being joined.

    Raises RunClosed, TooOld where it is past its end, Conflict where it was opened with another seed.
    """
    _require_transaction()
    run = _locked(test_id, owner, exclusive=True)
    if run is None:
        _open(
            test_id,
            owner=owner,
            scope=scope or TestRun.Scope.EPHEMERAL,
            max_age_minutes=max_age_minutes,
            seed=seed,
            label=label,
            build_id=build_id,
            test_user_email=test_user_email,
        )
        run = _existing(_locked(test_id, owner, exclusive=True))
    refuse_unusable(run)
    if seed is not None and seed != run.seed:
        raise Conflict(f"This run was opened with the seed {run.seed}, not {seed}.")
    given = {"label": label, "build_id": build_id, "test_user_email": test_user_email}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value}
    changes["expires_at"] = Greatest(F("expires_at"), _end_after(run, max_age_minutes))
    trail.record("run.open", run)
    return _write(run, changes)


@in_limited_time()
def renew(run: TestRun, *, max_age_minutes: float | None = None, label: str | None = None) -> TestRun:
    """Give the run that many minutes from now, within its cap; without a number only the label changes.

    Raises RunClosed, TooOld.
    """
    _require_transaction()
    run = _existing(_locked(run.test_id, run.owner, exclusive=True))
    refuse_unusable(run)
    changes: dict[str, Any] = {}
    if max_age_minutes is not None:
        changes["expires_at"] = _end_after(run, max_age_minutes)
    if label is not None:
        changes["label"] = label
    renewed = _write(run, changes)
    trail.record("run.renew", run)
    if renewed.expires_at < run.expires_at:
        sessions.revoke(run)  # they would count until the end that the run had
    return renewed


def hold(
    test_id: str, owner: str, *, exclusive: bool = False, annotations: Mapping[str, Any] | None = None
) -> TestRun:
    """The run for a creating call, opened for an hour if it never was, held until the transaction ends.

    `last_ordinal` and `now` (the database's clock) come with it. See Note [Why the run is locked].
    Raises RunClosed, TooOld.
    """
    _require_transaction()
    annotations = {**(annotations or {}), **quotas.counts()}
    run = _locked(test_id, owner, exclusive=exclusive, annotations=annotations)
    if run is None:
        _open(test_id, owner=owner, scope=TestRun.Scope.EPHEMERAL, max_age_minutes=None)
        run = _existing(_locked(test_id, owner, exclusive=exclusive, annotations=annotations))
    refuse_unusable(run)
    return run


def extend_session(run: TestRun, max_age_minutes: float | None) -> None:
    """Each operation renews a session: once the call has committed, so that it needs no stronger lock."""
    if run.scope != TestRun.Scope.PERSISTENT_SESSION:
        return
    minutes = min(max_age_minutes or DEFAULT_MINUTES, cap_minutes(run.scope))
    now: dt.datetime = run.now  # type: ignore[attr-defined]
    until = min(now + dt.timedelta(minutes=minutes), run.latest_end)
    if until <= run.expires_at:
        return
    run.expires_at = until
    transaction.on_commit(
        lambda: (
            TestRun.objects.using(ledger_alias())
            .filter(pk=run.pk, state=TestRun.State.OPEN, expires_at__lt=until)
            .update(expires_at=until)
        ),
        using=ledger_alias(),
        robust=True,  # the call has committed: it is not to be taken for one that failed
    )


def find(test_id: str, owner: str, *, deleted: bool = False) -> TestRun:
    """The owner's run; raises NotFound, the same for another's run as for none."""
    run = visible(owner, deleted=deleted).filter(test_id=test_id).first()
    if run is None or run.test_id != test_id:
        raise NotFound
    return run


def visible(owner: str, *, deleted: bool = False) -> QuerySet[TestRun]:
    """The owner's runs; those that DELETE took away only if asked for."""
    runs = TestRun.objects.using(ledger_alias()).filter(owner=owner).annotate(now=Now())
    return runs if deleted else runs.filter(deleted_at=None)


def refuse_unusable(run: TestRun) -> None:
    """Raise where nothing may be made in the run: it is closed or closing, or past its end."""
    if run.state != TestRun.State.OPEN:
        raise RunClosed
    if run.expires_at <= run.now:  # type: ignore[attr-defined]
        raise TooOld


def minutes_left(run: TestRun) -> int:
    """How long the run may still live, in whole minutes by the database's clock; 0 past its end."""
    left: dt.timedelta = run.expires_at - run.now  # type: ignore[attr-defined]
    return max(round(left.total_seconds() / 60), 0)


def lock_exclusively(run: TestRun) -> TestRun:
    """The run as it is now, held against creators and other purges until the transaction ends."""
    _require_transaction()
    return _existing(_locked(run.test_id, run.owner, exclusive=True))


def lock_or_skip(run: TestRun) -> TestRun | None:
    """As `lock_exclusively`, or None where anybody holds the run just now: never waits."""
    _require_transaction()
    return _locked(run.test_id, run.owner, exclusive=True, skip_locked=True)


def lock_for_removal(run: TestRun, *, wait: bool = True) -> TestRun | None:
    """The run, held until the transaction ends so that nobody joins or finishes it.

    Once it is closing no creator gets in, so several purges may hold it at a time. Without `wait`, None
    where somebody holds it exclusively just now.
    """
    _require_transaction()
    if run.state != TestRun.State.OPEN:
        rows = TestRun.objects.filter(pk=run.pk).order_by()
        found = database(ledger_alias()).read_shared(rows, skip_locked=not wait)
        if not (found or wait):
            return None
        if found and found[0].state != TestRun.State.OPEN:
            return found[0]
    return lock_exclusively(run) if wait else lock_or_skip(run)


def _locked(
    test_id: str,
    owner: str,
    *,
    exclusive: bool,
    skip_locked: bool = False,
    annotations: Mapping[str, Any] | None = None,
) -> TestRun | None:
    engine = database(ledger_alias())
    if exclusive:
        rows = _with_clock(test_id, owner).annotate(**(annotations or {}))
        found = engine.read_exclusive(rows, skip_locked=skip_locked)
    elif annotations:
        found = engine.read_shared(_with_clock(test_id, owner).annotate(**annotations))
    else:
        found = engine.read_shared_by(_with_clock, test_id=test_id, owner=owner)
    return next((run for run in found if run.test_id == test_id), None)


def _with_clock(test_id: str, owner: str) -> QuerySet[TestRun]:
    # By the end of the index: a maximum would be found by reading all that the run ever made.
    numbered = TestEntity.objects.filter(run=OuterRef("pk"), ordinal__isnull=False)
    last = numbered.order_by("-ordinal").values("ordinal")[:1]
    rows = TestRun.objects.filter(test_id=test_id, owner=owner).order_by()
    return rows.annotate(now=Now(), last_ordinal=Coalesce(Subquery(last), 0))


def _existing(run: TestRun | None) -> TestRun:
    if run is None:
        # The database folds case and holds a run whose id differs in nothing else.
        raise Conflict("A run with a test ID that differs only in case is open; choose another.")
    return run


def _open(
    test_id: str,
    *,
    owner: str,
    scope: str,
    max_age_minutes: float | None,
    seed: int | None = None,
    **texts: str,
) -> None:
    """Insert the run unless somebody has just done so; raises NotAllowed, QuotaExceeded."""
    caller = current_caller()
    caller.require(scope=scope)
    cap = min(cap_minutes(scope), caller.max_minutes or math.inf)
    minutes = min(max_age_minutes or default_minutes(scope), cap)
    run = TestRun(
        owner=owner,
        test_id=test_id,
        scope=scope,
        seed=seeding.seed_from_test_id(test_id) if seed is None else seed,
        opened_at=Now(),
        expires_at=Now() + dt.timedelta(minutes=minutes),
        latest_end=Now() + dt.timedelta(minutes=cap),
        **texts,
    )
    TestRun.objects.using(ledger_alias()).bulk_create([run], ignore_conflicts=True)
    quotas.settle_runs()


def _end_after(run: TestRun, max_age_minutes: float | None) -> Any:
    minutes = max_age_minutes or default_minutes(run.scope)
    ask = dt.timedelta(minutes=min(minutes, cap_minutes(run.scope)))
    return Least(F("latest_end"), Now() + ask)


def _write(run: TestRun, changes: Mapping[str, Any]) -> TestRun:
    rows = TestRun.objects.using(ledger_alias()).filter(pk=run.pk)
    if changes:
        rows.update(**changes)
    return rows.annotate(now=Now()).get()


def _require_transaction() -> None:
    if not transaction.get_connection(ledger_alias()).in_atomic_block:
        raise transaction.TransactionManagementError(
            "Operations on the ledger need a transaction that is open already."
        )
