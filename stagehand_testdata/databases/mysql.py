"""MariaDB and MySQL.

# Note [Guards on MariaDB]
A purge says whose rows it removes in a session variable, a statement of a run whose it is in others. The
promise is weaker than elsewhere: InnoDB's own cascades and TRUNCATE fire no trigger, so a standing entry
alone does not prove that its row is still the one that was made, and the purge compares fingerprints as well.
"""

# ruff: noqa: S608 - what is put into statements are names out of the models, never input

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from django.db import DatabaseError, OperationalError, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model

from .base import Database, Sender, complete_entries, tell_touched
from .guards import (
    APPEND_ONLY,
    APPEND_ONLY_REFUSAL,
    LEDGER,
    PREFIX,
    RECORDS,
    RUN_HAS_ENDED,
    RUNS,
    GuardedTable,
    HeldGuard,
    digest_of,
    literal,
)

_DEADLOCK, _LOCK_WAIT_TIMEOUT, _NO_SUCH_TABLE = 1213, 1205, 1146
_TIMEOUTS = (1969, 3024)
_VARIABLE = "@stagehand_purge"
_PRUNING = "@stagehand_audit_prune"
#: A statement's run, whether what it inserts is that run's, FENCE, the first entry of what it inserted, and
#: the tables of which it touched rows that are not the run's.
_RUN, _CAPTURED, _FENCE = "@stagehand_run", "@stagehand_captured", "@stagehand_fence"
_FIRST, _TOUCHED = "@stagehand_first", "@stagehand_touched"
_WRITES = re.compile(
    r"(?:\s|#[^\n]*\n|--[^\n]*\n|/\*.*?\*/)*(?:INSERT|REPLACE|UPDATE|DELETE|WITH|LOAD|CALL)\b",
    re.IGNORECASE | re.DOTALL,
)
_TRIGGERS = ("delete", "update", "insert")
_CLOSING = "tombstone = id, removed_at = CURRENT_TIMESTAMP(6), reason = '', blocked_by = '{}'"
#: The longest message that a trigger can raise.
_MESSAGE = 128


