"""Purge a run: close it, plan, execute, write the receipt. The API, the admin and the commands call this."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from ...conf import settings
from ...exceptions import NotFound
from ...models import Receipt, TestEntity, TestRun
from .. import runs
from .execute import Progress, Tally, execute, write_held
from .graph import Model, concrete, pointers_to
from .plan import EXPLANATIONS, MODEL_MISSING, examine, installed_models, make_plan, standing

logger = logging.getLogger(__name__)

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


def purge_run(run: TestRun, *, batch_size: int | None = None, progress: Progress | None = None) -> Outcome:
    """Close the run and remove every row of it that is provably its own; twice does no harm.

    Does not ask whether the gate is open, nor how old the run is. Opens its own transactions.
    """
    if not _close(run):
        return Outcome(_receipt(run.test_id, TestRun.State.CLOSED, Tally(), 0, ()))
    tally = _remove(run, None, batch_size, progress)
    return _finish(run, tally, not_owned=())


def clean_up(test_id: str, owner: str, listed: Sequence[Listed] | None = None) -> Outcome:
    """The wire's clean-up: the whole run, or what is listed of it and what hangs on that.

    A listed row that the run does not own is reported and left alone. Once nothing is left that a client
    asked for, the rest goes too and the run closes. An unknown run gives zeros.
    """
    try:
        run = runs.find(test_id, owner, deleted=True)
    except NotFound:
        return Outcome(_receipt(test_id, TestRun.State.CLOSED, Tally(), 0, listed or ()))
    if listed is None:
        return purge_run(run)
    owned, not_owned = _look_up(run, listed)
    if run.state == TestRun.State.CLOSED:
        return Outcome(_receipt(run.test_id, TestRun.State.CLOSED, Tally(), 0, not_owned))
    asked = _with_dependents(run, owned)
    tally = _remove(run, asked, None, None) if asked else Tally()
    if not standing(run).filter(origin=TestEntity.Origin.REQUESTED).exists() and _close(run):
        tally.add(_remove(run, None, None, None))
        return _finish(run, tally, not_owned)
    return _write_receipt(run, run.state, tally, standing(run, asked).count(), not_owned)


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


def _close(run: TestRun) -> bool:
    """Let nobody in any more; False where the run is closed already."""
    with transaction.atomic(using=runs.ledger_alias()):
        locked = runs.lock_exclusively(run)
        if locked.state == TestRun.State.CLOSED:
            return False
        if locked.state == TestRun.State.OPEN:
            _update(run, state=TestRun.State.CLOSING, closing_at=Now())
    return True


def _remove(
    run: TestRun, entity_ids: Collection[int] | None, batch_size: int | None, progress: Progress | None
) -> Tally:
    plan = make_plan(run, entity_ids)
    tally = execute(run, plan, batch_size=batch_size or settings.PURGE_BATCH_SIZE, progress=progress)
    lost = {each.entity_id: each for each in plan.held if each.reason == MODEL_MISSING}
    if lost:
        with transaction.atomic(using=runs.ledger_alias()):
            write_held(lost)
        tally.held.update(lost)
    return tally


def _finish(run: TestRun, tally: Tally, not_owned: Sequence[Listed]) -> Outcome:
    with transaction.atomic(using=runs.ledger_alias()):
        locked = runs.lock_exclusively(run)
        remaining = standing(run).count()
        if not remaining and locked.state != TestRun.State.CLOSED:
            _update(run, state=TestRun.State.CLOSED, closed_at=Now())
            locked.state = TestRun.State.CLOSED
        outcome = _write_receipt(run, locked.state, tally, remaining, not_owned)
    if not outcome.success:
        logger.warning("purge left something: %s", outcome.message)
    return outcome


def _write_receipt(
    run: TestRun, state: str, tally: Tally, remaining: int, not_owned: Sequence[Listed]
) -> Outcome:
    body = _receipt(run.test_id, state, tally, remaining, not_owned)
    Receipt.objects.using(runs.ledger_alias()).create(run=run, body=body, digest=body["digest"])
    return Outcome(body)


def _receipt(
    test_id: str, state: str, tally: Tally, remaining: int, not_owned: Sequence[Listed]
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "success": remaining == 0,
        "testId": test_id,
        "state": str(state),
        "removed": dict(sorted(tally.removed.items())),
        "alreadyGone": dict(sorted(tally.gone.items())),
        "remaining": remaining,
        "quarantined": [held.as_wire() for _, held in sorted(tally.held.items())],
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


def _with_dependents(run: TestRun, entity_ids: Collection[int]) -> set[int]:
    """These entries and those of the run whose rows hold them, and so on."""
    chosen = set(entity_ids)
    alias = runs.ledger_alias()
    members, _ = installed_models(standing(run))
    fresh = chosen
    while fresh:
        found: set[int] = set()
        for model in members:
            entries = list(standing(run, fresh).of_model(model))
            examined = examine(model, entries)
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
