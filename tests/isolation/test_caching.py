"""Caches under a run are not everybody's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.base import default_key_func

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.isolation.caching import make_key, per_run

ONE, TWO = CurrentRun(1, "stagehand_test_one"), CurrentRun(2, "stagehand_test_two")


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    cache.clear()


def test_without_a_run_keys_are_djangos_own() -> None:
    assert make_key("a", "prefix", 3) == default_key_func("a", "prefix", 3)
    assert caches["default"].key_func is make_key


def test_what_a_run_keeps_nobody_else_finds() -> None:
    with use_run(ONE):
        cache.set("listing", ["a test row"])
    assert cache.get("listing") is None
    with use_run(TWO):
        assert cache.get("listing") is None
    with use_run(ONE):
        assert cache.get("listing") == ["a test row"]


def test_what_everybody_keeps_a_run_does_not_find() -> None:
    cache.set("listing", ["real rows alone"])
    with use_run(ONE):
        assert cache.get("listing") is None
        cache.delete("listing")
    assert cache.get("listing") == ["real rows alone"]


def test_a_hosts_own_keys_are_kept_apart_too() -> None:
    theirs = per_run(lambda key, prefix, version: f"ours/{key}")
    assert theirs("a", "", 1) == "ours/a"
    with use_run(TWO):
        assert theirs("a", "", 1) == "testdata-2:ours/a"
