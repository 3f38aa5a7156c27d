"""Purge a run: close it, plan, execute, write the receipt. The API, the admin and the commands call this."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from ...access import idempotency, sessions, trail
from ...conf import settings
from ...databases import database
from ...exceptions import NotFound, PlanChanged, PurgeHalted
from ...isolation.statements import seeing_all_rows
from ...models import Message, Receipt, TestEntity, TestRun
from .. import externals, identities, runs
from . import accounts, failures, limits, shadows
from .execute import Busy, Progress, execute
from .graph import Model, concrete, look_at_tables, pointers_to
from .plan import EXPLANATIONS, Held, Proofs, ended, examine, installed_models, outline, proofs, standing

Listed = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a purge came to. `receipt` is what goes over the wire."""

    receipt: dict[str, Any]

    @property
    def success(self) -> bool:
        return bool(self.receipt["success"])

    @property
    def message(self) -> str:
        """What holds what is left, in one line; empty where nothing is."""
        if self.success:
            return ""
        reasons = Counter(each["reason"] for each in self.receipt["quarantined"])
        why = "; ".join(
            f"{count} because {EXPLANATIONS[reason]}" for reason, count in sorted(reasons.items())
        )
        blockers = Counter[str]()
        for each in self.receipt["quarantined"]:
            blockers.update(each["blockedBy"])
        by = ", ".join(f"{model} ({count})" for model, count in sorted(blockers.items()))
        left = f"{self.receipt['remaining']} rows of {self.receipt['testId']} are left"
        return f"{left}: {why or 'they are still live'}{f'; held by {by}' if by else ''}."


@overload
def purge_run(
    run: TestRun,
    *,
    batch_size: int | None = ...,
    progress: Progress | None = ...,
    expect: str | None = ...,
) -> Outcome: ...
@overload
def purge_run(
    run: TestRun,
    *,
    batch_size: int | None = ...,
    progress: Progress | None = ...,
    expect: str | None = ...,
    only_expired: bool,
    wait: bool = ...,
) -> Outcome | None: ...
@seeing_all_rows()
def purge_run(
    run: TestRun,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
    expect: str | None = None,
    only_expired: bool = False,
    wait: bool = True,
) -> Outcome | None:
    """Close the run and remove every row of it that is provably its own; twice does no harm.

    Does not ask whether the gate is open, nor how old the run is. Opens its own transactions.

    `expect`
        The digest of a plan that somebody has looked at: removes nothing where it is another by now, and
        however much it is where it is the same. Raises PlanChanged.
    `only_expired`
        None, and nothing done, where the run has not come to its end, as its lease stands under its lock.
    `wait`
        False: None where somebody else is at work on the run just now.

    Raises PurgeHalted where it would remove more than it may unconfirmed, GuardsDisabled.
    """
    try:
        outcome = _purge(
            run,
            batch_size=batch_size,
            progress=progress,
            expect=expect,
            only_expired=only_expired,
            wait=wait,
        )
    except Busy:
        return None
    except PlanChanged:
        raise
    except PurgeHalted as halted:
        failures.failed(run, halted.message)
        raise
    except Exception as error:
        failures.failed(run, f"{type(error).__name__}: {error}", error=error)
        raise
    if outcome is not None and outcome.success:
        failures.succeeded(run)
    elif outcome is not None:
        failures.failed(run, outcome.message, got_nowhere=not outcome.receipt["removed"])
    return outcome


def _purge(
    run: TestRun,
    *,
    batch_size: int | None,
    progress: Progress | None,
    expect: str | None,
    only_expired: bool,
    wait: bool,
) -> Outcome | None:
    look_at_tables()
    proven = proofs()
    seen = outline(run)
    limits.confirm(run, seen, expect)
    was_open = run.state == TestRun.State.OPEN
    match _close(run, only_expired=only_expired, wait=wait):
        case None:
            return None
        case False:
            return Outcome(_receipt(run.test_id, TestRun.State.CLOSED))
    if was_open:
        # Until it closed the run could grow.
        seen = outline(run)
        limits.confirm(run, seen, expect)
    size = batch_size or settings.PURGE_BATCH_SIZE
    held = execute(run, seen, proven, batch_size=size, wait=wait, progress=progress)
    held.update(_remove_externals(run))
    if seen.shadows and not shadows.close(run, wait=wait):
        return None
    return _finish(run, held, proven, not_owned=(), wait=wait)


