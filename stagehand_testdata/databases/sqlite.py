"""SQLite.

# Note [Guards on SQLite]
There is no variable that a trigger could read. A purge says whose rows it removes in a table of its own, and
takes that back before it commits: the one writer holds the whole file until then, so nobody else ever sees
it. `REPLACE INTO` deletes without firing a delete trigger; but a new row under the key of a standing entry
can only mean that the old one has gone.

To close an entry from within a trigger costs more than to delete its row. Of a set that the purge removes by
one statement it closes the entries itself, by another: the triggers are told which set that is, and only see
to it that each row is one of it.

A statement of a run says so in the same way, in another table, and for itself alone. A replacement makes the
row anew whose place it takes: it fires no trigger for that one, so under a run it is refused.

# Note [Asleep, a trigger costs what is in it]
A statement pays for what its triggers might do, whether they do it or not: a frame for each trigger that has
a look, and for an INSERT into a table whose keys count up a look at that count and a write of it, once for
each statement. So the ledger is not written to by what captures: the rows made are kept in a table of their
own while the statement lasts, and entered when it is done. And an entry is looked for before it is changed,
which opens one index instead of the table and all of its indexes. Triggers of the connection's own (TEMP)
would cost untagged connections little less, and each tagged one the making of those of all tables.
"""

# ruff: noqa: S608 - what is put into statements are names out of the models, never input

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice
from typing import Any, TypeVar

from django.db import DatabaseError, IntegrityError, OperationalError, transaction
from django.db.models import Model, QuerySet

from .base import Database, Sender, tell_touched
from .guards import (
    APPEND_ONLY,
    APPEND_ONLY_REFUSAL,
    FENCE,
    LEDGER,
    PREFIX,
    RECORDS,
    ROWS,
    RUN_HAS_ENDED,
    RUNS,
    STATEMENT,
    UNDER_WAY,
    GuardedTable,
    HeldGuard,
    digest_of,
    literal,
    with_dashes,
)

M = TypeVar("M", bound=Model)

#: The function by which a connection tells the trigger that it prunes the audit.
_PRUNING = "stagehand_audit_prune"
_ENABLE_TRIGGER = 1003  # SQLITE_DBCONFIG_ENABLE_TRIGGER, which older Pythons do not name

_POINTING = ("holding", "pointing")
_TRIGGERS = ("delete", "update", "key", "insert", "capture")
#: Those that earlier releases had besides.
_FORMER = ("crossing", "removing")
#: What writes, and what makes rows anew that are there already.
_WRITES = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:INSERT|REPLACE|UPDATE|DELETE|WITH)\b", re.IGNORECASE | re.DOTALL
)
_REPLACES = re.compile(r"\bREPLACE\s+INTO\b|\b(?:INSERT|UPDATE)\s+OR\s+REPLACE\b", re.IGNORECASE)
_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
_CLOSING = f"tombstone = id, removed_at = {_NOW}, reason = '', blocked_by = '{{}}'"
_CAPTURING = f"EXISTS (SELECT 1 FROM {STATEMENT} WHERE captured)"
_FENCED = f"EXISTS (SELECT 1 FROM {STATEMENT} WHERE fence <> 'off')"
_AWAKE = f"EXISTS (SELECT 1 FROM {UNDER_WAY})"
_RUN = f"(SELECT run_id FROM {UNDER_WAY})"