class MySQL(Database):
    share_suffix = "LOCK IN SHARE MODE"
    can_guard = True
    can_capture = True

    def chose_a_victim(self, error: OperationalError) -> bool:
        return _number(error) == _DEADLOCK

    @contextmanager
    def atomic_alone(self, name: str) -> Iterator[bool]:
        # The session's lock, so it is let go of by hand, once the transaction has ended.
        lock = f"stagehand_{name[:48]}"
        [alone] = self._by_the_driver("SELECT GET_LOCK(%s, 0)", [lock])
        if not alone:
            yield False
            return
        try:
            with transaction.atomic(using=self.alias):
                yield True
        finally:
            with suppress(DatabaseError):  # a connection that is lost has lost it too
                self._by_the_driver("SELECT RELEASE_LOCK(%s)", [lock])

    def compare_exactly(
        self, editor: BaseDatabaseSchemaEditor, model: type[Model], fields: tuple[str, ...]
    ) -> None:
        quote = editor.connection.ops.quote_name
        for name in fields:
            column: Any = model._meta.get_field(name)
            kind = column.db_type(editor.connection)
            editor.execute(
                f"ALTER TABLE {quote(model._meta.db_table)} MODIFY {quote(column.column)} {kind}"
                " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
            )

    def append_only_sql(self, table: str) -> list[str]:
        on, refuse = self.connection.ops.quote_name(table), _signal(APPEND_ONLY_REFUSAL)
        unless_pruning = f"IF NOT ({_PRUNING} <=> CONNECTION_ID()) THEN {refuse}; END IF"
        return [
            f"CREATE TRIGGER {APPEND_ONLY}_update BEFORE UPDATE ON {on} FOR EACH ROW {refuse}",
            f"CREATE TRIGGER {APPEND_ONLY}_delete BEFORE DELETE ON {on} FOR EACH ROW {unless_pruning}",
        ]

    def not_append_only_sql(self, table: str) -> list[str]:
        return [f"DROP TRIGGER IF EXISTS {APPEND_ONLY}_{suffix}" for suffix in ("update", "delete")]

    @contextmanager
    def pruning_audit(self) -> Iterator[None]:
        [connection_id] = self._by_the_driver("SELECT CONNECTION_ID()")
        with self._set_for_session(_PRUNING, connection_id):
            yield

    def let_flush_through(self) -> None:
        self._flush_with(self.pruning_audit)

    # --- guards: see Note [Guards on MariaDB] ---

    def send(self, sender: Sender, statement: Any, execute: Callable[[Any], Any], cursor: Any) -> Any:
        run, fence, _ = sender
        if run is None or not (run.captured or run.fenced) or not _WRITES.match(_text(statement)):
            return execute(statement)
        with nullcontext() if self.connection.in_atomic_block else transaction.atomic(using=self.alias):
            self._by_the_driver(
                f"SET {_RUN} = %s, {_CAPTURED} = %s, {_FENCE} = %s, {_FIRST} = NULL, {_TOUCHED} = NULL",
                [run.pk, run.captured or None, None if fence == "off" else fence],
            )
            try:
                done = execute(statement)
                first, touched = self._by_the_driver(f"SELECT {_FIRST}, {_TOUCHED}")
            finally:
                self._forget()
            if first is not None:
                complete_entries(self.alias, run, int(first))
        for table in sorted(set(_text(touched or b"").split())):
            tell_touched(run, table)
        return done

    def _forget(self) -> None:
        """What it was told outlives the statement: a connection that cannot forget it is not used again."""
        try:
            self._by_the_driver(f"SET {_RUN} = NULL, {_CAPTURED} = NULL, {_FENCE} = NULL")
        except DatabaseError:
            with suppress(DatabaseError):
                self.connection.close()

    def _by_the_driver(self, statement: str, params: Sequence[Any] = ()) -> Any:
        """The first row of the answer. Django lets nothing through where a transaction failed."""
        self.connection.ensure_connection()
        with self.connection.wrap_database_errors, self.connection.connection.cursor() as cursor:
            cursor.execute(statement, params)
            return cursor.fetchone()

    @contextmanager
    def purging(self, run_id: int) -> Iterator[None]:
        self._require_transaction()
        with self._set_for_session(_VARIABLE, run_id):
            yield

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        with self._set_for_session(_VARIABLE, None):
            yield

    @contextmanager
    def locking_briefly(self) -> Iterator[None]:
        with (
            self._set_for_session("lock_wait_timeout", 5),
            self._set_for_session("innodb_lock_wait_timeout", 5),
        ):
            yield

    @contextmanager
    def limiting_statements(self, seconds: float) -> Iterator[None]:
        # MySQL can limit a SELECT alone, and counts in milliseconds.
        connection: Any = self.connection
        if connection.mysql_is_mariadb:
            setting = self._set_for_session("max_statement_time", seconds)
        else:
            setting = self._set_for_session("max_execution_time", max(round(seconds * 1000), 1))
        with setting:
            yield

    def is_statement_timeout(self, error: OperationalError) -> bool:
        return _number(error) in _TIMEOUTS

    @contextmanager
    def _set_for_session(self, name: str, value: float | None) -> Iterator[None]:
        before = self._say(name, value)
        try:
            yield
        finally:
            # It outlives the transaction: a connection that cannot take it back is not used again.
            try:
                self._say(name, before)
            except DatabaseError:
                with suppress(DatabaseError):
                    self.connection.close()

    def _say(self, name: str, value: Any) -> Any:
        """Returns the value before."""
        variable = name if name.startswith("@") else f"@@session.{name}"
        [before] = self._by_the_driver(f"SELECT {variable}")
        self._by_the_driver(f"SET {variable} = {'NULL' if value is None else value}")
        return int(before) if isinstance(before, str | bytes) else before

    def is_missing_table(self, error: DatabaseError) -> bool:
        return _number(error) == _NO_SUCH_TABLE

    def is_lock_timeout(self, error: OperationalError) -> bool:
        return _number(error) == _LOCK_WAIT_TIMEOUT

    def guard_sql(self, table: GuardedTable) -> list[str]:
        on = self.connection.ops.quote_name(table.table)
        statements = []
        for suffix, body in self._bodies(table).items():
            name = f"{table.name}_{suffix}"
            statements.append(f"DROP TRIGGER IF EXISTS {name}")
            statements.append(f"CREATE TRIGGER {name} AFTER {suffix.upper()} ON {on} FOR EACH ROW {body}")
        return statements

    def _bodies(self, table: GuardedTable) -> dict[str, str]:
        quote = self.connection.ops.quote_name
        entry = self._entry_of(table)
        same_key = " AND ".join(f"OLD.{column} <=> NEW.{column}" for column in map(quote, table.pk))
        # Byte by byte: a collation takes some changes for none.
        same, unfenced = (
            " AND ".join(f"BINARY OLD.{column} <=> BINARY NEW.{column}" for column in map(quote, columns))
            for columns in (table.watched, table.fenced)
        )
        of_run = f"SELECT 1 FROM {LEDGER} WHERE {entry} AND run_id = {_VARIABLE}"
        stranger = (
            f"{_FENCE} IS NOT NULL AND {_VARIABLE} IS NULL"
            f" AND NOT EXISTS (SELECT 1 FROM {LEDGER} WHERE {entry} AND run_id = {_RUN})"
        )
        touched = (
            f"    IF {_FENCE} = 'block' THEN {_signal(table.touched)}; END IF;\n"
            f"    SET {_TOUCHED} = CONCAT_WS(' ', {_TOUCHED}, {literal(table.table)});\n"
        )
        pointing = self._pointing(table)
        return {
            "insert": f"BEGIN\n{pointing}{self._capture(table)}END",
            "delete": "BEGIN\n"
            f"  IF {stranger} THEN\n{touched}  END IF;\n"
            f"  UPDATE {LEDGER} SET state = IF({_VARIABLE} IS NULL, 'gone', 'removed'), {_CLOSING}\n"
            f"    WHERE {entry} AND ({_VARIABLE} IS NULL OR run_id = {_VARIABLE});\n"
            f"  IF {_VARIABLE} IS NOT NULL AND ROW_COUNT() <> 1 THEN\n"
            f"    {_refuse(table, 'deleted')};\n  END IF;\nEND",
            "update": f"BEGIN\n{pointing}"
            f"  IF NOT ({unfenced or 'TRUE'}) AND {stranger} THEN\n{touched}  END IF;\n"
            f"  IF NOT ({same_key}) THEN\n"
            f"    IF {_VARIABLE} IS NOT NULL THEN {_refuse(table, 'given another key')}; END IF;\n"
            f"    UPDATE {LEDGER} SET state = 'gone', {_CLOSING} WHERE {entry};\n"
            f"  ELSEIF {_VARIABLE} IS NOT NULL AND NOT ({same or 'TRUE'}) AND NOT EXISTS ({of_run}) THEN\n"
            f"    {_refuse(table, 'changed')};\n  END IF;\nEND",
        }

    def _pointing(self, table: GuardedTable) -> str:
        if table.pointing != "block" or not table.pointers:
            return ""
        held = " OR ".join(
            f"EXISTS (SELECT 1 FROM {LEDGER} WHERE model = {literal(model)} AND {key} ="
            f" NEW.{self.connection.ops.quote_name(column)} AND tombstone = 0)"
            for column, model, key in table.pointers
        )
        entry = self._entry_of(table).replace("OLD.", "NEW.")
        return (
            f"  IF {_RUN} IS NULL AND {_VARIABLE} IS NULL AND ({held})"
            f" AND NOT EXISTS (SELECT 1 FROM {LEDGER} WHERE {entry}) THEN {_signal(table.pointed)}; END IF;\n"
        )

    def _capture(self, table: GuardedTable) -> str:
        columns = [f"NEW.{self.connection.ops.quote_name(column)}" for column in table.pk]
        key = columns[0]
        text = f"CAST({key} AS CHAR)" if len(columns) == 1 else _joined(columns)
        if table.key == "key_uuid" and not self.connection.features.has_native_uuid_field:
            text = f"INSERT(INSERT(INSERT(INSERT({key}, 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
        typed = {"key_bigint": "NULL", "key_uuid": "NULL", table.key: key, "key_text": text}
        keys = ", ".join(typed[name] for name in ("key_text", "key_bigint", "key_uuid"))
        return (
            f"  IF {_CAPTURED} IS NOT NULL THEN\n"
            f"    IF NOT EXISTS (SELECT 1 FROM {RUNS} WHERE id = {_RUN} AND state = 'open'"
            f" LOCK IN SHARE MODE) THEN {_signal(RUN_HAS_ENDED)}; END IF;\n"
            f"    INSERT INTO {LEDGER} (run_id, type, origin, state, reason, blocked_by, model, `database`,"
            " key_text, key_bigint, key_uuid, fingerprint, reference, tombstone, created_at)"
            f" VALUES ({_RUN}, {literal(table.type)}, 'captured', 'live', '', '{{}}', {literal(table.model)},"
            f" {literal(self.alias)}, {keys}, '{{}}', '', 0, CURRENT_TIMESTAMP(6));\n"
            f"    SET {_FIRST} = COALESCE({_FIRST}, LAST_INSERT_ID());\n  END IF;\n"
        )

    def _entry_of(self, table: GuardedTable) -> str:
        columns = [f"OLD.{self.connection.ops.quote_name(column)}" for column in table.pk]
        if len(columns) > 1:
            key = _joined(columns)
        elif table.key == "key_text":
            # The ledger's own comparison: byte by byte, and by its index.
            key = f"CONVERT({columns[0]} USING utf8mb4) COLLATE utf8mb4_bin"
        else:
            key = columns[0]
        return f"model = {literal(table.model)} AND {table.key} = {key} AND tombstone = 0"

    def unguard_sql(self, name: str) -> list[str]:
        return [f"DROP TRIGGER IF EXISTS {name}_{suffix}" for suffix in _TRIGGERS]

    def record_sql(self, table: GuardedTable) -> list[str]:
        bodies = self._bodies(table)
        held = digest_of([f"AFTER {suffix.upper()} {bodies[suffix]}" for suffix in sorted(bodies)])
        values = [literal(each) for each in (table.table, table.model, self.wanted_digest(table) + held)]
        statement = (
            f"REPLACE INTO {RECORDS} (`table`, model, definition, installed_at)"
            f" VALUES ({', '.join(values)}, CURRENT_TIMESTAMP(6))"
        )
        return [statement]

    def held_guards(self) -> dict[str, HeldGuard]:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT trigger_name, action_timing, event_manipulation, action_statement"
                " FROM information_schema.triggers"
                " WHERE trigger_schema = database() AND LEFT(trigger_name, %s) = %s",
                [len(PREFIX), PREFIX],
            )
            found: dict[str, dict[str, str]] = {}
            for name, timing, event, body in cursor.fetchall():
                guard, _, suffix = name.rpartition("_")
                found.setdefault(guard, {})[suffix] = f"{timing} {event} {body}"
        return {
            name: HeldGuard(
                digest_of([parts[suffix] for suffix in sorted(parts)]), set(parts) == set(_TRIGGERS)
            )
            for name, parts in found.items()
        }

    def as_script(self, statements: list[str]) -> list[str]:
        # The command line takes the semicolons within a trigger for ends.
        return ["DELIMITER //", *(f"{statement}//" for statement in statements), "DELIMITER ;"]


def _joined(columns: list[str]) -> str:
    """The key of several columns as the ledger writes it."""
    return "CONCAT('[\"', " + ", '\", \"', ".join(columns) + ", '\"]')"


def _text(statement: Any) -> str:
    return statement.decode(errors="replace") if isinstance(statement, bytes) else str(statement)


def _refuse(table: GuardedTable, what: str) -> str:
    return _signal(f"stagehand guard: a row that is not of the run would have been {what}: {table.table}")


def _signal(said: str) -> str:
    # The number by which Django knows a broken reference.
    return f"SIGNAL SQLSTATE '23000' SET MYSQL_ERRNO = 1451, MESSAGE_TEXT = {literal(said[:_MESSAGE])}"


def _number(error: DatabaseError) -> int | None:
    return error.args[0] if error.args else None
