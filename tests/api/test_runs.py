"""Opening, joining, renewing, reading and deleting runs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from stagehand_testdata.models import TestRun
from tests.conftest import Wire, error_of

from .conftest import nothing_written

DAY = 24 * 60


def minutes_from_now(text: str) -> float:
    moment = parse_datetime(text)
    assert moment is not None
    return (moment - timezone.now()).total_seconds() / 60


def open_run(wire: Wire, **body: Any) -> Any:
    response = wire.post("verify-access", body)
    assert response.status_code == 200, response.content
    return response.json()


class TestVerifyAccess:
    def test_it_opens_a_run_and_says_all_of_it(self, wire: Wire) -> None:
        answer = open_run(wire, seed=7, label="nightly", buildId="b1", testUserEmail="Ci@Example.com")
        assert set(answer) == {
            "success",
            "testId",
            "scope",
            "shadow",
            "seed",
            "maxAgeMinutes",
            "expiresAt",
            "environment",
        }
        assert answer | {"expiresAt": None} == {
            "success": True,
            "testId": wire.test_id,
            "scope": "ephemeral",
            "shadow": False,
            "seed": 7,
            "maxAgeMinutes": 60,
            "expiresAt": None,
            "environment": "test",
        }
        assert minutes_from_now(answer["expiresAt"]) == pytest.approx(60, abs=0.5)
        run = TestRun.objects.get()
        assert (run.label, run.build_id, run.test_user_email) == ("nightly", "b1", "ci@example.com")

    @pytest.mark.parametrize(
        ("scope", "minutes"),
        [("ephemeral", 60), ("persistent_session", 60), ("persistent_environment", DAY)],
    )
    def test_each_scope_has_its_time(self, wire: Wire, scope: str, minutes: int) -> None:
        answer = open_run(wire, scope=scope)
        assert (answer["scope"], answer["maxAgeMinutes"]) == (scope, minutes)

    @pytest.mark.parametrize("scope", ["ephemeral", "persistent_session", "persistent_environment"])
    def test_more_than_the_cap_is_cut_and_said(self, wire: Wire, scope: str) -> None:
        answer = open_run(wire, scope=scope, maxAgeMinutes=99_999)
        assert answer["maxAgeMinutes"] == DAY
        assert minutes_from_now(answer["expiresAt"]) == pytest.approx(DAY, abs=0.5)

    def test_the_host_raises_the_cap_for_one_scope(self, wire: Wire, configure: Callable[..., None]) -> None:
        configure(MAX_AGE_HOURS={"persistent_environment": 72})
        assert open_run(wire, scope="persistent_environment")["maxAgeMinutes"] == 72 * 60

    def test_the_cap_of_the_other_scopes_stays(self, wire: Wire, configure: Callable[..., None]) -> None:
        configure(MAX_AGE_HOURS={"persistent_environment": 72})
        assert open_run(wire, scope="ephemeral", maxAgeMinutes=99_999)["maxAgeMinutes"] == DAY

    def test_a_lower_cap_cuts_the_default_too(self, wire: Wire, configure: Callable[..., None]) -> None:
        configure(MAX_AGE_HOURS=0.5)
        assert open_run(wire)["maxAgeMinutes"] == 30

    def test_joining_renews(self, wire: Wire) -> None:
        open_run(wire, maxAgeMinutes=10)
        assert open_run(wire, maxAgeMinutes=90)["maxAgeMinutes"] == 90
        assert TestRun.objects.count() == 1

    def test_joining_never_shortens(self, wire: Wire) -> None:
        open_run(wire, maxAgeMinutes=90)
        assert open_run(wire, maxAgeMinutes=10)["maxAgeMinutes"] == 90
        assert open_run(wire)["maxAgeMinutes"] == 90

    def test_joining_never_goes_past_the_cap_of_the_opening(self, wire: Wire) -> None:
        open_run(wire, maxAgeMinutes=10)
        TestRun.objects.update(
            opened_at=timezone.now() - dt.timedelta(hours=20),
            latest_end=timezone.now() + dt.timedelta(hours=4),
        )
        assert open_run(wire, maxAgeMinutes=DAY)["maxAgeMinutes"] == 240

    def test_joining_keeps_scope_and_seed(self, wire: Wire) -> None:
        first = open_run(wire, scope="persistent_session", seed=3)
        again = open_run(wire, scope="ephemeral")
        assert (again["scope"], again["seed"]) == (first["scope"], 3)

    def test_joining_with_another_seed_is_a_conflict(self, wire: Wire) -> None:
        open_run(wire, seed=3)
        with nothing_written():
            assert error_of(wire.post("verify-access", {"seed": 4})) == (409, "conflict")

    def test_a_run_opened_by_an_operation_can_be_joined(self, wire: Wire) -> None:
        wire.make("builders")
        assert open_run(wire, maxAgeMinutes=120)["maxAgeMinutes"] == 120

    def test_the_seed_follows_from_the_test_id(self, wire: Wire) -> None:
        from stagehand_testdata.seeding import seed_from_test_id

        assert open_run(wire)["seed"] == seed_from_test_id(wire.test_id)

    def test_a_closed_run_is_not_joined(self, wire: Wire) -> None:
        wire.make("builders")
        wire.cleanup()
        assert error_of(wire.post("verify-access")) == (409, "run_closed")

    def test_a_closing_run_is_not_joined(self, wire: Wire) -> None:
        wire.make("builders")
        TestRun.objects.update(state="closing")
        for path in ("verify-access", "builders", "booking-scenarios"):
            assert error_of(wire.post(path)) == (409, "run_closed")
        response = wire.send("patch", f"runs/{wire.test_id}", {"maxAgeMinutes": 5})
        assert error_of(response) == (409, "run_closed")

    @pytest.mark.parametrize(
        "body",
        [
            {"seed": -1},
            {"seed": 2**62},
            {"seed": "7"},
            {"seed": 1.5},
            {"seed": True},
            {"seed": None},
            {"scope": "forever"},
            {"scope": None},
            {"scope": ["ephemeral"]},
            {"shadow": "yes"},
            {"label": 5},
            {"label": "x" * 201},
            {"buildId": "x" * 129},
            {"testUserEmail": "nobody"},
            {"testUserEmail": "somebody@gmail.com"},
            {"testUserEmail": 5},
        ],
        ids=str,
    )
    def test_what_is_not_acceptable_opens_nothing(self, wire: Wire, untouched: None, body: Any) -> None:
        response = wire.post("verify-access", body)
        assert error_of(response) == (400, "invalid_body")
        assert set(response.json()["details"]) == set(body)


class TestOperations:
    def test_one_on_an_unknown_test_id_opens_a_run_of_an_hour(self, wire: Wire) -> None:
        wire.make("builders", {"maxAgeMinutes": 5, "scope": "persistent_environment"})
        run = wire.get(f"runs/{wire.test_id}").json()
        assert (run["scope"], run["maxAgeMinutes"], run["state"]) == ("ephemeral", 60, "open")

    def test_one_does_not_renew_an_ephemeral_run(self, wire: Wire) -> None:
        before = open_run(wire, maxAgeMinutes=10)
        wire.make("builders", {"maxAgeMinutes": 90})
        assert wire.get(f"runs/{wire.test_id}").json()["expiresAt"] == before["expiresAt"]

    @pytest.mark.django_db(transaction=True)
    def test_one_renews_a_session_by_its_own_time(self, new_wire: Callable[[], Wire]) -> None:
        wire = new_wire()
        open_run(wire, scope="persistent_session", maxAgeMinutes=10)
        answer = wire.make("builders", {"maxAgeMinutes": 90})
        run = wire.get(f"runs/{wire.test_id}").json()
        assert run["maxAgeMinutes"] == 90
        assert minutes_from_now(answer["expiresAt"]) == pytest.approx(90, abs=0.5)

    @pytest.mark.django_db(transaction=True)
    def test_one_renews_a_session_by_an_hour_where_it_says_nothing(
        self, new_wire: Callable[[], Wire]
    ) -> None:
        wire = new_wire()
        open_run(wire, scope="persistent_session", maxAgeMinutes=10)
        wire.make("clients")
        assert wire.get(f"runs/{wire.test_id}").json()["maxAgeMinutes"] == 60

    @pytest.mark.django_db(transaction=True)
    def test_one_never_shortens_a_session_nor_passes_its_cap(self, new_wire: Callable[[], Wire]) -> None:
        wire = new_wire()
        open_run(wire, scope="persistent_session", maxAgeMinutes=90)
        wire.make("clients", {"maxAgeMinutes": 5})
        assert wire.get(f"runs/{wire.test_id}").json()["maxAgeMinutes"] == 90
        wire.make("clients", {"maxAgeMinutes": 99_999})
        assert wire.get(f"runs/{wire.test_id}").json()["maxAgeMinutes"] == DAY

    @pytest.mark.django_db(transaction=True)
    def test_a_failed_one_renews_nothing(self, new_wire: Callable[[], Wire]) -> None:
        wire = new_wire()
        open_run(wire, scope="persistent_session", maxAgeMinutes=10)
        wire.post("session-types", {"builderId": "0", "maxAgeMinutes": 90})
        assert wire.get(f"runs/{wire.test_id}").json()["maxAgeMinutes"] == 10

    def test_a_failed_one_opens_nothing(self, wire: Wire, untouched: None) -> None:
        assert error_of(wire.post("session-types", {"builderId": "0"})) == (404, "not_in_run")

    def test_test_ids_that_differ_in_case_are_different_runs(self, wire: Wire) -> None:
        wire.test_id, other = f"{wire.test_id}_a", Wire(f"{wire.test_id}_A")
        for each in (wire, other):
            each.make("entities/person")
        assert wire.get("runs").json()["count"] == 2
        wire.cleanup()
        assert other.get(f"runs/{other.test_id}").json()["state"] == "open"


class TestReading:
    def test_a_run_says_all_of_it(self, wire: Wire) -> None:
        open_run(wire, label="nightly", buildId="b1", seed=9, maxAgeMinutes=30)
        wire.make("builders")
        run = wire.get(f"runs/{wire.test_id}").json()
        times = {name: run.pop(name) for name in ("openedAt", "expiresAt", "latestEnd")}
        assert all(times.values())
        assert run == {
            "testId": wire.test_id,
            "scope": "ephemeral",
            "state": "open",
            "shadow": False,
            "seed": 9,
            "label": "nightly",
            "buildId": "b1",
            "maxAgeMinutes": 30,
            "closedAt": None,
            "expired": False,
            "entities": {"live": 2, "removed": 0, "gone": 0, "quarantined": 0},
        }

    def test_runs_are_listed_the_newest_first(self, new_wire: Callable[[], Wire], db: None) -> None:
        wires = [new_wire() for _ in range(3)]
        for wire in wires:
            open_run(wire)
        listed = wires[0].get("runs", **{"X-Test-ID": None}).json()
        assert listed["count"] == 3
        assert [run["testId"] for run in listed["results"]] == [wire.test_id for wire in reversed(wires)]

    def test_lists_come_in_pages(self, new_wire: Callable[[], Wire], db: None) -> None:
        wires = [new_wire() for _ in range(5)]
        for wire in wires:
            open_run(wire)
        seen = []
        url = "runs?pageSize=2"
        while url:
            page = wires[0].get(url.rpartition("/api/test/")[2]).json()
            seen += [run["testId"] for run in page["results"]]
            url = page["next"]
        assert len(seen) == len(set(seen)) == 5

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("pageSize=0", 400),
            ("pageSize=-1", 400),
            ("pageSize=x", 400),
            ("pageSize=", 400),
            ("pageSize=%D9%A3", 400),
            ("pageSize=99999999999999999999", 200),
            ("page=0", 400),
            ("page=x", 400),
            ("page=", 400),
            ("page=%00", 400),
            ("page=99999999999999999999", 404),
        ],
    )
    def test_pages_that_are_none(self, wire: Wire, query: str, status: int) -> None:
        wire.make("builders")
        for path in ("runs", f"runs/{wire.test_id}/entities"):
            assert wire.get(f"{path}?{query}").status_code == status

    def test_the_ledger_of_a_run_is_in_the_order_of_creation(self, wire: Wire) -> None:
        scenario = wire.make("booking-scenarios")
        listed = wire.get(f"runs/{wire.test_id}/entities").json()
        assert listed["count"] == 6
        rows = listed["results"]
        assert {row["state"] for row in rows} == {"live"}
        asked = {(row["type"], row["id"]) for row in rows if row["origin"] == "requested"}
        assert asked == {(name, row["id"]) for name, made in scenario["entities"].items() for row in made}
        assert [row["origin"] for row in rows].count("on_the_way") == 2
        assert rows[0]["model"] == "auth.user"
        assert set(rows[0]) == {
            "type",
            "id",
            "model",
            "origin",
            "state",
            "reason",
            "blockedBy",
            "createdAt",
            "removedAt",
        }

    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ("type=builder", 1),
            ("origin=on_the_way", 2),
            ("state=live", 6),
            ("state=removed", 0),
            ("type=nothing", 0),
            ("type=builder&state=live&origin=requested", 1),
            ("colour=red", 6),
        ],
    )
    def test_the_ledger_can_be_narrowed_down(self, wire: Wire, query: str, count: int) -> None:
        wire.make("booking-scenarios")
        assert wire.get(f"runs/{wire.test_id}/entities?{query}").json()["count"] == count

    @pytest.mark.parametrize("name", ["type", "state", "origin"])
    def test_a_nul_in_the_query_is_refused(self, wire: Wire, name: str) -> None:
        wire.make("builders")
        response = wire.get(f"runs/{wire.test_id}/entities?{name}=a%00")
        assert error_of(response) == (400, "invalid_body")

    @pytest.mark.parametrize("route", ["", "/entities", "/receipt"])
    @pytest.mark.parametrize(
        "test_id", ["stagehand_test_none", "nobody", "%00", "%FF", "%F0%9F%98%80", "x" * 300, "a%20b", "..."]
    )
    def test_an_unknown_run_is_not_found(self, wire: Wire, route: str, test_id: str) -> None:
        response = wire.get(f"runs/{test_id}{route}", **{"X-Test-ID": None})
        assert error_of(response) == (404, "not_found")

    def test_another_owners_run_is_answered_as_none(self, wire: Wire) -> None:
        wire.make("builders")
        TestRun.objects.update(owner="another key")
        paths = [f"runs/{wire.test_id}{route}" for route in ("", "/entities", "/receipt")]
        answers = [wire.get(path) for path in paths]
        missing = [
            wire.get(path.replace(wire.test_id, "stagehand_test_none"), **{"X-Test-ID": None})
            for path in paths
        ]
        assert [error_of(each) for each in answers] == [(404, "not_found")] * 3
        assert [each.content for each in answers] == [each.content for each in missing]
        assert wire.get("runs").json()["count"] == 0
        for method in ("patch", "delete"):
            assert error_of(wire.send(method, f"runs/{wire.test_id}", {})) == (404, "not_found")
        assert wire.cleanup()["removed"] == {}
        assert TestRun.objects.get(owner="another key").state == "open"

    def test_answers_say_that_nobody_may_keep_them(self, wire: Wire) -> None:
        assert "Set-Cookie" not in wire.get("runs").headers
        assert "Access-Control-Allow-Origin" not in wire.get("runs").headers


class TestRenewing:
    def test_it_sets_the_end_and_the_label(self, wire: Wire) -> None:
        open_run(wire, maxAgeMinutes=90)
        response = wire.send("patch", f"runs/{wire.test_id}", {"maxAgeMinutes": 30, "label": "again"})
        assert response.status_code == 200
        run = response.json()
        assert (run["maxAgeMinutes"], run["label"]) == (30, "again")
        assert minutes_from_now(run["expiresAt"]) == pytest.approx(30, abs=0.5)

    def test_it_needs_no_header(self, wire: Wire) -> None:
        open_run(wire)
        response = wire.send("patch", f"runs/{wire.test_id}", {"label": "x"}, **{"X-Test-ID": None})
        assert (response.status_code, response.json()["label"]) == (200, "x")

    def test_a_test_id_in_the_body_must_be_the_paths(self, wire: Wire) -> None:
        open_run(wire)
        body = {"testId": "stagehand_test_other"}
        response = wire.send("patch", f"runs/{wire.test_id}", body, **{"X-Test-ID": None})
        assert error_of(response) == (400, "test_id_mismatch")

    def test_a_label_alone_leaves_the_end(self, wire: Wire) -> None:
        before = open_run(wire, maxAgeMinutes=90)["expiresAt"]
        run = wire.send("patch", f"runs/{wire.test_id}", {"label": ""}).json()
        assert (run["expiresAt"], run["label"]) == (before, "")

    def test_it_is_cut_to_the_cap(self, wire: Wire) -> None:
        open_run(wire)
        run = wire.send("patch", f"runs/{wire.test_id}", {"maxAgeMinutes": 99_999}).json()
        assert run["maxAgeMinutes"] == DAY
        assert run["expiresAt"] == run["latestEnd"]

    @pytest.mark.parametrize(
        "body",
        [{"maxAgeMinutes": 0}, {"maxAgeMinutes": "5"}, {"label": 5}, {"seed": 1}, {"label": "x" * 201}],
    )
    def test_what_is_not_acceptable_changes_nothing(self, wire: Wire, body: Any) -> None:
        open_run(wire)
        before = TestRun.objects.values().get()
        response = wire.send("patch", f"runs/{wire.test_id}", body)
        assert error_of(response) == (400, "invalid_body")
        assert TestRun.objects.values().get() == before


class TestDeleting:
    def test_it_removes_the_run_and_then_it_is_unknown(self, wire: Wire, unchanged_host: None) -> None:
        wire.make("booking-scenarios")
        response = wire.send("delete", f"runs/{wire.test_id}")
        assert response.status_code == 200
        receipt = response.json()
        assert (receipt["success"], receipt["state"], receipt["remaining"]) == (True, "closed", 0)
        assert sum(receipt["removed"].values()) == 6
        for method, route in [("get", ""), ("get", "/entities"), ("patch", ""), ("delete", "")]:
            again = wire.send(method, f"runs/{wire.test_id}{route}", {})
            assert error_of(again) == (404, "not_found"), (method, route)
        assert wire.get("runs").json()["count"] == 0

    def test_its_receipt_stays(self, wire: Wire) -> None:
        wire.make("builders")
        receipt = wire.send("delete", f"runs/{wire.test_id}").json()
        kept = wire.get(f"runs/{wire.test_id}/receipt")
        assert (kept.status_code, kept.json()) == (200, receipt)

    def test_its_test_id_is_not_used_again(self, wire: Wire) -> None:
        wire.make("builders")
        wire.send("delete", f"runs/{wire.test_id}")
        for path in ("verify-access", "builders"):
            assert error_of(wire.post(path)) == (409, "run_closed")

    def test_a_clean_up_after_it_is_harmless(self, wire: Wire) -> None:
        wire.make("builders")
        wire.send("delete", f"runs/{wire.test_id}")
        receipt = wire.cleanup()
        assert (receipt["success"], receipt["removed"], receipt["state"]) == (True, {}, "closed")

    def test_it_needs_neither_body_nor_header(self, wire: Wire) -> None:
        wire.make("builders")
        response = wire.send("delete", f"runs/{wire.test_id}", **{"X-Test-ID": None})
        assert response.status_code == 200


class TestReceipt:
    def test_before_any_clean_up_there_is_none(self, wire: Wire) -> None:
        wire.make("builders")
        assert error_of(wire.get(f"runs/{wire.test_id}/receipt")) == (404, "not_found")

    def test_it_is_the_last_one(self, wire: Wire) -> None:
        first = wire.make("builders")
        wire.make("clients")
        wire.cleanup(createdData=[{"type": "builder", "id": first["id"]}])
        last = wire.cleanup()
        assert wire.get(f"runs/{wire.test_id}/receipt").json() == last
