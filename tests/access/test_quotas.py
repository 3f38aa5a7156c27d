"""Quotas: refused before anything is made, and never gone over by two calls at once."""

from __future__ import annotations

import datetime as dt
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.access import keys, quotas
from stagehand_testdata.models import TestEntity, TestRun
from tests.api.conftest import nothing_written
from tests.conftest import Wire, error_of
from tests.host.models import Voucher
from tests.making import changed

HOUR = dt.timedelta(hours=1)


def headers(**limits: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.create('CI', HOUR, **limits).text}"}


@pytest.fixture(autouse=True)
def _keys_are_required() -> Iterator[None]:
    quotas._roomy.clear()
    with changed(REQUIRE_ACCESS_KEY=True):
        yield
    quotas._roomy.clear()


@pytest.mark.django_db
class TestRows:
    def vouchers(self, wire: Wire, count: int, sent: dict[str, str]) -> Any:
        return wire.post("entities/voucher", {"count": count}, **sent)

    def test_a_key_has_no_more_than_it_may(self, wire: Wire) -> None:
        sent = headers(max_live_rows=5)
        assert self.vouchers(wire, 3, sent).status_code == 201
        with nothing_written():
            refused = self.vouchers(wire, 3, sent)
        assert error_of(refused) == (409, "quota_exceeded")
        assert "5 rows" in refused.json()["message"]
        assert self.vouchers(wire, 2, sent).status_code == 201
        assert error_of(self.vouchers(wire, 1, sent)) == (409, "quota_exceeded")

    def test_rows_made_on_the_way_count(self, wire: Wire) -> None:
        sent = headers(max_live_rows=5)
        with nothing_written():
            refused = wire.post("booking-scenarios", **sent)  # four asked for, six rows
        assert error_of(refused) == (409, "quota_exceeded")

    def test_a_clean_up_makes_room_and_is_never_refused(self, wire: Wire) -> None:
        sent = headers(max_live_rows=3, max_open_runs=1)
        self.vouchers(wire, 3, sent)
        with changed(REQUIRE_ACCESS_KEY=True, MAX_LIVE_ROWS=1, MAX_OPEN_RUNS=1, MAX_ROWS_PER_RUN=1):
            assert wire.post("cleanup", **sent).json()["removed"] == {"voucher": 3}
        again = Wire(f"{wire.test_id}_b")
        assert self.vouchers(again, 3, sent).status_code == 201

    def test_another_keys_rows_do_not_count(self, wire: Wire) -> None:
        self.vouchers(wire, 3, headers())
        assert self.vouchers(wire, 3, headers(max_live_rows=3)).status_code == 201

    def test_all_together_have_no_more_than_there_may_be(self, wire: Wire) -> None:
        with changed(REQUIRE_ACCESS_KEY=True, MAX_LIVE_ROWS=4):
            assert self.vouchers(wire, 3, headers(max_live_rows=None)).status_code == 201
            refused = self.vouchers(wire, 3, headers())
            assert error_of(refused) == (409, "quota_exceeded")
            assert "MAX_LIVE_ROWS" in refused.json()["message"]

    def test_it_holds_where_no_key_is_needed(self, wire: Wire) -> None:
        with changed(REQUIRE_ACCESS_KEY=False, MAX_LIVE_ROWS=4):
            assert self.vouchers(wire, 3, {}).status_code == 201
            assert error_of(self.vouchers(wire, 3, {})) == (409, "quota_exceeded")

    def test_a_run_makes_no_more_than_it_may(self, wire: Wire) -> None:
        sent = headers()
        with changed(REQUIRE_ACCESS_KEY=True, MAX_ROWS_PER_RUN=4):
            assert self.vouchers(wire, 3, sent).status_code == 201
            with nothing_written():
                assert error_of(self.vouchers(wire, 2, sent)) == (409, "quota_exceeded")
                assert error_of(wire.post("builders", **sent)) == (409, "quota_exceeded")
            assert self.vouchers(wire, 1, sent).status_code == 201
            assert self.vouchers(Wire(f"{wire.test_id}_b"), 4, sent).status_code == 201

    def test_a_scenario_makes_no_more_in_a_call_than_could_be_asked_for(self, wire: Wire) -> None:
        sent = headers()
        with changed(REQUIRE_ACCESS_KEY=True, MAX_ROWS_PER_CALL=3), nothing_written():
            assert error_of(wire.post("scenarios/marketplace", **sent)) == (409, "quota_exceeded")

    def test_shadow_rows_are_in_the_ledger_and_count(self, wire: Wire) -> None:
        sent = headers(max_live_rows=3)
        body = {"count": 2, "shadow": True}
        assert wire.post("entities/voucher", body, **sent).status_code == 201
        assert error_of(wire.post("entities/voucher", body, **sent)) == (409, "quota_exceeded")

    @pytest.mark.parametrize("path", ["entities/voucher", "batch"])
    def test_a_refused_bulk_call_makes_nothing_first_and_costs_little(self, wire: Wire, path: str) -> None:
        sent = headers(max_live_rows=10)
        body = {"count": 1000} if path.startswith("entities") else {"voucher": 500, "person": 500}
        wire.post("entities/voucher", {}, **sent)
        wire.post(path, body, **sent)  # imports, caches
        with CaptureQueriesContext(connection) as queries:
            assert error_of(wire.post(path, body, **sent)) == (409, "quota_exceeded")
        assert not [each["sql"] for each in queries if "voucher" in each["sql"].lower()]
        tracemalloc.start()
        wire.post(path, body, **sent)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20_000_000


