"""A witness that does not believe the ledger: triggers write down every change of every row of the host.

They are in the test database alone, in a table that no model knows. Each change comes with the name of
whoever was at work: `make:RUN` while a run gets rows, `purge:RUN` while it is purged, `test` otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import connection, models

Model = type[models.Model]
#: A table, and a key as the database writes it.
Place = tuple[str, str]

REAL = "real"
TEST = "test"


class Touched(AssertionError):
    """A row was changed by somebody who had no right to it."""


@dataclass(eq=False, slots=True)
class Row:
    """A row that stands now. `by` is REAL, or the run in whose name it was made."""

    model: Model
    key: str
    by: str
    #: All that it could be told by was overwritten.
    edited: bool = False
    #: Its key was changed behind everybody's back.
    moved: bool = False
    #: The guards have been in the database ever since it was made.
    guarded: bool = False

    @property
    def place(self) -> Place:
        return self.model._meta.db_table, self.key

    @property
    def pk(self) -> Any:
        """The key as the model has it in Python."""
        return self.model._meta.pk.to_python(self.key)


@dataclass
class Oracle:
    """What stands, who made it, and who removed it: all from the log of the triggers."""

    tables: dict[str, Model]
    rows: dict[Place, Row] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)
    purged: Counter[str] = field(default_factory=Counter)
    real: int = 0
    guarded: bool = False
    who: str = TEST
    _seen: int = 0
    _before: dict[Place, Row] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def watching(cls) -> Iterator[Oracle]:
        """Within the block every change of a row of the host is written down."""
        oracle = cls({model._meta.db_table: model for model in host_models()})
        dialect = _DIALECTS[connection.vendor]
        dialect.install(oracle.tables)
        try:
            oracle._say(TEST)
            oracle._read_what_stands()
            yield oracle
        finally:
            dialect.remove(oracle.tables)

    @contextmanager
    def acting(self, who: str) -> Iterator[None]:
        """Whatever changes within the block is this one's doing."""
        self._say(who)
        self.who = who
        try:
            yield
        finally:
            self.read()
            self.who = TEST
            self._say(TEST)

    def read(self) -> None:
        """Take notice of what has happened; raises Touched where it should not have."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, place, old_key, new_key, who FROM stagehand_oracle WHERE id > %s ORDER BY id",
                [self._seen],
            )
            events = cursor.fetchall()
        for number, table, old, new, who in events:
            self._seen = number
            # A change without a name came over another connection: it is of whoever is at work now.
            self._take(table, old, new, who or self.who)

    def ours(self, run: str | None = None) -> list[Row]:
        """The rows made in that run, or in any, that stand."""
        return [row for row in self.rows.values() if row.by == run or (run is None and row.by != REAL)]

    def reals(self) -> list[Row]:
        """Real rows made by the test; what the database was set up with is not among them."""
        return [row for place, row in self.rows.items() if row.by == REAL and place not in self._before]

    def clear(self) -> None:
        """Empty the tables again, cheaply; keys start over."""
        self.read()
        used = {table for table, _ in self.rows.keys() - self._before.keys()}
        _DIALECTS[connection.vendor].empty(sorted(used), list(self.tables), self._before)
        self.rows, self.made, self.purged = dict(self._before), Counter(), Counter()
        self._seen = 0
        self.guarded = False

    def pointers(self) -> Iterator[tuple[Row, Place]]:
        """Every row that stands, with each place that it points at: foreign keys and generic ones."""
        for table in {place[0] for place in self.rows.keys() - self._before.keys()}:
            model = self.tables[table]
            columns = [each for each in model._meta.local_concrete_fields if each.is_relation]
            if not columns and not _generic(model):
                continue
            for key, *values in self._select(model, [each.column for each in columns]):
                row = self.rows[table, key]
                for column, value in zip(columns, values, strict=True):
                    if value is not None:
                        yield row, (column.related_model._meta.db_table, value)
            for content_type, object_id in _generic(model):
                yield from self._generic_pointers(model, content_type, object_id)

    def place_of(self, label: str, text: str) -> Place:
        """Where the ledger says that a row stands, by the model's label and the key's text."""
        model = apps.get_model(label)
        return model._meta.db_table, as_stored(model, text)

    def _generic_pointers(self, model: Model, *columns: str) -> Iterator[tuple[Row, Place]]:
        from django.contrib.contenttypes.models import ContentType

        for key, kind, text in self._select(model, list(columns)):
            target = ContentType.objects.get_for_id(int(kind)).model_class()
            if target is not None:
                yield self.rows[model._meta.db_table, key], (target._meta.db_table, as_stored(target, text))

    def _select(self, model: Model, columns: list[str]) -> list[tuple[Any, ...]]:
        quote = connection.ops.quote_name
        wanted = ", ".join(
            f"CAST({quote(each)} AS {_TEXT})" for each in [model._meta.pk.column or "", *columns]
        )
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {wanted} FROM {quote(model._meta.db_table)} ORDER BY 1")
            return cursor.fetchall()

    def _take(self, table: str, old: str | None, new: str | None, who: str) -> None:
        kind, _, run = who.partition(":")
        if old is None and new is None:
            self._truncated(table, kind)
        elif old is None:
            self._inserted(Row(self.tables[table], str(new), run or REAL, guarded=self.guarded), kind)
        else:
            row = self.rows[table, old]
            if run and row.by != run:
                did = "deleted" if new is None else "changed"
                raise Touched(f"{who} {did} {table} {old}, which was made by {row.by}")
            if new != old:
                del self.rows[table, old]
                if new is not None:
                    row.key, row.moved = new, True
                    self.rows[row.place] = row
                elif kind == "purge":
                    self.purged[run] += 1

    def _inserted(self, row: Row, kind: str) -> None:
        self.rows[row.place] = row
        if row.by == REAL:
            self.real += 1
        elif kind == "make":
            self.made[row.by] += 1
        else:
            # What a receiver writes while its row is deleted goes again with it.
            self.purged[row.by] -= 1

    def _truncated(self, table: str, kind: str) -> None:
        if kind != TEST:
            raise Touched(f"{kind} truncated {table}")
        for place in [place for place in self.rows if place[0] == table]:
            del self.rows[place]

    def _read_what_stands(self) -> None:
        for table, model in self.tables.items():
            for (key,) in self._select(model, []):
                self.rows[table, key] = Row(model, key, REAL)
        self._before = dict(self.rows)
        self.real += len(self.rows)

    def _say(self, who: str) -> None:
        _DIALECTS[connection.vendor].say(who)


_TEXT = "text"


def host_models() -> list[Model]:
    """Every model with a table that is not the ledger's."""
    return [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.app_label != "stagehand_testdata"
        and model._meta.managed
        and not model._meta.proxy
        # The witness knows a row by one column.
        and not isinstance(model._meta.pk, models.CompositePrimaryKey)
    ]


