"""What the check of an access key costs a request, and what a call costs that a quota refuses."""

from __future__ import annotations

import datetime as dt
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

ADDRESS = "127.0.0.1"
CALLS = 200


def measure(rounds: int) -> None:
    from stagehand_testdata.access import keys
    from stagehand_testdata.exceptions import NotAuthenticated

    text = keys.create("bench", dt.timedelta(hours=1), networks=["127.0.0.0/8"]).text
    token = keys.parse(text)
    assert token is not None
    unknown = str(token._replace(public_id="0" * 12))

    def refuse(given: str) -> None:
        try:
            keys.verify(given, ADDRESS)
        except NotAuthenticated:
            return
        raise AssertionError(given)

    print(f"The check of an access key: median of {rounds} rounds of {CALLS}, the slowest of them")
    tasks: dict[str, Callable[[], Any]] = {
        "a key that counts": lambda: keys.verify(text, ADDRESS),
        "a key that nobody has": lambda: refuse(unknown),
        "a text that is no key": lambda: refuse(text[:-1]),
    }
    for name, task in tasks.items():
        task()
        times = [_each(task) for _ in range(rounds)]
        print(f"  {name:<48} {statistics.median(times):9.3f} ms   {max(times):6.3f} ms")
    print()


def measure_refusals(rounds: int) -> None:
    from rest_framework.test import APIClient

    from stagehand_testdata.access import keys
    from tests.making import changed

    text = keys.create("bench", dt.timedelta(hours=1), max_live_rows=10).text
    wire = APIClient(HTTP_AUTHORIZATION=f"Bearer {text}", HTTP_X_TEST_ID="stagehand_test_refused")

    def post(path: str, body: dict[str, int]) -> int:
        return int(wire.post(f"/api/test/{path}", body, format="json").status_code)

    logging.getLogger("django.request").setLevel(logging.ERROR)
    print(f"A call for 1,000 rows that a quota refuses: median of {rounds}, the slowest of them")
    with changed(REQUIRE_ACCESS_KEY=True, RATE_PER_KEY="", RATE_PER_ADDRESS=""):
        post("entities/voucher", {})
        for path, body in (("entities/voucher", {"count": 1000}), ("batch", {"voucher": 500, "person": 500})):
            times = []
            for _ in range(rounds):
                began = time.perf_counter()
                if post(path, body) != 409:
                    raise AssertionError(path)
                times.append((time.perf_counter() - began) * 1000)
            print(f"  {path:<48} {statistics.median(times):9.1f} ms   {max(times):6.1f} ms")
    print()


def _each(task: Callable[[], Any]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        task()
    return (time.perf_counter() - began) / CALLS * 1000
