"""Remove what a plan says: each batch proven again under locks, and committed with its entries.

# Note [Batches]
A batch is one transaction: the run is held against creators and other purges, the rows are locked, examined
again, and either deleted together with their ledger entries or not at all. Those that hold others go first,
so whatever still points at a row when its turn comes is a reason to leave it. A kill between two batches
leaves nothing that a second purge would not find.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import IntegrityError, connections, models, transaction
from django.db.models import Exists, F, Q
from django.db.models.functions import Now
from django.db.models.signals import post_delete, pre_delete

from ...databases import database
from ...exceptions import TestDataError
from ...isolation.capture import Recorder, recording_inserts
from ...logs import log_error
from ...models import TestEntity, TestRun, entries_of_outer_row
from ..runs import ledger_alias, lock_exclusively
from .graph import Model, all_rows, concrete, is_derived, pointers_to
from .plan import (
    DELETE_FAILED,
    NOT_THE_ROW,
    REFERENCED,
    REFUSED,
    Findings,
    Group,
    Held,
    Plan,
    examine,
    holders,
    in_batches,
    standing,
)

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Tally:
    """What a purge has done so far, by entity type; only what has been committed."""

    removed: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    held: dict[int, Held] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.removed += other.removed
        self.gone += other.gone
        self.held.update(other.held)


class TouchedForeignRow(TestDataError):
    """The model's own delete() would have removed, or let go of, a row that this purge may not touch."""

    def __init__(self, model: Model, holders: Mapping[str, int] | None = None) -> None:
        super().__init__(f"delete() would have removed a row of {model._meta.label} that must stay.")
        self.holders = holders or {model._meta.label: 1}


def execute(run: TestRun, plan: Plan, *, batch_size: int, progress: Progress | None = None) -> Tally:
    """Carry out the plan; returns what became of its entries. Every batch commits by itself."""
    tally = Tally()
    done = 0
    for group in plan.groups:
        size = len(group.entity_ids) if group.circular else batch_size
        for ids in in_batches(group.entity_ids, max(size, 1)):
            tally.add(_remove(run, group, ids))
            done += len(ids)
            if progress is not None:
                progress(done, plan.total)
    return tally


def _remove(run: TestRun, group: Group, ids: Sequence[int]) -> Tally:
    try:
        return _remove_batch(run, group, ids)
    except IntegrityError:
        logger.info("a batch was refused by the database; its entries go one by one", exc_info=True)
    tally = Tally()
    pending = list(ids)
    while pending:
        refused = []
        for entity_id in pending:
            try:
                tally.add(_remove_batch(run, group, [entity_id]))
            except IntegrityError:
                refused.append(entity_id)
        if len(refused) == len(pending):
            break
        pending = refused
    tally.add(_quarantine_refused(run, pending))
    return tally


def _remove_batch(run: TestRun, group: Group, ids: Sequence[int]) -> Tally:
    alias = ledger_alias()
    with transaction.atomic(using=alias):
        lock_exclusively(run)
        batch = _Batch(run, group, [concrete(apps.get_model(label)) for label in group.models], alias)
        batch.examine(ids)
        batch.delete()
        batch.write_down()
        database(alias).surface_broken_references()
    return batch.tally


def _quarantine_refused(run: TestRun, ids: Collection[int]) -> Tally:
    tally = Tally()
    with transaction.atomic(using=ledger_alias()):
        lock_exclusively(run)
        for entry in standing(run, ids):
            tally.held[entry.pk] = Held.entry(entry, REFUSED)
        write_held(tally.held)
    return tally


