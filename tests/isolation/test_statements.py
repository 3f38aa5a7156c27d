"""What the product writes under a run becomes the run's, and what is not the run's it may not touch."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.exceptions import RunClosed, TestRunTouchedRealRow
from stagehand_testdata.isolation.statements import name_statements
from stagehand_testdata.models import StatementUnderWay, TestEntity, TestRun
from stagehand_testdata.operations import guards, passes, runs
from stagehand_testdata.operations.purge.purge import purge_run
from stagehand_testdata.registry import get_registry
from tests.guarding import (
    ALIAS,
    changes_tables,
    guarded,  # noqa: F401 - a fixture
    on_postgresql,
    on_sqlite,
    sql,
)
from tests.host.models import (
    Author,
    Billboard,
    Book,
    Chapter,
    Flyer,
    Label,
    Person,
    Restaurant,
    Voucher,
)
from tests.making import TEST_ID, changed, perform
from tests.threads import in_thread

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("guarded"),
]

OTHER = "stagehand_test_other"


def run_of(test_id: str = TEST_ID) -> CurrentRun:
    """The run as a request with its pass has it."""
    with transaction.atomic():
        runs.open_or_join(test_id)
    found = passes.admit(passes.issue(runs.find(test_id, "")).token)
    assert found is not None
    return found


@pytest.fixture
def run(db: None) -> CurrentRun:
    return run_of()


def entered(test_id: str = TEST_ID) -> list[tuple[str, str]]:
    """The model and key of all that stands in the ledger for the run."""
    found = TestEntity.objects.standing().filter(run__test_id=test_id)
    return sorted(found.values_list("model", "key_text"))


def label_keys(*texts: str) -> list[tuple[str, str]]:
    keys = Label.objects.filter(text__in=texts).values_list("pk", flat=True)
    assert len(keys) == len(texts)
    return sorted(("host.label", str(key)) for key in keys)


def by_save() -> None:
    Label(text="a").save()
    Label(text="b").save()


def by_get_or_create() -> None:
    for text in ("a", "b", "a"):
        Label.objects.get_or_create(text=text)


def by_bulk_create() -> None:
    Label.objects.bulk_create([Label(text="a"), Label(text="b")])


def by_raw_sql() -> None:
    sql("INSERT INTO host_label (text) VALUES (%s), (%s)", ["a", "b"])


def by_insert_from_select() -> None:
    sql("INSERT INTO host_label (text) SELECT 'a' UNION SELECT 'b'")


def by_executemany() -> None:
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO host_label (text) VALUES (%s)", [["a"], ["b"]])


def by_copy() -> None:
    with connection.cursor() as cursor, cursor.copy("COPY host_label (text) FROM STDIN") as copy:
        copy.write("a\nb\n")


def by_expression() -> None:
    sql(
        "WITH made AS (INSERT INTO host_label (text) VALUES ('a'), ('b') RETURNING id)"
        " SELECT count(*) FROM made"
    )


def by_a_function_of_the_database() -> None:
    sql("DO $$ BEGIN INSERT INTO host_label (text) VALUES ('a'), ('b'); END $$")


def by_ignoring_conflicts() -> None:
    Label.objects.bulk_create([Label(text="a"), Label(text="b")], ignore_conflicts=True)


EVERYWHERE = [
    by_save,
    by_get_or_create,
    by_bulk_create,
    by_raw_sql,
    by_insert_from_select,
    by_executemany,
    by_ignoring_conflicts,
]
WAYS = [
    *EVERYWHERE,
    *(
        pytest.param(way, marks=on_postgresql)
        for way in (by_copy, by_expression, by_a_function_of_the_database)
    ),
]


class TestWhatTheProductWrites:
    @pytest.mark.parametrize("way", WAYS)
    def test_is_the_runs_in_a_transaction(self, run: CurrentRun, way: Callable[[], None]) -> None:
        with use_run(run):
            way()
        assert entered() == label_keys("a", "b")

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("way", WAYS)
    def test_is_the_runs_in_autocommit(self, run: CurrentRun, way: Callable[[], None]) -> None:
        with use_run(run):
            way()
        assert entered() == label_keys("a", "b")

    @pytest.mark.parametrize("way", WAYS)
    def test_is_nobodys_without_a_run(self, way: Callable[[], None]) -> None:
        run = run_of()
        with use_run(run):
            pass
        way()
        with use_run(run), use_run(None):
            Label(text="c").save()
        assert not TestEntity.objects.exists()

    def test_has_all_that_an_entry_has(self, run: CurrentRun) -> None:
        with use_run(run):
            voucher = Voucher.objects.create(code="A'1", note="n")
            author = Author.objects.create(name="uuid")
        entry = TestEntity.objects.get(model="host.voucher")
        assert (entry.key_text, entry.key_bigint, entry.key_uuid) == ("A'1", None, None)
        name = get_registry().name_of(Voucher)
        assert (entry.type, entry.origin, entry.state) == (name, "captured", "live")
        assert (entry.database, entry.ordinal, entry.tombstone) == ("default", None, 0)
        entry.refresh_from_db()
        assert entry.row_key(Voucher) == voucher.pk
        entry = TestEntity.objects.get(model="host.author")
        assert (entry.key_text, entry.key_uuid) == (str(author.pk), author.pk)
        assert entry.created_at is not None

    def test_is_the_runs_in_every_table_that_it_reaches(self, run: CurrentRun) -> None:
        with use_run(run):
            book = Book.objects.create(title="t", author=Author.objects.create(name="n"))
            book.labels.add(Label.objects.create(text="l"))
            Restaurant.objects.create(name="r", serves="s")
        assert [model for model, _ in entered()] == [
            "host.author",
            "host.book",
            "host.book_labels",
            "host.label",
            "host.place",
            "host.restaurant",
        ]

    def test_is_taken_back_with_its_savepoint(self, run: CurrentRun) -> None:
        with use_run(run):
            kept = Label.objects.create(text="kept")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                Label.objects.create(text="lost")
                raise ZeroDivisionError
            after = Label.objects.create(text="after")
        assert entered() == sorted(("host.label", str(each.pk)) for each in (kept, after))

    def test_holds_the_run_anew_once_its_savepoint_is_gone(self, run: CurrentRun) -> None:
        with use_run(run), transaction.atomic():
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                Label.objects.create(text="lost")
                raise ZeroDivisionError
            TestRun.objects.update(state=TestRun.State.CLOSING)
            with pytest.raises(RunClosed):
                Label.objects.create(text="late")
            transaction.set_rollback(True)

    def test_is_refused_after_a_purge_in_the_same_transaction(self, run: CurrentRun) -> None:
        with transaction.atomic():
            with use_run(run):
                Label.objects.create(text="in time")
            purge_run(runs.find(TEST_ID, ""))
            with use_run(run), pytest.raises(RunClosed), transaction.atomic():
                Label.objects.create(text="late")
        assert not Label.objects.exists()

    def test_of_an_upsert_is_only_what_was_not_there(self, run: CurrentRun) -> None:
        Label.objects.create(text="real")
        labels = [Label(text="real"), Label(text="new")]
        with use_run(run), changed(FENCE="off"):
            by_key = connection.features.supports_update_conflicts_with_target
            unique = {"unique_fields": ["text"]} if by_key else {}
            Label.objects.bulk_create(labels, update_conflicts=True, update_fields=["text"], **unique)
            Label.objects.bulk_create(labels, ignore_conflicts=True)
            Label.objects.update_or_create(text="real", defaults={"text": "real"})
        assert entered() == label_keys("new")

    def test_does_not_count_among_what_the_run_asked_for(self, run: CurrentRun) -> None:
        for number in (1, 2):
            with use_run(run):
                Label.objects.create(text=f"captured {number}")
            perform(lambda call: call.create("voucher"))
            assert TestEntity.objects.get(ordinal=number).model == "host.voucher"
        assert list(TestEntity.objects.values_list("ordinal", flat=True)) == [1, 2, None, None]

    def test_is_refused_once_the_run_is_closing(self, run: CurrentRun) -> None:
        TestRun.objects.update(state=TestRun.State.CLOSING)
        with use_run(run), pytest.raises(RunClosed), transaction.atomic():
            Label.objects.create(text="late")
        assert not Label.objects.exists()

    def test_goes_with_the_run(self, run: CurrentRun) -> None:
        real = Label.objects.create(text="real")
        with use_run(run):
            book = Book.objects.create(title="t", author=Author.objects.create(name="n"))
            book.labels.add(real)
            Chapter.objects.create(book=book, position=1, title="c")
        outcome = purge_run(TestRun.objects.get())
        assert outcome.success, outcome.message
        assert list(Label.objects.all()) == [real]
        assert not Book.objects.exists()
        assert not TestEntity.objects.standing().exists()


@on_sqlite
class TestWithinOneStatement:
    """Of the product's own triggers, and of one that fails half-way."""

    @staticmethod
    def trigger(body: str) -> None:
        sql(f"CREATE TRIGGER nosy AFTER INSERT ON host_label FOR EACH ROW BEGIN {body}; END")

    @pytest.fixture(autouse=True)
    def real(self, run: CurrentRun) -> Label:
        return Label.objects.create(text="real")

    def test_what_it_has_made_may_be_changed(self, run: CurrentRun) -> None:
        self.trigger("UPDATE host_label SET text = text || '!' WHERE id = NEW.id")
        with use_run(run):
            by_bulk_create()
        assert entered() == label_keys("a!", "b!")

    def test_what_it_has_made_may_go_again(self, run: CurrentRun) -> None:
        self.trigger("DELETE FROM host_label WHERE id = NEW.id AND text = 'a'")
        with use_run(run):
            by_raw_sql()
        assert entered() == label_keys("b")

    def test_what_it_has_made_is_its_own_under_that_key_alone(self, run: CurrentRun) -> None:
        self.trigger("UPDATE host_label SET id = -id WHERE id = NEW.id AND text = 'a'")
        with use_run(run):
            by_raw_sql()
        assert entered() == label_keys("b")

    @pytest.mark.parametrize(
        "body", ["UPDATE host_label SET text = text || '!'", "DELETE FROM host_label WHERE text = 'real'"]
    )
    def test_a_real_row_may_not_be_touched(self, run: CurrentRun, real: Label, body: str) -> None:
        self.trigger(body)
        with use_run(run), pytest.raises(TestRunTouchedRealRow), transaction.atomic():
            by_raw_sql()
        assert list(Label.objects.all()) == [real]
        assert entered() == []

    def test_what_is_left_of_one_that_failed_is_the_runs(self, run: CurrentRun) -> None:
        with use_run(run), pytest.raises(IntegrityError):
            sql("INSERT OR FAIL INTO host_label (text) VALUES ('left'), ('real'), ('never')")
        assert entered() == label_keys("left")

    def test_that_cannot_be_entered_takes_its_transaction_with_it(self, run: CurrentRun) -> None:
        sql(
            "CREATE TRIGGER full BEFORE INSERT ON stagehand_testdata_testentity FOR EACH ROW"
            " BEGIN SELECT RAISE(FAIL, 'no room'); END"
        )
        with use_run(run), transaction.atomic():
            with pytest.raises(IntegrityError, match="no room"):
                by_raw_sql()
            assert transaction.get_rollback()
            transaction.set_rollback(False)


