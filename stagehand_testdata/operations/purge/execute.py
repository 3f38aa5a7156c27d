"""Remove what a run has standing: each batch proven again under locks, and committed with its entries.

# Note [Batches]
A batch is one transaction: the run is held against creators, the rows are locked, examined again, and either
deleted together with their ledger entries or not at all. Those that hold others go first, so whatever still
points at a row when its turn comes is a reason to leave it. A kill between two batches leaves nothing that a
second purge would not find.

# Note [Claims]
A purge claims rows by locking them and passes by those that somebody else has locked: another purge of the
same run, or the product itself. Nobody waits for a row, so nobody can deadlock over one: the guards' triggers
lock a row and then its entry, and whoever waited the other way round would. A set first tries to go without
locking each row before: its one DELETE waits for a moment, shorter than any deadlock takes to be looked for,
and gives the whole set back where it could not have a row. Of a set the first entry is locked before, so that
two purges do not share one row by row. What was passed by is looked at again when the group is done. That
nothing is left is never concluded from what could be locked.

# Note [Two ways]
Where the database itself closes an entry when its row goes (the guards), an entry that still stands is proof,
and rows go set by set: no row is read. Everywhere else, and wherever anything is out of the ordinary, each
row is held against its fingerprint and its holders are counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.models import Exists, Q

from ...databases import database
from ...logs import log_error
from ...models import TestEntity, TestEntityQuerySet, TestRun, entries_of_outer_row
from ..runs import ledger_alias, lock_for_removal
from .graph import Model, all_rows, concrete, pointers_to
from .own_way import OwnWay, TouchedForeignRow, delete_rows, has_receivers, is_overridden
from .plan import (
    DELETE_FAILED,
    IN_USE,
    NOT_THE_ROW,
    REFERENCED,
    REFUSED,
    Findings,
    Group,
    Held,
    Outline,
    Proofs,
    examine,
    holders,
    in_batches,
    standing,
)
from .sets import Chunk, NotProven, chunks

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
T = TypeVar("T")

#: Rows that go unread, as a set, need no memory: so many batches of them go at once, for fewer commits.
_BATCHES_PER_SET = 4
#: How often a batch that the database broke off is done again.
_ATTEMPTS = 5
#: Seconds to wait for rows that somebody else has locked, until they are looked at, and between two passes.
_PATIENCE = 5.0
_STUCK = 0.4
_PAUSE = 0.02


class Busy(Exception):
    """Somebody else is at work on rows of this run just now."""


def execute(
    run: TestRun,
    seen: Outline,
    proofs: Proofs,
    *,
    batch_size: int,
    entity_ids: Collection[int] | None = None,
    wait: bool = True,
    progress: Progress | None = None,
) -> dict[int, Held]:
    """Remove the run's rows, or those listed; what stays, by entry. Every batch commits by itself.

    Rows that somebody else has locked are waited for a moment; raises Busy without `wait`.
    """
    executor = _Executor(run, seen, proofs, max(batch_size, 1), entity_ids, wait, progress)
    for group in seen.groups:
        executor.empty(group)
    executor.hold_lost()
    return executor.held


@dataclass(slots=True)
class _Executor:
    run: TestRun
    seen: Outline
    proofs: Proofs
    batch_size: int
    entity_ids: Collection[int] | None
    wait: bool
    progress: Progress | None
    held: dict[int, Held] = field(default_factory=dict)
    done: int = 0

    def empty(self, group: Group) -> None:
        """Go over the group until nothing of it was passed by, or nothing more comes of it."""
        before: list[int] = []
        changed = time.monotonic()
        stuck = False
        while not self._pass_over(group, stuck=stuck) and (left := self._left(group)):
            if left != before:
                before, changed = left, time.monotonic()
            elif stuck and not self.wait:
                raise Busy
            elif time.monotonic() - changed > _PATIENCE:
                self._quarantine(left, IN_USE)
                break
            # Another purge lets go of its rows with its batch; what nobody removes has to be looked at.
            stuck = time.monotonic() - changed > _STUCK
            time.sleep(_PAUSE)

    def _left(self, group: Group) -> list[int]:
        """Entries that were passed by: some of those that stand and are not held."""
        found = self._standing(group).order_by("pk").values_list("pk", flat=True)
        passed_by = (pk for pk in found.iterator() if pk not in self.held)
        return list(islice(passed_by, self.batch_size))

    def _standing(self, group: Group) -> TestEntityQuerySet:
        return standing(self.run, self.entity_ids).filter(model__in=group.models)

    def _pass_over(self, group: Group, *, stuck: bool) -> bool:
        """Remove what can be removed now; whether nothing was passed by. What is `stuck` is looked at."""
        set_by_set = self._go_as_sets(group) and not stuck
        if group.circular:
            return self._circle(group, set_by_set=set_by_set)
        [model] = group.members
        whole = True
        unread = set_by_set and not has_receivers(model)
        size = self.batch_size * _BATCHES_PER_SET if unread else self.batch_size
        for chunk in chunks(self._standing(group), model, size):
            proven = set_by_set and self.proofs.hold(model, chunk.oldest)
            removed = self._remove_set(chunk) if proven else None
            if removed is None:
                entries = chunk.entries.values_list("pk", flat=True)
                for ids in in_batches((pk for pk in entries if pk not in self.held), self.batch_size):
                    self._remove_examined(group, ids)
            whole = whole and bool(removed)
            self._tell(chunk.count)
        return whole

    def _tell(self, count: int) -> None:
        self.done = min(self.done + count, self.seen.total)
        if self.progress is not None:
            self.progress(self.done, self.seen.total)

    # --- set by set ----------------------------------------------------------------------------------------

    def _go_as_sets(self, group: Group) -> bool:
        """Whether the database closes the entries of these models, and no model minds its own deletion."""
        return self.proofs.cover(group.members) and not any(map(is_overridden, group.members))

    def _remove_set(self, chunk: Chunk) -> bool | None:
        """Remove the chunk as one set. False where somebody else has it, None where it cannot go so."""

        def remove(*, passing_by: bool) -> bool | None:
            return self._try(lambda: chunk.remove(self.run, self.held, self._awake, passing_by=passing_by))

        try:
            return remove(passing_by=False)
        except OperationalError as error:
            engine = database(ledger_alias())
            if engine.has_every_lock or not engine.is_lock_timeout(error):
                raise
        # To lock each row before it goes takes half as long again: worth it only where somebody has some.
        return remove(passing_by=True)

    def _try(self, remove: Callable[[], bool]) -> bool | None:
        try:
            return self._in_transaction(remove)
        except NotProven:
            return None
        except IntegrityError:
            logger.info("a batch was refused by the database; its rows are looked at", exc_info=True)
            return None

    def _circle(self, group: Group, *, set_by_set: bool) -> bool:
        """Rows that may hold each other go in one transaction."""
        deferred = connections[ledger_alias()].features.can_defer_constraint_checks
        together = deferred and set_by_set
        removed = self._try(lambda: self._remove_circle(group)) if together else None
        if removed is None:
            ids = [pk for pk in self._standing(group).values_list("pk", flat=True) if pk not in self.held]
            self._remove_examined(group, ids)
        self._tell(group.count)
        return bool(removed)

    def _remove_circle(self, group: Group) -> bool:
        def each() -> Iterator[Chunk]:
            for model in group.members:
                yield from chunks(self._standing(group).of_model(model), model, self.batch_size)

        # Rows of the circle hold each other; only those of them that are not the run's are in the way.
        foreign = {model: ~Q(Exists(entries_of_outer_row(model, self.run))) for model in group.members}
        for chunk in each():
            if not (self.proofs.hold(chunk.model, chunk.oldest) and chunk.lead() and chunk.claim()):
                raise NotProven
            chunk.refuse_holders(foreign)
        with self._awake():
            for chunk in each():
                chunk.delete(self.run, self.held)
        return True

    # --- row by row ----------------------------------------------------------------------------------------

    def _remove_examined(self, group: Group, ids: Sequence[int]) -> None:
        refused = self._refused(group, ids) if ids else []
        # Where the database checks each statement, one may have been refused because of another of them.
        while refused and len(again := self._refused(group, refused, whole=False)) < len(refused):
            refused = again
        if refused:
            self._quarantine(refused, REFUSED)

    def _refused(self, group: Group, ids: Sequence[int], *, whole: bool = True) -> list[int]:
        """Remove these rows together, in halves where the database refuses; those that it refuses alone."""
        if whole or len(ids) == 1:
            try:
                self.held.update(self._in_transaction(lambda: self._remove_batch(group, ids)))
            except IntegrityError:
                logger.info("a batch was refused by the database; it goes in halves", exc_info=True)
            else:
                return []
        if len(ids) == 1:
            return list(ids)
        middle = len(ids) // 2
        return [*self._refused(group, ids[:middle]), *self._refused(group, ids[middle:])]

    def _remove_batch(self, group: Group, ids: Sequence[int]) -> dict[int, Held]:
        batch = _Batch(self.run, group, group.members, ledger_alias(), self.proofs)
        batch.examine(ids)
        with self._awake():
            batch.delete()
        batch.write_down()
        return batch.held

    def _quarantine(self, ids: Collection[int], reason: str) -> None:
        def write() -> dict[int, Held]:
            found = {entry.pk: Held.entry(entry, reason) for entry in standing(self.run, ids)}
            write_held(found)
            return found

        self.held.update(self._in_transaction(write))

    def hold_lost(self) -> None:
        """Quarantine the entries whose model is not installed."""
        if self.seen.lost:
            lost = {each.entity_id: each for each in self.seen.lost}
            self._in_transaction(lambda: write_held(lost))
            self.held.update(lost)

    # --- transactions --------------------------------------------------------------------------------------

    def _awake(self) -> AbstractContextManager[None]:
        return database(ledger_alias()).purging(self.run.pk) if self.proofs.awake else nullcontext()

    def _in_transaction(self, work: Callable[[], T]) -> T:
        """All of it or nothing, with the run held; again where the database chose it for a victim."""
        engine = database(ledger_alias())
        for attempt in range(_ATTEMPTS):
            try:
                with transaction.atomic(using=ledger_alias()):
                    if lock_for_removal(self.run, wait=self.wait) is None:
                        raise Busy
                    result = work()
                    engine.surface_broken_references()
            except OperationalError as error:
                if attempt == _ATTEMPTS - 1 or not engine.chose_a_victim(error):
                    raise
            else:
                return result
        raise AssertionError("unreachable")  # pragma: no cover


@dataclass(slots=True)
class _Batch:
    run: TestRun
    group: Group
    members: list[Model]
    alias: str
    proofs: Proofs
    found: dict[Model, Findings] = field(default_factory=dict)
    held: dict[int, Held] = field(default_factory=dict)
    went_along: set[int] = field(default_factory=set)

    def examine(self, ids: Sequence[int]) -> None:
        entries = list(standing(self.run, ids))
        for model in self.members:
            label = model._meta.label_lower
            of_model = [entry for entry in entries if entry.model == label]
            found = self.found[model] = examine(
                model, of_model, lock=True, using=self.alias, proven_since=self.proofs.since.get(label)
            )
            self._hold(Held.entry(entry, NOT_THE_ROW) for entry in found.strangers)
        if self.group.circular and any(found.busy for found in self.found.values()):
            # Part of a circle holds the rest of it, and whoever has that part may be removing it.
            self.found, self.held = {model: Findings(model, {}) for model in self.members}, {}
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
        apart = [model for model in self.members if is_overridden(model) or has_receivers(model)]
        for model in apart:
            self._delete_own_way(self.found[model])
        for model in self.members:
            if model not in apart:
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
        batch = {
            each.model: {key: entry.pk for key, entry in each.ours.items()} for each in self.found.values()
        }
        own_way = OwnWay(self.run, self.alias, batch, self.held)
        if not is_overridden(found.model) and found.ours:
            try:
                self.went_along |= own_way.tell_and_delete(found.model, list(found.ours))
            except IntegrityError:
                raise
            except Exception:
                logger.debug("receivers failed on a batch; its rows go one by one", exc_info=True)
            else:
                return
        for key, entry in list(found.ours.items()):
            try:
                self.went_along |= own_way.delete(found.model, key)
            except IntegrityError:
                raise
            except TouchedForeignRow as error:
                del found.ours[key]
                self._hold([Held.entry(entry, REFERENCED, error.holders)])
            except Exception as error:  # noqa: BLE001 - the host's own delete(); it is logged
                log_error(logger, f"delete() of {found.model._meta.label} failed", error)
                del found.ours[key]
                self._hold([Held.entry(entry, DELETE_FAILED)])

    def _hold(self, held: Any) -> None:
        self.held.update({each.entity_id: each for each in held})

    def write_down(self) -> None:
        """Enter in the ledger what became of every entry of the batch."""
        write_held(self.held)
        removed = {entry.pk for found in self.found.values() for entry in found.ours.values()}
        gone = {entry.pk for found in self.found.values() for entry in found.gone}
        # But for those that the database has entered itself.
        standing(self.run, removed | self.went_along).close(TestEntity.State.REMOVED)
        standing(self.run, gone).close(TestEntity.State.GONE)


def write_held(held: Mapping[int, Held]) -> None:
    """Quarantine these entries."""
    for each in held.values():
        standing_entry = TestEntity.objects.using(ledger_alias()).standing().filter(pk=each.entity_id)
        standing_entry.update(
            state=TestEntity.State.QUARANTINED, reason=each.reason, blocked_by=dict(each.blocked_by)
        )
