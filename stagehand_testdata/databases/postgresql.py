"""PostgreSQL.

# Note [Guards on PostgreSQL]
A table has two functions, one that enters what a run's statement inserts and one for all else, and triggers
that call them. The delete trigger looks at all rows of a statement at once, and fires for the rows that a
foreign key's cascade takes along. All are ENABLE ALWAYS, so that `session_replication_role = replica` does
not pass them by. The functions run with their owner's rights: whoever deletes rows of a guarded table needs
none on the ledger. Hash and merge joins are off within the second, because its plan is kept: one made for a
bulk delete would read the whole ledger at each single delete after it. The first joins nothing, and each
setting that a function brings along is put on and off at every call.

# Note [Which index]
Which entry a row has is asked by a subquery for one value, which the planner cannot make a join of: where the
statistics are old it would read all that the run has made, at each row. A row has one standing entry. Entries
are closed by their ids alone, and the run is no condition that an index could serve: `run_id + 0`.

# Note [How a trigger knows the run]
From a comment at the start of the statement, by `current_query()`. A setting of the session would stay on for
whoever gets the connection next, from Django or from a pooler; one of the transaction does nothing in
autocommit, and is taken back with a savepoint. A comment begins and ends with its statement. It counts at the
start alone: further on it could be anybody's text. Without it no trigger of these does more than look for it.
The text may be long, and each look copies it, so nothing looks at it for each row: of an update, a trigger
before the statement raises the fence by a setting, which its rows ask for. The setting is the time of the
statement that was sent: of that one and of what it does within the database, and of no other.

PostgreSQL reads a trigger's condition anew from its text for every statement, at microseconds each. So there
are few, they are short, and the one that each updated row asks is the same for the fence and for a purge.

# Note [Who holds the run]
The first statement that makes rows holds the run until its transaction ends, and says so in a setting of that
transaction, which a savepoint takes back together with the lock. The statements after it need not ask again.

# Note [Policies on PostgreSQL]
Two policies to a table: one lets every row through, the other, a restrictive one, takes the hidden rows away
again. Django drops a column with CASCADE, and with it a policy that names the column: a table whose only
policy is gone would show nobody anything. And what is restrictive no other policy can undo. The run is read
once for each statement (a subselect), not for each row. Rows of a named cursor are looked at while FETCH
runs, or as its transaction commits (WITH HOLD), when nothing runs: what was declared is in `pg_cursors`.
"""

# ruff: noqa: S608 - what is put into statements are names out of the models, never input

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from django.db import DatabaseError, OperationalError, transaction
from django.db.backends.postgresql.psycopg_any import sql
from django.db.models import Model, QuerySet

from .base import Database, Sender
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
    HeldPolicy,
    key_of,
    literal,
)

_DEADLOCK, _SERIALIZATION, _LOCK_NOT_AVAILABLE = "40P01", "40001", "55P03"
#: The run whose rows a purge removes; or, after an `@`, the time of a statement that raised the fence.
_SETTING = "stagehand.awake"
#: The run that this transaction holds. See Note [Who holds the run].
_HELD_RUN = "stagehand.held"
_QUERY_CANCELED = "57014"
_UNDEFINED_TABLE = "42P01"
#: What a statement that is sent under a run begins with, by what is done about its rows.
_CAPTURED, _FENCED, _PLAIN = "/*stagehand:capture", "/*stagehand:enter", "/*stagehand"
#: What comes next where it must see every row.
_ALL_ROWS = "/*stagehand all rows*/ "
#: What it says there, for a function that is called only where it is there; and of that, which run it is.
_TAG = "split_part(left(current_query(), 100), '*/', 1)"
_RUN_OF_TAG = "split_part(split_part(sent, 'run=', 2), ' ', 1)::bigint"
_SEEN, _SHOWN, _HIDDEN = "stagehand_seen_run", "stagehand_any_row", "stagehand_test_rows"
#: The transaction that may delete rows of the audit.
_PRUNING = "stagehand.audit_prune"
#: How the function that enters rows is called, after the one that does all else.
_MADE = "_made"
_TRIGGERS = ("delete", "raise", "fence", "insert", "key", "truncate")

