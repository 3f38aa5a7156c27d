"""`POST session-types`."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from stagehand_testdata.marketplace.models import SessionType
from tests.api.conftest import nothing_written
from tests.conftest import Wire, error_of

PREFIX = "stagehand_test_"


@pytest.fixture
def builder(wire: Wire) -> Any:
    return wire.make("builders")


def make(wire: Wire, builder: Any, *sessions: Any) -> Any:
    return wire.make("session-types", {"builderId": builder["id"], "sessionTypes": list(sessions)})


@pytest.mark.parametrize("extra", [{}, {"sessionTypes": []}, {"sessionTypes": [{}]}])
def test_without_any_the_documents_one_is_made(wire: Wire, builder: Any, extra: Any) -> None:
    (made,) = wire.make("session-types", {"builderId": builder["id"], **extra})
    assert made.pop("createdAt")
    session = SessionType.all_rows.get()
    assert made == {
        "id": str(session.pk),
        "testId": wire.test_id,
        "builderId": builder["id"],
        "name": f"{PREFIX}Initial Consultation",
        "description": "",
        "duration": 60,
        "price": 75,
        "currency": "USD",
        "calendlyUrl": "",
        "isTest": True,
    }


def test_they_are_answered_in_the_order_asked_for(wire: Wire, builder: Any) -> None:
    names = [f"{PREFIX}{letter}" for letter in "dacb"]
    made = make(wire, builder, *({"name": name} for name in names))
    assert [each["name"] for each in made] == names
    assert len({each["id"] for each in made}) == 4


def test_everything_can_be_chosen(wire: Wire, builder: Any) -> None:
    body = {
        "name": f"{PREFIX}Deep Dive",
        "description": "Long",
        "duration": 90,
        "price": 120.5,
        "currency": "eur",
        "calendlyUrl": "https://calendly.com/test/60min",
        "isTest": True,
    }
    (made,) = make(wire, builder, body)
    assert {name: made[name] for name in body} == {**body, "currency": "EUR"}
    session = SessionType.all_rows.get()
    assert (session.price, session.duration_minutes) == (Decimal("120.50"), 90)
    assert session.calendly_event_type_uri == body["calendlyUrl"]


def test_the_builders_id_may_be_a_number(wire: Wire, builder: Any) -> None:
    assert wire.make("session-types", {"builderId": int(builder["id"])})[0]["builderId"] == builder["id"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 5),
        ("name", "A\nBcc: x"),
        ("name", "A\r"),
        ("name", "A\x0b"),
        ("name", "A\u2028B"),
        ("duration", 14),
        ("duration", 1441),
        ("duration", "60"),
        ("duration", 60.5),
        ("price", -0.01),
        ("price", "75"),
        ("price", None),
        ("currency", "US"),
        ("currency", "USDX"),
        ("currency", "U$D"),
        ("currency", 840),
        ("calendlyUrl", "javascript:alert(1)"),
        ("calendlyUrl", "not a url"),
        ("calendlyUrl", 5),
        ("isTest", False),
        ("builder", 1),
        ("id", 1),
    ],
)
def test_what_is_not_acceptable_makes_none_of_them(wire: Wire, builder: Any, field: str, value: Any) -> None:
    body = {"builderId": builder["id"], "sessionTypes": [{}, {field: value}]}
    with nothing_written():
        response = wire.post("session-types", body)
    assert error_of(response) == (400, "invalid_body")
    assert list(response.json()["details"]) == [f"sessionTypes.1.{field}"]


@pytest.mark.parametrize("value", ["x", 5, True, {}, [5], [[]], ["x"], [None], [{}] * 101])
def test_a_list_that_is_none_is_refused(wire: Wire, builder: Any, value: Any) -> None:
    with nothing_written():
        response = wire.post("session-types", {"builderId": builder["id"], "sessionTypes": value})
    assert error_of(response) == (400, "invalid_body")


@pytest.mark.parametrize("value", [None, True, 1.5, [], {}, "", "x" * 256])
def test_a_builders_id_that_is_none_is_refused(wire: Wire, untouched: None, value: Any) -> None:
    response = wire.post("session-types", {"builderId": value})
    assert error_of(response) == (400, "invalid_body")
    assert list(response.json()["details"]) == ["builderId"]


def test_without_a_builder_it_is_refused(wire: Wire, untouched: None) -> None:
    response = wire.post("session-types")
    assert error_of(response) == (400, "invalid_body")
    assert list(response.json()["details"]) == ["builderId"]


def test_a_builder_that_is_not_of_the_run_is_answered_alike(
    wire: Wire, new_wire: Callable[[], Wire], users: Any
) -> None:
    from stagehand_testdata.marketplace.models import Builder

    real = Builder.objects.create(user=users.create_user("real", "r@real.example"), display_name="real")
    another = new_wire().make("builders")
    mine, gone = wire.make("builders"), wire.make("builders")
    wire.cleanup(createdData=[{"type": "builder", "id": gone["id"]}])
    answers = []
    with nothing_written():
        for key in (real.pk, another["id"], gone["id"], "999999", "x", "1; DROP", "-1", str(2**70)):
            response = wire.post("session-types", {"builderId": key})
            assert error_of(response) == (404, "not_in_run"), key
            answers.append(response.content)
    assert len(set(answers)) == 1
    assert wire.make("session-types", {"builderId": mine["id"]})
