"""What every database needs to know to guard a table, and what it tells of the guards that it holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..models import Guard, PurgeUnderWay, StatementUnderWay, TestEntity, TestRun

#: Every function and trigger of ours begins with this, whatever the database.
PREFIX = "stagehand_guard_"
LEDGER = TestEntity._meta.db_table
RECORDS = Guard._meta.db_table
RUNS = TestRun._meta.db_table
UNDER_WAY = PurgeUnderWay._meta.db_table
STATEMENT = StatementUnderWay._meta.db_table

#: The audit's own triggers; they are no guards.
APPEND_ONLY = "stagehand_append_only"
APPEND_ONLY_REFUSAL = "stagehand audit: rows of the audit are not changed or deleted"

#: What the database says where it refuses a statement of a run, whatever the database.
FENCE = "stagehand fence: "
CAPTURE = "stagehand capture: "
RUN_HAS_ENDED = f"{CAPTURE}the test run has ended, and nothing more is made in its name"


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
    #: What a test run may change in rows that are not its own.
    free: tuple[str, ...] = ()
    #: What the ledger calls rows of this table that the product makes under a run.
    type: str = ""
    #: The column that says on the row itself whose test row it is; empty where there is none.
    mark: str = ""
    #: What is done about a real row that comes to hold a test row: FENCE_POINTERS.
    pointing: str = "off"
    #: The columns that hold rows of another table, with what the ledger calls these and their keys.
    pointers: tuple[tuple[str, str, str], ...] = ()

    @property
    def name(self) -> str:
        return guard_name(self.table)

    @property
    def watched(self) -> tuple[str, ...]:
        return tuple(column for column in self.columns if column not in self.exempt)

    @property
    def fenced(self) -> tuple[str, ...]:
        """The columns that a test run may change in its own rows alone."""
        return tuple(column for column in self.watched if column not in self.free)

    @property
    def pointed(self) -> str:
        """What is said of a real row that would have come to hold a test row."""
        return f"{FENCE}a real row of {self.table} that points at a test row"

    @property
    def touched(self) -> str:
        """What is said of a row that a test run would have touched."""
        return f"{FENCE}a row of {self.table} that is not of the test run"


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


def key_of(table: GuardedTable, row: str, quote: Callable[[str], str]) -> str:
    """The SQL for the key of `row` as the ledger has it."""
    columns = [f"{row}.{quote(column)}" for column in table.pk]
    if len(columns) == 1:
        return columns[0]
    return "'[\"' || " + " || '\", \"' || ".join(columns) + " || '\"]'"


def literal(text: str) -> str:
    """The text as standard SQL writes it. For names out of the models alone, never for anybody's input."""
    return "'" + text.replace("'", "''") + "'"