#: Enters the rows that a statement of a run has inserted.
_ENTERING = """\
CREATE OR REPLACE FUNCTION {entering}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
AS $guard$
DECLARE
  sent text := {tag};
  test bigint := {run_of_tag};
BEGIN
  IF test::text IS DISTINCT FROM current_setting('{held}', true) THEN
    PERFORM 1 FROM {runs} AS open WHERE open.id = test AND open.state = 'open' FOR SHARE;
    IF NOT FOUND THEN
      RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = {run_has_ended};
    END IF;
    PERFORM set_config('{held}', test::text, true);
  END IF;
  INSERT INTO {ledger} (run_id, type, origin, state, reason, blocked_by, model, database, key_text,
      key_bigint, key_uuid, fingerprint, reference, tombstone, created_at)
    SELECT test, {type}, 'captured', 'live', '', '{{}}', {model}, {alias}, {key_text},
      {key_bigint}, {key_uuid}, '{{}}', '', 0, statement_timestamp() FROM made AS row_;{marking}
  RETURN NULL;
END
$guard$"""

_FUNCTION = """\
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off
AS $guard$
DECLARE
  awake text;
  run text;
  sent text;
  ended bigint;
  asked bigint;
  test bigint;
  fence text := 'off';
BEGIN
  awake := coalesce(current_setting('{setting}', true), '');
  run := CASE WHEN awake ^@ '@' THEN '' ELSE awake END;
  IF TG_ARGV[0] = 'raise' THEN
    IF run = '' THEN
      PERFORM set_config('{setting}', '@' || statement_timestamp(), true);
    END IF;
    RETURN NULL;
  END IF;
  IF run = '' AND (TG_OP IN ('DELETE', 'TRUNCATE') OR awake = '@' || statement_timestamp())
    AND TG_ARGV[0] IS DISTINCT FROM 'key' AND current_query() ^@ '{plain}:' THEN
    sent := {tag};
    test := {run_of_tag};
    fence := split_part(sent, 'fence=', 2);
  END IF;
  IF fence <> 'off' THEN
    IF TG_OP = 'DELETE' THEN
      SELECT count(*) INTO asked FROM gone AS row_ WHERE test IS DISTINCT FROM (
        SELECT entry.run_id FROM {ledger} AS entry WHERE {entry_of_row});
    ELSIF TG_OP = 'TRUNCATE' THEN
      asked := 1;
    ELSE
      SELECT count(*) INTO asked WHERE {fenced}OLD *<> NEW AND test IS DISTINCT FROM (
        SELECT entry.run_id FROM {ledger} AS entry WHERE {entry_of_old});
    END IF;
    IF asked > 0 AND fence = 'block' THEN
      RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = {touched};
    ELSIF asked > 0 THEN
      RAISE WARNING USING MESSAGE = {touched}, TABLE = {table_literal};
    END IF;
  END IF;
  IF TG_ARGV[0] = 'pointing' THEN
    IF {holds_a_test_row}NOT current_query() ^@ '{plain}'
      AND NOT EXISTS (SELECT 1 FROM {ledger} AS entry WHERE {entry_of_new}) THEN
      RAISE {level} USING {errcode}MESSAGE = {pointed}, TABLE = {table_literal};
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    IF run <> '' THEN
      UPDATE {ledger} AS closed SET state = 'removed', {closing}
        WHERE closed.id = {entries_gone} AND closed.run_id + 0 = run::bigint;
      GET DIAGNOSTICS ended = ROW_COUNT;
      SELECT count(*) INTO asked FROM gone;
      IF ended <> asked THEN
        RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'stagehand guard: of ' || asked
          || {row_s_of_table} || ' that would have been deleted, ' || ended || ' are of the run ' || run;
      END IF;
    ELSE
      UPDATE {ledger} AS closed SET state = 'gone', {closing} WHERE closed.id = {entries_gone};
    END IF;
  ELSIF TG_OP = 'TRUNCATE' THEN
    IF run <> '' THEN
      RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'stagehand guard: a purge does not truncate '
        || {table_literal};
    END IF;
    UPDATE {ledger} AS closed SET state = 'gone', {closing}
      WHERE closed.model = {model} AND closed.tombstone = 0;
  ELSIF TG_ARGV[0] = 'key' THEN
    IF run <> '' THEN
      RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'stagehand guard: a purge does not change a key of '
        || {table_literal};
    END IF;
    UPDATE {ledger} AS closed SET state = 'gone', {closing}
      WHERE closed.id = (SELECT entry.id FROM {ledger} AS entry WHERE {entry_of_old});
  ELSIF run <> '' AND {changed}OLD *<> NEW AND NOT EXISTS (
    SELECT 1 FROM {ledger} AS entry WHERE {entry_of_old} AND entry.run_id = run::bigint
  ) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'stagehand guard: a row of ' || {table_literal}
      || ' that would have been changed is not of the run ' || run;
  END IF;
  RETURN NULL;
END
$guard$"""

