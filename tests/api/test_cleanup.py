"""Clean-up: the server's record alone decides, and the receipt says what was done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from stagehand_testdata.marketplace.models import Booking, Builder, SessionType
from stagehand_testdata.models import Receipt, TestEntity, TestRun
from tests.conftest import Wire, error_of, host_counts
from tests.host.models import Book, Loan, Review

from .conftest import all_counts

RECEIPT = {
    "success",
    "testId",
    "state",
    "removed",
    "alreadyGone",
    "shadow",
    "remaining",
    "quarantined",
    "notOwned",
    "digest",
}


def listed(*rows: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"type": name, "id": row["id"], "scope": "ephemeral"} for name, row in rows]


class TestWholeRun:
    def test_it_removes_every_row_and_closes(self, wire: Wire, unchanged_host: None) -> None:
        wire.make("booking-scenarios")
        wire.make("entities/book")
        receipt = wire.cleanup()
        assert set(receipt) == RECEIPT
        assert receipt | {"removed": None, "digest": None} == {
            "success": True,
            "testId": wire.test_id,
            "state": "closed",
            "removed": None,
            "alreadyGone": {},
            "shadow": {"entries": {}, "hostStatements": 0},
            "remaining": 0,
            "quarantined": [],
            "notOwned": [],
            "digest": None,
        }
        removed = receipt["removed"]
        assert {name: removed[name] for name in ("builder", "client", "sessionType", "booking")} == {
            "builder": 1,
            "client": 1,
            "sessionType": 1,
            "booking": 1,
        }
        assert removed["book"] == 1
        assert wire.get(f"runs/{wire.test_id}").json()["state"] == "closed"

    def test_the_test_id_alone_is_enough(self, wire: Wire, unchanged_host: None) -> None:
        wire.make("booking-scenarios")
        elsewhere = Wire(wire.test_id)
        assert elsewhere.cleanup(testId=wire.test_id, buildId="b1")["remaining"] == 0

    def test_twice_is_harmless(self, wire: Wire, unchanged_host: None) -> None:
        wire.make("booking-scenarios")
        assert sum(wire.cleanup()["removed"].values()) == 6
        again = wire.cleanup()
        assert (again["success"], again["removed"], again["alreadyGone"]) == (True, {}, {})
        assert (again["remaining"], again["state"]) == (0, "closed")

    def test_an_unknown_run_gives_zeros_and_opens_nothing(self, wire: Wire, untouched: None) -> None:
        receipt = wire.cleanup()
        assert set(receipt) == RECEIPT
        assert (receipt["success"], receipt["testId"]) == (True, wire.test_id)
        assert (receipt["removed"], receipt["alreadyGone"], receipt["remaining"]) == ({}, {}, 0)
        assert (receipt["quarantined"], receipt["notOwned"]) == ([], [])

    def test_an_empty_run_is_closed(self, wire: Wire) -> None:
        wire.post("verify-access")
        assert wire.cleanup()["state"] == "closed"
        assert error_of(wire.post("builders")) == (409, "run_closed")

    def test_rows_that_others_removed_are_already_gone(self, wire: Wire, unchanged_host: None) -> None:
        wire.make("booking-scenarios")
        Booking.all_rows.all().delete()
        receipt = wire.cleanup()
        assert receipt["alreadyGone"] == {"booking": 1}
        assert receipt["success"] is True

    def test_other_runs_stay(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        other = new_wire()
        other.make("booking-scenarios")
        before = host_counts()
        wire.make("booking-scenarios")
        wire.cleanup()
        assert host_counts() == before
        assert other.get(f"runs/{other.test_id}").json()["entities"]["live"] == 6

    def test_the_digest_can_be_checked(self, wire: Wire) -> None:
        wire.make("builders")
        receipt = wire.cleanup()
        digest = receipt.pop("digest")
        canonical = json.dumps(receipt, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(canonical.encode()).hexdigest() == digest
        assert Receipt.objects.get().digest == digest

    @pytest.mark.parametrize("path", ["builders", "clients", "booking-scenarios", "batch", "verify-access"])
    def test_after_it_nothing_joins_the_run(self, wire: Wire, path: str) -> None:
        wire.make("builders")
        wire.cleanup()
        before = all_counts()
        assert error_of(wire.post(path)) == (409, "run_closed")
        assert all_counts() == before


class TestListedRows:
    def test_only_those_go_and_what_hangs_on_them(self, wire: Wire) -> None:
        builder, other = wire.make("builders"), wire.make("builders")
        (session,) = wire.make("session-types", {"builderId": builder["id"]})
        scenario = wire.make(
            "booking-scenarios", {"builderId": builder["id"], "sessionTypeId": session["id"]}
        )
        receipt = wire.cleanup(createdData=listed(("builder", builder)))
        assert receipt["removed"] == {"booking": 1, "builder": 1, "sessionType": 1}
        assert (receipt["success"], receipt["state"], receipt["remaining"]) == (True, "open", 0)
        assert list(Builder.all_rows.values_list("pk", flat=True)) == [int(other["id"])]
        assert not Booking.all_rows.filter(pk=scenario["id"]).exists()

    def test_what_they_hang_on_stays(self, wire: Wire) -> None:
        scenario = wire.make("booking-scenarios")
        receipt = wire.cleanup(createdData=listed(("booking", scenario)))
        assert receipt["removed"] == {"booking": 1}
        assert SessionType.all_rows.count() == Builder.all_rows.count() == 1
        wire.make("clients")

    def test_the_run_closes_with_the_last_row_that_was_asked_for(
        self, wire: Wire, unchanged_host: None
    ) -> None:
        scenario = wire.make("booking-scenarios")
        rows = [(name, row) for name, made in scenario["entities"].items() for row in made]
        receipt = wire.cleanup(createdData=listed(*rows))
        assert sum(receipt["removed"].values()) == 6
        assert (receipt["state"], receipt["notOwned"], receipt["remaining"]) == ("closed", [], 0)
        assert error_of(wire.post("builders")) == (409, "run_closed")

    def test_one_by_one_the_last_closes_the_run(self, wire: Wire, unchanged_host: None) -> None:
        scenario = wire.make("booking-scenarios")
        states = []
        for name in ("booking", "client", "sessionType", "builder"):
            (row,) = scenario["entities"][name]
            states.append(wire.cleanup(createdData=listed((name, row)))["state"])
        assert states == ["open", "open", "open", "closed"]

    def test_an_empty_list_is_a_list(self, wire: Wire) -> None:
        wire.make("builders")
        receipt = wire.cleanup(createdData=[])
        assert (receipt["success"], receipt["removed"], receipt["state"]) == (True, {}, "open")
        assert Builder.all_rows.count() == 1

    def test_rows_that_are_not_the_runs_are_reported_and_left(
        self, wire: Wire, new_wire: Callable[[], Wire]
    ) -> None:
        real = get_user_model().objects.create_user("ada", "ada@real.example", "pw")
        another = new_wire().make("builders")
        mine = wire.make("builders")
        users = set(get_user_model().objects.values_list("pk", flat=True))
        strangers = [
            {"type": "builder", "id": another["id"]},
            {"type": "auth.user", "id": str(real.pk)},
            {"type": "user", "id": str(real.pk)},
            {"type": "builder", "id": "999999"},
            {"type": "nonsense", "id": "'; --"},
            {"type": "client", "id": mine["id"]},
            {"type": "stagehand_testdata.testrun", "id": "1"},
        ]
        receipt = wire.cleanup(createdData=strangers)
        assert receipt["notOwned"] == strangers
        assert (receipt["removed"], receipt["state"], receipt["success"]) == ({}, "open", True)
        assert set(get_user_model().objects.values_list("pk", flat=True)) == users
        assert Builder.all_rows.count() == 2

    def test_some_owned_some_not(self, wire: Wire) -> None:
        mine, kept = wire.make("builders"), wire.make("builders")
        body = [*listed(("builder", mine)), {"type": "builder", "id": "999999"}]
        receipt = wire.cleanup(createdData=body)
        assert receipt["notOwned"] == [{"type": "builder", "id": "999999"}]
        assert receipt["removed"]["builder"] == 1
        assert Builder.all_rows.get().pk == int(kept["id"])

    def test_rows_named_twice_go_once(self, wire: Wire) -> None:
        mine, _ = wire.make("builders"), wire.make("builders")
        body = listed(("builder", mine), ("builder", mine))
        body += [{"type": "builder", "id": "999999"}] * 2
        receipt = wire.cleanup(createdData=body)
        assert receipt["removed"]["builder"] == 1
        assert receipt["notOwned"] == [{"type": "builder", "id": "999999"}]

    def test_ids_may_be_numbers(self, wire: Wire) -> None:
        mine, _ = wire.make("builders"), wire.make("builders")
        receipt = wire.cleanup(createdData=[{"type": "builder", "id": int(mine["id"])}])
        assert receipt["removed"]["builder"] == 1

    def test_twice_the_same_list_is_harmless(self, wire: Wire) -> None:
        mine, _ = wire.make("builders"), wire.make("builders")
        body = listed(("builder", mine))
        wire.cleanup(createdData=body)
        again = wire.cleanup(createdData=body)
        assert (again["success"], again["removed"], again["notOwned"]) == (True, {}, [])

    def test_a_list_for_an_unknown_run_is_all_not_owned(self, wire: Wire, untouched: None) -> None:
        receipt = wire.cleanup(createdData=[{"type": "builder", "id": "1"}])
        assert receipt["notOwned"] == [{"type": "builder", "id": "1"}]
        assert (receipt["success"], receipt["remaining"]) == (True, 0)

    def test_a_list_for_a_closed_run_removes_nothing(self, wire: Wire) -> None:
        mine = wire.make("builders")
        wire.cleanup()
        body = [*listed(("builder", mine)), {"type": "builder", "id": "999999"}]
        receipt = wire.cleanup(createdData=body)
        assert (receipt["state"], receipt["removed"]) == ("closed", {})
        assert receipt["notOwned"] == [{"type": "builder", "id": "999999"}]


class TestResidue:
    """A real row that points at a test row keeps it; neither is changed."""

    @pytest.fixture
    def book(self, wire: Wire) -> Book:
        return Book.objects.get(pk=wire.entity("book")["id"])

    def check(self, wire: Wire, response: Any, model: str) -> Any:
        assert error_of(response) == (409, "residue")
        receipt = response.json()
        assert set(receipt) == {*RECEIPT, "error", "message", "code"}
        assert (receipt["success"], receipt["state"]) == (False, "closing")
        assert model in receipt["message"]
        (held,) = [each for each in receipt["quarantined"] if each["blockedBy"].get(model)]
        assert held["reason"] == "referenced"
        assert receipt["remaining"] == TestEntity.objects.standing().count() > 0
        return held

    @pytest.mark.parametrize("method", ["post", "delete"])
    @pytest.mark.parametrize("pointer", [Review, Loan], ids=["SET_NULL", "PROTECT"])
    def test_a_pointer_at_a_row_keeps_it(self, wire: Wire, book: Book, method: str, pointer: Any) -> None:
        real = pointer.objects.create(book=book, **{"text" if pointer is Review else "by": "real"})
        before = pointer.objects.values().get()
        path = "cleanup" if method == "post" else f"runs/{wire.test_id}"
        held = self.check(wire, wire.send(method, path, {}), pointer._meta.label)
        assert (held["type"], held["id"]) == ("book", str(book.pk))
        assert pointer.objects.values().get() == before
        assert Book.objects.filter(pk=book.pk).exists()
        real.delete()
        assert wire.cleanup()["state"] == "closed"
        assert not Book.objects.exists()

    def test_a_cascading_pointer_keeps_it(self, wire: Wire) -> None:
        scenario = wire.make("booking-scenarios")
        (session,) = scenario["entities"]["sessionType"]
        (builder,) = scenario["entities"]["builder"]
        real = Booking.objects.create(
            builder_id=builder["id"],
            session_type_id=session["id"],
            title="real",
            start_time="2030-01-01T10:00Z",
            end_time="2030-01-01T11:00Z",
        )
        before = Booking.objects.filter(pk=real.pk).values().get()
        response = wire.post("cleanup")
        assert error_of(response) == (409, "residue")
        kept = {(each["type"], each["id"]) for each in response.json()["quarantined"]}
        assert {("builder", builder["id"]), ("sessionType", session["id"])} <= kept
        assert Booking.objects.filter(pk=real.pk).values().get() == before
        real.delete()
        assert wire.cleanup()["remaining"] == 0

    def test_what_is_held_is_all_that_stays(self, wire: Wire, book: Book) -> None:
        wire.make("booking-scenarios")
        Loan.objects.create(book=book, by="real")
        response = wire.post("cleanup")
        self.check(wire, response, "host.Loan")
        assert response.json()["removed"]["booking"] == 1
        assert not Builder.all_rows.exists()

    def test_a_listed_row_that_is_held_is_residue(self, wire: Wire, book: Book) -> None:
        wire.make("builders")
        Loan.objects.create(book=book, by="real")
        response = wire.post("cleanup", {"createdData": [{"type": "book", "id": str(book.pk)}]})
        assert error_of(response) == (409, "residue")
        assert response.json()["state"] == "open"
        assert Book.objects.filter(pk=book.pk).exists()

    def test_a_deletion_that_left_something_leaves_the_run_known(self, wire: Wire, book: Book) -> None:
        Loan.objects.create(book=book, by="real")
        assert wire.send("delete", f"runs/{wire.test_id}").status_code == 409
        run = wire.get(f"runs/{wire.test_id}").json()
        assert run["state"] == "closing"
        assert run["entities"]["quarantined"] > 0

    def test_its_receipt_is_kept(self, wire: Wire, book: Book) -> None:
        Loan.objects.create(book=book, by="real")
        answer = wire.post("cleanup").json()
        kept = wire.get(f"runs/{wire.test_id}/receipt")
        assert kept.status_code == 200
        assert kept.json() == {name: answer[name] for name in RECEIPT}


def test_it_works_where_a_row_has_changed_since(wire: Wire, unchanged_host: None) -> None:
    builder = wire.make("builders")
    Builder.all_rows.filter(pk=builder["id"]).update(display_name="renamed", hourly_rate=1)
    assert wire.cleanup()["remaining"] == 0


def test_only_the_first_run_of_a_test_id_answers_to_it(wire: Wire) -> None:
    wire.make("builders")
    wire.cleanup()
    assert TestRun.objects.count() == 1
