"""Triggers of a connection of SQLite's own: whatever happens to them, a run's rows are seen."""

from __future__ import annotations

import gc
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, models, transaction

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.databases import database
from stagehand_testdata.databases.sqlite_runs import Write, read_write
from stagehand_testdata.exceptions import ConfigurationError, TestRunTouchedRealRow, UntrackedWrite
from stagehand_testdata.models import Key, TestEntity
from stagehand_testdata.operations import guards
from tests.guarding import (
    ALIAS,
    guarded,  # noqa: F401 - a fixture
    on_sqlite,
    sql,
)
from tests.host.models import Author, Hall, Label, Stall, Voucher, Watched
from tests.isolation.test_statements import entered, label_keys, run_of
from tests.making import changed

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("guarded"), on_sqlite]

OURS = "SELECT name FROM temp.sqlite_master WHERE type = 'trigger' AND name LIKE 'stagehand_guard_%%'"


@pytest.fixture
def run(db: None) -> Iterator[CurrentRun]:
    yield run_of()
    database(ALIAS).take_down_own()  # what is committed here is not the next test's


def up() -> set[str]:
    """The tables for which this connection has triggers of its own."""
    return {table for (table,) in sql(OURS.replace("SELECT name", "SELECT DISTINCT tbl_name"), [])}


@contextmanager
def rolled_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


class TestReadingAStatement:
    @pytest.mark.parametrize(
        ("statement", "table", "replaces"),
        [
            ('INSERT INTO "host_label" ("text") VALUES (%s)', "host_label", False),
            ("insert into Host_Label(text) values ('a')", "host_label", False),
            ('INSERT OR IGNORE INTO "a ""b"" c" VALUES (1)', 'a "b" c', False),
            ("INSERT OR REPLACE INTO host_label VALUES (1)", "host_label", True),
            ("replace  into host_label values (1)", "host_label", True),
            ("UPDATE OR REPLACE host_label SET id = 1", "host_label", True),
            ("UPDATE host_label SET text = replace(text, 'a', 'b')", "host_label", False),
            ("INSERT INTO host_label SELECT 'REPLACE INTO'", "host_label", False),
            ("DELETE FROM host_label", "host_label", False),
            ("/* traced */ -- twice\n DELETE FROM host_label", "host_label", False),
            ("UPDATE host_label\nSET id = 1", "host_label", False),
            ("; INSERT INTO host_label VALUES (1)", "host_label", False),
            ("\ufeffDELETE FROM host_label", "host_label", False),
            # What takes more than a look.
            ("INSERT INTO main /**/ .host_label VALUES (1)", None, False),
            ("/* a */ INSERT INTO main.host_label VALUES ('*/ DELETE FROM other ')", None, False),
            ("/* a */ REPLACE INTO main.host_label VALUES ('-- */')", None, True),
            ("WITH a AS (SELECT '--' AS x) REPLACE INTO host_label SELECT x FROM a", None, True),
            ("INSERT INTO main.host_label VALUES (1)", None, False),
            ("UPDATE OR IGNORE main . host_label SET id = 1", None, False),
            ("INSERT INTO [host_label] VALUES (1)", None, False),
            ("INSERT INTO `host_label` VALUES (1)", None, False),
            ("INSERT /* ! */ INTO host_label VALUES (1)", None, False),
            ("REPLACE /* ! */ INTO host_label VALUES (1)", None, True),
            ("INSERT OR -- !\nREPLACE INTO host_label VALUES (1)", None, True),
            ("WITH a AS (SELECT 1) INSERT INTO host_label SELECT 'a'", None, False),
            ("WITH a AS (SELECT 1) REPLACE INTO host_label SELECT 'a'", None, True),
        ],
    )
    def test_finds_what_is_written_to(self, statement: str, table: str | None, replaces: bool) -> None:
        assert read_write(statement) == Write(table, replaces)
        assert read_write(statement + " " * 3000) == Write(table, replaces)

    @pytest.mark.parametrize(
        "statement",
        [
            "SELECT 1",
            "BEGIN",
            'SAVEPOINT "s"',
            "PRAGMA user_version",
            "",
            "WITH a AS (SELECT 1) SELECT 'REPLACE INTO b' FROM a",
            "/* */ " * 200 + "SELECT 1",
        ],
    )
    def test_of_what_does_not_write_finds_nothing(self, statement: str) -> None:
        assert read_write(statement) is None