# A trigger of an earlier release. It is looked for first: to drop one that is not there locks the table, too.
_RETIRING = """\
DO $do$ BEGIN
  IF EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = {table}::regclass AND tgname = '{name}') THEN
    DROP TRIGGER {name} ON {on};
  END IF;
END $do$"""

_APPEND_ONLY_FUNCTION = f"""\
CREATE OR REPLACE FUNCTION {{function}}() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
AS $append_only$
BEGIN
  IF TG_OP = 'DELETE' AND current_setting('{_PRUNING}', true) = pg_current_xact_id()::text THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = {{message}};
END
$append_only$"""

# The run whose rows the statement may see: none, one, or -1 for all.
_SEEN_FUNCTION = r"""CREATE OR REPLACE FUNCTION {function}() RETURNS bigint
  LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $seen$
DECLARE
  sent text := left(current_query(), 300);
BEGIN
  IF sent IS NULL THEN
    SELECT CASE count(*) WHEN 1 THEN left(max(statement), 300) END INTO sent
      FROM pg_cursors WHERE is_holdable AND creation_time >= transaction_timestamp();
  ELSIF starts_with(sent, 'FETCH ') THEN
    SELECT left(statement, 300) INTO sent FROM pg_cursors WHERE name = substring(sent FROM ' FROM "(.*)"$');
  END IF;
  IF starts_with(sent, 'DECLARE ') THEN
    sent := substring(sent FROM '^DECLARE "[^"]*" (?:NO )?(?:SCROLL )?CURSOR (?:WITH HOLD )?FOR (.*)');
  END IF;
  IF sent ~ '^(/\*stagehand(:\w+)? run=[0-9]+( \S+)?\*/ )?/\*stagehand all rows\*/ ' THEN
    RETURN -1;
  END IF;
  RETURN substring(sent FROM '^/\*stagehand(?::\w+)? run=([0-9]{{1,18}})[ *]');
END
$seen$"""

_HELD_POLICIES = f"""\
SELECT c.relname::text,
  count(p.oid) FILTER (WHERE p.polname IN ('{_SHOWN}', '{_HIDDEN}')),
  c.relrowsecurity AND c.relforcerowsecurity,
  max(obj_description(p.oid, 'pg_policy')) FILTER (WHERE p.polname = '{_HIDDEN}'),
  {{digest}}
FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid
WHERE c.relkind IN ('r', 'p') AND (c.relrowsecurity OR p.oid IS NOT NULL) AND pg_table_is_visible(c.oid)
GROUP BY c.oid"""
_POLICY_DIGEST = f"""\
md5(string_agg(concat_ws('|', p.polname, p.polpermissive, p.polcmd, p.polroles::text,
  replace(pg_get_expr(p.polqual, p.polrelid), {{schema}} || '.', ''), pg_get_expr(p.polwithcheck, p.polrelid),
  (SELECT concat_ws('|', f.prosrc, f.proconfig::text) FROM pg_proc f WHERE f.oid = to_regproc({{function}}))),
  '|' ORDER BY p.polname) FILTER (WHERE p.polname IN ('{_SHOWN}', '{_HIDDEN}')))"""

