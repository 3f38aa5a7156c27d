"""Rows that go set by set: their entries are the proof, so no row of them is read.

The database itself finds them by a range of entries: to claim them, to look for what holds them and to remove
them is one statement each, whatever their number.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from django.db import IntegrityError
from django.db.models import Count, Max, Min, Q, QuerySet
from django.db.models import Model as Row

from ...databases import database
from ...models import TestEntity, TestEntityQuerySet, TestRun, key_column
from ..runs import ledger_alias
from .graph import GenericPointer, Model, Pointer, all_rows, database_refuses, pointers_to, rows_of
from .own_way import OwnWay, has_receivers


class NotProven(Exception):
    """The rows of a chunk cannot go set by set: they must be looked at one by one."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` standing entries of one model, of these ids; the first of them was made at `oldest`."""

    model: Model
    entries: TestEntityQuerySet
    first: int
    last: int
    count: int
    oldest: dt.datetime

    @property
    def rows(self) -> QuerySet[Row]:
        return rows_of(self.model, self.entries, ledger_alias())

    def remove(
        self,
        run: TestRun,
        held: Container[int],
        awake: Callable[[], AbstractContextManager[None]],
        *,
        passing_by: bool,
    ) -> bool:
        """Look for what holds the rows and delete them; False where any was passed by.

        Raises NotProven where that is not all there is to it; and where somebody has locked a row that is not
        to be passed by, an OperationalError that is a lock's timeout.
        """
        if not self.lead():
            return False
        engine = database(ledger_alias())
        at_once = engine.has_every_lock or all(map(_minds_itself, pointers_to(self.model)))
        if has_receivers(self.model) or not at_once:
            if not self.claim():
                raise NotProven
            self.refuse_holders()
            with awake():
                self.delete(run, held)
            return True
        # Whoever comes in between the look and the deletion is refused, or could as well come after it.
        self.refuse_holders()
        with awake(), engine.hardly_waiting():
            deleted = self._delete_at_once(self._free_rows() if passing_by else self.rows)
        if deleted == self.count:
            self._see_closed()
        elif self.entries.count() != self.count - deleted:
            raise NotProven
        return deleted == self.count

    def _free_rows(self) -> QuerySet[Row]:
        free = database(ledger_alias()).skipping_locked(self.rows).values("pk")
        return all_rows(self.model, ledger_alias()).filter(pk__in=free)

    def _delete_at_once(self, rows: QuerySet[Row]) -> int:
        """Delete by one statement, and close the entries if that is left to us; how many rows went."""
        engine = database(ledger_alias())
        with engine.removing_set(self.model._meta.label_lower, self.first, self.last):
            deleted: int = rows._raw_delete(ledger_alias())
        if engine.leaves_sets_open and deleted == self.count:
            self.entries.close(TestEntity.State.REMOVED)
        return deleted

    def _see_closed(self) -> None:
        """Raise NotProven unless the triggers were awake: they close every entry of a statement, or fail."""
        if self.entries.filter(pk=self.first).exists():
            raise NotProven

    def lead(self) -> bool:
        """Whether the chunk is ours until the transaction ends: it is whose its first entry is."""
        engine = database(ledger_alias())
        engine.prepare_for_many()
        return engine.lock_free(self.entries.filter(pk=self.first)) > 0

    def claim(self) -> bool:
        """Lock all of the rows until the transaction ends; False where that cannot be had."""
        return database(ledger_alias()).lock_free(self.rows) == self.count

    def refuse_holders(self, among: Mapping[Model, Q] | None = None) -> None:
        """Raise NotProven where any row points at one of these; of the models `among`, only such rows.

        Where the database refuses by itself to delete what is pointed at, it is left to say so.
        """
        for pointer in pointers_to(self.model):
            if database_refuses(pointer):
                continue
            which = (among or {}).get(pointer.model, Q())
            if pointer.anyone_holding(ledger_alias(), self.model, self.entries, which):
                raise NotProven

    def delete(self, run: TestRun, held: Container[int]) -> None:
        """Delete the claimed rows, and see that the database has closed their entries with them."""
        if has_receivers(self.model):
            self._tell_and_delete(run, held)
        else:
            self._delete_at_once(self.rows)
        self._see_closed()

    def _tell_and_delete(self, run: TestRun, held: Container[int]) -> None:
        batch = dict(self.entries.values_list(key_column(self.model), "pk"))
        own_way = OwnWay(run, ledger_alias(), {self.model: batch}, held)
        try:
            own_way.tell_and_delete(self.model, list(batch))
        except IntegrityError:
            raise
        except Exception as error:  # a receiver's: row by row it will tell whose
            raise NotProven from error


def _minds_itself(pointer: Pointer) -> bool:
    """Whether a row that comes to point at a claimed one is no matter of when the lock was taken."""
    return database_refuses(pointer) or isinstance(pointer, GenericPointer)


def chunks(entries: TestEntityQuerySet, model: Model, size: int) -> Iterator[Chunk]:
    """The standing entries, some at a time in the order in which they were made."""
    last = 0
    while True:
        some = entries.filter(pk__gt=last).order_by("pk")
        # An entry that got a later number than one made under the guards has its row from under them too:
        # to put them up, they waited for whoever had written to the table, and for all of his entries.
        oldest = some.values_list("created_at", flat=True).first()
        seen = some[:size].aggregate(first=Min("pk"), last=Max("pk"), count=Count("pk"))
        if not seen["count"] or oldest is None:
            return
        first, last = seen["first"], seen["last"]
        within = entries.filter(pk__gte=first, pk__lte=last)
        yield Chunk(model, within, first, last, seen["count"], oldest)
        if seen["count"] < size:
            return