@dataclass(slots=True)
class _Batch:
    run: TestRun
    group: Group
    members: list[Model]
    alias: str
    found: dict[Model, Findings] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    removed_ids: set[int] = field(default_factory=set)

    def examine(self, ids: Sequence[int]) -> None:
        entries = list(standing(self.run, ids))
        for model in self.members:
            of_model = [entry for entry in entries if entry.model == model._meta.label_lower]
            found = self.found[model] = examine(model, of_model, lock=True, using=self.alias)
            self._hold(Held.entry(entry, NOT_THE_ROW) for entry in found.strangers)
        while self._set_held_aside():
            pass

    def _set_held_aside(self) -> bool:
        """Take the rows that others hold out of the batch; whether there were any."""
        blocked = [
            (found, key, counted)
            for found in self.found.values()
            for key, counted in holders(found, self.alias, self._remains).items()
        ]
        self._hold(Held.entry(found.ours.pop(key), REFERENCED, counted) for found, key, counted in blocked)
        # Only rows of the same batch can hold each other and go all the same.
        return bool(blocked) and self.group.circular

    def _remains(self, model: Model) -> Q:
        found = self.found.get(concrete(model)) if self.group.circular else None
        return ~Q(pk__in=list(found.ours)) if found and found.ours else Q()

    def delete(self) -> None:
        self._break_circles()
        own_way = [model for model in self.members if has_own_way(model)]
        for model in own_way:
            self._delete_own_way(self.found[model])
        for model in self.members:
            if model not in own_way:
                delete_rows(model, list(self.found[model].ours), self.alias)

    def _break_circles(self) -> None:
        """Where the database checks each statement, our own rows let go of one another first."""
        if not self.group.circular or connections[self.alias].features.can_defer_constraint_checks:
            return
        for model in self.members:
            for pointer in pointers_to(model):
                found = self.found.get(concrete(pointer.model))
                if found is not None and pointer.nullable and found.ours:
                    all_rows(pointer.model, self.alias).filter(pk__in=list(found.ours)).update(
                        **{pointer.column: None}
                    )

    def _delete_own_way(self, found: Findings) -> None:
        for key, entry in list(found.ours.items()):
            try:
                with (
                    transaction.atomic(using=self.alias),
                    recording_inserts() as written,
                    self._watching_deletes(written) as along,
                ):
                    _delete_as_the_model_does(found.model, key, self.alias, written)
                self.removed_ids |= along
            except IntegrityError:
                raise
            except TouchedForeignRow as error:
                del found.ours[key]
                self._hold([Held.entry(entry, REFERENCED, error.holders)])
            except Exception as error:  # noqa: BLE001 - the host's own delete(); it is logged
                log_error(logger, f"delete() of {found.model._meta.label} failed", error)
                del found.ours[key]
                self._hold([Held.entry(entry, DELETE_FAILED)])

    @contextmanager
    def _watching_deletes(self, written: Recorder) -> Iterator[set[int]]:
        """Refuse the deletion of any row that is not the run's; the entries of those that go along.

        What the deletion itself has `written` (a log entry, say) is its own to remove.
        """
        along: set[int] = set()
        ours = connections[self.alias]

        def refuse_foreign(sender: Model, instance: models.Model, using: str, **kwargs: Any) -> None:
            # A receiver is called on every thread: another thread's deletion has another connection.
            if connections[using] is ours:
                entry_id = self._entry_of(concrete(sender), instance.pk, written)
                if entry_id is not None:
                    along.add(entry_id)

        pre_delete.connect(refuse_foreign, weak=False)
        try:
            yield along
        finally:
            pre_delete.disconnect(refuse_foreign)

    def _entry_of(self, model: Model, key: Any, written: Recorder) -> int | None:
        """The entry of a row that a deletion takes along; None where nobody but the deletion made the row.

        Raises TouchedForeignRow where the row is not the run's, and where a real row holds it.
        """
        found = self.found.get(model)
        if found is not None and key in found.ours:
            return found.ours[key].pk
        entry = standing(self.run).for_keys(model, [key]).first()
        if entry is None and (is_derived(model) or key in written.keys_of(model)):
            return None
        if entry is None or entry.pk in self.tally.held:
            raise TouchedForeignRow(model)
        along = examine(model, [entry], lock=True, using=self.alias)
        held = holders(along, self.alias, lambda each: self._is_real(each, written))
        if held or not along.ours:
            raise TouchedForeignRow(model, *held.values())
        return entry.pk

    def _is_real(self, model: Model, written: Recorder) -> Q:
        """Rows of `model` that are neither the run's nor what the deletion itself has written."""
        return Q(~Exists(entries_of_outer_row(model, self.run))) & ~Q(pk__in=written.keys_of(concrete(model)))

    def _hold(self, held: Any) -> None:
        self.tally.held.update({each.entity_id: each for each in held})

    def write_down(self) -> None:
        """Enter in the ledger what became of every entry of the batch."""
        write_held(self.tally.held)
        going = [entry for found in self.found.values() for entry in found.ours.values()]
        along = standing(self.run, self.removed_ids - {entry.pk for entry in going})
        removed = [*going, *along]
        gone = [entry for found in self.found.values() for entry in found.gone]
        _write_end(removed, TestEntity.State.REMOVED)
        _write_end(gone, TestEntity.State.GONE)
        self.tally.removed.update(entry.type for entry in removed)
        self.tally.gone.update(entry.type for entry in gone)


def has_own_way(model: Model) -> bool:
    """Whether deleting a row of this model is more than a DELETE: its own `delete()`, or somebody listens."""
    return (
        model.delete is not models.Model.delete
        or pre_delete.has_listeners(model)
        or post_delete.has_listeners(model)
    )


def delete_rows(model: Model, keys: Sequence[Any], alias: str) -> None:
    """One DELETE of exactly these keys: no collector, no cascade, no signal."""
    if keys:
        all_rows(model, alias).filter(pk__in=keys)._raw_delete(alias)


def _delete_as_the_model_does(model: Model, key: Any, alias: str, written: Recorder) -> None:
    instance = all_rows(model, alias).filter(pk=key).first()
    if instance is None:
        return  # it went along with another
    instance.delete()
    # What the deletion itself wrote (a log entry, say) is as much the test's as what it deleted.
    for row in reversed(written.rows):
        delete_rows(row.model, [row.pk], row.database)
    delete_rows(model, [key], alias)  # where delete() only marks the row


def write_held(held: Mapping[int, Held]) -> None:
    """Quarantine these entries."""
    for each in held.values():
        TestEntity.objects.using(ledger_alias()).filter(pk=each.entity_id).update(
            state=TestEntity.State.QUARANTINED, reason=each.reason, blocked_by=dict(each.blocked_by)
        )


def _write_end(entries: Sequence[TestEntity], state: str) -> None:
    if entries:
        TestEntity.objects.using(ledger_alias()).filter(pk__in=[entry.pk for entry in entries]).update(
            state=state, tombstone=F("pk"), removed_at=Now(), reason="", blocked_by={}
        )
