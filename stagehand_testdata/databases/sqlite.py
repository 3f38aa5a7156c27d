"""SQLite.

# Note [Guards on SQLite]
There is no variable that a trigger could read. A purge says whose rows it removes in a table of its own, and
takes that back before it commits: the one writer holds the whole file until then, so nobody else ever sees
it. `REPLACE INTO` deletes without firing a delete trigger; but a new row under the key of a standing entry
can only mean that the old one has gone.

To close an entry from within a trigger costs more than to delete its row. Of a set that the purge removes by
one statement it closes the entries itself, by another: the triggers are told which set that is, and only see
to it that each row is one of it.

A statement of a run is watched by triggers of the connection's own, which keep what it makes until it is
done: see `databases.sqlite_runs`. A replacement makes the row anew whose place it takes: it fires no trigger
for that one, so under a run it is refused.

# Note [Asleep, a trigger costs what is in it]
A statement pays for what its triggers might do, whether they do it or not: a frame for each trigger that has
a look. And a connection pays for their texts, all of which it reads as it opens: 245 triggers of 330 kB took
eight milliseconds. So what is for a run's statements alone is not stored, and an entry is looked for before
it is changed, which opens one index instead of the table and all of its indexes.
"""

# ruff: noqa: S608 - what is put into statements are names out of the models, never input

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from django.db import DatabaseError, IntegrityError, OperationalError
from django.db.models import Model, QuerySet

from ..context import CurrentRun
from ..exceptions import ConfigurationError
from .base import Database, Sender, tell_touched
from .guards import (
    APPEND_ONLY,
    APPEND_ONLY_REFUSAL,
    FENCE,
    LEDGER,
    PREFIX,
    RECORDS,
    RUNS,
    STATEMENT,
    UNDER_WAY,
    GuardedTable,
    HeldGuard,
    digest_of,
    literal,
)
from .sqlite_runs import RunsOnConnection, read_write, take_down
from .sqlite_triggers import FORMER, NOW, POINTING, STORED, stored

M = TypeVar("M", bound=Model)

#: The function by which a connection tells the trigger that it prunes the audit.
_PRUNING = "stagehand_audit_prune"
#: What SQLite says where a trigger names what is no longer there.
_OUTDATED = re.compile(rf"no such (?:column: (?:OLD|NEW)\.|table: main\.(?:{LEDGER}|{RUNS}|{UNDER_WAY})\b)")
_SHARED = (
    "Threads share this connection, as those of a live server and its test do where SQLite's database is in"
    " memory. Whose a statement is cannot be told there. Give the test database a file:"
    ' DATABASES["default"]["TEST"] = {"NAME": "test.sqlite3"}.'
)
_ENABLE_TRIGGER = 1003  # SQLITE_DBCONFIG_ENABLE_TRIGGER, which older Pythons do not name


