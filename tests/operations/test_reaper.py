"""The reaper: what it takes, what it leaves, what it says, and many of them at once."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from stagehand_testdata.models import Receipt, TestEntity, TestRun
from stagehand_testdata.operations import entities, reaper, runs
from stagehand_testdata.operations.purge import failures, purge
from stagehand_testdata.operations.purge.purge import purge_run
from stagehand_testdata.operations.reaper import Reaped, reap
from tests.conftest import host_counts
from tests.host import models
from tests.making import changed
from tests.threads import in_thread

FAILURES = "stagehand_testdata.operations.purge.failures"


def make(test_id: str, *types: str, expired_hours: float | None = 2) -> TestRun:
    """A run with these rows, past its end by so many hours."""

    def work(call: entities.Creation) -> None:
        for each in types or ("voucher",):
            call.create(each)

    entities.perform(test_id, "", work)
    run = runs.find(test_id, "")
    if expired_hours is not None:
        expire(run, expired_hours)
    return run


def expire(run: TestRun, hours: float = 2) -> None:
    end = Now() - dt.timedelta(hours=hours)
    TestRun.objects.filter(pk=run.pk).update(opened_at=end - dt.timedelta(hours=1), expires_at=end)


def fresh(run: TestRun) -> Any:
    return TestRun.objects.annotate(now=Now()).get(pk=run.pk)


def pause(run: TestRun) -> float:
    """How many minutes the reaper leaves the run alone from now."""
    found = fresh(run)
    return (found.next_purge_at - found.now).total_seconds() / 60


def forget_the_pause(run: TestRun) -> None:
    TestRun.objects.filter(pk=run.pk).update(next_purge_at=Now() - dt.timedelta(seconds=1))


class Killed(BaseException):
    """What nobody can catch, as good as SIGKILL: the reaper writes nothing down any more."""


def poisoned(monkeypatch: pytest.MonkeyPatch, *test_ids: str, by: type[BaseException] = RuntimeError) -> None:
    """The purge of these runs raises: at its first look, as a model or a database could make it."""
    plain = purge.outline

    def outline(run: TestRun, *args: Any, **kwargs: Any) -> Any:
        if run.test_id in test_ids:
            raise by("poison\nin two lines")
        return plain(run, *args, **kwargs)

    monkeypatch.setattr(purge, "outline", outline)


@pytest.mark.django_db
class TestWhatItTakes:
    def test_expired_runs_the_longest_expired_first_and_no_others(self) -> None:
        later, first = make("stagehand_test_later"), make("stagehand_test_first", expired_hours=3)
        running = make("stagehand_test_running", expired_hours=None)
        reaped = reap()
        assert [each.receipt["testId"] for each in reaped.outcomes] == [first.test_id, later.test_id]
        assert reaped.success
        assert fresh(running).state == "open"
        assert models.Voucher.objects.count() == 1
        assert reaped.counts() == {
            "purged": 2,
            "removed": 2,
            "remaining": 0,
            "failed": 0,
            "halted": 0,
            "putOff": 0,
            "skipped": 0,
            "stopped": False,
        }

    def test_a_second_round_finds_nothing_to_do(self) -> None:
        make("stagehand_test_once")
        reap()
        assert reap() == Reaped()

    def test_as_many_as_the_limit_says(self) -> None:
        made = [make(f"stagehand_test_{number}", expired_hours=9 - number) for number in range(3)]
        assert len(reap(limit=2).outcomes) == 2
        assert [fresh(run).state for run in made] == ["closed", "closed", "open"]

    def test_those_that_it_is_told_to_look_among(self) -> None:
        one, other = make("stagehand_test_one"), make("stagehand_test_other")
        reap(among=purge.due_runs(expired=True, test_id=one.test_id))
        assert fresh(other).state == "open"

    def test_a_run_whose_purge_was_begun_by_somebody_who_died(self) -> None:
        run = make("stagehand_test_begun")
        TestRun.objects.filter(pk=run.pk).update(state="closing", closing_at=Now())
        assert reap().success
        assert fresh(run).state == "closed"

    def test_with_the_gate_closed_and_keys_required(self) -> None:
        run = make("stagehand_test_gate")
        with changed(ENABLED=False, REQUIRE_ACCESS_KEY=True):
            assert reap().success
        assert fresh(run).state == "closed"

    def test_nothing_once_it_is_to_stop(self) -> None:
        run = make("stagehand_test_stop")
        assert reap(stop=lambda: True) == Reaped(stopped=True)
        assert fresh(run).state == "open"

    def test_a_stop_between_two_batches_leaves_the_rest_to_the_next_round_and_is_no_failure(self) -> None:
        run = make("stagehand_test_half", *["voucher"] * 6)
        asked = iter([False, False, True])
        reaped = reap(stop=lambda: next(asked), batch_size=1)
        assert reaped.stopped
        assert not reaped.failed
        assert 0 < models.Voucher.objects.count() < 6
        assert fresh(run).purge_failures == 0
        assert reap().success
        assert not models.Voucher.objects.exists()
        assert fresh(run).state == "closed"


@pytest.mark.django_db
class TestFailure:
    def test_of_one_run_keeps_no_other_waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bad, good = make("stagehand_test_bad", expired_hours=5), make("stagehand_test_good")
        poisoned(monkeypatch, bad.test_id)
        reaped = reap()
        assert not reaped.success
        assert [told.test_id for told in reaped.failed] == [bad.test_id]
        assert fresh(good).state == "closed"

    def test_that_ends_the_process_keeps_no_other_waiting_after_that(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bad, good = make("stagehand_test_bad", expired_hours=5), make("stagehand_test_good")
        poisoned(monkeypatch, bad.test_id, by=Killed)
        with pytest.raises(Killed):
            reap()
        assert fresh(good).state == "open"
        with pytest.raises(Killed):
            reap()
        assert fresh(good).state == "closed"
        monkeypatch.undo()
        assert reap().success
        assert fresh(bad).state == "closed"

    def test_puts_the_run_off_for_longer_each_time_up_to_an_hour(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make("stagehand_test_bad")
        poisoned(monkeypatch, run.test_id)
        for times, minutes in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=1):
            assert len(reap().failed) == 1
            assert fresh(run).purge_failures == times
            assert pause(run) == pytest.approx(minutes, abs=0.2)
            forget_the_pause(run)
        assert fresh(run).purge_error == "RuntimeError: poison in two lines"

    def test_is_not_tried_again_before_its_time_but_still_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make("stagehand_test_bad")
        poisoned(monkeypatch, run.test_id)
        reap()
        again = reap()
        assert again.put_off == ((run.test_id, "RuntimeError: poison in two lines"),)
        assert not again.failed
        assert not again.success
        assert fresh(run).purge_failures == 1

    def test_is_a_warning_once_and_an_error_from_the_second_on(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = make("stagehand_test_bad")
        poisoned(monkeypatch, run.test_id)
        for _ in range(3):
            reap()
            forget_the_pause(run)
        levels = [record.levelno for record in caplog.records if record.name == FAILURES]
        assert levels == [logging.WARNING, logging.ERROR, logging.ERROR]
        assert "RuntimeError" in caplog.text
        assert "3 in a row" in caplog.text

    def test_is_over_with_the_first_success(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make("stagehand_test_bad")
        with monkeypatch.context() as patch:
            poisoned(patch, run.test_id)
            reap()
        forget_the_pause(run)
        assert reap().success
        found = fresh(run)
        assert (found.purge_failures, found.next_purge_at, found.purge_error) == (0, None, "")

    def test_is_what_is_left_too_and_an_error_at_once_where_nothing_went(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = make("stagehand_test_held", "author")
        author = models.Author.objects.get()
        models.Book.objects.create(title="real", author=author)
        reaped = reap()
        assert not reaped.success
        assert reaped.outcomes[0].receipt["removed"] == {}
        assert fresh(run).purge_failures == 1
        assert "are left" in fresh(run).purge_error
        assert [r.levelno for r in caplog.records if r.name == FAILURES] == [logging.ERROR]

    def test_with_some_rows_gone_is_a_warning_at_first(self, caplog: pytest.LogCaptureFixture) -> None:
        make("stagehand_test_held", "author", "voucher")
        models.Book.objects.create(title="real", author=models.Author.objects.get())
        assert not reap().success
        assert [r.levelno for r in caplog.records if r.name == FAILURES] == [logging.WARNING]

    def test_over_the_limits_halts_the_run_and_no_other(self) -> None:
        big, small = make("stagehand_test_big", *["voucher"] * 3), make("stagehand_test_small")
        with changed(MAX_ROWS_PER_PURGE=2):
            reaped = reap()
        assert [told.test_id for told in reaped.halted] == [big.test_id]
        assert "--confirm" in reaped.halted[0].text
        assert not reaped.success
        assert fresh(small).state == "closed"
        assert TestEntity.objects.standing().filter(run=big).count() == 3
        assert fresh(big).purge_failures == 1
        assert pause(big) == pytest.approx(1, abs=0.2)

    def test_of_a_run_that_somebody_names_counts_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make("stagehand_test_bad")
        poisoned(monkeypatch, run.test_id)
        with pytest.raises(RuntimeError):
            purge_run(fresh(run))
        assert fresh(run).purge_failures == 1

    def test_never_hides_what_went_wrong_where_it_cannot_be_written_down(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = make("stagehand_test_away")

        def away(*args: Any, **kwargs: Any) -> Any:
            raise OperationalError("the database is away")

        with connection.execute_wrapper(away):
            failures.failed(run, "it went wrong")
            failures.succeeded(run)
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert any("it went wrong" in each for each in errors)
        assert any("could not be written down" in each for each in errors)
        assert fresh(run).purge_failures == 0

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("two\nlines\tand\x00nul", "two lines and nul"),
            ("\x1b[31mred\ud800", "[31mred"),
            ("x" * 1000, "x" * 300),
            ("", ""),
        ],
    )
    def test_is_kept_as_one_printable_line(self, text: str, kept: str) -> None:
        run = make("stagehand_test_text")
        failures.failed(run, text)
        assert fresh(run).purge_error == kept


ONE_REAPER = """
import json, logging, django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = {database!r}
if connection.vendor == "postgresql":
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '50ms'")
from stagehand_testdata.models import TestRun
from stagehand_testdata.operations.reaper import reap
input()
rounds = []
while TestRun.objects.expired().filter(purge_failures=0).exists():
    rounds.append(reap().counts())