class TestAMarkedModel:
    def test_carries_the_mark_whichever_way_it_was_written(self, run: CurrentRun) -> None:
        with use_run(run):
            author = Author.objects.create(name="a")
            first = Flyer.objects.create(title="orm", author=author)
            sql(
                "INSERT INTO host_flyer (title, printed, author_id)"
                " SELECT 'raw', printed, author_id FROM host_flyer"
            )
            Billboard.objects.create(title="child", author=author)
        marks = Flyer.all_rows.values_list("test_run_id", flat=True)
        assert list(marks) == [run.pk] * 3
        assert first.test_run_id == run.pk
        assert not Flyer.objects.exists()


class TestFromManySides:
    @pytest.mark.django_db(transaction=True)
    @on_postgresql
    def test_threads_write_in_no_run_but_their_own(self) -> None:
        ours, theirs = run_of(), run_of(OTHER)

        def work(number: int) -> None:
            run = (ours, theirs, None)[number % 3]
            try:
                with use_run(run):
                    Label.objects.create(text=f"{run.test_id if run else 'real'} {number}")
            finally:
                connections.close_all()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(64)))
        self._each_has_its_own()

    @pytest.mark.django_db(transaction=True)
    def test_tasks_of_asyncio_write_in_no_run_but_their_own(self) -> None:
        ours, theirs = run_of(), run_of(OTHER)

        async def work(number: int) -> None:
            run = (ours, theirs, None)[number % 3]
            with use_run(run):
                await asyncio.sleep(0)
                await Label.objects.acreate(text=f"{run.test_id if run else 'real'} {number}")
                await asyncio.sleep(0)

        async def all_at_once() -> None:
            try:
                await asyncio.gather(*(work(number) for number in range(64)))
            finally:
                await sync_to_async(connections.close_all)()

        asyncio.run(all_at_once())
        self._each_has_its_own()

    @staticmethod
    def _each_has_its_own() -> None:
        for test_id, count in ((TEST_ID, 22), (OTHER, 21)):
            keys = Label.objects.filter(text__startswith=f"{test_id} ").values_list("pk", flat=True)
            assert len(keys) == count
            assert entered(test_id) == sorted(("host.label", str(key)) for key in keys)

    @pytest.mark.django_db(transaction=True)
    def test_a_run_among_others_in_one_transaction(self) -> None:
        ours, theirs = run_of(), run_of(OTHER)
        with transaction.atomic():
            for run in (ours, None, theirs, None, ours):
                with use_run(run):
                    Label.objects.create(text=uuid.uuid4().hex)
        assert (len(entered()), len(entered(OTHER))) == (2, 1)
        assert not StatementUnderWay.objects.exists()