class SQLite(Database):
    """One writer at a time holds the whole file: whoever writes first has every lock there is."""

    can_guard = True
    can_capture = True
    closes_entries = True
    has_every_lock = True
    leaves_sets_open = True
    guards_hinder_rebuilds = True

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._runs: RunsOnConnection | None = None

    def read_exclusive(self, rows: QuerySet[M], *, skip_locked: bool = False) -> list[M]:
        # A transaction that reads first and writes later fails at once where somebody wrote in between.
        # A write that changes nothing takes the file's lock first, and waits for it in line.
        table = self.connection.ops.quote_name(rows.model._meta.db_table)
        column = self.connection.ops.quote_name(rows.model._meta.pk.column or "")
        with self.connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {column} = {column} WHERE 0")
        return list(rows.using(self.alias))

    @property
    def says_broken_references(self) -> bool:
        # The commit does; but within a transaction of somebody else's, ours is not what commits.
        return self.connection.in_atomic_block and not self.connection.savepoint_ids

    def lock_free(self, rows: QuerySet[Model]) -> int:
        return rows.count()  # whoever writes has the whole file

    def is_index(self, model: type[Model]) -> bool:
        # A virtual table (full text search) has no foreign keys, and no key but the rowid: its rows follow
        # those that they index.
        return model._meta.pk.column == "rowid" and self._is_virtual(model._meta.db_table)

    def refuses_triggers(self, table: str) -> str:
        return "it is a virtual table" if self._is_virtual(table) else ""

    def _is_virtual(self, table: str) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM sqlite_master WHERE name = %s AND sql LIKE 'CREATE VIRTUAL TABLE%%'", [table]
            )
            return cursor.fetchone() is not None

    def append_only_sql(self, table: str) -> list[str]:
        on = self.connection.ops.quote_name(table)
        refuse = f"BEGIN\n  SELECT RAISE(ABORT, {literal(APPEND_ONLY_REFUSAL)});\nEND"
        again = f"EXISTS (SELECT 1 FROM {on} WHERE id = NEW.id)"
        return [
            f"CREATE TRIGGER {APPEND_ONLY}_update BEFORE UPDATE ON {on} {refuse}",
            # A connection that does not know the function deletes nothing either.
            f"CREATE TRIGGER {APPEND_ONLY}_delete BEFORE DELETE ON {on} WHEN NOT {_PRUNING}() {refuse}",
            # REPLACE deletes without a word to the trigger above.
            f"CREATE TRIGGER {APPEND_ONLY}_insert BEFORE INSERT ON {on} WHEN {again} {refuse}",
        ]

    def not_append_only_sql(self, table: str) -> list[str]:
        return [f"DROP TRIGGER IF EXISTS {APPEND_ONLY}_{suffix}" for suffix in ("update", "delete", "insert")]

    @contextmanager
    def pruning_audit(self) -> Iterator[None]:
        self.connection.ensure_connection()
        self._say_pruning(True)
        try:
            yield
        finally:
            self._say_pruning(False)

    def _say_pruning(self, pruning: bool) -> None:
        driver: Any = self.connection.connection
        driver.create_function(_PRUNING, 0, lambda: pruning)

    def let_flush_through(self) -> None:
        if self.connection.connection is not None:
            self._say_pruning(False)
        self._flush_with(self.pruning_audit)

    # --- guards: see Note [Guards on SQLite] ---

    def send(self, sender: Sender, statement: Any, execute: Callable[[Any], Any], cursor: Any) -> Any:
        run, fence, _ = sender
        if run is None or not (run.captured or run.fenced):
            self.last_run = None
            return execute(statement)
        write = read_write(statement)
        if write is None:
            if statement.startswith("BEGIN"):
                self._take_over(run)
            if not statement.startswith(("SELECT", "SAVEPOINT", "RELEASE")):
                self.last_run = None
            return execute(statement)
        own = self._watching(run, write.table)
        if own is None:
            return execute(statement)
        if write.replaces and fence == "block":
            raise IntegrityError(f"{FENCE}a row that REPLACE makes anew")
        its = replace(run, captured=False) if write.replaces else run
        begun = own.driver.in_transaction
        if not begun:
            self._by_the_driver("BEGIN")
        if begun or not self.connection.autocommit:  # who has turned that off commits
            return self._watched(own, its, fence, lambda: execute(statement), cursor)
        try:
            done = self._watched(own, its, fence, lambda: execute(statement), cursor)
            self._by_the_driver("COMMIT")
        except BaseException:
            own.driver.rollback()
            raise
        return done

    def _watched(
        self, own: RunsOnConnection, run: CurrentRun, fence: str, execute: Callable[[], Any], cursor: Any
    ) -> Any:
        if own.points:
            self._by_the_driver(f"INSERT INTO {STATEMENT} (run_id) VALUES (?)", [run.pk])
        own.begin(run.pk, run.captured, fence)
        try:
            done = execute()
            if cursor.description:
                # One whose rows have not all been read makes what is written meanwhile twice as dear, and is
                # in the way of a commit.
                cursor.cursor = _ReadAhead.of(cursor.cursor)
        except BaseException:
            own.doubt_all()
            self.last_run = None  # it may have taken the whole transaction with it
            raise
        finally:
            own.end()
            if own.has_made:
                self._enter_rows(own, run)
            if own.points:
                self._by_the_driver(f"DELETE FROM {STATEMENT}")
        for table in sorted(own.touched) if own.touched else ():
            tell_touched(run, table)
        return done

    def _watching(self, run: CurrentRun, table: str | None) -> RunsOnConnection | None:
        """The connection as it watches what a statement of this run does that names this table.

        None where no table is guarded that the statement may write to.
        """
        own = self._runs
        driver = self.connection.connection
        known = own is not None and own.driver is driver and driver.in_transaction and self.last_run is run
        if own is None or not (known and own.is_watching(table)):
            own = self._take_over(run)
            if own.guards_any and self.connection.allow_thread_sharing:
                raise ConfigurationError(_SHARED)
            with self.connection.wrap_database_errors:
                if not own.watch(table):
                    return None
        return own

    def _take_over(self, run: CurrentRun) -> RunsOnConnection:
        """The connection as it is ready for a statement of this run."""
        self.connection.ensure_connection()
        own, driver = self._runs, self.connection.connection
        with self.connection.wrap_database_errors:
            if own is None or own.driver is not driver:
                own = self._runs = RunsOnConnection(driver, self.alias)
            own.look()
        self.last_run = run
        return own

    def _enter_rows(self, own: RunsOnConnection, run: CurrentRun) -> None:
        """What the statement has made: of one that failed half-way, what is left of it."""
        try:
            with self.connection.wrap_database_errors:
                own.enter_rows(run.pk)
        except BaseException:
            if self.connection.in_atomic_block:
                self.connection.needs_rollback = True
            else:
                own.driver.rollback()
            raise

    def put_right(self, error: Exception) -> bool:
        # Somebody else has changed a table, or taken the ledger away, since this connection served a run. It
        # is found out before anything is done.
        if self._runs is None or not _OUTDATED.search(str(error)):
            return False
        self.take_down_own()
        return True

    def take_down_own(self) -> None:
        if self.connection.connection is not None:
            with self.connection.wrap_database_errors:
                take_down(self.connection.connection)

    def _by_the_driver(self, statement: str, params: Sequence[Any] = ()) -> Any:
        """The first row of the answer. Whoever watches the connection need not see it."""
        if self.connection.connection is None:  # Django's own look is dear, thousands of times
            self.connection.ensure_connection()
        driver: Any = self.connection.connection
        with self.connection.wrap_database_errors:
            return driver.execute(statement, params).fetchone()

    @contextmanager
    def purging(self, run_id: int) -> Iterator[None]:
        self._require_transaction()
        with self._under_way(run_id):
            yield

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        with self._under_way(None):
            yield

    @contextmanager
    def _under_way(self, run_id: int | None) -> Iterator[None]:
        """This run's purge, or none, for the block."""
        before = self._say_under_way(run_id)
        try:
            yield
        except BaseException:
            with suppress(DatabaseError):  # the transaction will be rolled back, and the row with it
                self._say_under_way(before)
            raise
        self._say_under_way(before)

    def _say_under_way(self, run_id: int | None) -> int | None:
        """Returns what was said before."""
        before = self._by_the_driver(f"SELECT run_id FROM {UNDER_WAY}")
        self._by_the_driver(f"DELETE FROM {UNDER_WAY}")
        if run_id is not None:
            self._by_the_driver(f"INSERT INTO {UNDER_WAY} (run_id) VALUES (?)", [run_id])
        return before[0] if before else None

    @contextmanager
    def removing_set(self, model: str, first: int, last: int) -> Iterator[None]:
        say = f"UPDATE {UNDER_WAY} SET model = %s, first = %s, last = %s"
        self.execute(say, [model, first, last])
        yield
        self.execute(say, ["", 0, 0])

    def triggers_fire(self) -> bool:
        asked = getattr(self.connection.connection, "getconfig", None)  # since Python 3.12
        return bool(asked(_ENABLE_TRIGGER)) if asked else True

    def is_missing_table(self, error: DatabaseError) -> bool:
        return "no such table" in str(error)

    def is_lock_timeout(self, error: OperationalError) -> bool:
        return "locked" in str(error)

    def guard_sql(self, table: GuardedTable) -> list[str]:
        created = stored(table, self.connection.ops.quote_name)
        return [*self.unguard_sql(table.name), *(created[suffix] for suffix in sorted(created))]

    def unguard_sql(self, name: str) -> list[str]:
        return [f"DROP TRIGGER IF EXISTS main.{name}_{suffix}" for suffix in (*STORED, *FORMER, *POINTING)]

    def record_sql(self, table: GuardedTable) -> list[str]:
        held = digest_of(sorted(stored(table, self.connection.ops.quote_name).values()))
        values = [literal(each) for each in (table.table, table.model, self.wanted_digest(table) + held)]
        statement = (
            f'INSERT OR REPLACE INTO {RECORDS} ("table", model, definition, installed_at)'
            f" VALUES ({', '.join(values)}, {NOW})"
        )
        return [statement]

    def held_guards(self) -> dict[str, HeldGuard]:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND substr(name, 1, %s) = %s",
                [len(PREFIX), PREFIX],
            )
            found: dict[str, list[str]] = {}
            for name, sql in cursor.fetchall():
                found.setdefault(name.rpartition("_")[0], []).append(sql)
        return {
            name: HeldGuard(digest_of(sorted(texts)), len(texts) >= len(STORED))
            for name, texts in found.items()
        }


class _ReadAhead:
    """A cursor whose statement is done: it has read all of its rows."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._rows: Iterator[Any] = iter(cursor.fetchall())

    @classmethod
    def of(cls, cursor: Any) -> _ReadAhead:
        """One around the cursor, which may be such a one already: it was used before."""
        return cls(cursor._cursor if type(cursor) is cls else cursor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def __next__(self) -> Any:
        return next(self._rows)

    def execute(self, *args: Any) -> Any:
        done = self._cursor.execute(*args)
        self._rows = iter(self._cursor)
        return done

    def executemany(self, *args: Any) -> Any:
        self._rows = iter(())
        return self._cursor.executemany(*args)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return list(islice(self._rows, self._cursor.arraysize if size is None else size))

    def fetchall(self) -> list[Any]:
        return list(self._rows)
