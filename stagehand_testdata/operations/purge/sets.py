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
from ...models import TestEntityQuerySet, TestRun, key_column
from ..runs import ledger_alias
from .graph import GenericPointer, Model, Pointer, all_rows, database_refuses, pointers_to, rows_of
from .own_way import OwnWay, has_receivers


class NotProven(Exception):
    """The rows of a chunk cannot go set by set: they must be looked at one by one."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` standing entries of one model; the first has this id and was made at `oldest`."""

    model: Model
    entries: TestEntityQuerySet
    first: int
    count: int
    oldest: dt.datetime

    @property
    def rows(self) -> QuerySet[Row]:
        return rows_of(self.model, self.entries, ledger_alias())

    def remove(
        self, run: TestRun, held: Container[int], awake: Callable[[], AbstractContextManager[None]]
    ) -> bool:
        """Lock the rows, look for what holds them and delete them; False where any was passed by.

        Raises NotProven where that is not all there is to it.
        """
        if not self.lead():
            return False
        if has_receivers(self.model) or not all(map(_minds_itself, pointers_to(self.model))):
            if not self.claim():
                raise NotProven
            self.refuse_holders()
            with awake():
                self.delete(run, held)
            return True
        # Whoever comes in between the look and the deletion is refused, or could as well come after it.
        self.refuse_holders()
        with awake():
            free = database(ledger_alias()).skipping_locked(self.rows).values("pk")
            deleted = all_rows(self.model, ledger_alias()).filter(pk__in=free)._raw_delete(ledger_alias())
        if deleted == self.count:
            self._see_closed()
        elif self.entries.count() != self.count - deleted:
            raise NotProven
        return deleted == self.count

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
            self.rows._raw_delete(ledger_alias())
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
        some = entries.filter(pk__gt=last).order_by("pk")[:size]
        seen = some.aggregate(first=Min("pk"), last=Max("pk"), count=Count("pk"))
        if not seen["count"]:
            return
        first, last = seen["first"], seen["last"]
        # An entry that got a later number than one made under the guards has its row from under them too:
        # to put them up, they waited for whoever had written to the table, and for all of his entries.
        oldest = entries.filter(pk=first).values_list("created_at", flat=True).first()
        if oldest is not None:
            within = entries.filter(pk__gte=first, pk__lte=last)
            yield Chunk(model, within, first, seen["count"], oldest)
