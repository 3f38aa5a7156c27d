"""What differs per database: locks, broken references, comparing byte by byte."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import Count, Value
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.databases import database
from stagehand_testdata.databases.base import Database, JoinedText
from stagehand_testdata.databases.mysql import MySQL
from stagehand_testdata.databases.postgresql import PostgreSQL
from stagehand_testdata.databases.sqlite import SQLite
from stagehand_testdata.models import TestRun
from tests.host.models import Author, Book, Label, Person
from tests.making import perform

VENDORS = {"postgresql": PostgreSQL, "mysql": MySQL, "sqlite": SQLite}


def test_each_database_has_its_strategy() -> None:
    assert type(database("default")) is VENDORS[connection.vendor]
    assert database("default").connection is connections["default"]


def test_an_unknown_database_gets_what_any_with_row_locks_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(connections["default"]), "vendor", "other")
    assert type(database("default")) is Database


@pytest.mark.django_db
class TestReading:
    @pytest.fixture(autouse=True)
    def people(self) -> None:
        boss = Person.objects.create(name="boss")
        for name in "abc":
            Person.objects.create(name=name, boss=boss)

    @pytest.mark.parametrize("how", ["read_shared", "read_exclusive"])
    def test_the_rows_come_with_their_annotations(self, how: str) -> None:
        rows = Person.objects.filter(boss=None).annotate(word=Value("x"), n=Value(3)).order_by()
        with transaction.atomic():
            [row] = getattr(database("default"), how)(rows)
        assert (row.name, row.word, row.n) == ("boss", "x", 3)

    @pytest.mark.parametrize("how", ["read_shared", "read_exclusive"])
    def test_none_are_none(self, how: str) -> None:
        with transaction.atomic():
            assert getattr(database("default"), how)(Person.objects.filter(name="nobody")) == []

    def test_a_shared_read_is_one_query_and_leaves_the_callers_queryset_alone(self) -> None:
        rows = Person.objects.filter(name="a")
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            database("default").read_shared(rows)
        reads = [each["sql"] for each in queries if each["sql"].startswith("SELECT")]
        assert len(reads) == 1
        with CaptureQueriesContext(connection) as queries:
            assert len(list(rows)) == 1
        assert "SHARE" not in queries[0]["sql"]

    @pytest.mark.postgresql
    @pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's words")
    def test_postgresql_locks_for_share(self) -> None:
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            database("default").read_shared(Person.objects.filter(name="a"))
        assert queries[-1]["sql"].endswith('FOR SHARE OF "host_person"')

    @pytest.mark.skipif(connection.vendor != "mysql", reason="MariaDB's words")
    def test_mariadb_locks_in_share_mode(self) -> None:
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            database("default").read_shared(Person.objects.filter(name="a"))
        assert queries[-1]["sql"].endswith("LOCK IN SHARE MODE")

    @pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite has no row locks")
    def test_sqlite_takes_the_files_lock_before_it_reads(self) -> None:
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            database("default").read_exclusive(Person.objects.filter(name="a"))
        statements = [each["sql"].split()[0] for each in queries]
        assert statements.index("UPDATE") < statements.index("SELECT")

    def test_an_exclusive_read_changes_nothing(self) -> None:
        before = list(Person.objects.order_by("pk").values())
        with transaction.atomic():
            database("default").read_exclusive(Person.objects.all())
        assert list(Person.objects.order_by("pk").values()) == before


@pytest.mark.django_db(transaction=True)
def test_a_broken_reference_surfaces_before_the_commit() -> None:
    book = Book.objects.create(title="a", author=Author.objects.create(name="a"))
    with pytest.raises(IntegrityError), transaction.atomic():
        Book.objects.filter(pk=book.pk).update(owner_id=10**6)
        database("default").surface_broken_references()
        if connection.vendor == "postgresql":
            pytest.fail("the commit would have been the first to complain")
    assert Book.objects.get().owner_id is None


@pytest.mark.django_db
def test_surfacing_leaves_whole_references_alone() -> None:
    Book.objects.create(title="a", author=Author.objects.create(name="a"))
    database("default").surface_broken_references()
    assert Book.objects.count() == 1


@pytest.mark.django_db
class TestJoinedText:
    def test_the_values_of_a_group_come_in_one_text(self) -> None:
        for text in ("a", "b"):
            Label.objects.create(text=text)
        found = Label.objects.aggregate(all=JoinedText("text"))["all"]
        assert sorted(found.split(",")) == ["a", "b"]

    def test_no_value_is_none(self) -> None:
        assert Label.objects.aggregate(all=JoinedText("text"))["all"] is None

    def test_a_long_list_is_whole(self) -> None:
        """MySQL cuts it at 1 kB by default: an address that is cut off is one that nobody minds."""
        Label.objects.bulk_create([Label(text=f"{n:040}") for n in range(100)])
        assert len(Label.objects.aggregate(all=JoinedText("text"))["all"].split(",")) == 100


@pytest.mark.django_db
def test_ids_of_runs_compare_byte_by_byte() -> None:
    for test_id in ("stagehand_test_a", "stagehand_test_A"):
        perform(lambda call: call.create("voucher"), test_id)
    assert TestRun.objects.filter(test_id="stagehand_test_a").count() == 1
    assert TestRun.objects.values("test_id").annotate(n=Count("pk")).count() == 2
