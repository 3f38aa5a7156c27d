"""What the middleware costs a request that carries no pass, sync and async, in microseconds.

`python -m benchmarks.middleware [--calls 1000000]`: the same trivial view with and without it, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 9


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.middleware", description=__doc__)
    parser.add_argument("--calls", type=int, default=300_000, help="in each round")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from django.http import HttpResponse
    from django.test import AsyncRequestFactory, RequestFactory

    answer = HttpResponse()

    def view(request: Any) -> HttpResponse:
        return answer

    async def async_view(request: Any) -> HttpResponse:
        return answer

    headers = {"Cookie": "sessionid=0123456789abcdef0123456789abcdef; csrftoken=abcdef", "Accept": "*/*"}
    report("sync", sync_timer, RequestFactory().get("/", headers=headers), view, options.calls)
    report("async", async_timer, AsyncRequestFactory().get("/", headers=headers), async_view, options.calls)
    return 0


def report(
    name: str,
    timer: Callable[[Any, Any, int], float],
    request: Any,
    view: Any,
    calls: int,
) -> None:
    from stagehand_testdata.middleware import test_run_middleware

    wrapped = test_run_middleware(view)
    without, extra = [], []
    for _ in range(ROUNDS):
        base = timer(view, request, calls)
        without.append(base)
        extra.append(timer(wrapped, request, calls) - base)
    print(
        f"{name:<6} the view {statistics.median(without):6.3f} µs   more {statistics.median(extra):6.3f} µs"
    )


def sync_timer(call: Any, request: Any, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call(request)
    return (time.perf_counter() - start) / calls * 1e6


def async_timer(call: Any, request: Any, calls: int) -> float:
    async def timed() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            await call(request)
        return (time.perf_counter() - start) / calls * 1e6

    return asyncio.run(timed())


if __name__ == "__main__":
    raise SystemExit(main())