print(json.dumps(rounds))
"""


@pytest.mark.django_db(transaction=True)
class TestManyAtOnce:
    pytestmark = [
        pytest.mark.skipif(
            connection.vendor == "sqlite",
            reason="needs a database that skips locked rows (DATABASE_URL)",
        )
    ]

    def test_share_the_work_and_never_wait_for_each_other(self) -> None:
        made = [make(f"stagehand_test_many{number}", "team", "restaurant", "voucher") for number in range(40)]
        entered = TestEntity.objects.count()
        reapers = [
            subprocess.Popen(
                [sys.executable, "-c", ONE_REAPER.format(database=connection.settings_dict["NAME"])],
                env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        told: list[dict[str, int]] = []
        for each in reapers:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        for each in reapers:
            out, err = each.communicate(timeout=120)
            assert each.returncode == 0, err
            assert "lock timeout" not in err
            told += json.loads(out)
        assert sum(round_["failed"] + round_["remaining"] for round_ in told) == 0, told
        for run in made:
            bodies = [each.body for each in Receipt.objects.filter(run=run)]
            removing = [body for body in bodies if body["removed"]]
            assert len(removing) == 1, (run.test_id, bodies)
            assert removing[0]["state"] == "closed"
        assert sum(each.body["removed"].get("voucher", 0) for each in Receipt.objects.all()) == 40
        assert TestEntity.objects.filter(state="removed").count() == entered
        assert set(TestRun.objects.values_list("state", "purge_failures")) == {("closed", 0)}
        assert all(count == 0 for name, count in host_counts().items() if name.startswith("host."))

    def test_a_run_that_somebody_holds_is_passed_over_and_the_next_taken(self) -> None:
        held, free = make("stagehand_test_held", expired_hours=5), make("stagehand_test_free")
        with transaction.atomic():
            runs.lock_exclusively(held)
            thread, results = in_thread(reap)
            thread.join(20)
            assert not thread.is_alive(), "the reaper waited"
        assert results[0].skipped == 1
        assert fresh(free).state == "closed"
        assert fresh(held).state == "open"
        assert fresh(held).purge_failures == 0
        assert reap().success

    def test_a_failure_is_written_down_without_waiting_for_who_holds_the_run(self) -> None:
        run = make("stagehand_test_held")
        with transaction.atomic():
            runs.lock_exclusively(run)
            thread, _ = in_thread(lambda: failures.failed(run, "x"))
            thread.join(20)
            assert not thread.is_alive(), "it waited"

    def test_a_run_that_was_renewed_after_it_was_listed_is_left_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The renewal began in time and commits when the reaper has just chosen the run."""
        run = make("stagehand_test_renewed", expired_hours=None)
        TestRun.objects.filter(pk=run.pk).update(expires_at=Now() + dt.timedelta(seconds=1.5))
        renewed, go_on = threading.Event(), threading.Event()

        def renew() -> None:
            with transaction.atomic():
                runs.renew(fresh(run), max_age_minutes=30)
                renewed.set()
                assert go_on.wait(20)

        thread, results = in_thread(renew)
        assert renewed.wait(10), results
        plain = reaper.purge_run

        def once_it_is_committed(*args: Any, **kwargs: Any) -> Any:
            go_on.set()
            thread.join()
            return plain(*args, **kwargs)

        monkeypatch.setattr(reaper, "purge_run", once_it_is_committed)
        while not TestRun.objects.expired().filter(pk=run.pk).exists():
            time.sleep(0.05)
        reaped = reap()
        assert go_on.is_set(), "the reaper never chose the run"
        assert results == [None]
        assert reaped.outcomes == ()
        assert reaped.skipped == 1
        assert fresh(run).state == "open"
        assert models.Voucher.objects.count() == 1

    def test_a_run_whose_renewal_is_not_committed_yet_is_passed_over(self) -> None:
        run = make("stagehand_test_renewing", expired_hours=None)
        TestRun.objects.filter(pk=run.pk).update(expires_at=Now() + dt.timedelta(seconds=1.5))
        with transaction.atomic():
            runs.renew(fresh(run), max_age_minutes=30)
            time.sleep(2)
            thread, results = in_thread(reap)
            thread.join(20)
            assert not thread.is_alive(), "the reaper waited"
        assert results[0].skipped == 1
        assert fresh(run).state == "open"
        assert reap() == Reaped()

    def test_a_run_that_another_closed_meanwhile_is_not_purged_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = make("stagehand_test_1", expired_hours=5), make("stagehand_test_2")
        asked = iter([False])

        def other_reaper_comes() -> bool:
            if next(asked, None) is None:
                thread, _ = in_thread(lambda: purge_run(fresh(second)))
                thread.join()
            return False

        reaped = reap(stop=other_reaper_comes)
        assert [each.receipt["testId"] for each in reaped.outcomes] == [first.test_id]
        assert reaped.skipped == 1
        assert Receipt.objects.filter(run=second).count() == 1


@pytest.mark.django_db
def test_f_is_evaluated_by_the_database_so_two_failures_at_once_both_count() -> None:
    run = make("stagehand_test_count")
    stale = fresh(run)
    failures.failed(run, "one")
    failures.failed(stale, "two")
    assert TestRun.objects.filter(pk=run.pk, purge_failures=F("purge_failures")).get().purge_failures == 2