def as_stored(model: Model, text: str) -> str:
    """The key's text as this database writes it."""
    pk: Any = model._meta.pk
    while pk.is_relation:
        pk = pk.target_field
    if isinstance(pk, models.UUIDField) and not connection.features.has_native_uuid_field:
        return text.replace("-", "")
    return text


def _generic(model: Model) -> list[tuple[str, str]]:
    found = []
    for each in model._meta.private_fields:
        if getattr(each, "ct_field", None) and getattr(each, "fk_field", None):
            found.append((f"{each.ct_field}_id", each.fk_field))
    return found


def _execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


_LEDGER = ("receipt", "testentity", "testrun")


class _PostgreSQL:
    @staticmethod
    def install(tables: dict[str, Model]) -> None:
        _execute(
            "SET synchronous_commit = off",
            "CREATE TABLE IF NOT EXISTS stagehand_oracle"
            " (id bigserial PRIMARY KEY, place text, old_key text, new_key text, who text)",
            """
            CREATE OR REPLACE FUNCTION stagehand_oracle() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              INSERT INTO stagehand_oracle (place, old_key, new_key, who) VALUES (TG_ARGV[0],
                CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) ->> TG_ARGV[1] END,
                CASE WHEN TG_OP IN ('UPDATE', 'INSERT') THEN to_jsonb(NEW) ->> TG_ARGV[1] END,
                NULLIF(current_setting('stagehand_oracle.who', true), ''));
              RETURN NULL;
            END $$
            """,
        )
        for table, model in tables.items():
            call = f"EXECUTE FUNCTION stagehand_oracle('{table}', '{model._meta.pk.column}')"
            _execute(
                f'CREATE OR REPLACE TRIGGER stagehand_oracle AFTER INSERT OR UPDATE OR DELETE ON "{table}"'
                f" FOR EACH ROW {call}",
                f'CREATE OR REPLACE TRIGGER stagehand_oracle_all AFTER TRUNCATE ON "{table}"'
                f" FOR EACH STATEMENT {call}",
            )

    @staticmethod
    def remove(tables: dict[str, Model]) -> None:
        _execute(
            "DROP FUNCTION IF EXISTS stagehand_oracle() CASCADE",
            "DROP TABLE IF EXISTS stagehand_oracle",
            "RESET synchronous_commit",
        )

    @staticmethod
    def say(who: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('stagehand_oracle.who', %s, false)", [who])

    @staticmethod
    def empty(used: list[str], tables: list[str], before: dict[Place, Row]) -> None:
        kept = {place[0] for place in before}
        statements = [f"DELETE FROM stagehand_testdata_{name}" for name in _LEDGER]
        for table in used:
            if table in kept:
                raise AssertionError(f"{table} had rows before the test; its rows cannot be told apart")
            statements.append(f'DELETE FROM "{table}"')
        statements.append("DELETE FROM stagehand_oracle")
        statements.append(
            "SELECT setval(c.oid, 1, false) FROM pg_class c JOIN pg_sequences s"
            " ON s.sequencename = c.relname WHERE c.relkind = 'S' AND s.last_value IS NOT NULL"
            # Its rows stay, so its numbers go on.
            " AND c.relname <> 'stagehand_testdata_auditentry_id_seq'"
            " AND c.relname NOT LIKE 'auth_permission%' AND c.relname NOT LIKE 'django_%'"
        )
        _execute("BEGIN;" + ";".join(statements) + ";COMMIT")


class _SQLite:
    @staticmethod
    def install(tables: dict[str, Model]) -> None:
        _execute(
            "CREATE TABLE IF NOT EXISTS stagehand_oracle"
            " (id integer PRIMARY KEY, place text, old_key text, new_key text, who text)",
            "CREATE TABLE IF NOT EXISTS stagehand_oracle_who (who text)",
            "DELETE FROM stagehand_oracle_who",
            "INSERT INTO stagehand_oracle_who VALUES ('test')",
        )
        for table, model in tables.items():
            column = model._meta.pk.column
            old, new = f'CAST(OLD."{column}" AS text)', f'CAST(NEW."{column}" AS text)'
            for event, values in (
                ("INSERT", f"NULL, {new}"),
                ("UPDATE", f"{old}, {new}"),
                ("DELETE", f"{old}, NULL"),
            ):
                _execute(
                    f'CREATE TRIGGER IF NOT EXISTS "stagehand_oracle_{event}_{table}"'
                    f' AFTER {event} ON "{table}" FOR EACH ROW BEGIN'
                    " INSERT INTO stagehand_oracle (place, old_key, new_key, who)"
                    f" SELECT '{table}', {values}, who FROM stagehand_oracle_who; END"
                )

    @staticmethod
    def remove(tables: dict[str, Model]) -> None:
        for table in tables:
            for event in ("INSERT", "UPDATE", "DELETE"):
                _execute(f'DROP TRIGGER IF EXISTS "stagehand_oracle_{event}_{table}"')
        _execute("DROP TABLE IF EXISTS stagehand_oracle", "DROP TABLE IF EXISTS stagehand_oracle_who")

    @staticmethod
    def say(who: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE stagehand_oracle_who SET who = %s", [who])

    @staticmethod
    def empty(used: list[str], tables: list[str], before: dict[Place, Row]) -> None:
        from django.db import transaction

        with transaction.atomic():
            for name in _LEDGER:
                _execute(f"DELETE FROM stagehand_testdata_{name}")
            for table in used:
                _execute(f'DELETE FROM "{table}"')
                _execute(f"DELETE FROM sqlite_sequence WHERE name = '{table}'")
            _execute("DELETE FROM stagehand_oracle")


_DIALECTS: dict[str, Any] = {"postgresql": _PostgreSQL, "sqlite": _SQLite}