@pytest.mark.django_db
class TestRuns:
    def test_a_key_has_no_more_open_than_it_may(self, wire: Wire) -> None:
        sent = headers(max_open_runs=2)
        opened = [Wire(f"{wire.test_id}_{each}") for each in range(3)]
        assert opened[0].post("verify-access", **sent).status_code == 200
        assert opened[1].post("builders", **sent).status_code == 201
        with nothing_written():
            for path in ("verify-access", "builders"):
                assert error_of(opened[2].post(path, **sent)) == (409, "quota_exceeded")
        assert opened[0].post("verify-access", **sent).status_code == 200
        assert opened[1].post("cleanup", **sent).status_code == 200
        assert opened[2].post("verify-access", **sent).status_code == 200

    def test_all_together_have_no_more_than_there_may_be(self, wire: Wire) -> None:
        with changed(REQUIRE_ACCESS_KEY=True, MAX_OPEN_RUNS=1):
            assert wire.post("verify-access", **headers()).status_code == 200
            refused = Wire(f"{wire.test_id}_b").post("verify-access", **headers())
            assert error_of(refused) == (409, "quota_exceeded")
            assert "MAX_OPEN_RUNS" in refused.json()["message"]


@pytest.mark.django_db
def test_far_below_a_limit_a_call_costs_no_query_more(wire: Wire) -> None:
    sent = headers(max_live_rows=None, max_open_runs=None)
    wire.post("entities/voucher", **sent)
    with CaptureQueriesContext(connection) as queries:
        wire.post("entities/voucher", **sent)
    assert not [each["sql"] for each in queries if "quotalock" in each["sql"]]
    assert not [each["sql"] for each in queries if "quota_" in each["sql"]]


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    """Eight calls that each alone would fit, and together would not."""

    def all_at_once(self, calls: list[Callable[[], Any]]) -> list[int]:
        barrier, found = threading.Barrier(len(calls)), []

        def one(call: Callable[[], Any]) -> None:
            try:
                barrier.wait()
                found.append(call().status_code)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=one, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    @pytest.mark.parametrize("runs", ["of one run", "of eight runs"])
    def test_rows_of_a_key(self, runs: str) -> None:
        sent = headers(max_live_rows=20)
        wires = [Wire(f"stagehand_test_q{each if runs == 'of eight runs' else 0}") for each in range(8)]
        for wire in wires:
            assert wire.post("verify-access", **sent).status_code == 200
        statuses = self.all_at_once(
            [lambda wire=wire: wire.post("entities/voucher", {"count": 6}, **sent) for wire in wires]
        )
        assert sorted(statuses) == [201] * 3 + [409] * 5
        assert TestEntity.objects.standing().count() == Voucher.objects.count() == 18

    def test_rows_of_all_together(self) -> None:
        sent = [headers(max_live_rows=None) for _ in range(8)]
        with changed(REQUIRE_ACCESS_KEY=True, MAX_LIVE_ROWS=20):
            statuses = self.all_at_once(
                [
                    lambda each=each: Wire("stagehand_test_q").post("entities/voucher", {"count": 6}, **each)
                    for each in sent
                ]
            )
        assert sorted(statuses) == [201] * 3 + [409] * 5
        assert Voucher.objects.count() == 18

    def test_rows_of_a_run(self) -> None:
        sent = headers()
        with changed(REQUIRE_ACCESS_KEY=True, MAX_ROWS_PER_RUN=20):
            statuses = self.all_at_once(
                [lambda: Wire("stagehand_test_q").post("entities/voucher", {"count": 6}, **sent)] * 8
            )
        assert statuses.count(201) <= 3
        assert Voucher.objects.count() == 6 * statuses.count(201) <= 20

    def test_open_runs_of_a_key(self) -> None:
        sent = headers(max_open_runs=3)
        paths = ["verify-access", "entities/voucher"] * 4
        statuses = self.all_at_once(
            [
                lambda nth=nth, path=path: Wire(f"stagehand_test_q{nth}").post(path, **sent)
                for nth, path in enumerate(paths)
            ]
        )
        assert sorted(statuses)[-5:] == [409] * 5
        assert TestRun.objects.count() == 3
