"""Rows deleted the way their model does it: its own `delete()`, its queryset's, or with its receivers told.

Whatever such a deletion takes along must be provably the run's, and what it writes is removed with it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connections, models, transaction
from django.db.models import Exists, Q
from django.db.models.signals import post_delete, pre_delete

from ...context import CurrentRun
from ...databases import database
from ...exceptions import TestDataError
from ...isolation.capture import Recorder, recording_inserts
from ...isolation.hooks import until_commit
from ...models import TestRun, entries_of_outer_row
from .graph import Model, all_rows, concrete, is_derived
from .plan import examine, holders, standing


class TouchedForeignRow(TestDataError):
    """The model's own delete() would have removed, or let go of, a row that this purge may not touch."""

    def __init__(self, model: Model, holders: Mapping[str, int] | None = None) -> None:
        super().__init__(f"delete() would have removed a row of {model._meta.label} that must stay.")
        self.holders = holders or {model._meta.label: 1}


def is_overridden(model: Model) -> bool:
    """Whether deleting a row of this model is the model's own business: its `delete()` or its queryset's."""
    return model.delete is not models.Model.delete or _queryset_deletes(model)


def has_receivers(model: Model) -> bool:
    """Whether somebody wants to be told when a row of this model goes."""
    return pre_delete.has_listeners(model) or post_delete.has_listeners(model)


def delete_rows(model: Model, keys: Sequence[Any], alias: str) -> int:
    """One DELETE of exactly these keys: no collector, no cascade, no signal. How many rows went."""
    return all_rows(model, alias).filter(pk__in=keys)._raw_delete(alias) if keys else 0


@dataclass(slots=True)
class OwnWay:
    """Deletes rows of one batch. `batch` has its entries by model and key, `held` those that must stay."""

    run: TestRun
    alias: str
    batch: Mapping[Model, Mapping[Any, int]]
    held: Container[int]

    def tell_and_delete(self, model: Model, keys: Sequence[Any]) -> set[int]:
        """Delete the rows together, with their receivers told; the entries of what went along."""
        with self._watched() as (along, written):
            instances = list(all_rows(model, self.alias).filter(pk__in=keys))
            for instance in instances:
                pre_delete.send(sender=model, instance=instance, using=self.alias, origin=instance)
            delete_rows(model, keys, self.alias)
            for instance in instances:
                post_delete.send(sender=model, instance=instance, using=self.alias, origin=instance)
            self._remove_written(written)
        return along

    def delete(self, model: Model, key: Any) -> set[int]:
        """Delete one row as its model does; the entries of what went along."""
        with self._watched() as (along, written):
            row = all_rows(model, self.alias).filter(pk=key)
            instance = row.first()
            if instance is None:
                return along  # it went with another
            if model.delete is models.Model.delete and _queryset_deletes(model):
                model._default_manager.using(self.alias).filter(pk=key).delete()
            else:
                instance.delete()
            self._remove_written(written)
            delete_rows(model, [key], self.alias)  # where that only marks the row
        return along

    @contextmanager
    def _watched(self) -> Iterator[tuple[set[int], Recorder]]:
        with (
            transaction.atomic(using=self.alias),
            # A manager that hides test rows lets the model's own code see these.
            until_commit(CurrentRun(self.run.pk, self.run.test_id), removing=True),
            recording_inserts() as written,
            self._watching_deletes(written) as along,
        ):
            yield along, written

    def _remove_written(self, written: Recorder) -> None:
        """What the deletion itself wrote (a log entry, say) is as much the test's as what it deleted."""
        if written.rows:
            with database(self.alias).unguarded():
                for row in reversed(written.rows):
                    delete_rows(row.model, [row.pk], row.database)

    @contextmanager
    def _watching_deletes(self, written: Recorder) -> Iterator[set[int]]:
        """Refuse the deletion of any row that is not the run's; the entries of those that go along."""
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
        known = self.batch.get(model, {}).get(key)
        if known is not None:
            return known
        entry = standing(self.run).for_keys(model, [key]).first()
        if entry is None and (is_derived(model) or key in written.keys_of(model)):
            return None
        if entry is None or entry.pk in self.held:
            raise TouchedForeignRow(model)
        along = examine(model, [entry], lock=True, using=self.alias)
        held = holders(along, self.alias, lambda each: self._is_real(each, written))
        if held or not along.ours:
            raise TouchedForeignRow(model, *held.values())
        return entry.pk

    def _is_real(self, model: Model, written: Recorder) -> Q:
        """Rows of `model` that are neither the run's nor what the deletion itself has written."""
        return Q(~Exists(entries_of_outer_row(model, self.run))) & ~Q(pk__in=written.keys_of(concrete(model)))


def _queryset_deletes(model: Model) -> bool:
    return type(model._default_manager.all()).delete is not models.QuerySet.delete
