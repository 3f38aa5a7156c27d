"""`POST booking-scenarios`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from stagehand_testdata.marketplace.models import Booking, Builder, Client, SessionType
from tests.api.conftest import nothing_written
from tests.conftest import Wire, error_of

IDS = {"builderId": "builder", "clientId": "client", "sessionTypeId": "sessionType"}


@pytest.fixture
def rows(wire: Wire) -> dict[str, Any]:
    """One row of each kind, by the name of its id in a booking."""
    builder = wire.make("builders")
    (session,) = wire.make("session-types", {"builderId": builder["id"], "sessionTypes": [{"price": 99}]})
    return {"builderId": builder, "sessionTypeId": session, "clientId": wire.make("clients")}


def shown(row: Any) -> Any:
    """The row but for how its availability is put: as it was sent, or as it is kept."""
    return {name: value for name, value in row.items() if name != "availability"}


class TestDefaults:
    def test_everything_it_needs_is_made_and_answered_in_full(self, wire: Wire, unchanged_host: None) -> None:
        made = wire.make("booking-scenarios")
        entities = made["entities"]
        assert {name: len(found) for name, found in entities.items()} == {
            "builder": 1,
            "sessionType": 1,
            "client": 1,
            "booking": 1,
        }
        (booking,) = entities["booking"]
        assert made["id"] == booking["id"] == str(Booking.all_rows.get().pk)
        assert booking["builderId"] == entities["builder"][0]["id"]
        assert booking["clientId"] == entities["client"][0]["id"]
        assert booking["sessionTypeId"] == entities["sessionType"][0]["id"]
        assert entities["sessionType"][0]["builderId"] == booking["builderId"]
        for name in (
            "status",
            "paymentStatus",
            "startTime",
            "endTime",
            "amount",
            "currency",
            "testId",
            "isTest",
        ):
            assert made[name] == booking[name]
        assert (made["status"], made["paymentStatus"]) == ("PENDING", "PENDING")
        assert (made["amount"], made["currency"], made["isTest"]) == (75, "USD", True)
        assert made["testId"] == wire.test_id
        wire.cleanup()

    def test_it_starts_in_the_future_and_lasts_as_long_as_its_session(self, wire: Wire) -> None:
        made = wire.make("booking-scenarios")
        start, end = parse_datetime(made["startTime"]), parse_datetime(made["endTime"])
        assert start is not None
        assert end is not None
        assert start > timezone.now()
        assert (end - start).total_seconds() == 60 * 60


class TestChoices:
    @pytest.mark.parametrize("status", Booking.Status.values)
    @pytest.mark.parametrize("payment", Booking.PaymentStatus.values)
    def test_every_state_is_taken_and_given_back_as_sent(self, wire: Wire, status: str, payment: str) -> None:
        made = wire.make("booking-scenarios", {"status": status, "paymentStatus": payment})
        assert (made["status"], made["paymentStatus"]) == (status, payment)
        booking = Booking.all_rows.get()
        assert (booking.status, booking.payment_status) == (status, payment)

    def test_time_amount_and_currency_can_be_chosen(self, wire: Wire) -> None:
        body = {"startTime": "2031-02-03T04:05:06+02:00", "amount": 12.5, "currency": "EUR"}
        made = wire.make("booking-scenarios", body)
        assert made["startTime"] == "2031-02-03T02:05:06Z"
        assert made["endTime"] == "2031-02-03T03:05:06Z"
        assert (made["amount"], made["currency"]) == (12.5, "EUR")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("status", "pending"),
            ("status", "DONE"),
            ("status", None),
            ("status", 1),
            ("status", ["PENDING"]),
            ("paymentStatus", "paid"),
            ("paymentStatus", {}),
            ("startTime", "tomorrow"),
            ("startTime", 5),
            ("startTime", "1999-12-31T00:00:00Z"),
            ("startTime", "2100-01-02T00:00:00Z"),
            ("startTime", "9999-12-31T23:59:59-14:00"),
            ("startTime", "0001-01-01T00:00:00+14:00"),
            ("startTime", "2030-02-30T00:00:00Z"),
            ("startTime", None),
            ("amount", -1),
            ("amount", "85"),
            ("amount", 1e9),
            ("amount", 0.001),
            ("currency", "dollars"),
            ("builderId", None),
            ("clientId", {}),
            ("sessionTypeId", 1.5),
            ("userId", "1"),
            ("endTime", "2030-01-01T00:00:00Z"),
        ],
    )
    def test_what_is_not_acceptable_makes_nothing(
        self, wire: Wire, untouched: None, field: str, value: Any
    ) -> None:
        response = wire.post("booking-scenarios", {field: value})
        assert error_of(response) == (400, "invalid_body")
        assert list(response.json()["details"]) == [field]


class TestReuse:
    def test_rows_of_the_run_that_are_named_are_used(self, wire: Wire, rows: dict[str, Any]) -> None:
        with_ids = {name: row["id"] for name, row in rows.items()}
        made = wire.make("booking-scenarios", with_ids)
        (booking,) = made["entities"]["booking"]
        assert {name: booking[name] for name in IDS} == with_ids
        for name, row in rows.items():
            assert shown(made["entities"][IDS[name]][0]) == shown(row)
        assert made["amount"] == 99
        assert (Builder.all_rows.count(), SessionType.all_rows.count(), Client.all_rows.count()) == (1, 1, 1)
        assert Booking.all_rows.get().client == Client.all_rows.get().user

    @pytest.mark.parametrize("name", IDS)
    def test_one_of_them_alone_is_used_and_the_rest_made(
        self, wire: Wire, rows: dict[str, Any], name: str
    ) -> None:
        made = wire.make("booking-scenarios", {name: rows[name]["id"]})
        assert shown(made["entities"][IDS[name]][0]) == shown(rows[name])
        (booking,) = made["entities"]["booking"]
        (session,) = made["entities"]["sessionType"]
        assert session["builderId"] == booking["builderId"]

    def test_a_session_type_brings_its_builder(self, wire: Wire, rows: dict[str, Any]) -> None:
        made = wire.make("booking-scenarios", {"sessionTypeId": rows["sessionTypeId"]["id"]})
        assert shown(made["entities"]["builder"][0]) == shown(rows["builderId"])
        assert Builder.all_rows.count() == 1

    def test_a_session_type_of_another_builder_is_refused(self, wire: Wire, rows: dict[str, Any]) -> None:
        other = wire.make("builders")
        body = {"sessionTypeId": rows["sessionTypeId"]["id"], "builderId": other["id"]}
        with nothing_written():
            response = wire.post("booking-scenarios", body)
        assert error_of(response) == (400, "invalid_body")
        assert list(response.json()["details"]) == ["sessionTypeId"]

    @pytest.mark.parametrize("name", IDS)
    def test_a_row_that_is_not_of_the_run_is_answered_alike(
        self, wire: Wire, new_wire: Callable[[], Wire], users: Any, name: str
    ) -> None:
        builder = Builder.objects.create(
            user=users.create_user("real", "r@real.example"), display_name="real"
        )
        client = Client.objects.create(
            user=users.create_user("real2", "r2@real.example"), display_name="real"
        )
        session = SessionType.objects.create(builder=builder, title="real", price=1)
        real = {"builderId": builder, "clientId": client, "sessionTypeId": session}[name].pk
        another = new_wire().make("booking-scenarios")["entities"][IDS[name]][0]["id"]
        wire.post("verify-access")
        answers = []
        with nothing_written():
            for key in (real, str(real), another, "999999", "nobody"):
                response = wire.post("booking-scenarios", {name: key})
                assert error_of(response) == (404, "not_in_run"), key
                answers.append(response.content)
        assert len(set(answers)) == 1

    def test_a_row_of_another_type_is_not_in_the_run(self, wire: Wire, rows: dict[str, Any]) -> None:
        clients = [wire.make("clients")["id"] for _ in range(2)]
        key = next(each for each in clients if each != rows["builderId"]["id"])
        response = wire.post("booking-scenarios", {"builderId": key})
        assert error_of(response) == (404, "not_in_run")

    @pytest.mark.parametrize("skills", [5, "React", {"a": 1}, [1, None], True])
    def test_a_builder_with_odd_skills_can_be_booked(self, wire: Wire, skills: Any) -> None:
        builder = wire.entity("builder", top_skills=skills)
        made = wire.make("booking-scenarios", {"builderId": builder["id"]})
        expertise = made["entities"]["builder"][0]["expertise"]
        assert all(isinstance(each, str) for each in expertise)
