"""What a connection of SQLite does for the statements of a run.

# Note [Triggers of the connection's own]
No trigger of the database can tell who writes: it may ask nothing but the database. One that belongs to the
connection (TEMP) may ask its functions, and no other connection ever meets it. So a connection that is to
execute a statement of a run puts up for itself what captures and fences, and answers while the statement
lasts that there is a run. What the triggers see made is kept here, and entered when the statement is done, in
its own transaction. A row that may have gone or changed its key since is looked for then, and so is each one
where the statement fails: `INSERT OR FAIL` leaves what it has made so far.

To put up three triggers takes a third of a millisecond. A statement that names its table in plain words
writes to that table alone, where the product has no triggers of its own and its foreign keys do nothing by
themselves; so its table gets them when it is first written to. Elsewhere all tables get them at once.

# Note [What may have taken them away]
A trigger goes with its table, and with the transaction or savepoint that made it. None of it happens behind
the back of the schema's version, which each change raises and a rollback takes back. So both versions, that
of the database and that of the connection's own schema, are looked at wherever a run takes over the
connection: at the first of its statements, after one that is nobody's or has failed, after any that is
neither a read nor a write, at the first write of a transaction (by then nobody else can change anything) and
at each one outside of any. Other changes can bring a version to where it was before a rollback: so where one
may have taken them, the triggers are counted too.
"""

# ruff: noqa: S608 - what is put into statements are names out of the models, never input

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ..exceptions import UntrackedWrite
from ..models import composite_key_text
from .guards import APPEND_ONLY, LEDGER, PREFIX, STATEMENT, literal
from .sqlite_triggers import (
    CAPTURING,
    CARRIES,
    DOUBT,
    FENCE_MODE,
    FOREIGN,
    IS_MADE,
    MADE,
    NOW,
    RUN,
    TOUCHED,
    OwnTriggers,
)

#: What may stand in front of a statement; a mark of the byte order is a space to SQLite.
_BEFORE = r"(?:[\s;\ufeff]|--[^\n]*\n|/\*(?:(?!\*/).)*\*/)*+"
#: A write that names its table in plain words, and what it does about conflicts.
_PLAIN_WRITE = re.compile(
    _BEFORE + r"(INSERT|REPLACE|UPDATE|DELETE)\b(?:\s+OR\s+(\w+))?(?:\s+(?:INTO|FROM))?"
    r"""\s+("(?:[^"]|"")+"|(?!(?:OR|INTO|FROM)\b)\w+)(?=[\s(;]|\Z)(?!\s*(?:\.|/\*|--))""",
    re.IGNORECASE | re.DOTALL,
)
_WRITE = re.compile(
    _BEFORE + r"(?:INSERT|REPLACE|UPDATE|DELETE|WITH\b.*\b(?:INTO|UPDATE|DELETE))\b",
    re.IGNORECASE | re.DOTALL,
)
#: Where a word is none of the statement's.
_NOISE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^]]*\]|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_AS_NOTHING = {"--": " ", "/*": " "}
_REPLACES = re.compile(r"\bREPLACE\s+INTO\b|\bOR\s+REPLACE\b", re.IGNORECASE)