def clean_up(test_id: str, owner: str, listed: Sequence[Listed] | None = None) -> Outcome:
    """The wire's clean-up: the whole run, or what is listed of it and what hangs on that.

    A listed row that the run does not own is reported and left alone. Once nothing is left that a client
    asked for, the rest goes too and the run closes. An unknown run gives zeros.
    Raises PurgeHalted, GuardsDisabled.
    """
    try:
        run = runs.find(test_id, owner, deleted=True)
    except NotFound:
        return Outcome(_receipt(test_id, TestRun.State.CLOSED, not_owned=listed or ()))
    if listed is None:
        return purge_run(run)
    owned, not_owned = _look_up(run, listed)
    if run.state == TestRun.State.CLOSED:
        return Outcome(_receipt(run.test_id, TestRun.State.CLOSED, not_owned=not_owned))
    look_at_tables()
    proven = proofs()
    asked = _with_dependents(run, owned, proven)
    asked |= identities.of_accounts(run, asked)
    limits.refuse_too_many(run, asked)
    if asked:
        accounts.sign_out(run, asked)
    if asked:
        with transaction.atomic(using=runs.ledger_alias()):
            trail.record("rows.remove", run, counts={"listed": len(asked)}, result=trail.BEGUN)
    held = _remove(run, asked, proven) if asked else {}
    asked_for = Q(origin=TestEntity.Origin.REQUESTED) | shadows.REQUESTED
    if not standing(run).filter(asked_for).exists() and _close(run):
        held.update(_remove(run, None, proven))
        return _all_there(_finish(run, held, proven, not_owned))
    with transaction.atomic(using=runs.ledger_alias()):
        locked = runs.lock_exclusively(run)
        return _write_receipt(run, locked.state, held, standing(run, asked).count(), not_owned)


def delete_run(run: TestRun) -> Outcome:
    """Purge the run; where nothing is left, the API knows it no more. Its receipt stays."""
    outcome = purge_run(run)
    if outcome.success:
        TestRun.objects.using(runs.ledger_alias()).filter(pk=run.pk).update(deleted_at=Now())
    return outcome


def due_runs(
    *,
    test_id: str | None = None,
    expired: bool = False,
    scope: str | None = None,
    older_than: dt.timedelta | None = None,
) -> QuerySet[TestRun]:
    """Runs that are not closed and match everything that is given, the oldest first."""
    found = TestRun.objects.using(runs.ledger_alias()).unfinished().order_by("opened_at", "pk")
    if expired:
        found = found.expired()
    if test_id is not None:
        found = found.filter(test_id=test_id)
    if scope is not None:
        found = found.filter(scope=scope)
    if older_than is not None:
        found = found.filter(opened_at__lte=Now() - older_than)
    return found


def last_receipt(run: TestRun) -> Receipt:
    """Raises NotFound where the run was never purged."""
    receipt = Receipt.objects.using(runs.ledger_alias()).filter(run=run).first()
    if receipt is None:
        raise NotFound("This run has no receipt yet: nothing was cleaned up.")
    return receipt


def _close(run: TestRun, *, only_expired: bool = False, wait: bool = True) -> bool | None:
    """Let nobody in any more. False where the run is closed already, None where it must be left alone."""
    with transaction.atomic(using=runs.ledger_alias()):
        locked: Any = runs.lock_exclusively(run) if wait else runs.lock_or_skip(run)
        if locked is None:
            # Somebody holds it. Who only removes its rows is not in the way, and has closed it before.
            locked = runs.visible(run.owner, deleted=True).get(pk=run.pk)
            return True if locked.state == TestRun.State.CLOSING else None
        if only_expired and locked.expires_at > locked.now:
            return None
        if locked.state == TestRun.State.OPEN:
            _update(run, state=TestRun.State.CLOSING, closing_at=Now())
            database(runs.ledger_alias()).let_go_of_run()
            locked.state = TestRun.State.CLOSING
            sessions.revoke(run)
            trail.record("run.close", run, result=trail.BEGUN)
        run.state = locked.state
    return bool(locked.state == TestRun.State.CLOSING)


def _remove(run: TestRun, entity_ids: Collection[int] | None, proven: Proofs) -> dict[int, Held]:
    seen = outline(run, entity_ids)
    size = settings.PURGE_BATCH_SIZE
    held = execute(run, seen, proven, batch_size=size, entity_ids=entity_ids)
    if seen.shadows:
        shadows.close(run, entity_ids)
    return held | _remove_externals(run, entity_ids)


def _remove_externals(run: TestRun, entity_ids: Collection[int] | None = None) -> dict[int, Held]:
    """Last of all: what is outside may belong to a row, and a row that stays keeps it."""
    _, held = externals.remove_externals(run, entity_ids)
    return {each.entity_id: each for each in held}