_CLOSING = "tombstone = closed.id, removed_at = statement_timestamp(), reason = '', blocked_by = '{}'"

# How the catalogue's own view of a guard becomes one text. `pg_get_triggerdef` writes the function's name
# with its schema or without, depending on the search path of who asks: so what follows it is cut off.
_HELD = f"""\
SELECT regexp_replace(proname, '{_MADE}$', '') AS name,
  md5(string_agg(definition, '|' ORDER BY proname)) AS digest,
  sum(triggers) AS triggers, bool_or(disabled) AS disabled
FROM (
  SELECT p.proname::text, concat_ws('|', p.prosrc, p.proconfig::text, p.prosecdef, string_agg(concat_ws('|',
      t.tgname, t.tgenabled, t.tgargs, split_part(pg_get_triggerdef(t.oid), ' EXECUTE ', 1)), '|'
      ORDER BY t.tgname)) AS definition,
    count(t.oid) AS triggers, coalesce(bool_or(t.tgenabled = 'D'), false) AS disabled
  FROM pg_proc p LEFT JOIN pg_trigger t ON t.tgfoid = p.oid
  WHERE p.proname LIKE '{PREFIX.replace("_", chr(92) + "_")}%' AND p.pronamespace = {{schema}}::regnamespace
  GROUP BY p.oid
) AS functions
GROUP BY 1"""


