"""`POST scenarios/{name}` and `POST batch` with what the marketplace registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stagehand_testdata.marketplace.models import Booking, Builder, Client, SessionType
from stagehand_testdata.models import TestEntity
from tests.conftest import Wire, error_of
from tests.host.models import Book

PREFIX = "stagehand_test_"


def counts(answer: Any) -> dict[str, int]:
    return {name: len(rows) for name, rows in answer["entities"].items()}


class TestPresets:
    def test_marketplace_has_three_builders_with_two_session_types_each(
        self, wire: Wire, unchanged_host: None
    ) -> None:
        made = wire.make("scenarios/marketplace")
        assert (made["scenario"], made["testId"], made["isTest"]) == ("marketplace", wire.test_id, True)
        assert counts(made) == {"builder": 3, "sessionType": 6}
        by_builder: dict[str, list[Any]] = {}
        for session in made["entities"]["sessionType"]:
            by_builder.setdefault(session["builderId"], []).append((session["duration"], session["price"]))
        assert list(by_builder.values()) == [[(60, 75), (90, 120)]] * 3
        wire.cleanup()

    def test_booking_has_60_minutes_at_75_and_90_at_120(self, wire: Wire, unchanged_host: None) -> None:
        made = wire.make("scenarios/booking")
        assert counts(made) == {"builder": 1, "sessionType": 2, "client": 1, "booking": 1}
        sessions = made["entities"]["sessionType"]
        assert [(each["duration"], each["price"]) for each in sessions] == [(60, 75), (90, 120)]
        (booking,) = made["entities"]["booking"]
        assert made["id"] == booking["id"]
        assert booking["sessionTypeId"] == sessions[0]["id"]
        wire.cleanup()

    def test_payment_waits_for_85(self, wire: Wire, unchanged_host: None) -> None:
        made = wire.make("scenarios/payment")
        (booking,) = made["entities"]["booking"]
        assert (booking["amount"], booking["paymentStatus"], made["id"]) == (85, "PENDING", booking["id"])
        wire.cleanup()

    def test_a_bookings_words_are_taken(self, wire: Wire) -> None:
        body = {"status": "CONFIRMED", "paymentStatus": "PAID", "amount": 1.5}
        for name in ("booking", "payment"):
            (booking,) = wire.make(f"scenarios/{name}", body)["entities"]["booking"]
            assert {field: booking[field] for field in body} == body

    def test_one_that_takes_no_words_refuses_them(self, wire: Wire, untouched: None) -> None:
        response = wire.post("scenarios/marketplace", {"status": "CONFIRMED"})
        assert error_of(response) == (400, "invalid_body")
        assert list(response.json()["details"]) == ["status"]

    @pytest.mark.parametrize("name", ["nonsense", "Booking", "%00", "booking%0A"])
    def test_an_unknown_one_is_not_found(self, wire: Wire, untouched: None, name: str) -> None:
        assert error_of(wire.post(f"scenarios/{name}")) == (404, "unknown_scenario")

    def test_rows_that_are_reused_are_not_made_again(self, wire: Wire) -> None:
        builder = wire.make("builders")
        wire.make("scenarios/booking", {"builderId": builder["id"]})
        assert Builder.all_rows.count() == 1


class TestBatch:
    def test_the_documents_batch_is_made_in_one_call(self, wire: Wire, unchanged_host: None) -> None:
        made = wire.make("batch", {"builders": 5, "clients": 3, "sessionTypes": True, "bookings": 2})
        assert (made["testId"], made["isTest"]) == (wire.test_id, True)
        assert counts(made) == {"builder": 5, "client": 3, "sessionType": 5, "booking": 2}
        owners = {each["builderId"] for each in made["entities"]["sessionType"]}
        assert owners == {each["id"] for each in made["entities"]["builder"]}
        clients = {each["id"] for each in made["entities"]["client"]}
        assert all(each["clientId"] in clients for each in made["entities"]["booking"])
        assert TestEntity.objects.count() == 5 + 3 + 5 + 2 + 8
        wire.cleanup()

    def test_the_order_of_the_names_does_not_matter(self, wire: Wire) -> None:
        made = wire.make("batch", {"bookings": 2, "sessionTypes": 3, "clients": 1, "builders": 2})
        assert counts(made) == {"builder": 2, "sessionType": 3, "client": 1, "booking": 2}

    @pytest.mark.parametrize(
        ("body", "made"),
        [
            ({"builder": 2}, {"builder": 2}),
            ({"sessionTypes": 2}, {"builder": 1, "sessionType": 2}),
            ({"sessionTypes": True}, {"builder": 1, "sessionType": 1}),
            ({"bookings": 1}, {"builder": 1, "sessionType": 1, "client": 1, "booking": 1}),
            ({"clients": True}, {"client": 1}),
            ({"book": 2, "person": 1}, {"book": 2, "person": 1}),
            ({}, {}),
            ({"builders": 0, "clients": 0, "sessionTypes": 0, "bookings": 0, "book": 0}, {}),
        ],
        ids=str,
    )
    def test_any_registered_type_has_a_place_in_it(self, wire: Wire, body: Any, made: dict[str, int]) -> None:
        assert counts(wire.make("batch", body)) == made

    @pytest.mark.parametrize(
        "body",
        [
            {"builders": -1},
            {"builders": "2"},
            {"builders": 1.5},
            {"builders": None},
            {"builders": False},
            {"builders": [1]},
            {"builders": {}},
            {"builders": 2**62},
            {"nonsense": 1},
            {"builders": 1, "nonsense": 1},
            {"builder": 1, "builders": 1},
            {"auth.user": 1},
        ],
        ids=str,
    )
    def test_what_is_not_acceptable_makes_nothing(self, wire: Wire, untouched: None, body: Any) -> None:
        response = wire.post("batch", body)
        assert error_of(response) == (400, "invalid_body")
        assert response.json()["details"]

    def test_it_is_all_or_nothing(self, wire: Wire, untouched: None) -> None:
        assert error_of(wire.post("batch", {"builders": 3, "failing": 1})) == (500, "factory_failed")

    def test_the_most_rows_of_a_call_are_the_hosts_to_choose(
        self, wire: Wire, configure: Callable[..., None]
    ) -> None:
        configure(MAX_ROWS_PER_CALL=4)
        assert error_of(wire.post("batch", {"builders": 3, "clients": 2})) == (400, "invalid_body")
        assert not Builder.all_rows.exists()
        wire.make("batch", {"builders": 2, "clients": 2})

    def test_it_can_be_made_twice(self, wire: Wire, unchanged_host: None) -> None:
        for _ in range(2):
            wire.make("batch", {"builders": 2, "clients": 2, "sessionTypes": True, "bookings": 2})
        assert (Builder.all_rows.count(), Client.all_rows.count()) == (4, 4)
        assert (SessionType.all_rows.count(), Booking.all_rows.count()) == (4, 4)
        wire.cleanup()

    def test_many_rows_are_removed_as_they_were_made(self, wire: Wire, unchanged_host: None) -> None:
        wire.make("batch", {"book": 30})
        assert Book.objects.count() == 30
        assert wire.cleanup()["removed"]["book"] == 30