def _finish(
    run: TestRun, held: dict[int, Held], proven: Proofs, not_owned: Sequence[Listed], *, wait: bool = True
) -> Outcome | None:
    """Close the run where nothing is left, and write the receipt; None where somebody else is at it.

    Where something is, no account among it can sign in any more.
    """
    with transaction.atomic(using=runs.ledger_alias()):
        locked = runs.lock_exclusively(run) if wait else runs.lock_or_skip(run)
        if locked is None:
            return None
        if locked.state == TestRun.State.CLOSED:
            # Another purge has finished it meanwhile, and its receipt has the rest.
            return Outcome(_receipt(run.test_id, TestRun.State.CLOSED, not_owned=not_owned))
        remaining = standing(run).count()
        if not remaining:
            alias = runs.ledger_alias()
            Message.objects.using(alias).filter(run=run).order_by()._raw_delete(alias)
            idempotency.forget_with_run(run)
            _update(run, state=TestRun.State.CLOSED, closed_at=Now())
            locked.state = TestRun.State.CLOSED
        else:
            accounts.disarm(run, proven)
        return _write_receipt(run, locked.state, held, remaining, not_owned)


def _all_there(outcome: Outcome | None) -> Outcome:
    if outcome is None:
        raise AssertionError("a purge that waits comes to an end")  # pragma: no cover
    return outcome


def _write_receipt(
    run: TestRun, state: str, held: dict[int, Held], remaining: int, not_owned: Sequence[Listed]
) -> Outcome:
    """The run must be held exclusively, so that each removal is in one receipt and in no other."""
    found = ended(run)
    body = _receipt(
        run.test_id,
        state,
        removed=found.removed,
        gone=found.gone,
        shadow=shadows.told(run, found.shadows),
        held=[each for _, each in sorted(held.items())],
        remaining=remaining,
        not_owned=not_owned,
    )
    Receipt.objects.using(runs.ledger_alias()).create(run=run, body=body, digest=body["digest"])
    result = trail.RESIDUE if remaining else trail.DONE
    trail.record("rows.remove", run, counts=found.removed + found.gone, result=result)
    return Outcome(body)


def _receipt(
    test_id: str,
    state: str,
    *,
    removed: Mapping[str, int] | None = None,
    gone: Mapping[str, int] | None = None,
    shadow: Mapping[str, Any] | None = None,
    held: Sequence[Held] = (),
    remaining: int = 0,
    not_owned: Sequence[Listed] = (),
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "success": remaining == 0,
        "testId": test_id,
        "state": str(state),
        "removed": dict(sorted((removed or {}).items())),
        "alreadyGone": dict(sorted((gone or {}).items())),
        "shadow": shadow or shadows.NOTHING,
        "remaining": remaining,
        "quarantined": [each.as_wire() for each in held],
        "notOwned": [{"type": name, "id": key} for name, key in not_owned],
    }
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    return body


def _look_up(run: TestRun, listed: Sequence[Listed]) -> tuple[set[int], list[Listed]]:
    """The standing entries that are listed, and what is listed but was never the run's."""
    keys: dict[str, set[str]] = {}
    for name, key in listed:
        keys.setdefault(name, set()).add(key)
    owned: set[int] = set()
    known: set[Listed] = set()
    for name, wanted in keys.items():
        entries = TestEntity.objects.using(runs.ledger_alias()).filter(
            run=run, type=name, key_text__in=wanted
        )
        for pk, key, tombstone in entries.values_list("pk", "key_text", "tombstone"):
            known.add((name, key))
            if not tombstone:
                owned.add(pk)
    return owned, [each for each in dict.fromkeys(listed) if each not in known]


def _with_dependents(run: TestRun, entity_ids: Collection[int], proven: Proofs) -> set[int]:
    """These entries and those of the run whose rows hold them, and so on."""
    chosen = set(entity_ids)
    alias = runs.ledger_alias()
    labels = standing(run).order_by().values_list("model", flat=True).distinct()
    members, _ = installed_models(labels)
    fresh = chosen
    while fresh:
        found: set[int] = set()
        for model in members:
            entries = list(standing(run, fresh).of_model(model))
            examined = examine(model, entries, proven_since=proven.since.get(model._meta.label_lower))
            rows = [examined.rows[key] for key in examined.ours]
            for pointer in pointers_to(model) if rows else ():
                if concrete(pointer.model) in members:
                    holding = {pk for _, pk in pointer.holding(alias, model, rows)}
                    found |= _entries_of(run, pointer.model, holding)
        fresh = found - chosen
        chosen |= fresh
    return chosen


def _entries_of(run: TestRun, model: Model, keys: Collection[Any]) -> set[int]:
    return set(standing(run).for_keys(model, keys).values_list("pk", flat=True)) if keys else set()


def _update(run: TestRun, **changes: Any) -> None:
    TestRun.objects.using(runs.ledger_alias()).filter(pk=run.pk).update(**changes)