class TestWhatIsWritten:
    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO main.host_label (text) VALUES ('a')",
            "INSERT INTO [host_label] (text) VALUES ('a')",
            "INSERT INTO HOST_LABEL (text) VALUES ('a')",
            "/* traced */ INSERT INTO host_label (text) VALUES ('a')",
            "WITH a AS (SELECT 'a' AS text) INSERT INTO host_label (text) SELECT text FROM a",
            "INSERT INTO host_label (text) VALUES ('a') RETURNING id",
            "INSERT INTO host_label (text) VALUES ('a') ON CONFLICT DO NOTHING",
        ],
    )
    def test_is_the_runs_however_it_is_written(self, run: CurrentRun, statement: str) -> None:
        with use_run(run):
            sql(statement)
        assert entered() == label_keys("a")

    def test_is_the_runs_where_a_trigger_of_the_products_writes_it(self, run: CurrentRun) -> None:
        sql(
            "CREATE TRIGGER mine AFTER INSERT ON host_watched BEGIN"
            " INSERT INTO host_label (text) VALUES (NEW.name); END"
        )
        with use_run(run):
            sql("INSERT INTO host_watched (name) VALUES ('a')")
        assert set(label_keys("a")) < set(entered())

    @pytest.mark.parametrize(
        "action", ["ON DELETE CASCADE", "ON DELETE CASCADE ON UPDATE NO ACTION", "ON  DELETE\nSET NULL"]
    )
    def test_may_not_reach_a_real_row_by_a_reference_of_the_databases_own(
        self, run: CurrentRun, action: str
    ) -> None:
        with use_run(run):
            label = Label.objects.create(text="a")
        sql(f"CREATE TABLE held (id integer PRIMARY KEY, of integer REFERENCES host_label (id) {action})")
        sql("INSERT INTO held (id, of) VALUES (1, %s)", [label.pk])
        guards.install(ALIAS)
        with use_run(run), pytest.raises(TestRunTouchedRealRow), transaction.atomic():
            sql("DELETE FROM host_label WHERE id = %s", [label.pk])
        assert sql("SELECT id, of FROM held") == [(1, label.pk)]

    def test_is_seen_through_a_cursor_that_is_used_again_and_again(self, run: CurrentRun) -> None:
        with use_run(run), connection.cursor() as cursor:
            for number in range(1500):
                cursor.execute("INSERT INTO host_label (text) VALUES (%s) RETURNING text", [f"t{number}"])
                if number % 2:
                    assert cursor.fetchall() == [(f"t{number}",)]
            cursor.execute("SELECT count(*) FROM host_label")
            assert cursor.fetchone() == (1500,)
            assert cursor.fetchone() is None
        assert len(entered()) == 1500

    def test_is_told_as_the_cursor_is_asked(self, run: CurrentRun) -> None:
        with use_run(run), connection.cursor() as cursor:
            cursor.execute("INSERT INTO host_label (text) VALUES ('a'), ('b'), ('c'), ('d') RETURNING text")
            assert cursor.fetchmany() == [("a",)]
            assert cursor.fetchmany(1) == [("b",)]
            assert list(cursor) == [("c",), ("d",)]
            cursor.execute("SELECT text FROM host_label ORDER BY text")
            assert next(iter(cursor)) == ("a",)

    def test_while_rows_are_being_read_is_the_runs(self, run: CurrentRun) -> None:
        Label.objects.bulk_create([Label(text=f"real {n}") for n in range(300)])
        with use_run(run):
            for label in Label.objects.filter(text__startswith="real").iterator(chunk_size=10):
                Label.objects.create(text=f"of {label.pk}")
        assert len(entered()) == 300

    def test_by_a_statement_for_many_that_fails_on_the_way_is_the_runs_as_far_as_it_is_there(
        self, run: CurrentRun
    ) -> None:
        rows = [[1001, "a"], [1002, "b"], [1001, "c"], [1003, "d"]]
        with use_run(run), connection.cursor() as cursor, pytest.raises(IntegrityError):
            cursor.executemany("INSERT INTO host_label (id, text) VALUES (%s, %s)", rows)
        assert entered() == label_keys("a", "b")

    def test_of_one_statement_that_fails_is_nobodys(self, run: CurrentRun) -> None:
        with use_run(run):
            with pytest.raises(IntegrityError):
                sql("INSERT INTO host_label (id, text) VALUES (1001, 'a'), (1001, 'b')")
            sql("INSERT INTO host_label (id, text) VALUES (1002, 'c')")
        assert entered() == [("host.label", "1002")]

    @pytest.mark.django_db(transaction=True)
    def test_in_autocommit_is_all_taken_back_where_it_fails(self, run: CurrentRun) -> None:
        with use_run(run), connection.cursor() as cursor, pytest.raises(IntegrityError):
            cursor.executemany("INSERT INTO host_label (id, text) VALUES (%s, 'a')", [[1001], [1001]])
        assert (entered(), Label.objects.count()) == ([], 0)
        assert not connection.connection.in_transaction

    @pytest.mark.django_db(transaction=True)
    def test_without_autocommit_is_the_products_to_commit(self, run: CurrentRun) -> None:
        transaction.set_autocommit(False)
        try:
            with use_run(run):
                Label.objects.create(text="a")
                transaction.rollback()
                Label.objects.create(text="b")
                transaction.commit()
        finally:
            transaction.set_autocommit(True)
        assert entered() == label_keys("b")
        assert Label.objects.count() == 1

    @pytest.mark.parametrize(
        "codes",
        [
            ["plain", 'a "b" \\ c', "é\U0001f3ad\ufeff\u2028", "\x01\x7f\n", "", "7", "1e5", "['a']"],
            ["\\u0000", "a", "\\\\u0000"],
            ["a\x00b", "a", "\x00"],
        ],
    )
    @pytest.mark.parametrize("together", [True, False])
    def test_has_the_key_that_the_ledger_gives_it(
        self, run: CurrentRun, codes: list[str], together: bool
    ) -> None:
        hall = Hall.objects.create(pk=8)
        uuids = [uuid.UUID(int=number) for number in (0, 7, 2**128 - 1)]
        numbers = [-(2**63), -1, 0, 2**63 - 1]
        made: list[models.Model] = [Voucher(code=code) for code in codes]
        made += [Author(pk=key) for key in uuids]
        made += [Label(pk=number, text=number) for number in numbers]
        made += [Stall(hall=hall, number=number) for number in (1, 2)]
        with use_run(run):
            for model, rows in groupby(made, type):
                if together:
                    model._default_manager.bulk_create(rows)
                else:
                    for row in rows:
                        row.save(force_insert=True)
        wanted = [(row._meta.label_lower, Key.of(type(row), row.pk)) for row in made]
        found = TestEntity.objects.order_by("pk")
        assert [(each.model, Key(each.key_text, each.key_bigint, each.key_uuid)) for each in found] == wanted
        for model in (Voucher, Author, Label):
            model.objects.all().delete()
        assert {each.model for each in TestEntity.objects.standing()} == {"host.stall"}


