"""Caches that keep what a run sees apart from what everybody sees.

A list that was put into a cache under a run holds the run's rows, and the next real user would get it. Django
makes every key of a cache with one function, and this one makes other keys under each run:

    CACHES = {"default": {…, "KEY_FUNCTION": "stagehand_testdata.isolation.caching.make_key"}}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.cache.backends.base import default_key_func

from ..context import current_run

KeyFunction = Callable[[Any, str, Any], str]


def per_run(make: KeyFunction) -> KeyFunction:
    """The function, for a host that has one of its own; its keys under a run are that run's alone."""

    def make_key(key: Any, key_prefix: str, version: Any) -> str:
        run = current_run()
        made = make(key, key_prefix, version)
        return made if run is None else f"testdata-{run.pk}:{made}"

    make_key.separates_runs = True  # type: ignore[attr-defined]
    return make_key


make_key = per_run(default_key_func)
