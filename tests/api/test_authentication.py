"""The gate and the key: asked before anything else, of every route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stagehand_testdata.models import TestRun
from tests.conftest import Wire, error_of, host_counts

from .conftest import ROUTES, nothing_written

GATE_MESSAGE = "Test mode is not enabled in this environment"

each_route = pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{m} {p}" for m, p in ROUTES])


def raising() -> bool:
    raise RuntimeError("the flag service is away")


def saying_yes() -> bool:
    return True


def saying_no() -> bool:
    return False


def saying_one() -> int:
    return 1


def saying_on() -> str:
    return "on"


class TestGate:
    @each_route
    def test_closed_it_stops_every_route(
        self, wire: Wire, configure: Callable[..., None], method: str, path: str
    ) -> None:
        configure(ENABLED=False)
        with nothing_written():
            response = wire.send(method, path.format(testId=wire.test_id), {})
        assert error_of(response) == (403, "test_mode_disabled")
        assert response.json()["message"] == GATE_MESSAGE

    @each_route
    def test_closed_it_answers_before_the_test_id_the_body_and_the_method(
        self, wire: Wire, configure: Callable[..., None], method: str, path: str
    ) -> None:
        configure(ENABLED=False)
        path = path.format(testId=wire.test_id)
        for attempt in (
            wire.send(method, path, raw=b"{", **{"X-Test-ID": "nobody"}),
            wire.send("put", path, raw=b"["),
        ):
            assert error_of(attempt) == (403, "test_mode_disabled")

    def test_it_is_closed_where_nobody_says(self, wire: Wire, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {}
        assert error_of(wire.post("builders")) == (403, "test_mode_disabled")

    @pytest.mark.parametrize("flag", ["raising", "saying_no", "saying_one", "saying_on"])
    def test_a_callable_that_does_not_say_true_closes_it(
        self, wire: Wire, configure: Callable[..., None], flag: str
    ) -> None:
        for value in (f"{__name__}.{flag}", globals()[flag]):
            configure(ENABLED=value)
            assert error_of(wire.post("builders")) == (403, "test_mode_disabled")

    @pytest.mark.parametrize("value", [1, "yes", None, "no.such.module.flag", "tests", [True], object()])
    def test_a_setting_that_is_not_true_closes_it(
        self, wire: Wire, configure: Callable[..., None], value: Any
    ) -> None:
        configure(ENABLED=value)
        assert error_of(wire.post("builders")) == (403, "test_mode_disabled")

    def test_a_callable_that_says_true_opens_it(self, wire: Wire, configure: Callable[..., None]) -> None:
        for value in (f"{__name__}.saying_yes", saying_yes):
            configure(ENABLED=value)
            assert wire.post("builders").status_code == 201

    def test_it_is_asked_on_every_request(self, wire: Wire, configure: Callable[..., None]) -> None:
        wire.make("builders")
        before = host_counts()
        configure(ENABLED=False)
        assert error_of(wire.post("builders")) == (403, "test_mode_disabled")
        assert host_counts() == before
        configure(ENABLED=True)
        wire.make("builders")

    @pytest.mark.parametrize(("method", "path"), [("post", "cleanup"), ("delete", "runs/{testId}")])
    def test_closed_it_stops_a_clean_up_that_nobody_can_be_held_to(
        self, wire: Wire, configure: Callable[..., None], method: str, path: str
    ) -> None:
        wire.make("builders")
        configure(ENABLED=False)
        with nothing_written():
            response = wire.send(method, path.format(testId=wire.test_id), {})
        assert error_of(response) == (403, "test_mode_disabled")


class TestKey:
    @each_route
    def test_without_one_every_route_is_refused(
        self, wire: Wire, configure: Callable[..., None], method: str, path: str
    ) -> None:
        configure(REQUIRE_ACCESS_KEY=True)
        with nothing_written():
            response = wire.send(method, path.format(testId=wire.test_id), {})
        assert error_of(response) == (401, "not_authenticated")

    @pytest.mark.parametrize(
        "header", ["Bearer wrong", "Bearer", "Bearer ", "Basic YTpi", "wrong", "bearer tdk_x", "Bearer \x00"]
    )
    def test_a_wrong_one_is_refused(self, wire: Wire, configure: Callable[..., None], header: str) -> None:
        configure(REQUIRE_ACCESS_KEY=True)
        with nothing_written():
            response = wire.post("builders", Authorization=header)
        assert error_of(response) == (401, "not_authenticated")

    def test_it_is_needed_where_nobody_says(self, wire: Wire, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {"ENABLED": True}
        assert error_of(wire.post("builders")) == (401, "not_authenticated")

    @each_route
    def test_it_is_asked_for_before_the_test_id_the_body_and_the_method(
        self, wire: Wire, configure: Callable[..., None], method: str, path: str
    ) -> None:
        configure(REQUIRE_ACCESS_KEY=True)
        path = path.format(testId=wire.test_id)
        for attempt in (
            wire.send(method, path, raw=b"{", **{"X-Test-ID": "nobody"}),
            wire.send("put", path, raw=b"["),
        ):
            assert error_of(attempt) == (401, "not_authenticated")

    @each_route
    def test_a_closed_gate_comes_first_but_for_clean_ups(
        self, wire: Wire, configure: Callable[..., None], method: str, path: str
    ) -> None:
        configure(ENABLED=False, REQUIRE_ACCESS_KEY=True)
        response = wire.send(method, path.format(testId=wire.test_id), {})
        cleaning = path == "cleanup" or method == "delete"
        assert error_of(response) == ((401, "not_authenticated") if cleaning else (403, "test_mode_disabled"))

    def test_a_session_of_the_hosts_is_no_key(
        self, wire: Wire, admin_user: Any, configure: Callable[..., None]
    ) -> None:
        configure(REQUIRE_ACCESS_KEY=True)
        wire.client.force_login(admin_user)
        assert error_of(wire.post("builders")) == (401, "not_authenticated")

    def test_where_none_is_needed_one_changes_nothing(self, wire: Wire) -> None:
        wire.make("builders")
        assert wire.post("builders", Authorization="Bearer whatever").status_code == 201
        assert TestRun.objects.get().owner == ""

    def test_a_closed_gate_lets_no_other_method_of_a_run_through(
        self, wire: Wire, configure: Callable[..., None]
    ) -> None:
        configure(ENABLED=False, REQUIRE_ACCESS_KEY=True)
        for method in ("get", "patch", "put"):
            response = wire.send(method, f"runs/{wire.test_id}", {})
            assert error_of(response) == (403, "test_mode_disabled")