class PostgreSQL(Database):
    share_suffix = "FOR SHARE OF {table}"
    can_guard = True
    closes_entries = True
    can_capture = True
    can_hide_rows = True
    says_broken_references = True

    # See Note [How a trigger knows the run].
    def send(self, sender: Sender, statement: Any, execute: Callable[[Any], Any], cursor: Any) -> Any:
        run, fence, all_rows = sender
        tag = _ALL_ROWS if all_rows else ""
        if run is not None and (run.captured or run.fenced):
            tag = f"{_CAPTURED if run.captured else _FENCED} run={run.pk} fence={fence}*/ {tag}"
        elif run is not None:
            tag = f"{_PLAIN} run={run.pk}*/ {tag}"
        return execute(self._tagged(tag, statement))

    @staticmethod
    def _tagged(tag: str, statement: Any) -> Any:
        if isinstance(statement, str):
            return tag + statement
        if isinstance(statement, bytes):
            return tag.encode() + statement
        return sql.SQL(tag) + statement

    def chose_a_victim(self, error: OperationalError) -> bool:
        return _state(error) in (_DEADLOCK, _SERIALIZATION)

    @contextmanager
    def atomic_alone(self, name: str) -> Iterator[bool]:
        # The transaction's own lock: a pooler hands it to nobody, and no crash leaves it behind.
        number = int.from_bytes(bytes.fromhex(name)[:8], signed=True)
        with transaction.atomic(using=self.alias), self.connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [number])
            [alone] = cursor.fetchone()
            yield alone

    def append_only_sql(self, table: str) -> list[str]:
        on, function = self._qualified(table), self._function(APPEND_ONLY)
        body = _APPEND_ONLY_FUNCTION.format(function=function, message=literal(APPEND_ONLY_REFUSAL))
        trigger = f"CREATE TRIGGER {APPEND_ONLY} BEFORE UPDATE OR DELETE ON {on} FOR EACH ROW"
        # TRUNCATE passes by: it is what empties a test database.
        return [
            body,
            f"{trigger} EXECUTE FUNCTION {function}()",
            f"ALTER TABLE {on} ENABLE ALWAYS TRIGGER {APPEND_ONLY}",
        ]

    def not_append_only_sql(self, table: str) -> list[str]:
        return [
            f"DROP TRIGGER IF EXISTS {APPEND_ONLY} ON {self._qualified(table)}",
            f"DROP FUNCTION IF EXISTS {self._function(APPEND_ONLY)}()",
        ]

    @contextmanager
    def pruning_audit(self) -> Iterator[None]:
        # The transaction's own number: set for longer, it opens nothing.
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()::text")
            [number] = cursor.fetchone()
        with self._set_locally(_PRUNING, number):
            yield

    def lock_free(self, rows: QuerySet[Model]) -> int:
        select, params = self.skipping_locked(rows.values_list("pk")).query.sql_with_params()
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM ({select}) AS locked", params)
            [count] = cursor.fetchone()
        return int(count)

    def let_go_of_run(self) -> None:
        self.execute("SELECT set_config(%s, '', true)", [_HELD_RUN])

    def prepare_for_many(self) -> None:
        # A few thousand keys against a large table look to the planner like a case for reading all of it.
        self.execute(
            "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),"
            " set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true),"
            # A batch that a crash of the server takes back is done again; the receipt's commit waits for all.
            " set_config('synchronous_commit', 'off', true)"
        )

    def surface_broken_references(self) -> None:
        # Django's foreign keys are deferred: without this the commit would be the first to complain.
        self.execute("SET CONSTRAINTS ALL IMMEDIATE")
        self.execute("SET CONSTRAINTS ALL DEFERRED")

    # --- guards: see Note [Guards on PostgreSQL] ---

    @contextmanager
    def purging(self, run_id: int) -> Iterator[None]:
        self._require_transaction()
        with self._set_locally(_SETTING, str(run_id)):
            yield

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        with self._set_locally(_SETTING, ""):
            yield

    @contextmanager
    def locking_briefly(self) -> Iterator[None]:
        with self._set_locally("lock_timeout", "5s"):
            yield

    @contextmanager
    def hardly_waiting(self) -> Iterator[None]:
        with self._set_locally("lock_timeout", "50ms"):
            yield

    @contextmanager
    def limiting_statements(self, seconds: float) -> Iterator[None]:
        self.execute(f"SET LOCAL statement_timeout = {max(round(seconds * 1000), 1)}")
        yield

    def is_statement_timeout(self, error: OperationalError) -> bool:
        return _state(error) == _QUERY_CANCELED

    @contextmanager
    def _set_locally(self, name: str, value: str) -> Iterator[None]:
        """The setting for the block; it ends with the transaction in any case."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT coalesce(current_setting(%s, true), '')", [name])
            [before] = cursor.fetchone()
            cursor.execute("SELECT set_config(%s, %s, true)", [name, value])
        try:
            yield
        except BaseException:
            with suppress(DatabaseError):  # a transaction that has failed takes the setting with it
                self.execute("SELECT set_config(%s, %s, true)", [name, before])
            raise
        self.execute("SELECT set_config(%s, %s, true)", [name, before])

    def is_missing_table(self, error: DatabaseError) -> bool:
        return _state(error) == _UNDEFINED_TABLE

    def is_lock_timeout(self, error: OperationalError) -> bool:
        return _state(error) == _LOCK_NOT_AVAILABLE

    def guard_sql(self, table: GuardedTable) -> list[str]:
        on = self._qualified(table.table)
        function, entering = self._functions(table.name)
        call = f"EXECUTE FUNCTION {function}"
        is_awake = f"current_setting('{_SETTING}', true) <> ''"
        keys = ", ".join(map(self._quote, table.pk))
        key_changed = " OR ".join(
            f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in map(self._quote, table.pk)
        )
        triggers = {
            # Before the one that closes entries: PostgreSQL wakes them by their names.
            "raise": "BEFORE UPDATE ON {on} FOR EACH STATEMENT"
            f" WHEN (current_query() ^@ '{_PLAIN}:') {{call}}('raise')",
            "fence": f"AFTER UPDATE ON {{on}} FOR EACH ROW WHEN ({is_awake}) {{call}}('fence')",
            "insert": "AFTER INSERT ON {on} REFERENCING NEW TABLE AS made FOR EACH STATEMENT"
            f" WHEN (current_query() ^@ '{_CAPTURED} ') EXECUTE FUNCTION {entering}()",
            "delete": "AFTER DELETE ON {on} REFERENCING OLD TABLE AS gone FOR EACH STATEMENT {call}()",
            "key": f"AFTER UPDATE OF {keys} ON {{on}} FOR EACH ROW WHEN ({key_changed}) {{call}}('key')",
            "truncate": "AFTER TRUNCATE ON {on} FOR EACH STATEMENT {call}()",
        }
        if table.pointers:
            held = ", ".join(self._quote(column) for column, *_ in table.pointers)
            triggers["pointing"] = (
                f"AFTER INSERT OR UPDATE OF {held} ON {{on}} FOR EACH ROW {{call}}('pointing')"
            )
        statements = [
            self._function_sql(table),
            self._entering_sql(table),
            f"REVOKE ALL ON FUNCTION {function}(), {entering}() FROM PUBLIC",
            _RETIRING.format(table=literal(on), name=f"{PREFIX}update", on=on),
        ]
        for suffix, definition in triggers.items():
            created = definition.format(on=on, call=call)
            statements.append(f"CREATE OR REPLACE TRIGGER {PREFIX}{suffix} {created}")
        enabled = ", ".join(f"ENABLE ALWAYS TRIGGER {PREFIX}{suffix}" for suffix in triggers)
        return [*statements, f"ALTER TABLE {on} {enabled}"]

    def _function_sql(self, table: GuardedTable) -> str:
        return _FUNCTION.format(
            function=self._function(table.name),
            setting=_SETTING,
            plain=_PLAIN,
            ledger=self._qualified(LEDGER),
            closing=_CLOSING,
            tag=_TAG,
            run_of_tag=_RUN_OF_TAG,
            touched=literal(table.touched),
            fenced=_changed(*table.exempt, *table.free),
            entry_of_row=self._entry_of(table, "row_"),
            entries_gone=f"ANY (ARRAY(SELECT (SELECT entry.id FROM {self._qualified(LEDGER)} AS entry"
            f" WHERE {self._entry_of(table, 'row_')}) FROM gone AS row_))",
            entry_of_old=self._entry_of(table, "OLD"),
            entry_of_new=self._entry_of(table, "NEW"),
            holds_a_test_row=self._holding(table),
            level="EXCEPTION" if table.pointing == "block" else "WARNING",
            errcode="ERRCODE = '23000', " if table.pointing == "block" else "",
            pointed=literal(table.pointed),
            model=literal(table.model),
            table_literal=literal(table.table),
            row_s_of_table=literal(f" rows of {table.table}"),
            changed=_changed(*table.exempt),
        )

    def _entering_sql(self, table: GuardedTable) -> str:
        _, entering = self._functions(table.name)
        key = key_of(table, "row_", self._quote)
        return _ENTERING.format(
            entering=entering,
            tag=_TAG,
            run_of_tag=_RUN_OF_TAG,
            held=_HELD_RUN,
            runs=self._qualified(RUNS),
            run_has_ended=literal(RUN_HAS_ENDED),
            ledger=self._qualified(LEDGER),
            type=literal(table.type),
            model=literal(table.model),
            alias=literal(self.alias),
            key_text=f"{key}::text",
            key_bigint=key if table.key == "key_bigint" else "NULL::bigint",
            key_uuid=key if table.key == "key_uuid" else "NULL::uuid",
            marking=self._marking(table) if table.mark else "",
        )

    def _marking(self, table: GuardedTable) -> str:
        """Raw SQL does not know the column; the ORM has filled it in."""
        mark = self._quote(table.mark)
        same = " AND ".join(f"t.{column} = row_.{column}" for column in map(self._quote, table.pk))
        marked = (
            f"UPDATE {self._qualified(table.table)} AS t SET {mark} = $1 FROM made AS row_"
            f" WHERE {same} AND row_.{mark} IS NULL"
        )
        # Planned anew for as many rows as there are: how it is done for one is no way for a thousand.
        return (
            f"\n  IF EXISTS (SELECT 1 FROM made AS row_ WHERE row_.{mark} IS NULL) THEN"
            f"\n    EXECUTE {literal(marked)} USING test;"
            "\n  END IF;"
        )

    def _holding(self, table: GuardedTable) -> str:
        """What holds where NEW points at a row that a run has made; nothing where it cannot."""
        held = [
            f"EXISTS (SELECT 1 FROM {self._qualified(LEDGER)} AS held WHERE held.model = {literal(model)}"
            f" AND held.{key} = NEW.{self._quote(column)} AND held.tombstone = 0)"
            for column, model, key in table.pointers
        ]
        return f"({' OR '.join(held)}) AND " if held else "false AND "

    def _entry_of(self, table: GuardedTable, row: str) -> str:
        key = key_of(table, row, self._quote)
        return f"entry.model = {literal(table.model)} AND entry.{table.key} = {key} AND entry.tombstone = 0"

    def unguard_sql(self, name: str) -> list[str]:
        return [f"DROP FUNCTION IF EXISTS {function}() CASCADE" for function in self._functions(name)]

    def record_sql(self, table: GuardedTable) -> list[str]:
        held = _HELD.format(schema=literal(self._quote(self._schema)))
        wanted = literal(self.wanted_digest(table))
        statement = (
            f'INSERT INTO {self._qualified(RECORDS)} ("table", model, definition, installed_at)'
            f" SELECT {literal(table.table)}, {literal(table.model)}, {wanted} || digest, clock_timestamp()"
            f" FROM ({held}) AS held WHERE name = {literal(table.name)}"
            ' ON CONFLICT ("table") DO UPDATE SET model = excluded.model, definition = excluded.definition,'
            " installed_at = excluded.installed_at"
        )
        return [statement]

    def held_guards(self) -> dict[str, HeldGuard]:
        with self.connection.cursor() as cursor:
            cursor.execute(_HELD.format(schema=literal(self._quote(self._schema))))
            return {
                name: HeldGuard(digest, triggers >= len(_TRIGGERS), disabled)
                for name, digest, triggers, disabled in cursor.fetchall()
            }

    # --- hiding rows: see Note [Policies on PostgreSQL] ---

    def hiding_sql(self, table: str, column: str) -> list[str]:
        on = self._qualified(table)
        seen = self._function(_SEEN)
        mark = self._quote(column)
        visible = f"{mark} IS NULL OR (SELECT {seen}()) = ANY (ARRAY[{mark}, -1])"
        return [
            _SEEN_FUNCTION.format(function=seen),
            *self.showing_sql(table),
            f"CREATE POLICY {_SHOWN} ON {on} USING (true)",
            f"CREATE POLICY {_HIDDEN} ON {on} AS RESTRICTIVE USING ({visible})",
            f"ALTER TABLE {on} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {on} FORCE ROW LEVEL SECURITY",
        ]

    def recording_sql(self, table: str, column: str) -> list[str]:
        wanted = self.wanted_policy(table, column)
        on = self._qualified(table)
        comment = (
            f"SELECT {literal(wanted)} || {self._policy_digest} FROM pg_policy p"
            f" WHERE p.polrelid = {literal(on)}::regclass"
        )
        comment_on = f"COMMENT ON POLICY {_HIDDEN} ON {on} IS %L"
        return [f"DO $do$ BEGIN EXECUTE format({literal(comment_on)}, ({comment})); END $do$"]

    def showing_sql(self, table: str) -> list[str]:
        on = self._qualified(table)
        return [
            f"DROP POLICY IF EXISTS {_HIDDEN} ON {on}",
            f"DROP POLICY IF EXISTS {_SHOWN} ON {on}",
            f"ALTER TABLE {on} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {on} DISABLE ROW LEVEL SECURITY",
        ]

    def forgetting_sql(self) -> list[str]:
        return [f"DROP FUNCTION IF EXISTS {self._function(_SEEN)}()"]

    def held_policies(self) -> dict[str, HeldPolicy]:
        with self.connection.cursor() as cursor:
            cursor.execute(_HELD_POLICIES.format(digest=self._policy_digest))
            return {
                table: HeldPolicy(
                    ours=count > 0,
                    complete=count == 2 and forced,
                    wanted=(comment or "")[:32],
                    unchanged=(comment or "")[32:] == digest,
                )
                for table, count, forced, comment, digest in cursor.fetchall()
            }

    def passing_role(self) -> str:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT rolname::text FROM pg_roles"
                " WHERE rolname = current_user AND (rolsuper OR rolbypassrls)"
            )
            row: Any = cursor.fetchone()
        return row[0] if row else ""

    def refuses_triggers(self, table: str) -> str:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT relkind::text, pg_has_role(current_user, relowner, 'USAGE') FROM pg_class"
                " WHERE oid = to_regclass(%s)",
                [self._quote(table)],
            )
            kind, owned = cursor.fetchone()
        if kind not in ("r", "p"):
            return "it is no ordinary table"
        return "" if owned else "it belongs to another role"

    def owned_tables(self, tables: Iterable[str]) -> list[str]:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname::text FROM pg_class"
                " WHERE oid = ANY(SELECT to_regclass(name) FROM unnest(%s::text[]) name)"
                " AND pg_has_role(current_user, relowner, 'USAGE') ORDER BY 1",
                [[self._quote(table) for table in tables]],
            )
            return [name for (name,) in cursor.fetchall()]

    @cached_property
    def _policy_digest(self) -> str:
        return _POLICY_DIGEST.format(
            schema=literal(self._quote(self._schema)), function=literal(self._function(_SEEN))
        )

    def _quote(self, name: str) -> str:
        quoted: str = self.connection.ops.quote_name(name)
        return quoted

    def _function(self, name: str) -> str:
        return f"{self._quote(self._schema)}.{self._quote(name)}"

    def _functions(self, name: str) -> tuple[str, str]:
        """Those of the guards of that name; the second enters what is made."""
        return self._function(name), self._function(f"{name}{_MADE}")

    def _qualified(self, table: str) -> str:
        return f"{self._quote(self._schema_of(table))}.{self._quote(table)}"

    @cached_property
    def _schema(self) -> str:
        """Where the ledger is, and so the guards' functions."""
        return self._schema_of(LEDGER)

    def _schema_of(self, table: str) -> str:
        """Found once, so that a guard does not depend on the search path of whoever wakes it."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.oid = to_regclass(%s)",
                [self._quote(table)],
            )
            row: Any = cursor.fetchone()
        return str(row[0]) if row else "public"


def _changed(*without: str) -> str:
    """What must hold for an update to have changed more than these columns."""
    if not without:
        return ""
    names = ", ".join(map(literal, without))
    return f"(to_jsonb(OLD) - ARRAY[{names}]) IS DISTINCT FROM (to_jsonb(NEW) - ARRAY[{names}]) AND "


def _state(error: DatabaseError) -> str | None:
    state: str | None = getattr(error.__cause__, "sqlstate", None)
    return state
