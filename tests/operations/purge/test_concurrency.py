"""Two at once, and one killed in the middle, on a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.db.models.functions import Now

from stagehand_testdata.exceptions import RunClosed
from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import entities, runs
from stagehand_testdata.operations.purge import execute, purge
from tests.conftest import host_counts
from tests.host import models
from tests.threads import in_thread

from .conftest import Run

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="needs PostgreSQL (DATABASE_URL)"),
]


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def waiting_for_locks() -> int:
    with connection.cursor() as cursor:
        # Within a transaction the view is read once and kept.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(cursor.fetchone()[0])


def test_a_closer_waits_for_a_creator_in_flight_and_takes_its_rows_too(run: Run) -> None:
    made, go_on = threading.Event(), threading.Event()

    def create(call: entities.Creation) -> None:
        call.create("voucher")
        made.set()
        assert go_on.wait(10)

    creator, created = in_thread(lambda: entities.perform(run.test_id, "", create))
    assert made.wait(10)
    run_row = TestRun(test_id=run.test_id, owner="")
    closer, closed = in_thread(lambda: purge.clean_up(run.test_id, ""))
    time.sleep(0.2)
    go_on.set()
    creator.join()
    closer.join()
    assert created == [None]
    # The run was opened by the creator: a closer that came first saw no run, and closes it now.
    outcome = closed[0] if closed[0].receipt["removed"] else purge.clean_up(run_row.test_id, "")
    assert outcome.receipt["removed"] == {"voucher": 1}
    assert not models.Voucher.objects.exists()


def test_a_closer_waits_for_a_creator_that_joined_an_open_run(run: Run) -> None:
    run.make("voucher")
    made, go_on = threading.Event(), threading.Event()

    def create(call: entities.Creation) -> None:
        call.create("voucher")
        made.set()
        assert go_on.wait(10)

    creator, created = in_thread(lambda: entities.perform(run.test_id, "", create))
    assert made.wait(10)
    closer, closed = in_thread(run.purge)
    wait_until(lambda: waiting_for_locks() == 1)
    assert models.Voucher.objects.count() == 1
    go_on.set()
    creator.join()
    closer.join()
    assert created == [None]
    assert closed[0].receipt["removed"] == {"voucher": 2}
    assert not models.Voucher.objects.exists()


def test_nobody_joins_once_closing_is_committed(run: Run) -> None:
    run.make("voucher")
    purge._close(run.run)
    thread, results = in_thread(lambda: run.make("voucher"))
    thread.join()
    assert isinstance(results[0], RunClosed)
    assert models.Voucher.objects.count() == 1


def test_a_real_row_inserted_between_plan_and_delete_wins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    book = run.make("book")
    plain_execute = execute.execute

    def insert_first(*args: Any, **kwargs: Any) -> Any:
        thread, _ = in_thread(lambda: models.Loan.objects.create(book_id=book.pk, by="real"))
        thread.join()
        return plain_execute(*args, **kwargs)

    monkeypatch.setattr(purge, "execute", insert_first)
    outcome = run.purge()
    assert models.Loan.objects.get().book_id == book.pk
    assert models.Book.objects.filter(pk=book.pk).exists()
    assert outcome.receipt["remaining"] == 3  # the book, its author and the author's country


def test_a_real_row_whose_insert_waits_for_the_purge_fails_instead_of_dangling(run: Run) -> None:
    book = run.make("book")
    inserted: list[Any] = []

    def insert_once_it_is_deleted(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith('DELETE FROM "host_book" ') and not inserted:
            inserted.append(in_thread(lambda: models.Loan.objects.create(book_id=book.pk, by="real")))
            time.sleep(0.3)
        return result

    with connection.execute_wrapper(insert_once_it_is_deleted):
        outcome = run.purge()
    thread, results = inserted[0]
    thread.join()
    assert outcome.success
    assert type(results[0]).__name__ == "IntegrityError"
    assert not models.Loan.objects.exists()


def test_two_purges_of_one_run_share_its_rows(run: Run) -> None:
    for _ in range(20):
        run.make("book")
    started = [in_thread(lambda: run.purge(batch_size=3)) for _ in range(4)]
    for thread, _ in started:
        thread.join()
    outcomes = [results[0] for _, results in started]
    assert all(isinstance(outcome, purge.Outcome) for outcome in outcomes), outcomes
    total = sum(sum(outcome.receipt["removed"].values()) for outcome in outcomes)
    assert run.states() == {"removed": total}
    assert run.run.state == "closed"
    assert all(count == 0 for name, count in host_counts().items() if name.startswith("host."))


def held_in_another_transaction(work: Callable[[], Any]) -> tuple[threading.Event, threading.Thread]:
    """Do `work` in a transaction that stays open until the event is set; returns once it is done."""
    done, end = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            work()
            done.set()
            assert end.wait(20)

    thread, _ = in_thread(hold)
    assert done.wait(10)
    return end, thread


def test_a_row_that_the_product_holds_is_reported_and_the_rest_goes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_PATIENCE", 0.2)
    voucher, other = run.make("voucher"), run.make("voucher")
    end, thread = held_in_another_transaction(
        lambda: models.Voucher.objects.filter(pk=voucher.pk).update(note="in use")
    )
    outcome = run.purge()
    assert [(each["id"], each["reason"]) for each in outcome.receipt["quarantined"]] == [
        (voucher.pk, "in_use")
    ]
    assert run.entry(other).state == TestEntity.State.REMOVED
    end.set()
    thread.join()


def test_a_row_that_is_let_go_in_time_goes_too(run: Run) -> None:
    voucher = run.make("author")
    end, thread = held_in_another_transaction(
        lambda: list(models.Author.objects.select_for_update().filter(pk=voucher.pk))
    )
    purger, results = in_thread(run.purge)
    time.sleep(0.3)
    end.set()
    thread.join()
    purger.join()
    assert results[0].success, results


def test_the_product_deleting_test_rows_meanwhile_is_no_deadlock(run: Run) -> None:
    """The triggers lock the row and then its entry; a purge must not do it the other way round."""
    vouchers = [run.make("voucher").pk for _ in range(40)]

    def deadlocks() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            return int(cursor.fetchone()[0])

    def delete_all() -> None:
        with transaction.atomic():
            for key in reversed(vouchers):
                models.Voucher.objects.filter(pk=key).delete()
                time.sleep(0.002)

    before = deadlocks()
    product, deleted = in_thread(delete_all)
    outcome = run.purge(batch_size=7)
    product.join()
    assert deleted == [None]
    assert run.purge().success or outcome.success
    time.sleep(0.6)  # the statistics are told a little later
    assert deadlocks() == before
    assert run.states().keys() <= {"removed", "gone"}


def expire() -> None:
    hour = dt.timedelta(hours=1)
    TestRun.objects.update(opened_at=Now() - 2 * hour, expires_at=Now() - hour)


class TestAReaper:
    """`only_expired` and `wait=False`."""

    def test_leaves_a_run_alone_that_was_renewed_meanwhile(self, run: Run) -> None:
        run.make("voucher")
        stale = run.run
        TestRun.objects.update(
            opened_at=Now() - dt.timedelta(hours=2), expires_at=Now() - dt.timedelta(1 / 24)
        )
        stale.refresh_from_db()
        TestRun.objects.update(expires_at=Now() + dt.timedelta(minutes=5))
        assert run_purge(stale, only_expired=True) is None
        assert run.run.state == TestRun.State.OPEN
        assert models.Voucher.objects.exists()

    def test_does_not_wait_for_a_creator_in_flight(self, run: Run) -> None:
        run.make("voucher")
        TestRun.objects.update(
            opened_at=Now() - dt.timedelta(hours=2), expires_at=Now() - dt.timedelta(1 / 24)
        )
        expired = run.run
        end, thread = held_in_another_transaction(
            lambda: list(TestRun.objects.select_for_update().filter(pk=expired.pk))
        )
        started = time.monotonic()
        assert run_purge(expired, only_expired=True, wait=False) is None
        assert time.monotonic() - started < 2
        assert run.run.state == TestRun.State.OPEN
        end.set()
        thread.join()
        assert run_purge(expired, only_expired=True, wait=False).success

    def test_passes_by_rows_that_another_one_has(self, run: Run) -> None:
        voucher = run.make("voucher")
        end, thread = held_in_another_transaction(
            lambda: list(models.Voucher.objects.select_for_update().filter(pk=voucher.pk))
        )
        started = time.monotonic()
        assert run_purge(run.run, wait=False) is None
        assert time.monotonic() - started < 2
        end.set()
        thread.join()
        assert run_purge(run.run, wait=False).success

    def test_does_not_take_the_children_that_another_one_is_removing_for_real(self, run: Run) -> None:
        """What cannot be locked is neither gone nor foreign: its parents wait for it."""
        book = run.make("book")
        end, thread = held_in_another_transaction(
            lambda: list(models.Chapter.objects.select_for_update().filter(book=book))
        )
        assert run_purge(run.run, wait=False) is None
        assert not TestEntity.objects.filter(state=TestEntity.State.QUARANTINED).exists()
        end.set()
        thread.join()
        assert run.purge().success


def test_two_purges_of_one_run_hold_it_at_a_time(run: Run) -> None:
    run.make("voucher")
    had: list[Any] = []

    def hold_too() -> bool:
        with transaction.atomic():
            return runs.lock_for_removal(run.run, wait=False) is not None

    def ask_in_the_middle(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith('DELETE FROM "host_voucher" '):
            thread, results = in_thread(hold_too)
            thread.join()
            had.extend(results)
        return result

    with connection.execute_wrapper(ask_in_the_middle):
        assert run.purge().success
    assert had == [True]


def test_guards_that_are_taken_down_under_a_part_of_a_set_are_noticed(
    run: Run, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        pytest.skip("there are none to take down")
    monkeypatch.setattr(execute, "_PATIENCE", 0.2)
    busy = run.make("voucher")
    run.make("voucher")
    end, thread = held_in_another_transaction(
        lambda: list(models.Voucher.objects.select_for_update().filter(pk=busy.pk))
    )
    taken_down: list[str] = []

    def take_down(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        # The first DELETE meets the row and is given up; the next one passes by it.
        part = sql.startswith('DELETE FROM "host_voucher" ') and "SKIP LOCKED" in sql
        if part and not taken_down:
            taken_down.append(sql)
            execute("ALTER TABLE host_voucher DISABLE TRIGGER USER", None, False, context)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(take_down):
        outcome = run.purge()
    end.set()
    thread.join()
    assert taken_down
    assert (outcome.receipt["removed"], outcome.receipt["alreadyGone"]) == ({"voucher": 1}, {})


def test_part_of_a_circle_that_somebody_has_is_no_reason_to_hold_the_rest(run: Run) -> None:
    team = run.make("team")
    end, thread = held_in_another_transaction(
        lambda: list(models.Player.objects.select_for_update().filter(pk=team.captain_id))
    )
    assert run_purge(run.run, wait=False) is None
    assert run.states() == {"live": 2}
    end.set()
    thread.join()
    assert run.purge().success


def run_purge(run: TestRun, **options: Any) -> Any:
    return purge.purge_run(run, **options)


def test_each_removal_is_told_by_one_receipt_however_many_share_the_run(run: Run) -> None:
    for _ in range(15):
        run.make("book")
    created = TestEntity.objects.count()
    started = [in_thread(lambda: run_purge(run.run, batch_size=4, wait=False)) for _ in range(3)]
    for thread, _ in started:
        thread.join()
    run.purge()
    told = sum(sum(receipt.body["removed"].values()) for receipt in run.run.receipts.all())
    assert told == created
    assert run.states() == {"removed": created}


KILLED = """
import os, signal, django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = {database!r}
from stagehand_testdata.models import TestRun
from stagehand_testdata.operations.purge.purge import purge_run
statements = 0
def count(execute, sql, params, many, context):
    global statements
    statements += 1
    if statements == {kill_at}:
        os.kill(os.getpid(), signal.SIGKILL)
    result = execute(sql, params, many, context)
    return result