@on_postgresql
def test_a_cursor_that_was_asked_for_under_a_run_waits_for_no_garbage_collector(run: CurrentRun) -> None:
    with use_run(run):
        cursor = connection.cursor()
    watched = weakref.ref(cursor)
    cursor.close()
    gc.disable()
    try:
        del cursor
        assert watched() is None
    finally:
        gc.enable()


@on_postgresql
@pytest.mark.django_db(transaction=True)
class TestTwoAtOnce:
    def test_a_run_that_closes_waits_for_what_is_being_captured(self, run: CurrentRun) -> None:
        closing = threading.Event()

        def close() -> None:
            closing.set()
            with transaction.atomic():
                row = TestRun.objects.select_for_update().get(pk=run.pk)
                TestRun.objects.filter(pk=row.pk).update(state=TestRun.State.CLOSING)

        with transaction.atomic(), use_run(run):
            Label.objects.create(text="in time")
            closer, _ = in_thread(close)
            closing.wait(5)
            time.sleep(0.3)
            assert closer.is_alive()
        closer.join(10)
        assert entered() == label_keys("in time")
        assert TestRun.objects.get().state == TestRun.State.CLOSING
        with use_run(run), pytest.raises(RunClosed):
            Label.objects.create(text="late")


class TestTheFence:
    @pytest.fixture
    def real(self, db: None) -> Any:
        return Person.objects.create(name="real")

    CROSSINGS: list[Callable[[Any], Any]] = [
        lambda real: Person.objects.filter(pk=real.pk).update(name="x"),
        lambda real: Person(pk=real.pk, name="x").save(),
        lambda real: Person.objects.bulk_update([Person(pk=real.pk, name="x")], ["name"]),
        lambda real: sql("UPDATE host_person SET name = 'x'"),
        lambda real: real.delete(),
        lambda real: Person.objects.all().delete(),
        lambda real: sql("DELETE FROM host_person"),
        lambda real: Person.objects.update_or_create(pk=real.pk, defaults={"name": "x"}),
    ]

    @pytest.mark.parametrize("crossing", CROSSINGS)
    def test_keeps_a_run_off_a_real_row(
        self, run: CurrentRun, real: Any, crossing: Callable[[Any], Any]
    ) -> None:
        with use_run(run), pytest.raises(TestRunTouchedRealRow, match="host_person"), transaction.atomic():
            crossing(real)
        assert Person.objects.values_list("name", flat=True).get() == "real"

    @pytest.mark.parametrize("crossing", CROSSINGS)
    def test_keeps_a_run_off_another_runs_row(self, run: CurrentRun, crossing: Callable[[Any], Any]) -> None:
        with use_run(run_of(OTHER)):
            other = Person.objects.create(name="real")
        with use_run(run), pytest.raises(TestRunTouchedRealRow), transaction.atomic():
            crossing(other)
        assert Person.objects.values_list("name", flat=True).get() == "real"

    @pytest.mark.parametrize("crossing", CROSSINGS)
    def test_lets_a_run_change_its_own(self, run: CurrentRun, crossing: Callable[[Any], Any]) -> None:
        with use_run(run):
            own = Person.objects.create(name="own")
            crossing(own)
        assert not Person.objects.filter(name="own").exists()

    def test_is_down_again_for_whatever_else_the_transaction_does(self, run: CurrentRun) -> None:
        real = Person.objects.create(name="real")
        with transaction.atomic():
            with use_run(run):
                own = Person.objects.create(name="own")
                Person.objects.filter(pk=own.pk).update(name="changed")
            Person.objects.filter(pk=real.pk).update(name="changed")
        assert set(Person.objects.values_list("name", flat=True)) == {"changed"}

    @pytest.mark.parametrize("crossing", CROSSINGS)
    def test_reports_where_it_is_told_to(
        self, run: CurrentRun, real: Any, crossing: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        with use_run(run), changed(FENCE="report"):
            crossing(real)
        assert f"{TEST_ID} touched a row of host_person" in caplog.text
        assert not Person.objects.filter(name="real").exists()

    @pytest.mark.parametrize("crossing", CROSSINGS)
    def test_is_silent_where_it_is_off_and_without_a_run(
        self, run: CurrentRun, real: Any, crossing: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        if run.pk % 2:
            crossing(real)
        else:
            with use_run(run), changed(FENCE="off"):
                crossing(real)
        assert not Person.objects.filter(name="real").exists()
        assert "touched" not in caplog.text

    def test_takes_a_write_that_changes_nothing_for_none(self, run: CurrentRun, real: Any) -> None:
        with use_run(run):
            real.save()
            Person.objects.update(name=F("name"))

    def test_keeps_a_cascade_off_a_real_row(self, run: CurrentRun, real: Any) -> None:
        with use_run(run):
            boss = Person.objects.create(name="boss")
        Person.objects.filter(pk=real.pk).update(boss=boss)
        with use_run(run), pytest.raises(TestRunTouchedRealRow), transaction.atomic():
            boss.delete()

    def test_holds_in_an_operation_of_the_api_too(self, real: Any) -> None:
        def work(call: Any) -> None:
            call.create("voucher")
            Person.objects.filter(pk=real.pk).update(name="x")

        with pytest.raises(TestRunTouchedRealRow):
            perform(work)
        assert not TestEntity.objects.exists()
        assert not Voucher.objects.exists()

    def test_lets_an_operation_change_what_it_has_just_made(self) -> None:
        def work(call: Any) -> None:
            voucher = call.create("voucher")
            voucher.note = "changed"
            voucher.save()
            label = Label.objects.create(text="on the way")
            Label.objects.filter(pk=label.pk).update(text="changed")
            Label.objects.create(text="gone").delete()

        perform(work)
        assert Voucher.objects.get().note == "changed"
        assert [(each.model, each.origin, each.ordinal) for each in TestEntity.objects.standing()] == [
            ("host.voucher", "requested", 1),
            ("host.label", "on_the_way", 2),
        ]

    def test_knows_what_an_operation_has_made_since_something_was_rolled_back(self) -> None:
        def work(call: Any) -> None:
            kept = Label.objects.create(text="kept")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                lost = Label.objects.create(text="lost")
                Label.objects.filter(pk=lost.pk).update(text="changed")
                raise ZeroDivisionError
            Label.objects.filter(pk=kept.pk).update(text="changed")
            again = Label.objects.create(text="again")
            Label.objects.filter(pk=again.pk).update(text="changed again")

        perform(work)
        assert entered() == label_keys("changed", "changed again")
        assert list(TestEntity.objects.values_list("ordinal", flat=True)) == [1, 2]

    @pytest.mark.django_db(transaction=True)
    def test_and_capture_go_on_after_an_operation_has_committed(self) -> None:
        def work(call: Any) -> None:
            call.create("voucher")
            transaction.on_commit(lambda: Label.objects.create(text="later"))

        perform(work)
        assert set(label_keys("later")) <= set(entered())

    @on_postgresql
    def test_stands_though_a_statement_of_a_trigger_of_the_products_ends_within(
        self, run: CurrentRun, real: Any
    ) -> None:
        sql(
            "CREATE FUNCTION pg_temp.nosy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " UPDATE host_label SET text = text; RETURN NEW; END $$"
        )
        sql("CREATE TRIGGER nosy BEFORE UPDATE ON host_person FOR EACH ROW EXECUTE FUNCTION pg_temp.nosy()")
        with use_run(run):
            Person.objects.create(name="first of two")
            with pytest.raises(TestRunTouchedRealRow), transaction.atomic():
                Person.objects.order_by("-pk").update(name="x")
            with pytest.raises(TestRunTouchedRealRow), transaction.atomic():
                Person.objects.update(name="x")
        Person.objects.update(name="by real traffic")

    @on_postgresql
    @pytest.mark.django_db(transaction=True)
    def test_keeps_a_run_from_emptying_a_table(self, run: CurrentRun, real: Any) -> None:
        with use_run(run), pytest.raises(TestRunTouchedRealRow), transaction.atomic():
            sql("TRUNCATE host_person CASCADE")
        assert Person.objects.exists()

    @on_sqlite
    @pytest.mark.parametrize("verb", ["REPLACE INTO", "INSERT OR REPLACE INTO", "/* x */ replace into"])
    def test_keeps_a_run_from_replacing_rows(self, run: CurrentRun, real: Any, verb: str) -> None:
        statement = f"{verb} host_person (id, name) VALUES ({real.pk}, 'x')"
        with use_run(run):
            with pytest.raises(TestRunTouchedRealRow), transaction.atomic():
                sql(statement)
            with changed(FENCE="off"):
                sql(statement)
        assert not TestEntity.objects.exists()

    @on_sqlite
    def test_keeps_a_run_from_replacing_rows_by_a_change_of_its_own(self, run: CurrentRun) -> None:
        real = Label.objects.create(text="real")
        with use_run(run):
            own = Label.objects.create(text="own")
            with pytest.raises(TestRunTouchedRealRow), transaction.atomic():
                sql(f"UPDATE OR REPLACE host_label SET text = 'real' WHERE id = {own.pk}")
        assert Label.objects.filter(pk=real.pk).exists()


class TestARealRowThatWouldHoldATestRow:
    POINTING: list[Callable[[Any, Any], Any]] = [
        lambda test, real: Person.objects.create(name="new", boss=test),
        lambda test, real: Person.objects.filter(pk=real.pk).update(boss=test),
        lambda test, real: sql("INSERT INTO host_person (name, boss_id) VALUES ('raw', %s)", [test.pk]),
    ]

    @pytest.fixture
    def pointers(self, request: Any, django_db_blocker: Any) -> Iterator[None]:
        with changed(FENCE_POINTERS=request.param):
            guards.install(ALIAS)
            yield
        if connection.vendor == "mysql":  # elsewhere they go with the test's transaction
            guards.install(ALIAS)

    @pytest.fixture
    def pair(self, run: CurrentRun) -> tuple[Any, Any]:
        with use_run(run):
            test = Person.objects.create(name="test")
        return test, Person.objects.create(name="real")

    @changes_tables
    @pytest.mark.parametrize("pointers", ["block"], indirect=True)
    def test_is_refused_and_nothing_else_is(
        self, pointers: None, pair: tuple[Any, Any], run: CurrentRun
    ) -> None:
        test, real = pair
        for point in self.POINTING:
            expected = pytest.raises(IntegrityError, match="a real row of host_person that points at")
            with expected, transaction.atomic():
                point(test, real)
        assert not Person.objects.filter(boss__isnull=False).exists()
        Person.objects.create(name="at a real one", boss=real)
        Person.objects.filter(pk=real.pk).update(name="other")
        with use_run(run):
            own = Person.objects.create(name="own", boss=test)
        Person.objects.filter(pk=own.pk).update(boss=test)

    @on_postgresql
    @pytest.mark.parametrize("pointers", ["report"], indirect=True)
    def test_is_reported(self, pointers: None, pair: tuple[Any, Any], caplog: Any) -> None:
        for number, point in enumerate(self.POINTING, 1):
            point(*pair)
            assert caplog.text.count("a real row of host_person that points at a test row") == number

    def test_is_let_through_by_default(self, pair: tuple[Any, Any]) -> None:
        for point in self.POINTING:
            point(*pair)
        assert Person.objects.filter(boss__isnull=False).count() == 3


class TestAStatement:
    def test_of_no_run_is_sent_as_it_is(self) -> None:
        with CaptureQueriesContext(connection) as queries:
            Label.objects.create(text="a")
        assert not [each for each in queries if "stagehand" in each["sql"]]

    def test_is_named_once_however_often_that_is_asked_for(self, run: CurrentRun) -> None:
        for _ in range(3):
            name_statements()
        with use_run(run):
            Label.objects.create(text="a")
        assert len(entered()) == 1

    def test_is_seen_as_it_was_by_whoever_wraps_statements_too(self, run: CurrentRun) -> None:
        seen = []

        def look(execute: Any, sql: Any, *arguments: Any) -> Any:
            seen.append(sql)
            return execute(sql, *arguments)

        with use_run(run), connection.execute_wrapper(look):
            Label.objects.create(text="a")
        assert [each for each in seen if each.startswith("INSERT")]
        assert not [each for each in seen if "/*stagehand" in each]
        assert len(entered()) == 1

    @pytest.mark.django_db(transaction=True)
    def test_of_a_connection_made_within_somebodys_wrapper_is_named_after_it_too(
        self, run: CurrentRun
    ) -> None:
        connection.close()
        connection.execute_wrappers = []
        with connection.execute_wrapper(lambda execute, *arguments: execute(*arguments)), use_run(run):
            Label.objects.create(text="a")
        with use_run(run):
            Label.objects.create(text="b")
        assert entered() == label_keys("a", "b")

    @on_postgresql
    @pytest.mark.django_db(transaction=True)
    def test_says_its_run_in_every_form_that_a_cursor_takes(self, run: CurrentRun) -> None:
        from django.db.backends.postgresql.psycopg_any import sql as composed

        text = "SELECT current_query()"
        with use_run(run):
            for statement in (text, text.encode(), composed.SQL(text)):
                [[arrived]] = sql(statement)  # type: ignore[arg-type]
                assert arrived == f"/*stagehand:capture run={run.pk} fence=block*/ {text}"
            rows = Label.objects.iterator(chunk_size=2)
            assert list(rows) == []
        assert sql(text) == [(text,)]


@pytest.fixture(autouse=True)
def _no_leftovers(db: None) -> Iterator[None]:
    yield
    assert not StatementUnderWay.objects.exists()
