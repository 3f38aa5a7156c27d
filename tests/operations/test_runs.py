"""Runs are opened, joined, held and found; the database's clock decides."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.models.functions import Now

from stagehand_testdata import seeding
from stagehand_testdata.exceptions import Conflict, NotFound, RunClosed, TooOld
from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import entities, runs
from stagehand_testdata.operations.purge import purge
from tests.host.models import Book, Voucher
from tests.making import TEST_ID, changed, perform

MINUTE = dt.timedelta(minutes=1)


def open_run(test_id: str = TEST_ID, **options: Any) -> TestRun:
    with transaction.atomic():
        return runs.open_or_join(test_id, **options)


def lifetime(run: TestRun) -> float:
    return round((run.expires_at - run.opened_at) / MINUTE, 1)


def age(run: TestRun, minutes: float) -> None:
    """Move the run into the past."""
    TestRun.objects.filter(pk=run.pk).update(
        opened_at=run.opened_at - minutes * MINUTE,
        expires_at=run.expires_at - minutes * MINUTE,
        latest_end=run.latest_end - minutes * MINUTE,
    )


@pytest.mark.django_db
class TestOpening:
    def test_a_run_is_opened_for_an_hour(self) -> None:
        run = open_run()
        assert (run.state, run.scope, lifetime(run)) == ("open", "ephemeral", 60)
        assert runs.minutes_left(run) == 60

    @pytest.mark.parametrize(
        ("scope", "minutes"),
        [("ephemeral", 60), ("persistent_session", 60), ("persistent_environment", 1440)],
    )
    def test_each_scope_has_its_default(self, scope: str, minutes: int) -> None:
        assert lifetime(open_run(scope=scope)) == minutes

    @pytest.mark.parametrize("scope", TestRun.Scope.values)
    def test_no_scope_lives_past_the_cap(self, scope: str) -> None:
        assert lifetime(open_run(scope=scope, max_age_minutes=10**6)) == 24 * 60

    def test_the_host_may_raise_the_cap_of_one_scope(self) -> None:
        with changed(MAX_AGE_HOURS={"persistent_environment": 72}):
            assert lifetime(open_run("a", scope="persistent_environment")) == 72 * 60
            assert lifetime(open_run("b", scope="ephemeral", max_age_minutes=10**6)) == 24 * 60

    @pytest.mark.parametrize("hours", [0.5, 0.001, 0, -3])
    def test_a_small_cap_cuts_the_default(self, hours: float) -> None:
        with changed(MAX_AGE_HOURS=hours):
            assert lifetime(open_run()) == max(int(hours * 60), 1)

    @pytest.mark.parametrize(
        "hours", [float("nan"), float("inf"), "2", None, {"ephemeral": "2"}, {"ephemeral": float("nan")}]
    )
    def test_a_cap_that_is_no_number_is_the_default(self, hours: Any) -> None:
        with changed(MAX_AGE_HOURS=hours):
            assert lifetime(open_run(scope="ephemeral", max_age_minutes=10**6)) == 24 * 60

    def test_the_seed_follows_from_the_test_id(self) -> None:
        assert open_run().seed == seeding.seed_from_test_id(TEST_ID)
        assert open_run("stagehand_test_b", seed=0).seed == 0

    def test_the_clock_is_the_databases(self) -> None:
        run = open_run()
        stored = TestRun.objects.annotate(now=Now()).get(pk=run.pk)
        assert abs(stored.now - stored.opened_at) < dt.timedelta(seconds=5)

    def test_ids_that_differ_in_case_are_different_runs(self) -> None:
        assert open_run("stagehand_test_a").pk != open_run("stagehand_test_A").pk


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "call",
    [
        lambda run: runs.open_or_join(TEST_ID),
        lambda run: runs.hold(TEST_ID, ""),
        runs.renew,
        runs.lock_exclusively,
    ],
)
def test_a_transaction_is_required(call: Any) -> None:
    run = open_run()
    with pytest.raises(transaction.TransactionManagementError):
        call(run)


@pytest.mark.django_db
class TestJoining:
    def test_it_is_the_same_run(self) -> None:
        assert open_run() == open_run()
        assert TestRun.objects.count() == 1

    def test_it_never_ends_sooner_for_being_joined(self) -> None:
        end = open_run(max_age_minutes=600).expires_at
        assert open_run(max_age_minutes=5).expires_at == end

    def test_it_is_renewed_within_its_cap(self) -> None:
        run = open_run(max_age_minutes=10)
        age(run, 5)
        assert lifetime(open_run(max_age_minutes=10)) == pytest.approx(15, abs=0.2)
        TestRun.objects.update(latest_end=Now() + 12 * MINUTE)
        assert open_run(max_age_minutes=10**6).expires_at == TestRun.objects.get().latest_end

    def test_another_seed_is_a_conflict(self) -> None:
        open_run(seed=5)
        assert open_run(seed=5).seed == 5
        with pytest.raises(Conflict, match="seed 5"):
            open_run(seed=6)

    def test_texts_that_are_given_are_kept(self) -> None:
        open_run(label="one", build_id="b")
        run = open_run(label="two")
        assert (run.label, run.build_id) == ("two", "b")

    def test_an_expired_run_is_too_old(self) -> None:
        age(open_run(), 61)
        with pytest.raises(TooOld):
            open_run()

    @pytest.mark.parametrize("state", ["closing", "closed"])
    def test_a_closed_run_is_closed(self, state: str) -> None:
        run = open_run()
        closed_at = Now() if state == "closed" else None
        TestRun.objects.filter(pk=run.pk).update(state=state, closed_at=closed_at)
        with pytest.raises(RunClosed):
            open_run()

    def test_another_owner_has_a_run_of_his_own(self) -> None:
        assert open_run(owner="one") != open_run(owner="two")


@pytest.mark.django_db
class TestRenewing:
    def renew(self, run: TestRun, **options: Any) -> TestRun:
        with transaction.atomic():
            return runs.renew(run, **options)

    def test_it_counts_from_now_and_may_shorten(self) -> None:
        run = open_run(max_age_minutes=600)
        assert lifetime(self.renew(run, max_age_minutes=5)) == pytest.approx(5, abs=0.2)

    def test_it_stays_within_the_cap(self) -> None:
        run = self.renew(open_run(), max_age_minutes=10**6)
        assert run.expires_at == run.latest_end

    def test_a_label_alone_leaves_the_end(self) -> None:
        run = open_run()
        renewed = self.renew(run, label="new")
        assert (renewed.label, renewed.expires_at) == ("new", run.expires_at)
        assert self.renew(run).label == "new"
        assert self.renew(run, label="").label == ""

    def test_an_expired_run_is_not_brought_back(self) -> None:
        run = open_run()
        age(run, 61)
        with pytest.raises(TooOld):
            self.renew(run, max_age_minutes=60)

    def test_a_closed_run_is_not_brought_back(self) -> None:
        run = open_run()
        assert purge.purge_run(run).success
        with pytest.raises(RunClosed):
            self.renew(run, max_age_minutes=60)


@pytest.mark.django_db
class TestHolding:
    def hold(self, **options: Any) -> TestRun:
        with transaction.atomic():
            return runs.hold(TEST_ID, "", **options)

    def test_a_run_that_was_never_opened_is_opened_for_an_hour(self) -> None:
        run = self.hold()
        assert (run.scope, lifetime(run)) == ("ephemeral", 60)

    def test_it_brings_the_last_number_and_the_time(self) -> None:
        assert self.hold().last_ordinal == 0
        perform(lambda call: call.create("book"))
        run = self.hold()
        assert run.last_ordinal == TestEntity.objects.count() > 0
        assert abs(run.now - run.opened_at) < MINUTE

    @pytest.mark.parametrize("exclusive", [True, False])
    def test_an_expired_or_closed_run_cannot_be_held(self, exclusive: bool) -> None:
        run = self.hold(exclusive=exclusive)
        age(run, 61)
        with pytest.raises(TooOld):
            self.hold(exclusive=exclusive)
        assert purge.purge_run(run).success
        with pytest.raises(RunClosed):
            self.hold(exclusive=exclusive)


@pytest.mark.django_db(transaction=True)
class TestSessions:
    def work(self, minutes: float | None = None) -> TestRun:
        perform(lambda call: call.create("voucher"), max_age_minutes=minutes)
        return TestRun.objects.get()

    def test_each_operation_renews_a_session(self) -> None:
        run = open_run(scope="persistent_session", max_age_minutes=10)
        age(run, 5)
        assert lifetime(self.work(30)) == pytest.approx(35, abs=0.2)
        assert lifetime(self.work(1)) == pytest.approx(35, abs=0.2)

    def test_and_no_other_scope(self) -> None:
        open_run(scope="ephemeral", max_age_minutes=10)
        assert lifetime(self.work(30)) == 10

    def test_within_its_cap(self) -> None:
        open_run(scope="persistent_session")
        run = self.work(10**6)
        assert run.expires_at == run.latest_end

    def test_an_operation_that_fails_does_not(self) -> None:
        open_run(scope="persistent_session", max_age_minutes=10)
        with pytest.raises(Conflict), changed(REFERENCE_MODELS=[]):
            perform(self._collide, max_age_minutes=600)
        assert lifetime(TestRun.objects.get()) == 10

    @staticmethod
    def _collide(call: entities.Creation) -> None:
        raise Conflict


@pytest.mark.django_db
class TestFinding:
    def test_ones_own_run_is_found(self) -> None:
        run = open_run(owner="me")
        assert runs.find(TEST_ID, "me") == run

    @pytest.mark.parametrize(("test_id", "owner"), [(TEST_ID, "you"), (TEST_ID.upper(), "me"), ("x", "me")])
    def test_anothers_is_as_if_it_were_not_there(self, test_id: str, owner: str) -> None:
        open_run(owner="me")
        with pytest.raises(NotFound):
            runs.find(test_id, owner)

    def test_a_deleted_one_is_found_only_where_it_is_asked_for(self) -> None:
        run = open_run()
        assert purge.delete_run(run).success
        with pytest.raises(NotFound):
            runs.find(TEST_ID, "")
        assert runs.find(TEST_ID, "", deleted=True) == run

    def test_the_time_that_is_left_is_counted_in_minutes(self) -> None:
        run = open_run(max_age_minutes=10)
        assert runs.minutes_left(runs.find(TEST_ID, "")) == 10
        age(run, 30)
        assert runs.minutes_left(runs.find(TEST_ID, "")) == 0


# --- Note [Why the run is locked], with real threads -----------------------------------------------------


@contextmanager
def elsewhere(work: Any) -> Iterator[Future[Any]]:
    """`work()` in another thread with a connection of its own."""

    def call() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


def waits(future: Future[Any]) -> bool:
    """Whether it is still under way after a while that would do for it many times over."""
    time.sleep(0.5)
    return not future.done()


needs_row_locks = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="one writer at a time has the whole file: nothing to tell apart"
)


@pytest.mark.django_db(transaction=True)
class TestLocks:
    @pytest.fixture(autouse=True)
    def run(self) -> TestRun:
        return open_run()

    def close(self) -> Any:
        return purge.purge_run(runs.find(TEST_ID, "")).receipt

    @needs_row_locks
    def test_two_creators_hold_one_run_at_once(self) -> None:
        def hold() -> str:
            with transaction.atomic():
                return runs.hold(TEST_ID, "").test_id

        with transaction.atomic():
            runs.hold(TEST_ID, "")
            with elsewhere(hold) as other:
                assert other.result(10) == TEST_ID

    @needs_row_locks
    def test_one_that_holds_it_alone_waits_for_creators_and_they_for_it(self) -> None:
        def hold(exclusive: bool) -> None:
            with transaction.atomic():
                runs.hold(TEST_ID, "", exclusive=exclusive)

        for mine, others in ((False, True), (True, False), (True, True)):
            held = threading.Event()
            with elsewhere(lambda held=held, others=others: held.wait(10) and hold(others)) as other:
                with transaction.atomic():
                    runs.hold(TEST_ID, "", exclusive=mine)
                    held.set()
                    assert waits(other)
                other.result(10)

    def test_a_closer_waits_for_a_creator_in_flight_and_then_removes_its_rows(self) -> None:
        made = threading.Event()

        def close() -> Any:
            made.wait(10)
            return self.close()

        with elsewhere(close) as closer:
            with transaction.atomic():
                perform(lambda call: call.create("book"))
                made.set()
                assert waits(closer)
            receipt = closer.result(30)
        assert receipt["removed"].get("book") == 1, receipt
        assert receipt["remaining"] == 0
        assert not Book.objects.exists()

    def test_a_creator_that_is_rolled_back_leaves_the_closer_nothing(self) -> None:
        made = threading.Event()

        def close() -> Any:
            made.wait(10)
            return self.close()

        with elsewhere(close) as closer:
            with transaction.atomic():
                perform(lambda call: call.create("book"))
                made.set()
                time.sleep(0.2)
                transaction.set_rollback(True)
            receipt = closer.result(30)
        assert receipt["removed"] == {}
        assert receipt["state"] == "closed"

    @needs_row_locks
    def test_a_creator_that_waited_for_a_closer_is_refused(self) -> None:
        closing = threading.Event()

        def create() -> Any:
            closing.wait(10)
            return perform(lambda call: call.create("voucher"))

        with elsewhere(create) as creator:
            with transaction.atomic():
                run = runs.lock_exclusively(runs.find(TEST_ID, ""))
                TestRun.objects.filter(pk=run.pk).update(state=TestRun.State.CLOSING, closing_at=Now())
                closing.set()
                assert waits(creator)
            with pytest.raises(RunClosed):
                creator.result(30)
        assert not Voucher.objects.exists()

    def test_one_that_waited_counts_the_entries_that_it_waited_for(self) -> None:
        made = threading.Event()

        def count() -> int:
            made.wait(10)
            with transaction.atomic():
                return int(runs.hold(TEST_ID, "", exclusive=True).last_ordinal)  # type: ignore[attr-defined]

        with elsewhere(count) as other:
            with transaction.atomic():
                perform(lambda call: call.create("book"))
                made.set()
                assert waits(other)
            assert other.result(30) == TestEntity.objects.count()

    def test_creators_of_two_runs_do_not_wait_for_one_another(self) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("one writer at a time has the whole file")
        with transaction.atomic():
            perform(lambda call: call.create("voucher"))
            with elsewhere(lambda: perform(lambda call: call.create("voucher"), "stagehand_test_2")) as other:
                assert other.result(10).pk
