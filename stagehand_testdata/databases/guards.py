"""What every database needs to know to guard a table, and what it tells of the guards that it holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..models import Guard, PurgeUnderWay, TestEntity

#: Every function and trigger of ours begins with this, whatever the database.
PREFIX = "stagehand_guard_"
LEDGER = TestEntity._meta.db_table
RECORDS = Guard._meta.db_table
UNDER_WAY = PurgeUnderWay._meta.db_table


@dataclass(frozen=True, slots=True)
class GuardedTable:
    """A host's table as its guards see it."""

    table: str
    #: What the ledger calls its rows.
    model: str
    #: The columns of the primary key: one, or the integers of a composite one.
    pk: tuple[str, ...]
    #: The ledger's column that holds this key in its own type.
    key: str
    #: Every column that is written, not computed.
    columns: tuple[str, ...]
    #: What may follow from the deletion of another row: a tree's own counts.
    exempt: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return guard_name(self.table)

    @property
    def watched(self) -> tuple[str, ...]:
        return tuple(column for column in self.columns if column not in self.exempt)


@dataclass(frozen=True, slots=True)
class HeldGuard:
    """What the database's catalogue really holds for one table."""

    digest: str
    complete: bool
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class HeldPolicy:
    """What the catalogue holds for a table with row-level security."""

    #: Whether the policies there are ours.
    ours: bool
    #: Whether both of them stand, and hold the table's owner back too.
    complete: bool
    #: Of the statements that made them, as they say themselves.
    wanted: str
    #: Whether they are as these statements left them.
    unchanged: bool


def guard_name(table: str) -> str:
    """One per table: legible, unique, and short enough for every database with a suffix of ten letters."""
    readable = re.sub(r"[^a-z0-9]+", "_", table.lower()).strip("_")
    return f"{PREFIX}{readable[:28]}_{digest_of([table])[:6]}"


def digest_of(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def literal(text: str) -> str:
    """The text as standard SQL writes it. For names out of the models alone, never for anybody's input."""
    return "'" + text.replace("'", "''") + "'"
