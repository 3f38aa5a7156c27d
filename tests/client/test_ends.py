"""How a runner may end, and what becomes of its run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from typing import Any

import pytest

from stagehand_testdata.client import TestDataManager
from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import reaper
from tests.conftest import host_counts

from .conftest import start, wait_for

PLAIN = """
import os, signal, sys, time
from stagehand_testdata.client import TestDataManager
with TestDataManager(sys.argv[1], lease_minutes=float(sys.argv[2])) as run:
    run.booking_scenario()
    print(run.test_id, flush=True)
    time.sleep(60)
"""
TASKS = """
import asyncio, sys
from stagehand_testdata.client import AsyncTestDataManager
async def main():
    async with AsyncTestDataManager(sys.argv[1], lease_minutes=float(sys.argv[2])) as run:
        await run.booking_scenario()
        print(run.test_id, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
BUSY = """
import sys
from stagehand_testdata.client import TestDataManager
with TestDataManager(sys.argv[1]) as run:
    print(run.test_id, flush=True)
    while True:
        run.create("product")
"""
UNCLOSED = """
import sys
from stagehand_testdata.client import TestDataManager
run = TestDataManager(sys.argv[1])
run.initialize()
run.client()
print(run.test_id, flush=True)
"""

FAST = 5.0


def ready(runner: subprocess.Popen[str]) -> str:
    assert runner.stdout is not None
    test_id = runner.stdout.readline().strip()
    assert test_id, runner.communicate()[1]
    return test_id


@pytest.mark.parametrize("code", [PLAIN, TASKS, BUSY], ids=["plain", "tasks", "busy"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_cleans_up_at_once(product: str, code: str, signum: signal.Signals) -> None:
    before = host_counts()
    with start(code, product, "5") as runner:
        test_id = ready(runner)
        time.sleep(0.2)
        told = time.monotonic()
        runner.send_signal(signum)
        _, said = runner.communicate(timeout=20)
        assert time.monotonic() - told < FAST
    assert TestRun.objects.get(test_id=test_id).state == "closed"
    assert host_counts() == before
    # As it would have ended without us.
    if signum == signal.SIGTERM:
        assert runner.returncode == -signal.SIGTERM
        assert said == ""
    else:
        assert "KeyboardInterrupt" in said


@pytest.mark.parametrize("code", [PLAIN, TASKS], ids=["plain", "tasks"])
def test_killed_its_run_goes_when_the_lease_ends(product: str, code: str) -> None:
    before = host_counts()
    lease = 3.0
    with start(code, product, str(lease / 60)) as runner:
        test_id = ready(runner)
        # Longer than its lease, which the heartbeat renews.
        time.sleep(lease * 1.5)
        reaper.reap()
        assert TestRun.objects.get(test_id=test_id).state == "open"
        assert TestEntity.objects.standing().count() > 0
        runner.kill()
        killed = time.monotonic()
        runner.communicate()
    wait_for(lambda: reaper.reap() and TestRun.objects.get(test_id=test_id).state == "closed")
    assert time.monotonic() - killed < lease + FAST
    assert host_counts() == before


def test_who_never_closes_cleans_up_at_the_exit(product: str) -> None:
    before = host_counts()
    with start(UNCLOSED, product) as runner:
        test_id = ready(runner)
        assert runner.wait(20) == 0
        runner.communicate()
    assert TestRun.objects.get(test_id=test_id).state == "closed"
    assert host_counts() == before


def test_a_child_that_is_told_to_end_leaves_its_parents_run(product: str) -> None:
    code = """
import os, signal, sys, time
from stagehand_testdata.client import TestDataManager
with TestDataManager(sys.argv[1]) as run:
    run.client()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    print(run.status().state, flush=True)
"""
    with start(code, product) as runner:
        assert ready(runner) == "open"
        runner.communicate()


def test_whoever_had_the_signal_before_still_gets_it_and_has_it_back(product: str) -> None:
    told: list[tuple[int, str]] = []

    def mine(signum: int, frame: Any) -> None:
        told.append((signum, TestRun.objects.get().state))

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with TestDataManager(product) as run:
            run.client()
            assert signal.getsignal(signal.SIGTERM) != mine
            os.kill(os.getpid(), signal.SIGTERM)
            assert told == [(signal.SIGTERM, "closed")]
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_is_ignored_stays_so(product: str) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with TestDataManager(product) as run:
            os.kill(os.getpid(), signal.SIGTERM)
            assert run.status().state == "open"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_than_the_main_one_touches_no_signal(product: str) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    found: list[Any] = []

    def work() -> None:
        with TestDataManager(product) as run:
            found.append({each: signal.getsignal(each) for each in before})
            run.client()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
    assert TestRun.objects.get().state == "closed"


def test_two_runs_of_one_process_end_each_for_itself(product: str) -> None:
    usual = signal.getsignal(signal.SIGTERM)
    first, second = TestDataManager(product), TestDataManager(product)
    with first:
        with second:
            pass
        assert signal.getsignal(signal.SIGTERM) != usual
        assert first.status().state == "open"
    assert signal.getsignal(signal.SIGTERM) == usual


class TestTheLease:
    def test_is_not_renewed_past_the_age_that_was_asked_for(self, product: str) -> None:
        with TestDataManager(product, max_age_minutes=4 / 60, lease_minutes=2 / 60) as run:
            end = wait_for(lambda: (found := run.status()).expired and found.expires_at)
            assert (end - run.status().opened_at).total_seconds() == pytest.approx(4, abs=0.7)

    def test_of_one_shard_never_cuts_the_run_of_the_others_short(self, product: str) -> None:
        with TestDataManager(product, scope="persistent_environment", max_age_minutes=600) as opened:
            long = opened.status().expires_at
            with TestDataManager(product, test_id=opened.test_id, keep=False, lease_minutes=1 / 60) as shard:
                time.sleep(1.2)
                assert shard.status().expires_at >= long

    def test_of_a_run_that_was_ended_elsewhere_is_given_up(
        self, product: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with TestDataManager(product, lease_minutes=1 / 60) as run:
            TestDataManager(product, test_id=run.test_id).cleanup()
            wait_for(lambda: "is renewed no more" in caplog.text)


def test_tasks_renew_the_lease_too_and_end_with_the_block(product: str) -> None:
    from stagehand_testdata.client import AsyncTestDataManager

    async def story() -> tuple[Any, ...]:
        async with AsyncTestDataManager(product, lease_minutes=1 / 60) as run:
            made = await run.create("product", count=2)
            await asyncio.sleep(2)
            state = (await run.status()).state
            entries = await run.entities(type="product")
        others = [each.get_name() for each in asyncio.all_tasks()]
        return len(made), state, len(entries), others.count("testdata-heartbeat")

    before = host_counts()
    assert asyncio.run(story()) == (2, "open", 2, 0)
    assert host_counts() == before