_ENTER = (
    f"INSERT INTO {LEDGER} (run_id, type, origin, state, reason, blocked_by, model, database, key_text,"
    " key_bigint, key_uuid, fingerprint, reference, tombstone, created_at)"
    " VALUES (?, {type}, 'captured', 'live', '', '{{}}', {model}, {database}, ?, ?, ?, '{{}}', '', 0, {now})"
)
_GUARD = f"substr(name, 1, {len(PREFIX)}) = '{PREFIX}'"
_PUT_UP = f"SELECT name FROM temp.sqlite_master WHERE type = 'trigger' AND {_GUARD}"
_TABLES_UP = f"SELECT count(DISTINCT tbl_name) FROM temp.sqlite_master WHERE type = 'trigger' AND {_GUARD}"
_POINTS = (
    f"SELECT 1 FROM main.sqlite_master WHERE type = 'trigger' AND {_GUARD} AND name LIKE '%_holding' LIMIT 1"
)
#: What makes a statement write to a table that it does not name.
_FOLLOWS = (
    "SELECT 1 FROM main.sqlite_master"
    f" WHERE type = 'trigger' AND NOT {_GUARD} AND name NOT LIKE '{APPEND_ONLY}%'"
    f" UNION ALL SELECT 1 FROM temp.sqlite_master WHERE type = 'trigger' AND NOT {_GUARD}"
    " UNION ALL SELECT 1 FROM main.sqlite_master m, pragma_foreign_key_list(m.name) f"
    " WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%' AND (f.on_delete NOT IN"
    " ('NO ACTION', 'RESTRICT') OR f.on_update NOT IN ('NO ACTION', 'RESTRICT')) LIMIT 1"
)
#: What makes a statement replace rows though it does not say so.
_REPLACED_BY_SCHEMA = (
    f"SELECT 1 FROM main.sqlite_master WHERE sql LIKE '%REPLACE%' AND NOT {_GUARD}"
    f" UNION ALL SELECT 1 FROM temp.sqlite_master WHERE sql LIKE '%REPLACE%' AND NOT {_GUARD} LIMIT 1"
)
#: The guarded tables, and the triggers that carry what a connection puts up for itself.
_CARRIERS = (
    "SELECT tbl_name, name FROM main.sqlite_master"
    f" WHERE type = 'trigger' AND {_GUARD} AND instr(sql, {literal(CARRIES)})"
)
_CARRIER = "SELECT sql FROM main.sqlite_master WHERE type = 'trigger' AND name = ?"
#: Changes nothing; but the file's lock is waited for in line.
_LOCK = f"DELETE FROM main.{STATEMENT} WHERE 0"


class Write(NamedTuple):
    """What can be told of a statement that writes."""

    #: The one table that it names as the one to write to; None where that takes more than a look.
    table: str | None
    #: Whether it makes rows anew that are there already.
    replaces: bool


def read_write(statement: str) -> Write | None:
    """None where the statement does not write."""
    return _read_again(statement) if len(statement) < _SHORT else _read(statement)


def _read(statement: str) -> Write | None:
    plain = _PLAIN_WRITE.match(statement)
    if plain:
        verb, conflict, name = plain.groups()
        table = name[1:-1].replace('""', '"') if name[0] == '"' else name
        return Write(table.lower(), "REPLACE" in (verb.upper(), (conflict or "").upper()))
    if not _WRITE.match(statement):
        return None
    words = _NOISE.sub(lambda noise: _AS_NOTHING.get(noise[0][:2], " _ "), statement)
    if _WRITE.match(words):
        return Write(None, bool(_REPLACES.search(words)))
    return None


@dataclass(frozen=True, slots=True)
class _Table:
    """A table that the connection watches."""

    pk: Sequence[str]
    #: The ledger's column that holds its keys in their own type.
    key: str
    #: Enters a row: the run, and what `keys` gives.
    enter: str

    @classmethod
    def of(cls, triggers: OwnTriggers, alias: str) -> _Table:
        names = {"type": triggers.type, "model": triggers.model, "database": alias}
        enter = _ENTER.format(now=NOW, **{name: literal(value) for name, value in names.items()})
        return cls(triggers.pk, triggers.key, enter)

    def keys(self, row: tuple[Any, ...]) -> tuple[str, Any, Any]:
        """The key of a row that was made: text, number, uuid; raises UntrackedWrite for a blob."""
        if bytes in map(type, row):
            raise UntrackedWrite(
                f"A row of the table '{row[0]}' has a key that the ledger cannot hold: a blob."
            )
        if self.key == "key_bigint":
            return str(row[1]), row[1], None
        if self.key == "key_uuid":
            return _with_dashes(str(row[1])), None, row[1]
        return (str(row[1]) if len(row) == 2 else composite_key_text(row[1:])), None, None


#: Statements up to this length are remembered: a product has some hundreds.
_SHORT = 2000
_read_again = lru_cache(maxsize=1000)(_read)


