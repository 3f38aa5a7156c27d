"""The current run is that of this thread or task, and of no other."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor

import pytest

from stagehand_testdata.context import CurrentRun, current_run, use_run

ONE, TWO = CurrentRun(1, "one"), CurrentRun(2, "two")


def test_there_is_none_in_ordinary_traffic() -> None:
    assert current_run() is None


def test_it_is_current_within_the_block_alone() -> None:
    with use_run(ONE):
        assert current_run() is ONE
    assert current_run() is None


def test_a_block_in_a_block_gives_the_outer_one_back() -> None:
    with use_run(ONE):
        with use_run(TWO):
            assert current_run() is TWO
        with use_run(None):
            assert current_run() is None
        assert current_run() is ONE


def test_an_exception_gives_it_back() -> None:
    with pytest.raises(ValueError, match="x"), use_run(ONE):
        raise ValueError("x")
    assert current_run() is None


def test_another_thread_has_none() -> None:
    with use_run(ONE), ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_run).result() is None
        assert pool.submit(contextvars.copy_context().run, current_run).result() is ONE


def test_tasks_have_one_each() -> None:
    async def work(run: CurrentRun) -> bool:
        with use_run(run):
            for _ in range(10):
                await asyncio.sleep(0)
                if current_run() is not run:
                    return False
        return current_run() is None

    async def main() -> list[bool]:
        return await asyncio.gather(*(work(CurrentRun(n, str(n))) for n in range(20)))

    assert all(asyncio.run(main()))


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ONE.pk = 3  # type: ignore[misc]
