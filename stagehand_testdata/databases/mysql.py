"""MariaDB and MySQL.

# Note [Guards on MariaDB]
A purge says whose rows it removes in a session variable. The promise is weaker than elsewhere: InnoDB's own
cascades and TRUNCATE fire no trigger, so a standing entry alone does not prove that its row is still the one
that was made, and the purge compares fingerprints as well.
"""

# ruff: noqa: S608 - what is put into statements are names out of the models, never input

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, OperationalError
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model

from .base import Database
from .guards import LEDGER, PREFIX, RECORDS, GuardedTable, HeldGuard, digest_of, literal

_DEADLOCK, _LOCK_WAIT_TIMEOUT = 1213, 1205
_VARIABLE = "@stagehand_purge"
_TRIGGERS = ("delete", "update")
_CLOSING = "tombstone = id, removed_at = CURRENT_TIMESTAMP(6), reason = '', blocked_by = '{}'"
#: The longest message that a trigger can raise.
_MESSAGE = 128


class MySQL(Database):
    share_suffix = "LOCK IN SHARE MODE"
    can_guard = True

    def chose_a_victim(self, error: OperationalError) -> bool:
        return _number(error) == _DEADLOCK

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

    # --- guards: see Note [Guards on MariaDB] ---

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
    def _set_for_session(self, name: str, value: int | None) -> Iterator[None]:
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

    def _say(self, name: str, value: int | None) -> int | None:
        """Returns the value before. By the driver: Django lets nothing through where a transaction failed."""
        variable = name if name.startswith("@") else f"@@session.{name}"
        self.connection.ensure_connection()
        with self.connection.wrap_database_errors, self.connection.connection.cursor() as cursor:
            cursor.execute(f"SELECT {variable}")
            [before] = cursor.fetchone()
            cursor.execute(f"SET {variable} = {'NULL' if value is None else int(value)}")
        return None if before is None else int(before)

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
        same = " AND ".join(
            f"BINARY OLD.{column} <=> BINARY NEW.{column}" for column in map(quote, table.watched)
        )
        of_run = f"SELECT 1 FROM {LEDGER} WHERE {entry} AND run_id = {_VARIABLE}"
        return {
            "delete": "BEGIN\n"
            f"  UPDATE {LEDGER} SET state = IF({_VARIABLE} IS NULL, 'gone', 'removed'), {_CLOSING}\n"
            f"    WHERE {entry} AND ({_VARIABLE} IS NULL OR run_id = {_VARIABLE});\n"
            f"  IF {_VARIABLE} IS NOT NULL AND ROW_COUNT() <> 1 THEN\n"
            f"    {_refuse(table, 'deleted')};\n  END IF;\nEND",
            "update": "BEGIN\n"
            f"  IF NOT ({same_key}) THEN\n"
            f"    IF {_VARIABLE} IS NOT NULL THEN {_refuse(table, 'given another key')}; END IF;\n"
            f"    UPDATE {LEDGER} SET state = 'gone', {_CLOSING} WHERE {entry};\n"
            f"  ELSEIF {_VARIABLE} IS NOT NULL AND NOT ({same or 'TRUE'}) AND NOT EXISTS ({of_run}) THEN\n"
            f"    {_refuse(table, 'changed')};\n  END IF;\nEND",
        }

    def _entry_of(self, table: GuardedTable) -> str:
        columns = [f"OLD.{self.connection.ops.quote_name(column)}" for column in table.pk]
        if len(columns) > 1:
            key = "CONCAT('[\"', " + ", '\", \"', ".join(columns) + ", '\"]')"
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


def _refuse(table: GuardedTable, what: str) -> str:
    said = f"stagehand guard: a row that is not of the run would have been {what}: {table.table}"[:_MESSAGE]
    # The number by which Django knows a broken reference.
    return f"SIGNAL SQLSTATE '23000' SET MYSQL_ERRNO = 1451, MESSAGE_TEXT = {literal(said)}"


def _number(error: OperationalError) -> int | None:
    return error.args[0] if error.args else None