class _Statement:
    """What the triggers ask of the statement that is executed, and what they tell of it.

    It knows nothing of the connection, which holds what is asked here: such a circle would keep a connection
    that nobody has closed, with its locks.
    """

    def __init__(self) -> None:
        self.run: int | None = None
        self.capturing: int | None = None
        self.fence = "off"
        #: The rows that it has made: their table in lower case, then their key's columns.
        self.made: dict[tuple[Any, ...], None] = {}
        #: Those of them of which something may have become since.
        self.doubted: set[tuple[Any, ...]] = set()
        #: Keys under which somebody else's row was or is: whatever is made there is not the run's.
        self.foreign: set[tuple[Any, ...]] = set()
        #: Tables whose rows it has touched though they are not the run's: the fence only reports.
        self.touched: set[str] = set()

    def functions(self) -> Iterator[tuple[str, int, Callable[..., Any]]]:
        """What SQLite is to know them by, how many parameters they take, and what they do."""
        yield RUN, 0, lambda: self.run
        yield CAPTURING, 0, lambda: self.capturing
        yield FENCE_MODE, 0, lambda: self.fence
        yield MADE, -1, self._make
        yield IS_MADE, -1, lambda *row: row in self.made
        yield DOUBT, -1, self._doubt
        yield FOREIGN, -1, self._know_for_foreign
        yield TOUCHED, 1, self.touched.add

    def _make(self, *row: Any) -> None:
        if row not in self.foreign:
            self.made[row] = None

    def _doubt(self, *row: Any) -> None:
        if row in self.made:
            self.doubted.add(row)

    def _know_for_foreign(self, *row: Any) -> None:
        self.foreign.add(row)
        self.made.pop(row, None)


