"""What other tests of two at once leave open, on a real PostgreSQL: see tests/teeth.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import entities
from stagehand_testdata.operations.purge import execute, plan, purge
from tests.host import models

from .conftest import Run
from .test_concurrency import (
    held_in_another_transaction,
    in_thread,
    wait_until,
    waiting_for_locks,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="needs PostgreSQL (DATABASE_URL)"),
]


@contextmanager
def held(work: Callable[[], Any]) -> Iterator[None]:
    """Another transaction has done `work` and stays open; who waits for its locks fails after a second."""
    end, thread = held_in_another_transaction(work)
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '1s'")
    try:
        yield
    finally:
        end.set()
        thread.join()
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")


@contextmanager
def creator_in_flight(test_id: str, type_name: str) -> Iterator[Callable[[], None]]:
    """A creating call has made its row and not committed; the function lets it go on to its end."""
    made, go_on = threading.Event(), threading.Event()

    def create(call: entities.Creation) -> None:
        call.create(type_name)
        made.set()
        assert go_on.wait(10)

    thread, created = in_thread(lambda: entities.perform(test_id, "", create))

    def finish() -> None:
        go_on.set()
        thread.join()

    try:
        assert made.wait(10)
        yield finish
    finally:
        finish()
    assert created == [None]


def test_a_clean_up_of_what_is_listed_waits_for_a_creator_in_flight(run: Run) -> None:
    """The run stays open, so its creators must be kept out while rows of it go."""
    voucher = run.make("voucher")
    with creator_in_flight(run.test_id, "author") as finish:
        cleaner, cleaned = in_thread(lambda: purge.clean_up(run.test_id, "", [("voucher", voucher.pk)]))
        wait_until(lambda: waiting_for_locks() == 1)
        meanwhile = models.Voucher.objects.count()
        finish()
    cleaner.join()
    assert meanwhile == 1
    assert cleaned[0].receipt["removed"] == {"voucher": 1}
    assert models.Author.objects.exists()


def test_each_batch_waits_for_a_creator_in_flight(run: Run) -> None:
    """One that came after the purge had last looked who is at work."""
    voucher = run.make("voucher")
    ids = [run.entry(voucher).pk]
    seen, proven = plan.outline(run.run, ids), plan.proofs()
    with creator_in_flight(run.test_id, "author") as finish:
        remover, held = in_thread(
            lambda: execute.execute(run.run, seen, proven, batch_size=10, entity_ids=ids)
        )
        wait_until(lambda: waiting_for_locks() == 1 or not remover.is_alive())
        meanwhile = models.Voucher.objects.count()
        finish()
    remover.join()
    assert (meanwhile, held, models.Voucher.objects.count()) == (1, [{}], 0)


def test_what_a_creator_in_flight_made_of_another_kind_goes_too(run: Run) -> None:
    run.make("voucher")
    with creator_in_flight(run.test_id, "author") as finish:
        closer, closed = in_thread(run.purge)
        wait_until(lambda: waiting_for_locks() == 1)
        finish()
    closer.join()
    assert closed[0].receipt["removed"] == {"author": 1, "country": 1, "voucher": 1}
    assert run.run.state == TestRun.State.CLOSED


def test_a_claim_waits_for_nobody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_PATIENCE", 0.1)
    voucher, other = run.make("voucher"), run.make("voucher")
    with held(lambda: models.Voucher.objects.filter(pk=voucher.pk).update(note="in use")):
        outcome = run.purge()
    assert [(each["id"], each["reason"]) for each in outcome.receipt["quarantined"]] == [
        (voucher.pk, "in_use")
    ]
    assert run.entry(other).state == TestEntity.State.REMOVED


def test_a_set_waits_for_a_locked_row_shorter_than_deadlocks_are_looked_for(
    run: Run,
    guarded: bool,
) -> None:
    if not guarded:
        pytest.skip("rows that are looked at one by one are locked before, and nobody waits")
    run.make("voucher")
    waits = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('DELETE FROM "host_voucher"'):
            with connection.connection.cursor() as cursor:
                cursor.execute("SELECT name, setting::int FROM pg_settings WHERE name LIKE '%_timeout'")
                waits.append(dict(cursor.fetchall()))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        assert run.purge().success
    assert 0 < waits[0]["lock_timeout"] < waits[0]["deadlock_timeout"]


def test_a_purge_that_does_not_wait_does_not_wait_for_the_run(run: Run) -> None:
    run.make("voucher")
    with held(lambda: list(TestRun.objects.select_for_update().filter(test_id=run.test_id))):
        assert purge.purge_run(run.run, wait=False) is None
    assert run.states() == {"live": 1}


def test_rows_and_their_entries_go_in_one_transaction(run: Run) -> None:
    """Before each statement of the purge somebody else looks at what is committed."""
    for _ in range(9):
        run.make("voucher")
    somebody_else = connection.copy()
    seen = set()

    def look(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        with somebody_else.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT count(*) FROM host_voucher),"
                f" (SELECT count(*) FROM {TestEntity._meta.db_table} WHERE tombstone = 0)"
            )
            seen.add(cursor.fetchone())
        return execute(sql, params, many, context)

    try:
        with connection.execute_wrapper(look):
            assert run.purge(batch_size=1).success
    finally:
        somebody_else.close()
    assert all(rows == entries for rows, entries in seen)
    assert {0, 1, 5, 9} <= {rows for rows, _ in seen}


def test_a_purge_that_does_not_wait_neither_waits_for_a_row_nor_gives_it_up(run: Run) -> None:
    voucher = run.make("voucher")
    with held(lambda: list(models.Voucher.objects.select_for_update().filter(pk=voucher.pk))):
        assert purge.purge_run(run.run, wait=False) is None
    assert run.states() == {"live": 1}
    assert models.Voucher.objects.exists()
