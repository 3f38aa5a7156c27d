"""Every INSERT is taken down with its keys; what cannot be taken down is refused."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import serializers
from django.db import IntegrityError, connection, connections, models, transaction
from django.test.utils import CaptureQueriesContext, isolate_apps

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.exceptions import UntrackedWrite
from stagehand_testdata.fingerprints import matches
from stagehand_testdata.isolation.capture import Recorder, recording_inserts
from tests.host.models import (
    Author,
    Book,
    Chapter,
    Country,
    Label,
    Note,
    Person,
    Place,
    Restaurant,
    Voucher,
)
from tests.making import TEST_ID, changed

pytestmark = pytest.mark.django_db


def taken(recorder: Recorder) -> list[tuple[str, Any]]:
    return [(row.model._meta.model_name or "", row.pk) for row in recorder.rows]


def all_of(model: type[models.Model]) -> list[tuple[str, Any]]:
    name = model._meta.model_name or ""
    return [(name, pk) for pk in model._base_manager.order_by("pk").values_list("pk", flat=True)]


# --- keys of every kind ----------------------------------------------------------------------------------


class TestKeys:
    def test_given_by_the_database(self) -> None:
        with recording_inserts() as recorder:
            person = Person.objects.create(name="a")
        assert taken(recorder) == [("person", person.pk)]
        assert recorder.rows[0].key.bigint == person.pk
        assert recorder.rows[0].database == "default"

    def test_uuids(self) -> None:
        with recording_inserts() as recorder:
            author = Author.objects.create(name="a")
        assert taken(recorder) == [("author", author.pk)]
        assert recorder.rows[0].key.uuid == author.pk

    def test_uuids_given_as_text(self) -> None:
        key = uuid.uuid4()
        with recording_inserts() as recorder:
            Author.objects.create(pk=str(key), name="a")
        assert recorder.rows[0].key.uuid == key
        assert recorder.rows[0].key.text == str(key)

    def test_text(self) -> None:
        with recording_inserts() as recorder:
            Voucher.objects.create(code="ABC", note="x")
        assert taken(recorder) == [("voucher", "ABC")]

    def test_given_by_hand(self) -> None:
        with recording_inserts() as recorder:
            Person.objects.create(pk="4711", name="a")
        assert recorder.rows[0].key.bigint == 4711

    @pytest.mark.skipif(connection.vendor != "sqlite", reason="the column refuses it first")
    def test_longer_than_the_ledger_keeps_are_refused(self) -> None:
        with pytest.raises(UntrackedWrite, match="longer"), transaction.atomic(), recording_inserts():
            Voucher(code="A" * 300, note="x").save()


@pytest.mark.django_db(transaction=True)
class TestModelsOfTheirOwn:
    @pytest.fixture
    def table(self, request: Any) -> Iterator[Any]:
        with isolate_apps("tests.host"):
            yield lambda model: self._table(request, model)

    def _table(self, request: Any, model: type[models.Model]) -> type[models.Model]:
        with connection.schema_editor() as editor:
            editor.create_model(model)

        def drop() -> None:
            with connection.schema_editor() as editor:
                editor.delete_model(model)

        request.addfinalizer(drop)
        return model

    def test_composite_keys(self, table: Any) -> None:
        class Seat(models.Model):
            pk = models.CompositePrimaryKey("hall", "number")
            hall = models.CharField(max_length=10)
            number = models.IntegerField()

            class Meta:
                app_label = "host"

        table(Seat)
        with recording_inserts() as recorder:
            Seat.objects.create(hall="A", number=1)
            Seat.objects.bulk_create([Seat(hall="A", number=2), Seat(hall="B", number=1)])
        assert [row.pk for row in recorder.rows] == [("A", 1), ("A", 2), ("B", 1)]
        assert recorder.rows[0].key.text == '["A", "1"]'

    def test_composite_keys_ignoring_conflicts(self, table: Any) -> None:
        class Seat(models.Model):
            pk = models.CompositePrimaryKey("hall", "number")
            hall = models.CharField(max_length=10)
            number = models.IntegerField()

            class Meta:
                app_label = "host"

        table(Seat)
        Seat.objects.create(hall="A", number=1)
        with recording_inserts() as recorder:
            Seat.objects.bulk_create(
                [Seat(hall="A", number=1), Seat(hall="A", number=2)], ignore_conflicts=True
            )
        assert [row.pk for row in recorder.rows] == [("A", 2)]

    def test_values_that_the_database_computes(self, table: Any) -> None:
        from django.db.models.functions import Lower, Now

        class Stamped(models.Model):
            made = models.DateTimeField(db_default=Now())
            word = models.CharField(max_length=10)
            small = models.GeneratedField(
                expression=Lower("word"), output_field=models.CharField(max_length=10), db_persist=True
            )

            class Meta:
                app_label = "host"

        table(Stamped)
        with recording_inserts() as recorder:
            one = Stamped.objects.create(word="Word")
            many = Stamped.objects.bulk_create([Stamped(word="Other"), Stamped(word="More")])
        assert [row.pk for row in recorder.rows] == [one.pk, *(each.pk for each in many)]
        stored = {row["id"]: row for row in Stamped.objects.values()}
        assert all(matches(row.fingerprint, Stamped, stored[row.pk]) for row in recorder.rows)

    def test_a_model_of_nothing_but_its_key(self, table: Any) -> None:
        class Bare(models.Model):
            class Meta:
                app_label = "host"

        table(Bare)
        with recording_inserts() as recorder:
            one = Bare.objects.create()
            Bare.objects.bulk_create([Bare(), Bare()])
        assert len(recorder.rows) == 3
        assert recorder.rows[0].pk == one.pk

    def test_a_conditional_constraint_is_minded_when_conflicts_are_ignored(self, table: Any) -> None:
        class Badge(models.Model):
            name = models.CharField(max_length=10)
            live = models.BooleanField(default=True)

            class Meta:
                app_label = "host"
                constraints = [models.UniqueConstraint(fields=["name", "live"], name="host_badge_once")]

        table(Badge)
        Badge.objects.create(name="a")
        with recording_inserts() as recorder:
            Badge.objects.bulk_create(
                [Badge(name="a"), Badge(name="b"), Badge(name="a", live=False)], ignore_conflicts=True
            )
        assert [row.instance.name for row in recorder.rows] == ["b", "a"]  # type: ignore[attr-defined]


# --- ways to make rows -----------------------------------------------------------------------------------


class TestWays:
    def test_save(self) -> None:
        with recording_inserts() as recorder:
            Person(name="a").save()
        assert taken(recorder) == all_of(Person)

    def test_saving_again_takes_nothing(self) -> None:
        person = Person.objects.create(name="a")
        with recording_inserts() as recorder:
            person.name = "b"
            person.save()
            Person.objects.filter(pk=person.pk).update(name="c")
        assert taken(recorder) == []

    def test_saving_under_a_key_that_is_not_there_yet(self) -> None:
        with recording_inserts() as recorder:
            Voucher(code="NEW", note="x").save()
        assert taken(recorder) == [("voucher", "NEW")]

    def test_saving_over_a_real_row_takes_nothing(self) -> None:
        Voucher.objects.create(code="REAL", note="real")
        with recording_inserts() as recorder:
            Voucher(code="REAL", note="x").save()
        assert taken(recorder) == []

    def test_the_trick_that_clones_a_row(self) -> None:
        person = Person.objects.create(name="a")
        original = person.pk
        with recording_inserts() as recorder:
            person.pk = None
            person._state.adding = True
            person.save()
        assert taken(recorder) == [("person", person.pk)]
        assert person.pk != original

    def test_bulk_create(self) -> None:
        with recording_inserts() as recorder:
            made = Label.objects.bulk_create([Label(text=f"{n}") for n in range(5)])
        assert taken(recorder) == [("label", label.pk) for label in made]
        assert taken(recorder) == all_of(Label)

    def test_bulk_create_in_batches(self) -> None:
        with recording_inserts() as recorder:
            Label.objects.bulk_create([Label(text=f"{n}") for n in range(10)], batch_size=3)
        assert taken(recorder) == all_of(Label)

    def test_bulk_create_with_and_without_keys(self) -> None:
        with recording_inserts() as recorder:
            Label.objects.bulk_create([Label(pk=900, text="a"), Label(text="b"), Label(pk=901, text="c")])
        assert sorted(taken(recorder)) == all_of(Label)

    def test_bulk_create_where_the_database_gives_one_key_at_a_time(self, monkeypatch: Any) -> None:
        """MySQL has no RETURNING."""
        monkeypatch.setattr(type(connection.features), "can_return_rows_from_bulk_insert", False)
        with recording_inserts() as recorder:
            Label.objects.bulk_create([Label(text=f"{n}") for n in range(3)])
        assert taken(recorder) == all_of(Label)

    @pytest.mark.skipif(connection.vendor == "postgresql", reason="it always returns columns")
    def test_one_row_where_the_database_returns_no_columns(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(type(connection.features), "can_return_rows_from_bulk_insert", False)
        monkeypatch.setattr(type(connection.features), "can_return_columns_from_insert", False)
        with recording_inserts() as recorder:
            Label.objects.create(text="one")
            Label.objects.bulk_create([Label(text="two"), Label(text="three")])
        assert taken(recorder) == all_of(Label)

    def test_get_or_create(self) -> None:
        Country.objects.create(code="NL", name="real")
        with recording_inserts() as recorder:
            Country.objects.get_or_create(code="NL", defaults={"name": "x"})
            Country.objects.get_or_create(code="BE", defaults={"name": "x"})
        assert taken(recorder) == [("country", "BE")]

    def test_update_or_create(self) -> None:
        Country.objects.create(code="NL", name="real")
        with recording_inserts() as recorder:
            Country.objects.update_or_create(code="NL", defaults={"name": "x"})
            Country.objects.update_or_create(code="BE", defaults={"name": "x"})
        assert taken(recorder) == [("country", "BE")]

    def test_rows_of_fixtures(self) -> None:
        data = serializers.serialize("json", [Person(pk=55, name="a")])
        with recording_inserts() as recorder:
            for each in serializers.deserialize("json", data):
                each.save()
        assert taken(recorder) == [("person", 55)]

    def test_rows_that_a_signal_makes(self) -> None:
        def also(sender: Any, instance: Any, created: bool, **kwargs: Any) -> None:
            Label.objects.create(text=f"for {instance.name}")

        models.signals.post_save.connect(also, sender=Person)
        try:
            with recording_inserts() as recorder:
                Person.objects.create(name="a")
        finally:
            models.signals.post_save.disconnect(also, sender=Person)
        assert {name for name, _ in taken(recorder)} == {"person", "label"}

    def test_rows_of_a_proxy_are_rows_of_its_model(self) -> None:
        with isolate_apps("tests.host"):

            class Boss(Person):
                class Meta:
                    app_label = "host"
                    proxy = True

        with recording_inserts() as recorder:
            Boss.objects.create(name="a")
        assert recorder.rows[0].model is Person

    def test_generic_pointers(self) -> None:
        voucher = Voucher.objects.create(code="V", note="x")
        with recording_inserts() as recorder:
            note = Note.objects.create(text="a note", subject=voucher)
        assert ("note", note.pk) in taken(recorder)

    def test_asynchronous_calls(self) -> None:
        from asgiref.sync import async_to_sync

        async def make() -> None:
            await Label.objects.acreate(text="a")

        with recording_inserts() as recorder:
            async_to_sync(make)()
        assert taken(recorder) == all_of(Label)

    def test_a_fingerprint_is_of_what_the_database_holds(self) -> None:
        with recording_inserts() as recorder:
            book = Book.objects.create(
                title="Title", author=Author.objects.create(name="a"), price="12.345", published="2020-01-01"
            )
            Chapter.objects.create(book=book, position=1, title="One")
            get_user_model().objects.create_user("user", "u@example.com")
        for row in recorder.rows:
            stored = row.model._base_manager.filter(pk=row.pk).values().get()
            assert matches(row.fingerprint, row.model, stored)


class TestParentsAndChildren:
    def test_both_tables_are_taken(self) -> None:
        with recording_inserts() as recorder:
            restaurant = Restaurant.objects.create(name="a", serves="soup")
        assert taken(recorder) == [("place", restaurant.pk), ("restaurant", restaurant.pk)]

    def test_a_child_of_a_real_parent_is_taken_alone(self) -> None:
        place = Place.objects.create(name="real")
        with recording_inserts() as recorder:
            Restaurant(place_ptr=place, name=place.name, serves="soup").save()
        assert taken(recorder) == [("restaurant", place.pk)]

    def test_a_raw_child_of_a_real_parent_is_taken_alone(self) -> None:
        place = Place.objects.create(name="real")
        with recording_inserts() as recorder:
            Restaurant(place_ptr_id=place.pk, serves="soup").save_base(raw=True)
        assert taken(recorder) == [("restaurant", place.pk)]


class TestManyToMany:
    @pytest.fixture
    def book(self) -> Book:
        return Book.objects.create(title="a", author=Author.objects.create(name="a"))

    def test_pairs_are_taken(self, book: Book) -> None:
        labels = [Label.objects.create(text=f"{n}") for n in range(3)]
        with recording_inserts() as recorder:
            book.labels.add(*labels)
        assert sorted(taken(recorder)) == all_of(Book.labels.through)
        assert len(recorder.rows) == 3

    def test_pairs_that_were_there_are_not(self, book: Book) -> None:
        old, new = Label.objects.create(text="old"), Label.objects.create(text="new")
        book.labels.add(old)
        with recording_inserts() as recorder:
            book.labels.add(old, new)
        pair = Book.labels.through.objects.get(label=new)
        assert taken(recorder) == [("book_labels", pair.pk)]

    def test_setting_takes_the_new_ones(self, book: Book) -> None:
        old, new = Label.objects.create(text="old"), Label.objects.create(text="new")
        book.labels.add(old)
        with recording_inserts() as recorder:
            book.labels.set([old, new])
        assert [row.instance.label_id for row in recorder.rows] == [new.pk]  # type: ignore[attr-defined]
        assert set(book.labels.all()) == {old, new}

    def test_with_a_listener_the_pairs_are_taken_too(self, book: Book) -> None:
        def listen(**kwargs: Any) -> None: ...

        label = Label.objects.create(text="a")
        models.signals.m2m_changed.connect(listen, sender=Book.labels.through)
        try:
            with recording_inserts() as recorder:
                book.labels.add(label)
                book.labels.add(label)
        finally:
            models.signals.m2m_changed.disconnect(listen, sender=Book.labels.through)
        assert len(recorder.rows) == 1

    def test_from_the_other_side(self, book: Book) -> None:
        label = Label.objects.create(text="a")
        with recording_inserts() as recorder:
            label.book_set.add(book)
        assert len(recorder.rows) == 1

    def test_a_row_created_through_the_relation(self, book: Book) -> None:
        with recording_inserts() as recorder:
            book.labels.create(text="a")
        assert [name for name, _ in taken(recorder)] == ["label", "book_labels"]


# --- what meets a real row -------------------------------------------------------------------------------


class TestIgnoredConflicts:
    def test_only_what_was_made_is_taken(self) -> None:
        Label.objects.create(text="real")
        with recording_inserts() as recorder:
            Label.objects.bulk_create([Label(text="real"), Label(text="new")], ignore_conflicts=True)
        assert taken(recorder) == [("label", Label.objects.get(text="new").pk)]

    def test_doubles_within_the_call_are_made_once(self) -> None:
        with recording_inserts() as recorder:
            Label.objects.bulk_create([Label(text="twice"), Label(text="twice")], ignore_conflicts=True)
        assert len(recorder.rows) == Label.objects.count() == 1

    def test_nothing_but_doubles_makes_nothing(self) -> None:
        Label.objects.create(text="real")
        with recording_inserts() as recorder:
            Label.objects.bulk_create([Label(text="real")], ignore_conflicts=True)
        assert taken(recorder) == []
        assert Label.objects.count() == 1

    def test_keys_of_real_rows_are_not_taken(self) -> None:
        Voucher.objects.create(code="REAL", note="x")
        with recording_inserts() as recorder:
            Voucher.objects.bulk_create(
                [Voucher(code="REAL", note="y"), Voucher(code="NEW", note="y")], ignore_conflicts=True
            )
        assert taken(recorder) == [("voucher", "NEW")]
        assert Voucher.objects.get(code="REAL").note == "x"

    def test_groups_of_columns_count_together(self) -> None:
        book = Book.objects.create(title="a", author=Author.objects.create(name="a"))
        Chapter.objects.create(book=book, position=1, title="real")
        with recording_inserts() as recorder:
            Chapter.objects.bulk_create(
                [Chapter(book=book, position=n, title="new") for n in (1, 2)], ignore_conflicts=True
            )
        assert [row.instance.position for row in recorder.rows] == [2]  # type: ignore[attr-defined]

    def test_many_are_looked_up_at_once(self) -> None:
        with CaptureQueriesContext(connection) as queries, recording_inserts():
            Label.objects.bulk_create([Label(text=f"{n}") for n in range(50)], ignore_conflicts=True)
        assert len(queries) <= 6


@pytest.mark.parametrize("existing", [True, False])
def test_an_upsert_is_refused(existing: bool) -> None:
    if existing:
        Label.objects.create(text="real")
    unique = ["text"] if connection.features.supports_update_conflicts_with_target else None
    with pytest.raises(UntrackedWrite, match="upsert"), transaction.atomic(), recording_inserts():
        Label.objects.bulk_create(
            [Label(text="real")], update_conflicts=True, unique_fields=unique, update_fields=["text"]
        )
    assert Label.objects.count() == existing


# --- raw SQL ---------------------------------------------------------------------------------------------


def run(sql: Any, params: Any = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


class TestRawSql:
    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO host_label (text) VALUES ('raw')",
            "  insert into host_label (text) values ('raw')",
            "INSERT\n INTO\n host_label (text) VALUES ('raw')",
            "/* note */ INSERT INTO host_label (text) VALUES ('raw')",
            "INSERT /* note */ INTO host_label (text) VALUES ('raw')",
            "-- note\nINSERT INTO host_label (text) VALUES ('raw')",
            "INSERT INTO host_label (text) SELECT name FROM host_country",
        ],
    )
    def test_is_refused_and_rolled_back(self, sql: str) -> None:
        Country.objects.create(code="NL", name="Netherlands")
        with pytest.raises(UntrackedWrite, match="host_label"), transaction.atomic(), recording_inserts():
            Person.objects.create(name="before")
            run(sql)
        assert not Label.objects.exists()
        assert not Person.objects.exists()

    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT OR IGNORE INTO host_label (text) VALUES ('raw')",
            "INSERT OR REPLACE INTO host_label (text) VALUES ('raw')",
            "REPLACE INTO host_label (text) VALUES ('raw')",
            "INSERT IGNORE INTO `host_label` (text) VALUES ('raw')",
            "INSERT LOW_PRIORITY IGNORE INTO host_label (text) VALUES ('raw')",
            "INSERT IGNORE host_label (text) VALUES ('raw')",
            "REPLACE host_label (text) VALUES ('raw')",
            "WITH made AS (INSERT INTO host_label (text) VALUES ('raw') RETURNING id) SELECT * FROM made",
            'INSERT INTO "public"."host_label" (text) VALUES (1)',
            'INSERT INTO public."host_label" (text) VALUES (1)',
            "MERGE INTO host_label USING host_country ON true WHEN NOT MATCHED THEN INSERT (text) VALUES (1)",
            "COPY host_label (text) FROM STDIN",
            "LOAD DATA INFILE 'x' INTO TABLE host_label",
        ],
    )
    def test_is_refused_in_every_dialect(self, sql: str) -> None:
        """Before the database sees it: so each database is asked about all of them."""
        with pytest.raises(UntrackedWrite, match="host_label"), transaction.atomic(), recording_inserts():
            run(sql)

    def test_is_refused_for_many_rows_at_once(self) -> None:
        with (
            pytest.raises(UntrackedWrite),
            transaction.atomic(),
            recording_inserts(),
            connection.cursor() as cursor,
        ):
            cursor.executemany("INSERT INTO host_label (text) VALUES (%s)", [["a"], ["b"]])
        assert not Label.objects.exists()

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT 1",
            "UPDATE host_label SET text = 'x' WHERE text = 'nothing'",
            "DELETE FROM host_label WHERE text = 'nothing'",
            "SELECT count(*) FROM host_label",
        ],
    )
    def test_that_makes_no_rows_is_let_through(self, sql: str) -> None:
        with recording_inserts() as recorder:
            run(sql)
        assert taken(recorder) == []

    def test_text_in_parameters_is_no_statement(self) -> None:
        with recording_inserts():
            run("SELECT %s", ["INSERT INTO host_label"])
            Label.objects.create(text="please INSERT INTO host_label")
            Label.objects.filter(text="REPLACE INTO host_label").update(text="INSERT INTO host_label")

    def test_of_a_derived_table_is_let_through(self) -> None:
        with changed(DERIVED_TABLES=["host_label"]), recording_inserts() as recorder:
            run("INSERT INTO host_label (text) VALUES ('raw')")
            if connection.vendor == "postgresql":
                run('INSERT INTO "public"."host_label" (text) VALUES (\'other\')')
        assert taken(recorder) == []

    @pytest.mark.postgresql
    @pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's driver")
    def test_composed_by_the_driver_is_refused(self) -> None:
        from psycopg import sql

        statement = sql.SQL("INSERT INTO {} (text) VALUES ('raw')").format(sql.Identifier("host_label"))
        with pytest.raises(UntrackedWrite), transaction.atomic(), recording_inserts():
            run(statement)
        with recording_inserts():
            run(sql.SQL("SELECT 1"))

    @pytest.mark.postgresql
    @pytest.mark.skipif(connection.vendor != "postgresql", reason="COPY is PostgreSQL's")
    @pytest.mark.parametrize("debug", [True, False])
    def test_copy_is_refused_and_rolled_back(self, debug: bool, settings: Any) -> None:
        settings.DEBUG = debug
        with pytest.raises(UntrackedWrite, match="host_label"), transaction.atomic(), recording_inserts():
            Person.objects.create(name="before")
            with connection.cursor() as cursor, cursor.copy("COPY host_label (text) FROM STDIN") as copy:
                copy.write_row(["raw"])
        assert not Label.objects.exists()
        assert not Person.objects.exists()

    @pytest.mark.postgresql
    @pytest.mark.skipif(connection.vendor != "postgresql", reason="COPY is PostgreSQL's")
    def test_copy_that_reads_is_let_through(self) -> None:
        with recording_inserts(), connection.cursor() as cursor:
            with cursor.copy("COPY host_label (text) TO STDOUT") as copy:
                assert list(copy) == []
            with cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
                assert len(list(copy)) == 1


# --- the block itself ------------------------------------------------------------------------------------


class TestTheBlock:
    def test_nothing_is_taken_before_and_after_it(self) -> None:
        Label.objects.create(text="before")
        with recording_inserts() as recorder:
            pass
        Label.objects.create(text="after")
        run("INSERT INTO host_label (text) VALUES ('raw')")
        assert taken(recorder) == []

    def test_django_is_as_it_was_after_it(self) -> None:
        before = [dict(vars(each.ops)) for each in connections.all()]
        wrappers = [list(each.execute_wrappers) for each in connections.all()]
        with recording_inserts():
            assert "compiler" in vars(connection.ops)
        assert [dict(vars(each.ops)).keys() for each in connections.all()] == [each.keys() for each in before]
        assert "compiler" not in vars(connection.ops)
        assert [list(each.execute_wrappers) for each in connections.all()] == wrappers

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UntrackedWrite])
    def test_django_is_as_it_was_after_an_exception(self, error: type[BaseException]) -> None:
        wrappers = list(connection.execute_wrappers)
        with pytest.raises(error), recording_inserts():
            raise error
        assert "compiler" not in vars(connection.ops)
        assert "make_cursor" not in vars(connection)
        assert connection.execute_wrappers == wrappers

    def test_a_failed_insert_does_not_open_the_door_to_raw_sql(self) -> None:
        Label.objects.create(text="taken")
        with pytest.raises(UntrackedWrite), transaction.atomic(), recording_inserts():
            with pytest.raises(IntegrityError), transaction.atomic():
                Label.objects.create(text="taken")
            run("INSERT INTO host_label (text) VALUES ('raw')")

    def test_a_block_in_a_block_takes_for_both(self) -> None:
        with recording_inserts() as outer:
            first = Label.objects.create(text="first")
            with recording_inserts() as inner:
                second = Label.objects.create(text="second")
                Label.objects.bulk_create([Label(text="second"), Label(text="bulk")], ignore_conflicts=True)
            third = Label.objects.create(text="third")
        bulk = Label.objects.get(text="bulk")
        assert [row.pk for row in inner.rows] == [second.pk, bulk.pk]
        assert [row.pk for row in outer.rows] == [first.pk, second.pk, bulk.pk, third.pk]
        assert "compiler" not in vars(connection.ops)

    def test_the_database_that_was_written_to_is_noted(self) -> None:
        with recording_inserts() as recorder:
            Label.objects.using("default").create(text="a")
        assert recorder.rows[0].database == "default"


class TestSavepoints:
    def test_rows_that_were_rolled_back_are_given_up(self) -> None:
        with recording_inserts() as recorder:
            first = Label.objects.create(text="first")
            with pytest.raises(ValueError, match="x"), transaction.atomic():
                Label.objects.create(text="rolled back")
                raise ValueError("x")
            last = Label.objects.create(text="last")
        assert taken(recorder) == [("label", first.pk), ("label", last.pk)]

    def test_rows_of_a_savepoint_that_was_released_are_kept(self) -> None:
        with recording_inserts() as recorder, transaction.atomic(), transaction.atomic():
            label = Label.objects.create(text="a")
        assert taken(recorder) == [("label", label.pk)]

    def test_rows_that_were_rolled_back_under_a_run_are_given_up(self) -> None:
        with use_run(CurrentRun(1, TEST_ID)), recording_inserts() as recorder, transaction.atomic():
            with transaction.atomic():
                Label.objects.create(text="given up")
                transaction.set_rollback(True)
            kept = Label.objects.create(text="kept")
        assert taken(recorder) == [("label", kept.pk)]

    def test_the_inner_of_two_is_rolled_back_alone(self) -> None:
        with recording_inserts() as recorder, transaction.atomic():
            kept = Label.objects.create(text="kept")
            with transaction.atomic():
                Label.objects.create(text="given up")
                transaction.set_rollback(True)
        assert taken(recorder) == [("label", kept.pk)]

    def test_the_outer_of_two_takes_the_inner_with_it(self) -> None:
        with recording_inserts() as recorder, transaction.atomic():
            Label.objects.create(text="outer")
            with transaction.atomic():
                Label.objects.create(text="inner")
            transaction.set_rollback(True)
        assert taken(recorder) == []
        assert not Label.objects.exists()

    def test_savepoints_by_hand_are_minded(self) -> None:
        with recording_inserts() as recorder:
            kept = Label.objects.create(text="kept")
            savepoint = getattr(transaction, "savepoint_create", transaction.savepoint)()  # named so from 6.1
            for text in ("one", "two"):
                Label.objects.create(text=text)
                transaction.savepoint_rollback(savepoint)
        assert taken(recorder) == [("label", kept.pk)]

    def test_a_race_that_get_or_create_lost_makes_no_row(self) -> None:
        """It tries to insert, fails on another unique column, and comes back without a row."""
        Label.objects.create(pk=500, text="taken")
        with recording_inserts() as recorder, pytest.raises(IntegrityError):
            Label.objects.get_or_create(pk=501, defaults={"text": "taken"})
        assert taken(recorder) == []


@pytest.mark.django_db(transaction=True)
def test_other_threads_are_not_watched() -> None:
    inside, made = threading.Event(), threading.Event()
    problems: list[BaseException] = []

    def other() -> None:
        inside.wait(10)
        try:
            Label.objects.create(text="of another thread")
            run("INSERT INTO host_label (text) VALUES ('raw of another thread')")
        except BaseException as problem:  # noqa: BLE001 - shown below
            problems.append(problem)
        finally:
            connections.close_all()
            made.set()

    thread = threading.Thread(target=other)
    thread.start()
    with recording_inserts() as recorder:
        inside.set()
        assert made.wait(30)
    thread.join()
    assert problems == []
    assert taken(recorder) == []
    assert Label.objects.count() == 2