class TestSomebodyElsesRow:
    """However it comes under a key, it is never the run's: a purge removes what is."""

    def test_that_a_trigger_replaces_is_not_the_runs(self, run: CurrentRun) -> None:
        total = Voucher.objects.create(code="total", note="real")
        sql(
            "CREATE TRIGGER mine AFTER INSERT ON host_label BEGIN INSERT OR REPLACE INTO host_voucher"
            " (code, note) VALUES ('total', (SELECT count(*) FROM host_label)); END"
        )
        with use_run(run), pytest.raises(TestRunTouchedRealRow), transaction.atomic():
            Label.objects.create(text="a")
        with use_run(run), changed(FENCE="off"):
            Label.objects.create(text="b")
        assert entered() == label_keys("b")
        total.refresh_from_db()
        assert total.note == "1"

    def test_that_its_table_replaces_is_not_the_runs(self, run: CurrentRun) -> None:
        [[table]] = sql("SELECT sql FROM sqlite_master WHERE name = 'host_label'")
        sql("DROP TABLE host_label")
        sql(table.replace("UNIQUE", "UNIQUE ON CONFLICT REPLACE", 1))
        guards.install(ALIAS)
        real = Label.objects.create(text="a")
        with use_run(run), pytest.raises(TestRunTouchedRealRow), transaction.atomic():
            sql("INSERT INTO host_label (text) VALUES ('a')")
        assert list(Label.objects.all()) == [real]
        with use_run(run), changed(FENCE="report"):
            sql("INSERT INTO host_label (id, text) VALUES (%s, 'b')", [real.pk + 1])
        assert entered() == label_keys("b")

    def test_that_is_made_while_the_runs_are_is_not_the_runs(self, run: CurrentRun) -> None:
        def rows() -> Iterator[list[str]]:
            for text in "ab":
                with use_run(None):
                    Label.objects.create(text=f"real {text}")
                yield [text]

        with use_run(run), connection.cursor() as cursor:
            cursor.executemany("INSERT INTO host_label (text) VALUES (%s)", rows())
        assert entered() == label_keys("a", "b")

    def test_that_takes_the_key_of_the_runs_is_not_the_runs(self, run: CurrentRun) -> None:
        real = Label.objects.create(text="real")
        sql(
            "CREATE TRIGGER mine AFTER INSERT ON host_label BEGIN DELETE FROM host_label WHERE id = NEW.id;"
            f" UPDATE host_label SET id = NEW.id WHERE id = {real.pk}; END"
        )
        with use_run(run), changed(FENCE="off"):
            Label.objects.create(text="a")
        assert entered() == []

    @pytest.mark.parametrize("ends", ["SELECT RAISE(ABORT, 'no');", ""])
    def test_that_gave_its_key_away_is_not_the_runs_where_it_has_it_again(
        self, run: CurrentRun, ends: str
    ) -> None:
        Label.objects.create(pk=1007, text="real")
        sql(
            "CREATE TRIGGER mine AFTER INSERT ON host_watched BEGIN UPDATE host_label SET id = 1008"
            f" WHERE id = 1007; INSERT INTO host_label (id, text) VALUES (1007, 'a'); {ends} END"
        )
        with use_run(run), changed(FENCE="off"), suppress(IntegrityError):
            sql("INSERT INTO host_watched (name) VALUES ('a')")
        assert Label.objects.get(text="real").pk == (1007 if ends else 1008)
        assert [key for model, key in entered() if model == "host.label"] == []

    def test_that_is_spelt_as_a_blob_is_written_is_not_the_runs(self, run: CurrentRun) -> None:
        Voucher.objects.create(code="b'ab'")
        with use_run(run), pytest.raises(UntrackedWrite, match="a blob"), transaction.atomic():
            sql("INSERT INTO host_voucher (code, note) VALUES (X'6162', '')")
        assert (entered(), Voucher.objects.count()) == ([], 1)


