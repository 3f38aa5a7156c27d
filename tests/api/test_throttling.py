"""Requests in too short a time: of one key, of one address, with a key or without."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache

from stagehand_testdata.access import keys
from stagehand_testdata.api import throttling
from tests.conftest import Wire, error_of

from .conftest import nothing_written

pytestmark = pytest.mark.django_db

RATES = {"REQUIRE_ACCESS_KEY": True, "RATE_PER_KEY": "3/m", "RATE_PER_ADDRESS": "5/m"}


@pytest.fixture(autouse=True)
def _rates(configure: Callable[..., None]) -> None:
    configure(**RATES)


def key() -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.create('CI', dt.timedelta(hours=1)).text}"}


class AwayCache:
    def get(self, *args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("the cache is away")


def test_a_key_that_asks_too_often_is_told_when_to_come_back(wire: Wire) -> None:
    mine = key()
    assert [wire.get("runs", **mine).status_code for _ in range(3)] == [200] * 3
    with nothing_written():
        refused = wire.post("builders", **mine)
    assert error_of(refused) == (429, "throttled")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert wire.get("runs", **key()).status_code == 200


def test_an_address_that_guesses_keys_is_stopped_before_the_key_is_looked_at(wire: Wire) -> None:
    assert [wire.get("runs").status_code for _ in range(6)] == [401] * 5 + [429]
    assert wire.get("runs", **key()).status_code == 429
    wire.client.defaults["REMOTE_ADDR"] = "203.0.113.9"
    assert wire.get("runs", **key()).status_code == 200


def test_whoever_has_a_network_of_ipv6_has_one_address(wire: Wire) -> None:
    answers = []
    for number in range(6):
        wire.client.defaults["REMOTE_ADDR"] = f"2001:db8::{number}"
        answers.append(wire.get("runs").status_code)
    assert answers == [401] * 5 + [429]
    wire.client.defaults["REMOTE_ADDR"] = "2001:db8:0:1::1"
    assert wire.get("runs").status_code == 401


def test_an_address_that_offers_tokens_is_counted_too(wire: Wire) -> None:
    answers = [wire.post("tokens", {"token": "nonsense"}).status_code for _ in range(6)]
    assert answers[5] == 429
    assert 429 not in answers[:5]


def test_it_is_time_that_lets_them_in_again(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, now = key(), 1_000_000.0
    monkeypatch.setattr(throttling._Rate, "timer", lambda self: now)
    assert [wire.get("runs", **mine).status_code for _ in range(4)] == [200] * 3 + [429]
    now += 61
    assert wire.get("runs", **mine).status_code == 200


def test_a_clean_up_is_only_put_off(wire: Wire) -> None:
    mine = key()
    wire.post("builders", **mine)
    for _ in range(2):
        wire.get("runs", **mine)
    assert error_of(wire.post("cleanup", **mine)) == (429, "throttled")
    cache.clear()
    assert wire.post("cleanup", **mine).json()["remaining"] == 0


def test_a_closed_gate_is_said_first(wire: Wire, configure: Callable[..., None]) -> None:
    configure(ENABLED=False)
    assert [wire.post("builders").status_code for _ in range(7)] == [403] * 7


@pytest.mark.parametrize(
    "rates", [{"RATE_PER_KEY": "", "RATE_PER_ADDRESS": ""}, {"REQUIRE_ACCESS_KEY": False}]
)
def test_nothing_is_counted_where_no_rate_or_no_key_is(
    wire: Wire, configure: Callable[..., None], rates: dict[str, Any]
) -> None:
    configure(**{**RATES, **rates})
    mine = key()
    assert [wire.get("runs", **mine).status_code for _ in range(7)] == [200] * 7


def test_a_cache_that_is_away_stops_nobody(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling._Rate, "cache", AwayCache())
    mine = key()
    assert [wire.get("runs", **mine).status_code for _ in range(7)] == [200] * 7
    assert wire.get("runs").status_code == 401


def test_a_pass_gives_nobody_more(wire: Wire) -> None:
    mine = key()
    wire.post("verify-access", **mine)
    wire.get("runs", **mine)
    carried = wire.post(f"runs/{wire.test_id}/pass", **mine).json()["token"]
    assert error_of(wire.get("runs", **mine, **{"X-Testdata-Pass": carried})) == (429, "throttled")