class RunsOnConnection:
    """One connection of the driver's: its own triggers, and what they ask and tell.

    See Note [Triggers of the connection's own]. Whatever the driver raises is raised as it is.
    """

    def __init__(self, driver: Any, alias: str) -> None:
        self.driver = driver
        #: Whether triggers of the database look at what rows point at.
        self.points = False
        self._alias = alias
        self._statement = _Statement()
        self._versions = (-1, -1)
        #: Whether what is up may go with the transaction.
        self._unsure = False
        #: The triggers that carry those of each guarded table, by its name in lower case.
        self._guarded: dict[str, str] = {}
        #: Whether a statement may write to other tables than the one that it names.
        self._follows = False
        #: Whether a statement may replace rows though it does not say so.
        self._replaces = False
        self._up: dict[str, _Table] = {}
        #: Tables that this connection has written to: they get theirs again where that lasts.
        self._wanted: set[str] = set()
        for name, parameters, function in self._statement.functions():
            driver.create_function(name, parameters, function)

    # --- a statement ---

    @property
    def has_made(self) -> bool:
        return bool(self._statement.made)

    def begin(self, run: int, captured: bool, fence: str) -> None:
        """What is executed from now on is a statement of this run's."""
        state = self._statement
        state.doubted.clear()
        state.foreign.clear()
        state.touched.clear()
        state.run, state.capturing, state.fence = run, captured or None, fence
        if self._replaces:
            # What replaces a row deletes it, and wakes no trigger by that but with this.
            self.driver.execute("PRAGMA recursive_triggers = ON")

    def end(self) -> None:
        """What is executed from now on is nobody's."""
        state = self._statement
        state.run = state.capturing = None
        state.fence = "off"
        if self._replaces:
            self.driver.execute("PRAGMA recursive_triggers = OFF")

    def doubt_all(self) -> None:
        """The statement has failed: what it has made may not be there."""
        self._statement.doubted.update(self._statement.made)

    def enter_rows(self, run: int) -> None:
        """Enter into the ledger what the statement has made; raises UntrackedWrite where a key is a blob."""
        doubted = self._statement.doubted
        made = [row for row in self._statement.made if row not in doubted or self._is_there(row)]
        self._statement.made.clear()
        for row in made:
            table = self._up[row[0]]
            self.driver.execute(table.enter, (run, *table.keys(row)))

    @property
    def touched(self) -> set[str]:
        return self._statement.touched

    def _is_there(self, row: tuple[Any, ...]) -> bool:
        name, *pk = row
        columns = " AND ".join(f"{_quoted(column)} IS ?" for column in self._up[name].pk)
        found = self.driver.execute(f"SELECT 1 FROM main.{_quoted(name)} WHERE {columns}", pk)
        return found.fetchone() is not None

    # --- the triggers: see Note [What may have taken them away] ---

    @property
    def guards_any(self) -> bool:
        """Whether the database has guards, as far as it was looked at."""
        return bool(self._guarded)

    def is_watching(self, table: str | None) -> bool:
        """Whether all triggers are known to be up that a statement wakes which names this table."""
        return len(self._up) == len(self._guarded) if self._follows else table in self._up

    def look(self) -> None:
        """A run takes over: see whether what was put up is still there, and still what it should be."""
        lasting = not self.driver.in_transaction
        if not lasting:
            self._lock()
        if self._versions != self._read_versions() or (self._unsure and self._are_gone()):
            self._start_anew()
            self._unsure = not lasting
        if lasting:
            self._unsure = False
            self._put_up(self._wanted & set(self._guarded))

    def watch(self, table: str | None) -> bool:
        """Have triggers wherever a statement may write that names this table; False where none are wanted."""
        tables = set(self._guarded)
        if table is not None and not self._follows:
            tables &= {table}
        self._put_up(tables)
        return not tables.isdisjoint(self._guarded)

    def _put_up(self, tables: set[str]) -> None:
        missing = tables - set(self._up)
        if not missing:
            return
        for table in sorted(missing):
            carrier = self.driver.execute(_CARRIER, [self._guarded[table]]).fetchone()
            triggers = OwnTriggers.carried_by(carrier[0]) if carrier else None
            if triggers is None or triggers.table.lower() != table:
                del self._guarded[table]  # gone or renamed a moment ago: the guards have yet to be renewed
                continue
            for statement in triggers.statements:
                self.driver.execute(statement)
            self._up[table] = _Table.of(triggers, self._alias)
        self._wanted |= missing
        # Whatever else has changed is for the next look.
        self._versions = self._versions[0], self._version_of("temp")
        self._unsure = self._unsure or self.driver.in_transaction

    def _are_gone(self) -> bool:
        """Whether a rollback took them, and something else has brought the version to where it was."""
        [up] = self.driver.execute(_TABLES_UP).fetchone()
        return bool(up != len(self._up))

    def _start_anew(self) -> None:
        execute = self.driver.execute
        version = self._version_of("main")
        take_down(self.driver)
        self._up.clear()
        self._guarded = {table.lower(): trigger for table, trigger in execute(_CARRIERS).fetchall()}
        self._follows = execute(_FOLLOWS).fetchone() is not None
        [recursive] = execute("PRAGMA recursive_triggers").fetchone()
        self._replaces = not recursive and execute(_REPLACED_BY_SCHEMA).fetchone() is not None
        self.points = execute(_POINTS).fetchone() is not None
        self._versions = version, self._version_of("temp")

    def _lock(self) -> None:
        """Have the file's lock, waited for in line; who reads first and writes later may fail at once."""
        try:
            self.driver.execute(_LOCK)
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):  # a database without a ledger has no guards
                raise

    def _read_versions(self) -> tuple[int, int]:
        return self._version_of("main"), self._version_of("temp")

    def _version_of(self, schema: str) -> int:
        [version] = self.driver.execute(f"PRAGMA {schema}.schema_version").fetchone()
        return int(version)


def take_down(driver: Any) -> None:
    """Take down what this connection has put up for itself; it comes back with the next run's statement."""
    for (name,) in driver.execute(_PUT_UP).fetchall():
        driver.execute(f"DROP TRIGGER temp.{_quoted(name)}")


def _with_dashes(uuid: str) -> str:
    """The uuid, kept as 32 digits, as Python writes it; what is none stays as it is."""
    if len(uuid) != 32:
        return uuid
    return "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
