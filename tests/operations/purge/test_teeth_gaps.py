"""What other tests leave open. Each of these fails when a guard is taken out: see tests/teeth.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import connection

from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations import guards
from stagehand_testdata.operations.purge import purge
from stagehand_testdata.operations.purge.plan import make_plan
from tests.conftest import Wire
from tests.guarding import guards_up, sql, transactional_ddl
from tests.host import models
from tests.making import changed

from .conftest import Run
from .test_execute import REAL_HOLDERS


@transactional_ddl
@pytest.mark.django_db
def test_an_entry_from_before_the_guards_proves_nothing_by_itself(new_wire: Callable[[], Wire]) -> None:
    run = Run(new_wire().test_id)
    voucher = run.make("voucher")
    models.Voucher.objects.filter(pk=voucher.pk).delete()
    models.Voucher.objects.create(code=voucher.pk, note="a real one")
    guards.install(connection.alias)
    outcome = run.purge()
    assert models.Voucher.objects.get().note == "a real one"
    assert [each["reason"] for each in outcome.receipt["quarantined"]] == ["not_the_row_we_made"]


@pytest.mark.parametrize("type_name", ["voucher", "person"])
def test_guards_that_are_taken_down_in_the_middle_are_noticed(
    run: Run, guarded: bool, monkeypatch: pytest.MonkeyPatch, type_name: str
) -> None:
    """Nobody closes the entries any more: so the purge must, and not leave it to chance."""
    if not guarded:
        pytest.skip("there are none to take down")
    made = [run.make(type_name), run.make(type_name)]
    plain = purge.execute

    def take_down_first(*args: Any, **kwargs: Any) -> Any:
        guards.lift(connection.alias)
        return plain(*args, **kwargs)

    monkeypatch.setattr(purge, "execute", take_down_first)
    assert run.purge().success
    assert run.states() == {"removed": 2}
    assert not type(made[0]).objects.exists()


# Committed: SQLite looks at its foreign keys no sooner.
@pytest.mark.parametrize("up", [nullcontext, guards_up], ids=["without guards", "with guards"])
@pytest.mark.django_db(transaction=True)
def test_no_row_of_a_derived_table_is_let_go_of_by_the_orm(new_wire: Callable[[], Wire], up: Any) -> None:
    """The product removes such rows by itself; Django's collector would null their key before."""
    run = Run(new_wire().test_id)
    with changed(DERIVED_TABLES=["host_review"]), up():
        book = run.make("book")
        models.Review.objects.create(book=book, text="derived")
        outcome = run.purge()
    assert models.Review.objects.get().book_id == book.pk
    assert run.entry(book).reason == "refused_by_the_database"
    assert not outcome.success


@pytest.mark.parametrize("kind", REAL_HOLDERS)
@pytest.mark.parametrize("checked", [True, False], ids=["checked", "unchecked"])
@pytest.mark.django_db(transaction=True)
def test_a_real_row_holds_a_set_that_commits_by_itself(
    new_wire: Callable[[], Wire], kind: str, checked: bool
) -> None:
    """There the database may be left to refuse; but SQLite does only where it is told to check."""
    run = Run(new_wire().test_id)
    if not checked and connection.vendor != "sqlite":
        pytest.skip("SQLite's own")
    with guards_up():
        book, voucher = run.make("book"), run.make("voucher")
        REAL_HOLDERS[kind](book)
        with nullcontext() if checked else connection.constraint_checks_disabled():
            assert not run.purge().success
        assert run.entry(book).reason == "referenced"
        assert run.entry(voucher).state == TestEntity.State.REMOVED
        book.refresh_from_db()


@transactional_ddl
@pytest.mark.django_db(transaction=True)
def test_half_a_key_of_two_columns_holds_a_row_too(new_wire: Callable[[], Wire]) -> None:
    """The database itself does not refuse: for it a key of which one column is null points nowhere."""
    run = Run(new_wire().test_id)
    sql("CREATE UNIQUE INDEX pair ON host_voucher (code, note)")
    sql(
        "CREATE TABLE ticket (code varchar(50), note text,"
        " FOREIGN KEY (code, note) REFERENCES host_voucher (code, note))"
    )
    try:
        with guards_up():
            voucher = run.make("voucher")
            sql("INSERT INTO ticket (code, note) VALUES (%s, NULL)", [voucher.pk])
            assert not run.purge().success
            assert run.entry(voucher).blocked_by == {"table.ticket": 1}
    finally:
        sql("DROP TABLE ticket")
        sql("DROP INDEX pair")


def test_a_generic_pointer_holds_a_row_of_a_circle_too(run: Run) -> None:
    person = run.make("person")
    models.Note.objects.create(subject=person, text="real")
    outcome = run.purge()
    assert models.Person.objects.get().pk == person.pk
    assert [(each["reason"], each["blockedBy"]) for each in outcome.receipt["quarantined"]] == [
        ("referenced", {"host.Note": 1})
    ]


def test_a_delete_that_takes_along_a_row_which_a_real_one_holds_is_undone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    voucher, archived = run.make("voucher"), run.make("archived")
    models.Note.objects.create(subject=voucher, text="real")

    def take_along(*args: Any, **kwargs: Any) -> None:
        models.Voucher.objects.filter(pk=voucher.pk).delete()

    monkeypatch.setattr(models.Archived, "delete", take_along)
    run.purge()
    assert models.Voucher.objects.filter(pk=voucher.pk).exists()
    assert run.entry(archived).state == run.entry(voucher).state == TestEntity.State.QUARANTINED
    assert run.entry(archived).blocked_by == {"host.Note": 1}


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's own error")
def test_a_batch_that_the_database_broke_off_is_done_again(run: Run) -> None:
    run.make("voucher")
    broken_off = []

    def break_off(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('DELETE FROM "host_voucher"') and not broken_off:
            broken_off.append(sql)
            sql, params = "DO $$BEGIN RAISE EXCEPTION 'provoked' USING ERRCODE = '40001'; END$$", None
        return execute(sql, params, many, context)

    with connection.execute_wrapper(break_off):
        assert run.purge().success
    assert broken_off
    assert run.states() == {"removed": 1}


def test_what_a_delete_takes_along_is_removed_and_not_gone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    voucher, _ = run.make("voucher"), run.make("archived")

    def take_along(*args: Any, **kwargs: Any) -> None:
        models.Voucher.objects.filter(pk=voucher.pk).delete()

    monkeypatch.setattr(models.Archived, "delete", take_along)
    receipt = run.purge().receipt
    assert receipt["removed"] == {"archived": 1, "voucher": 1}
    assert receipt["alreadyGone"] == {}


def test_each_receipt_tells_what_its_own_purge_did(run: Run) -> None:
    book, voucher = run.make("book"), run.make("voucher")
    loan = models.Loan.objects.create(book=book, by="real")
    models.Voucher.objects.filter(pk=voucher.pk).delete()
    first = run.purge().receipt
    loan.delete()
    second = run.purge().receipt
    assert first["removed"] == {"chapter": 1, "host.book_labels": 2, "host.label": 2}
    assert first["alreadyGone"] == {"voucher": 1}
    assert second["removed"] == {"author": 1, "book": 1, "country": 1}
    assert second["alreadyGone"] == {}


def test_a_real_row_is_not_taken_for_ours_for_having_the_key_of_another_models_row(run: Run) -> None:
    book = run.make("book")
    models.Loan.objects.create(pk=book.pk, book=book, by="real")
    held = {each.type: each.blocked_by for each in make_plan(run.run).held}
    assert held["book"] == {"host.Loan": 1}