with connection.execute_wrapper(count):
    purge_run(TestRun.objects.get(test_id={test_id!r}), batch_size=2)
print(statements)
"""


@pytest.mark.parametrize("kill_at", [1, 5, 12, 20, 33, 47, 60, 90])
def test_a_purge_killed_in_the_middle_is_finished_by_the_next_one(run: Run, kill_at: int) -> None:
    for type_name in ("book", "team", "restaurant", "booking"):
        run.make(type_name)
    held = run.make("book")
    models.Review.objects.create(book=held, text="real")
    script = KILLED.format(database=connection.settings_dict["NAME"], kill_at=kill_at, test_id=run.test_id)
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    for entry in TestEntity.objects.filter(run=run.run):
        model = apps.get_model(entry.model)
        exists = model._base_manager.filter(pk=entry.row_key(model)).exists()
        assert exists == (entry.tombstone == 0), entry
    outcome = run.purge()
    assert outcome.receipt["remaining"] == 3
    assert models.Review.objects.get().book_id == held.pk
    models.Review.objects.all().delete()
    assert run.purge().success
    assert run.states().keys() == {"removed"}


def test_an_outer_transaction_that_fails_takes_the_rows_and_their_entries_with_it(run: Run) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        run.make("book")
        raise RuntimeError
    assert not TestEntity.objects.exists()
    assert not models.Book.objects.exists()