class TestTheTriggers:
    """However they go, they are there for the next statement of a run."""

    def make(self, run: CurrentRun, text: str) -> None:
        with use_run(run):
            Label.objects.create(text=text)

    def test_are_those_of_the_table_that_is_written_to(self, run: CurrentRun) -> None:
        self.make(run, "a")
        assert up() == {"host_label"}

    def test_are_not_there_without_a_run(self, run: CurrentRun) -> None:
        Label.objects.create(text="real")
        assert up() == set()

    def test_are_asleep_between_two_runs(self, run: CurrentRun) -> None:
        other = run_of("stagehand_test_other")
        self.make(run, "a")
        Label.objects.create(text="real")
        self.make(other, "b")
        sql("INSERT INTO host_label (text) VALUES ('real too')")
        sql("UPDATE host_label SET text = text || '!' WHERE text LIKE 'real%%'", [])
        assert entered() == label_keys("a")
        assert entered(other.test_id) == label_keys("b")

    def test_come_again_after_their_savepoint(self, run: CurrentRun) -> None:
        with rolled_back():
            self.make(run, "a")
        assert up() == set()
        self.make(run, "b")
        assert entered() == label_keys("b")

    def test_come_again_after_their_savepoint_within_the_run(self, run: CurrentRun) -> None:
        real = Label.objects.create(text="real")
        with use_run(run):
            with rolled_back():
                Label.objects.create(text="a")
            with pytest.raises(TestRunTouchedRealRow), transaction.atomic():
                Label.objects.filter(pk=real.pk).update(text="touched")
            Label.objects.create(text="b")
        assert entered() == label_keys("b")

    @pytest.mark.django_db(transaction=True)
    def test_come_again_after_their_transaction(self, run: CurrentRun) -> None:
        with use_run(run):
            for text in "ab":
                with rolled_back():
                    Label.objects.create(text=text)
            with transaction.atomic():
                Label.objects.create(text="c")
        self.make(run, "d")
        assert entered() == label_keys("c", "d")

    @pytest.mark.django_db(transaction=True)
    def test_come_again_in_autocommit_after_their_transaction(self, run: CurrentRun) -> None:
        with use_run(run):
            with rolled_back():
                Label.objects.create(text="a")
            sql("INSERT INTO host_label (text) VALUES ('b')")
        assert entered() == label_keys("b")

    @pytest.mark.django_db(transaction=True)
    def test_last_from_the_next_transaction_on(self, run: CurrentRun) -> None:
        connection.close()  # it remembers the tables that other tests have written to
        with use_run(run):
            for text in "ab":
                with rolled_back():
                    Label.objects.create(text=text)
            assert up() == {"host_label"}

    def test_come_again_where_their_table_was_made_anew(self, run: CurrentRun) -> None:
        self.make(run, "a")
        [[table]] = sql("SELECT sql FROM sqlite_master WHERE name = 'host_label'")
        stored = sql("SELECT sql FROM sqlite_master WHERE tbl_name = 'host_label' AND type = 'trigger'")
        sql("CREATE TABLE kept AS SELECT * FROM host_label")
        sql("DROP TABLE host_label")
        sql(table)
        for (statement,) in stored:
            sql(statement)
        sql("INSERT INTO host_label SELECT * FROM kept")
        self.make(run, "b")
        assert ("host.label", str(Label.objects.get(text="b").pk)) in entered()

    def test_come_again_where_somebody_dropped_them(self, run: CurrentRun) -> None:
        self.make(run, "a")
        for (name,) in sql(OURS, []):
            sql(f'DROP TRIGGER temp."{name}"')
        self.make(run, "b")
        assert entered() == label_keys("a", "b")

    def test_come_again_where_the_runs_own_statement_dropped_them(self, run: CurrentRun) -> None:
        with use_run(run):
            Label.objects.create(text="a")
            for (name,) in sql(OURS, []):
                sql(f'DROP TRIGGER temp."{name}"')
            Label.objects.create(text="b")
        assert entered() == label_keys("a", "b")

    def test_go_with_the_guards_and_come_with_them(self, run: CurrentRun) -> None:
        self.make(run, "a")
        guards.remove(ALIAS)
        assert up() == set()
        self.make(run, "real")
        assert up() == set()
        guards.install(ALIAS)
        self.make(run, "b")
        assert set(label_keys("b")) == set(entered()) - set(label_keys("a"))
        assert not set(label_keys("real")) & set(entered())

    def test_are_left_out_where_a_table_has_another_name_by_now(self, run: CurrentRun) -> None:
        self.make(run, "a")
        sql("ALTER TABLE host_label RENAME TO renamed")
        with use_run(run):
            sql("INSERT INTO renamed (text) VALUES ('b')")
            sql("INSERT INTO renamed (text) VALUES ('c')")
        sql("ALTER TABLE renamed RENAME TO host_label")
        self.make(run, "d")
        assert entered() == label_keys("a", "d")

    @pytest.mark.django_db(transaction=True)
    def test_come_again_though_the_schema_counts_as_before(self, run: CurrentRun) -> None:
        with use_run(run), rolled_back():
            Label.objects.create(text="a")
        try:
            sql("CREATE TEMP TABLE scratch (one, two)")
            sql("CREATE INDEX temp.first ON scratch (one)")
            sql("CREATE INDEX temp.second ON scratch (two)")
            with use_run(run):
                sql("INSERT INTO host_label (text) VALUES ('b')")
        finally:
            sql("DROP TABLE temp.scratch")
        assert entered() == label_keys("b")

    @pytest.mark.django_db(transaction=True)
    def test_come_again_after_a_statement_that_took_the_transaction_with_it(self, run: CurrentRun) -> None:
        real = Label.objects.create(text="real")
        with use_run(run), transaction.atomic():
            Label.objects.create(text="a")
            with suppress(IntegrityError):
                sql("INSERT OR ROLLBACK INTO host_label (text) VALUES ('a')")
            with transaction.atomic():
                Label.objects.create(text="b")
                with pytest.raises(TestRunTouchedRealRow), transaction.atomic():
                    Label.objects.filter(pk=real.pk).delete()
        assert entered() == label_keys("b")

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("begin", ["BEGIN DEFERRED", ""])
    def test_follow_what_another_connection_changes_in_the_middle(self, run: CurrentRun, begin: str) -> None:
        other = connections.create_connection(ALIAS)
        try:
            with use_run(run):
                sql("INSERT INTO host_watched (name) VALUES ('a')")
                if begin:
                    sql(begin)
                with other.cursor() as cursor:
                    cursor.execute(
                        "CREATE TRIGGER mine AFTER INSERT ON host_watched BEGIN"
                        " INSERT INTO host_label (text) VALUES (NEW.name); END"
                    )
                sql("INSERT INTO host_watched (name) VALUES ('b')")
                if begin:
                    sql("COMMIT")
            assert set(label_keys("b")) < set(entered())
        finally:
            with other.cursor() as cursor:
                cursor.execute("DROP TRIGGER IF EXISTS mine")
            other.close()

    @pytest.mark.django_db(transaction=True)
    def test_are_in_nobodys_way_once_a_column_is_gone(self, run: CurrentRun) -> None:
        with use_run(run):
            sql("INSERT INTO host_watched (name) VALUES ('a')")
        [column] = [each.column for each in Watched._meta.local_fields if each.name == "name"]
        stored = sql(
            "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'host_watched' AND type = 'trigger'"
        )
        other = connections.create_connection(ALIAS)
        try:
            with other.cursor() as cursor:
                for name, _ in stored:
                    cursor.execute(f"DROP TRIGGER {name}")
                cursor.execute(f"ALTER TABLE host_watched RENAME COLUMN {column} TO renamed")
            sql("UPDATE host_watched SET renamed = 'b'")
            assert up() == set()
        finally:
            with other.cursor() as cursor:
                cursor.execute(f"ALTER TABLE host_watched RENAME COLUMN renamed TO {column}")
                for _, statement in stored:
                    cursor.execute(statement)
            other.close()

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # as Python 3.13 has it
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_go_with_a_connection_that_nobody_closes(self, run: CurrentRun) -> None:
        found: list[Any] = []

        def write() -> None:
            with use_run(run):
                Label.objects.create(text="a")
            found.append(weakref.ref(connection.execute_wrappers._engine._runs))  # type: ignore[attr-defined]

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        del thread
        gc.collect()
        assert found[0]() is None

    def test_are_refused_where_threads_share_a_connection(self, run: CurrentRun) -> None:
        connection.inc_thread_sharing()
        try:
            refused = pytest.raises(ConfigurationError, match="Give the test database a file")
            with use_run(run), refused, transaction.atomic():
                Label.objects.create(text="a")
            Label.objects.create(text="real")
        finally:
            connection.dec_thread_sharing()
        assert entered() == []

    @pytest.mark.django_db(transaction=True)
    def test_of_one_connection_are_not_anothers(self, run: CurrentRun) -> None:
        self.make(run, "a")
        other = connections.create_connection(ALIAS)
        try:
            with other.cursor() as cursor:
                cursor.execute("INSERT INTO host_label (text) VALUES ('real')")
        finally:
            other.close()
        assert entered() == label_keys("a")

    @pytest.mark.django_db(transaction=True)
    def test_are_put_up_in_line_where_somebody_else_is_writing(self, run: CurrentRun) -> None:
        """To look first and to write then would fail at once, without waiting for them."""
        writing = threading.Event()

        def write() -> None:
            try:
                with transaction.atomic():
                    Label.objects.create(text="real")
                    writing.set()
                    time.sleep(0.3)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(write)
            writing.wait(5)
            sql("BEGIN DEFERRED")
            try:
                with use_run(run):
                    sql("INSERT INTO host_label (text) VALUES ('a')")
            finally:
                sql("COMMIT")
            other.result()
        assert entered() == label_keys("a")
