"""An operation of the host's own runs in the same frame as ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import RequestFactory
from django.urls import reverse
from rest_framework import serializers

from stagehand_testdata.api.operations import operation_viewset
from stagehand_testdata.api.serializers import FrameSerializer
from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations.entities import Creation
from stagehand_testdata.registry import WireOperation, get_registry
from tests.conftest import Wire, error_of
from tests.host.models import Person

from .conftest import nothing_written


class PairRequest(FrameSerializer):
    boss = serializers.CharField()


class PairAnswer(serializers.Serializer[Any]):
    ids = serializers.ListField(child=serializers.CharField())


def make_pair(call: Creation, data: Any) -> dict[str, Any]:
    boss = call.create("person", name=call.name(data["boss"]))
    return {"ids": [str(boss.pk), str(call.create("person", boss=boss).pk)]}


def make_and_fail(call: Creation, data: Any) -> dict[str, Any]:
    call.create("person")
    raise RuntimeError("half-way")


def wire_operation(make: Any) -> WireOperation:
    return WireOperation(
        "pairs",
        make,
        request=f"{__name__}.PairRequest",
        response=f"{__name__}.PairAnswer",
        description="Two people",
    )


@pytest.fixture
def post(wire: Wire) -> Callable[..., Any]:
    """Post to an operation that is registered as this one."""

    def send(body: Any, make: Any = f"{__name__}.make_pair", method: str = "POST") -> Any:
        view = operation_viewset(wire_operation(make)).as_view({"post": "perform"})
        request = RequestFactory().generic(
            method,
            "/api/test/pairs",
            json.dumps(body),
            content_type="application/json",
            headers={"X-Test-ID": wire.test_id},
        )
        response = view(request).render()
        response.json = lambda: json.loads(response.content)
        return response

    return send


def test_it_makes_its_rows_and_they_are_the_runs(
    wire: Wire, unchanged_host: None, post: Callable[..., Any]
) -> None:
    response = post({"boss": "Ada"})
    assert response.status_code == 201
    boss, second = response.json()["ids"]
    assert Person.objects.get(pk=second).boss_id == int(boss)
    assert Person.objects.get(pk=boss).name == "stagehand_test_Ada"
    assert TestEntity.objects.filter(run__test_id=wire.test_id, origin="requested").count() == 2
    assert wire.cleanup()["removed"] == {"person": 2}


def test_it_may_be_a_callable_instead_of_a_path(post: Callable[..., Any]) -> None:
    assert post({"boss": "Ada"}, make_pair).status_code == 201


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_body"),
        ({"boss": "Ada", "colour": 1}, "invalid_body"),
        ({"boss": "Ada", "isTest": False}, "invalid_body"),
        ({"boss": "Ada", "testId": "stagehand_test_other"}, "test_id_mismatch"),
        ({"boss": "Ada", "testCreationTime": 1}, "test_too_old"),
        ([], "invalid_body"),
    ],
)
def test_it_is_refused_as_ours_are(
    wire: Wire, untouched: None, post: Callable[..., Any], body: Any, code: str
) -> None:
    assert error_of(post(body)) == (400, code)


def test_it_is_posted_and_nothing_else(wire: Wire, untouched: None, post: Callable[..., Any]) -> None:
    assert error_of(post({"boss": "Ada"}, method="PATCH")) == (405, "method_not_allowed")


def test_a_closed_gate_stops_it(configure: Callable[..., None], post: Callable[..., Any]) -> None:
    configure(ENABLED=False)
    with nothing_written():
        assert error_of(post({"boss": "Ada"})) == (403, "test_mode_disabled")


def test_it_is_all_or_nothing(wire: Wire, untouched: None, post: Callable[..., Any]) -> None:
    assert error_of(post({"boss": "Ada"}, make_and_fail))[0] in (400, 500)


def test_it_makes_nothing_in_a_closed_run(wire: Wire, post: Callable[..., Any]) -> None:
    post({"boss": "Ada"})
    wire.cleanup()
    with nothing_written():
        assert error_of(post({"boss": "Ada"})) == (409, "run_closed")
    assert TestRun.objects.count() == 1


def test_a_path_that_leads_nowhere_is_said_to_be_a_setting(
    wire: Wire, untouched: None, post: Callable[..., Any]
) -> None:
    assert error_of(post({"boss": "Ada"}, "no.such.path")) == (500, "misconfigured")


@pytest.mark.parametrize("name", [each.name for each in get_registry().operations])
def test_every_registered_one_has_its_route(name: str) -> None:
    assert reverse(f"stagehand_testdata:{name}") == f"/api/test/{name}"
