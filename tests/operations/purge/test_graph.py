"""Who points at whom, where only the database knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations import guards
from stagehand_testdata.operations.purge import graph
from tests.conftest import Wire
from tests.host import models

from .conftest import Run

ACTIONS = ("NO ACTION", "CASCADE", "SET NULL")


def table_without_a_model(action: str) -> None:
    integer = "bigint" if connection.vendor != "sqlite" else "integer"
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE ledger_of_old (id {integer} PRIMARY KEY, about {integer} NULL,"
            f" FOREIGN KEY (about) REFERENCES host_book (id) ON DELETE {action})"
        )


def rows_without_a_model() -> list[tuple[int, int | None]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, about FROM ledger_of_old ORDER BY id")
        return cursor.fetchall()


@pytest.fixture
def _no_old_tables() -> Iterator[None]:
    if not connection.features.can_rollback_ddl:
        pytest.skip("a table cannot be rolled back here with the test")
    yield
    graph.look_at_tables()


@pytest.mark.usefixtures("_no_old_tables")
class TestATableWithoutAModel:
    @pytest.mark.parametrize("action", ACTIONS)
    def test_holds_the_rows_that_it_points_at(self, run: Run, guarded: bool, action: str) -> None:
        table_without_a_model(action)
        if guarded:
            guards.install(connection.alias)
        held, free = run.make("book"), run.make("book")
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO ledger_of_old (id, about) VALUES (1, %s)", [held.pk])
        outcome = run.purge()
        assert rows_without_a_model() == [(1, held.pk)]
        assert list(models.Book.objects.values_list("pk", flat=True)) == [held.pk]
        blockers = [each["blockedBy"] for each in outcome.receipt["quarantined"] if each["type"] == "book"]
        assert blockers == [{"table.ledger_of_old": 1}]
        assert run.entry(free).state == TestEntity.State.REMOVED

    def test_lets_them_go_once_it_does_not_point_any_more(self, run: Run, guarded: bool) -> None:
        table_without_a_model("CASCADE")
        run.make("book")
        assert run.purge().success

    def test_is_found_where_it_was_made_after_the_first_purge(self, run: Run) -> None:
        held = run.make("book")
        run.make("voucher")
        assert graph.pointers_to(models.Book)
        table_without_a_model("CASCADE")
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO ledger_of_old (id, about) VALUES (1, %s)", [held.pk])
        assert not run.purge().success
        assert rows_without_a_model() == [(1, held.pk)]


@pytest.mark.usefixtures("_no_old_tables")
def test_a_text_key_is_held_by_a_table_without_a_model_too(run: Run) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE redeemed (id integer PRIMARY KEY, code varchar(50) NOT NULL,"
            " FOREIGN KEY (code) REFERENCES host_voucher (code) ON DELETE CASCADE)"
        )
    voucher = run.make("voucher")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO redeemed (id, code) VALUES (1, %s)", [voucher.pk])
    assert not run.purge().success
    assert models.Voucher.objects.exists()


def test_tables_with_models_are_known_once(run: Run) -> None:
    graph.look_at_tables()
    pointers = [(each.model._meta.db_table, each.column) for each in graph.pointers_to(models.Book)]
    assert len(pointers) == len(set(pointers))
    assert ("host_chapter", "book_id") in pointers


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's own ways around a foreign key")
@pytest.mark.parametrize("asleep", ["replica", "disabled"])
def test_a_foreign_key_that_is_asleep_holds_all_the_same(run: Run, asleep: str) -> None:
    book = run.make("book")
    loan = models.Loan.objects.create(book=book, by="real")
    with connection.cursor() as cursor:
        if asleep == "replica":
            cursor.execute("SET LOCAL session_replication_role = replica")
        else:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("ALTER TABLE host_book DISABLE TRIGGER ALL")
            cursor.execute(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = 'host_book'::regclass AND NOT tgisinternal"
            )
            for (name,) in cursor.fetchall():
                cursor.execute(f'ALTER TABLE host_book ENABLE ALWAYS TRIGGER "{name}"')
    outcome = run.purge()
    assert models.Book.objects.filter(pk=book.pk).exists()
    assert models.Loan.objects.get().pk == loan.pk
    assert not outcome.success


@pytest.mark.usefixtures("_no_old_tables")
@pytest.mark.parametrize("is_view", [False, True], ids=["in no table", "in a view"])
def test_a_model_whose_table_is_not_there_holds_nothing(
    db: None, new_wire: Callable[[], Wire], is_view: bool
) -> None:
    run = Run(new_wire().test_id)
    book = run.make("book")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE host_review RENAME TO kept_review")
        if is_view:
            cursor.execute(
                f"CREATE VIEW host_review AS SELECT 1 AS id, 'shown' AS text, {book.pk} AS book_id"
            )
    assert run.purge().success
    assert not models.Book.objects.exists()


def test_rows_that_hold_each_other_by_a_generic_pointer_go_at_once(run: Run) -> None:
    first = run.make("note")
    run.make("note", subject=run.make("note", subject=first))
    stranger = models.Note.objects.create(text="real", subject=run.make("note"))
    outcome = run.purge()
    assert outcome.receipt["remaining"] == 2  # the one that the stranger holds, and what that one holds
    assert list(models.Note.objects.exclude(pk=stranger.pk)) == [stranger.subject]
    stranger.delete()
    assert run.purge().success