class SQLite(Database):
    """One writer at a time holds the whole file: whoever writes first has every lock there is."""

    can_guard = True
    can_capture = True
    closes_entries = True
    has_every_lock = True
    leaves_sets_open = True
    guards_hinder_rebuilds = True

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
        writes = isinstance(statement, str) and _WRITES.match(statement)
        if run is None or not (writes and (run.captured or run.fenced)):
            return execute(statement)
        reported = ""
        replaces = bool(_REPLACES.search(statement))
        if replaces and fence == "block":
            raise IntegrityError(f"{FENCE}a row that REPLACE makes anew")
        within = self.connection.in_atomic_block
        with nullcontext() if within else transaction.atomic(using=self.alias, savepoint=False):
            say = [run.pk, run.captured and not replaces, fence]
            self._by_the_driver(f"INSERT INTO {STATEMENT} (run_id, captured, fence) VALUES (?, ?, ?)", say)
            try:
                done = execute(statement)
                if not within and cursor.description:
                    # A statement whose rows have not all been read is in the way of the commit.
                    cursor.cursor = _ReadAhead(cursor.cursor)
                if fence == "report":
                    [reported] = self._by_the_driver(f"SELECT reported FROM {STATEMENT}")
            finally:
                try:
                    self._enter_rows(run.pk)
                finally:
                    self._by_the_driver(f"DELETE FROM {STATEMENT}")
        for table in sorted(set(reported.split())):
            tell_touched(run, table)
        return done

    def _enter_rows(self, run_id: int) -> None:
        """What the statement has made: of one that failed half-way, what is left of it."""
        if self._by_the_driver(f"SELECT 1 FROM {ROWS} LIMIT 1") is None:
            return
        with transaction.mark_for_rollback_on_error(using=self.alias):
            self._by_the_driver(
                f"INSERT INTO {LEDGER} (run_id, type, origin, state, reason, blocked_by, model, database,"
                " key_text, key_bigint, key_uuid, fingerprint, reference, tombstone, created_at)"
                " SELECT ?, type, 'captured', 'live', '', '{}', model, ?, key_text, key_bigint, key_uuid,"
                f" '{{}}', '', 0, {_NOW} FROM {ROWS} ORDER BY rowid",
                [run_id, self.alias],
            )
            self._by_the_driver(f"DELETE FROM {ROWS}")

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
        created = self._triggers(table)
        return [*self.unguard_sql(table.name), *(created[name] for name in sorted(created))]

    def _triggers(self, table: GuardedTable) -> dict[str, str]:
        quote = self.connection.ops.quote_name
        on = quote(table.table)
        changed, crossed = (
            "({}) IS NOT ({})".format(
                *(", ".join(f"{row}.{quote(column)}" for column in columns) for row in ("OLD", "NEW"))
            )
            if columns
            else "0"
            for columns in (table.watched, table.fenced)
        )
        key_changed = " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in map(quote, table.pk))
        # The plus keeps SQLite from the index over the run, which would read all of its entries at each row.
        entry = f"SELECT 1 FROM {LEDGER} WHERE {self._entry_of(table, 'OLD')} AND +run_id = {_RUN}"
        # Not a join: SQLite would read all entries into a filter for it, at each row.
        standing = f"SELECT id FROM {LEDGER} WHERE {self._entry_of(table, 'OLD')} AND +run_id = p.run_id"
        of_the_set = (
            f"SELECT 1 FROM {UNDER_WAY} p WHERE p.model = {literal(table.model)}"
            f" AND ({standing}) BETWEEN p.first AND p.last"
        )
        # In front of what closes its entry.
        of_the_test = (
            f"EXISTS (SELECT 1 FROM {LEDGER} WHERE {self._entry_of(table, 'OLD')}"
            f" AND +run_id = {STATEMENT}.run_id)"
            f" OR EXISTS (SELECT 1 FROM {ROWS} WHERE {self._made_as(table, 'OLD')})"
        )

        def fence(crossed: str) -> str:
            stranger = f"NOT {_AWAKE} AND {crossed} AND NOT ({of_the_test})"
            return (
                f"  SELECT RAISE(ABORT, {literal(table.touched)}) FROM {STATEMENT}"
                f" WHERE fence = 'block' AND {stranger};\n"
                f"  UPDATE {STATEMENT} SET reported = reported || {literal(table.table + chr(10))}"
                f" WHERE fence = 'report' AND {stranger};\n"
            )

        bodies = {
            "delete": f"AFTER DELETE ON {on} FOR EACH ROW"
            f" WHEN ({_AWAKE} OR EXISTS (SELECT 1 FROM {STATEMENT}) OR {self._stands(table, 'OLD')})"
            f" AND NOT EXISTS ({of_the_set}) BEGIN\n"
            f"{fence('1')}"
            f"  UPDATE {LEDGER} SET state = CASE WHEN {_AWAKE} THEN 'removed' ELSE 'gone' END, {_CLOSING}\n"
            f"    WHERE {self._entry_of(table, 'OLD')} AND run_id = coalesce({_RUN}, run_id);\n"
            f"  SELECT {_refuse(table, 'would have been deleted')} WHERE {_AWAKE} AND changes() <> 1;\n"
            f"  DELETE FROM {ROWS} WHERE {self._made_as(table, 'OLD')};\nEND",
            # Before what closes its entry. Not "UPDATE OF": a key goes by the name of rowid too.
            "update": f"BEFORE UPDATE ON {on} FOR EACH ROW"
            f" WHEN ({_AWAKE} OR {_FENCED}) AND ({changed} OR {key_changed}) BEGIN\n"
            f"{fence(crossed)}"
            f"  SELECT {_refuse(table, 'would have got another key')} WHERE {_AWAKE} AND ({key_changed});\n"
            f"  SELECT {_refuse(table, 'would have been changed')}"
            f" WHERE {_AWAKE} AND NOT EXISTS ({entry});\nEND",
            "key": f"AFTER UPDATE ON {on} FOR EACH ROW WHEN {key_changed} BEGIN\n"
            f"{self._gone(table, 'OLD')}{self._gone(table, 'NEW')}"
            f"  DELETE FROM {ROWS} WHERE {self._made_as(table, 'OLD')};\nEND",
            "insert": f"AFTER INSERT ON {on} FOR EACH ROW WHEN {self._stands(table, 'NEW')} BEGIN\n"
            f"{self._gone(table, 'NEW')}END",
            "capture": f"AFTER INSERT ON {on} FOR EACH ROW WHEN {_CAPTURING} BEGIN\n"
            f"{self._capture(table)}END",
        }
        if table.pointing == "block" and table.pointers:
            bodies |= self._pointing(table)
        return {
            f"{table.name}_{suffix}": f"CREATE TRIGGER {table.name}_{suffix} {body}"
            for suffix, body in bodies.items()
        }

    def _stands(self, table: GuardedTable, row: str) -> str:
        return f"EXISTS (SELECT 1 FROM {LEDGER} WHERE {self._entry_of(table, row)})"

    def _gone(self, table: GuardedTable, row: str) -> str:
        return f"  UPDATE {LEDGER} SET state = 'gone', {_CLOSING} WHERE {self._entry_of(table, row)};\n"

    def _pointing(self, table: GuardedTable) -> dict[str, str]:
        """A trigger for each way in which a row comes to hold another."""
        quote = self.connection.ops.quote_name
        held = " OR ".join(
            f"EXISTS (SELECT 1 FROM {LEDGER} WHERE model = {literal(model)}"
            f" AND {key} = NEW.{quote(column)} AND tombstone = 0)"
            for column, model, key in table.pointers
        )
        body = (
            f"ON {quote(table.table)} FOR EACH ROW"
            f" WHEN NOT EXISTS (SELECT 1 FROM {STATEMENT}) AND NOT {_AWAKE} AND ({held})"
            f" AND NOT {self._stands(table, 'NEW')}"
            f" BEGIN\n  SELECT RAISE(ABORT, {literal(table.pointed)});\nEND"
        )
        columns = ", ".join(quote(column) for column, *_ in table.pointers)
        return {"holding": f"AFTER INSERT {body}", "pointing": f"AFTER UPDATE OF {columns} {body}"}

    def _capture(self, table: GuardedTable) -> str:
        key = self._key_of(table, "NEW")
        open_ = f"SELECT 1 FROM {RUNS} r WHERE r.id = s.run_id AND r.state = 'open'"
        typed = {"key_bigint": "NULL", "key_uuid": "NULL", table.key: key}
        typed["key_text"] = self._text_of(table, "NEW")
        keys = ", ".join(typed[name] for name in ("key_text", "key_bigint", "key_uuid"))
        return (
            f"  SELECT RAISE(ABORT, {literal(RUN_HAS_ENDED)}) FROM {STATEMENT} s"
            f" WHERE NOT EXISTS ({open_});\n"
            f"  INSERT OR REPLACE INTO {ROWS} (model, type, key_text, key_bigint, key_uuid)"
            f" VALUES ({literal(table.model)}, {literal(table.type)}, {keys});\n"
            f"{self._marking(table) if table.mark else ''}"
        )

    def _made_as(self, table: GuardedTable, row: str) -> str:
        """Finds the row among those that the statement has made so far."""
        return f"model = {literal(table.model)} AND key_text = {self._text_of(table, row)}"

    def _text_of(self, table: GuardedTable, row: str) -> str:
        key = self._key_of(table, row)
        return with_dashes(key) if table.key == "key_uuid" else f"CAST({key} AS TEXT)"

    def _marking(self, table: GuardedTable) -> str:
        """Raw SQL does not know the column; the ORM has filled it in."""
        quote = self.connection.ops.quote_name
        mark = quote(table.mark)
        same = " AND ".join(f"{column} = NEW.{column}" for column in map(quote, table.pk))
        return (
            f"  UPDATE {quote(table.table)} SET {mark} = (SELECT run_id FROM {STATEMENT})"
            f" WHERE {same} AND {mark} IS NULL;\n"
        )

    def _entry_of(self, table: GuardedTable, row: str) -> str:
        key = self._key_of(table, row)
        return f"model = {literal(table.model)} AND {table.key} = {key} AND tombstone = 0"

    def unguard_sql(self, name: str) -> list[str]:
        return [f"DROP TRIGGER IF EXISTS {name}_{suffix}" for suffix in (*_TRIGGERS, *_FORMER, *_POINTING)]

    def record_sql(self, table: GuardedTable) -> list[str]:
        held = digest_of(sorted(self._triggers(table).values()))
        values = [literal(each) for each in (table.table, table.model, self.wanted_digest(table) + held)]
        statement = (
            f'INSERT OR REPLACE INTO {RECORDS} ("table", model, definition, installed_at)'
            f" VALUES ({', '.join(values)}, {_NOW})"
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
            name: HeldGuard(digest_of(sorted(texts)), len(texts) >= len(_TRIGGERS))
            for name, texts in found.items()
        }


class _ReadAhead:
    """A cursor whose statement is done: it has read all of its rows."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._rows: Iterator[Any] | None = iter(cursor.fetchall())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor) if self._rows is None else self._rows

    def execute(self, *args: Any) -> Any:
        self._rows = None
        return self._cursor.execute(*args)

    def executemany(self, *args: Any) -> Any:
        self._rows = None
        return self._cursor.executemany(*args)

    def fetchone(self) -> Any:
        return next(iter(self), None)

    def fetchmany(self, size: int = 1) -> list[Any]:
        return list(islice(iter(self), size))

    def fetchall(self) -> list[Any]:
        return list(self)


def _refuse(table: GuardedTable, what: str) -> str:
    return (
        f"RAISE(ABORT, {literal(f'stagehand guard: a row of {table.table} that is not of the run {what}')})"
    )
