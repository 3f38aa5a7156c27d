"""Every refusal has one shape, and the checks have one order."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from django.core.exceptions import (
    DisallowedHost,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
)
from django.db import InterfaceError, OperationalError, connection
from django.http import Http404
from rest_framework import exceptions as drf

from stagehand_testdata import exceptions as ours
from stagehand_testdata.api import errors
from stagehand_testdata.models import TestRun
from tests.conftest import Wire, error_of, host_counts

from .conftest import CREATING, NEED_TEST_ID, ROUTES, database_away, expire, nothing_written

LONG_AGO = 1_000_000_000_000

each_creation = pytest.mark.parametrize(("path", "body"), CREATING, ids=[path for path, _ in CREATING])


class TestTestId:
    @pytest.mark.parametrize("path", NEED_TEST_ID)
    def test_missing_it_is_refused(self, wire: Wire, untouched: None, path: str) -> None:
        response = wire.post(path, **{"X-Test-ID": None})
        assert error_of(response) == (400, "invalid_test_id")
        assert response.json()["message"] == "Invalid or missing test ID"
        assert "beginning with 'stagehand_test_'" in response.json()["details"]["X-Test-ID"][0]

    @pytest.mark.parametrize(
        "test_id",
        [
            "",
            "t1",
            "other_prefix_1",
            "Stagehand_test_1",
            "stagehand_test_ö",
            "stagehand_test_a b",
            "stagehand_test_a.b",
            "stagehand_test_a\x00",
            "stagehand_test_" + "x" * 114,
            "stagehand_test_'; DROP TABLE runs",
        ],
    )
    def test_of_another_form_it_is_refused(self, wire: Wire, untouched: None, test_id: str) -> None:
        assert error_of(wire.post("builders", **{"X-Test-ID": test_id})) == (400, "invalid_test_id")

    @pytest.mark.parametrize(
        "test_id", ["stagehand_test_", "stagehand_test_" + "x" * 113, "stagehand_test_A-z_9"]
    )
    def test_of_the_right_form_it_is_taken(self, wire: Wire, test_id: str) -> None:
        response = wire.post("builders", **{"X-Test-ID": test_id})
        assert response.status_code == 201, response.content
        assert response.json()["testId"] == test_id

    def test_its_prefix_is_the_hosts_to_choose(self, wire: Wire, configure: Callable[..., None]) -> None:
        configure(TEST_ID_PREFIX="acme_")
        assert error_of(wire.post("builders")) == (400, "invalid_test_id")
        answer = wire.post("builders", {"name": "Ada"}, **{"X-Test-ID": "acme_1"})
        assert (answer.status_code, answer.json()["name"]) == (201, "acme_Ada")

    @pytest.mark.parametrize("path", NEED_TEST_ID)
    @pytest.mark.parametrize("other", ["stagehand_test_other", "", None, 5, True, ["x"], {}])
    def test_another_one_in_the_body_is_refused(
        self, wire: Wire, untouched: None, path: str, other: Any
    ) -> None:
        assert error_of(wire.post(path, {"testId": other})) == (400, "test_id_mismatch")

    @each_creation
    def test_the_same_one_in_the_body_is_taken(self, wire: Wire, path: str, body: Any) -> None:
        wire.make(path, {**body, "testId": wire.test_id})

    @pytest.mark.parametrize("method", ["get", "patch", "delete"])
    def test_another_one_in_the_path_is_refused(
        self, wire: Wire, new_wire: Callable[[], Wire], method: str
    ) -> None:
        other = new_wire()
        other.make("builders")
        with nothing_written():
            response = wire.send(method, f"runs/{other.test_id}", {"label": "mine"})
        assert error_of(response) == (400, "test_id_mismatch")


class TestBody:
    @each_creation
    def test_unknown_fields_are_refused_by_name(
        self, wire: Wire, untouched: None, path: str, body: Any
    ) -> None:
        response = wire.post(path, {**body, "colour": 1, "is_staff": True})
        assert error_of(response) == (400, "invalid_body")
        assert set(response.json()["details"]) == {"colour", "is_staff"}

    @pytest.mark.parametrize("path", ["verify-access", "cleanup"])
    def test_unknown_fields_are_refused_by_name_where_nothing_is_made(
        self, wire: Wire, untouched: None, path: str
    ) -> None:
        response = wire.post(path, {"colour": 1})
        assert error_of(response) == (400, "invalid_body")
        assert set(response.json()["details"]) == {"colour"}

    @pytest.mark.parametrize(
        "body",
        [
            {"createdData": [{"type": "builder", "id": "1", "colour": 1}]},
            {"createdData": [{"type": "builder"}]},
            {"createdData": [{"id": "1"}]},
            {"createdData": ["1"]},
            {"createdData": {"builder": "1"}},
        ],
    )
    def test_a_list_of_rows_that_is_none_is_refused(self, wire: Wire, untouched: None, body: Any) -> None:
        response = wire.post("cleanup", body)
        assert error_of(response) == (400, "invalid_body")
        assert all(name.startswith("createdData") for name in response.json()["details"])

    @each_creation
    def test_what_the_documents_client_sends_is_tolerated(self, wire: Wire, path: str, body: Any) -> None:
        wire.make(path, {**body, **tolerated(wire)})

    @pytest.mark.parametrize(("method", "path"), [("post", "verify-access"), ("post", "cleanup")])
    def test_what_the_documents_client_sends_is_tolerated_where_nothing_is_made(
        self, wire: Wire, method: str, path: str
    ) -> None:
        assert wire.send(method, path, tolerated(wire)).status_code == 200

    def test_what_the_documents_client_sends_is_tolerated_in_a_renewal(self, wire: Wire) -> None:
        wire.make("builders")
        assert wire.send("patch", f"runs/{wire.test_id}", tolerated(wire)).status_code == 200

    @pytest.mark.parametrize("path", NEED_TEST_ID[:-1])
    @pytest.mark.parametrize("value", [False, None, 0, 1, "true", "false", []])
    def test_the_test_flag_can_be_nothing_but_true(
        self, wire: Wire, untouched: None, path: str, value: Any
    ) -> None:
        response = wire.post(path, {"isTest": value})
        assert error_of(response) == (400, "invalid_body")
        assert "isTest" in response.json()["details"]

    def test_a_nested_test_flag_can_be_nothing_but_true(self, wire: Wire) -> None:
        builder = wire.make("builders")
        with nothing_written():
            response = wire.post(
                "session-types", {"builderId": builder["id"], "sessionTypes": [{"isTest": False}]}
            )
        assert error_of(response) == (400, "invalid_body")
        assert "sessionTypes.0.isTest" in response.json()["details"]

    def test_faults_are_named_with_their_place(self, wire: Wire, untouched: None) -> None:
        body = {"builderId": "1", "sessionTypes": [{}, {"duration": 1, "price": -1}]}
        details = wire.post("session-types", body).json()["details"]
        assert set(details) == {"sessionTypes.1.duration", "sessionTypes.1.price"}
        assert all(isinstance(text, str) for texts in details.values() for text in texts)


def tolerated(wire: Wire) -> dict[str, Any]:
    return {
        "testId": wire.test_id,
        "isTest": True,
        "createdAt": "2030-01-01T00:00:00.000Z",
        "includeDependencies": True,
        "testCreationTime": int(time.time() * 1000),
        "maxAgeMinutes": 60,
        "buildId": "build-7",
        "scope": "ephemeral",
    }


class TestAge:
    @each_creation
    def test_an_old_test_makes_nothing(self, wire: Wire, untouched: None, path: str, body: Any) -> None:
        response = wire.post(path, {**body, "testCreationTime": LONG_AGO})
        assert error_of(response) == (400, "test_too_old")
        assert response.json()["message"] == "Test data is too old to modify"

    @pytest.mark.parametrize(
        ("minutes_ago", "max_age", "refused"),
        [
            (30, None, False),
            (61, None, True),
            (61, 120, False),
            (121, 120, True),
            (30, 20, True),
            (23 * 60, 9999, False),
            (25 * 60, 9999, True),
        ],
    )
    def test_the_client_says_how_old_is_too_old_up_to_a_day(
        self, wire: Wire, minutes_ago: int, max_age: int | None, refused: bool
    ) -> None:
        body: dict[str, Any] = {"testCreationTime": time.time() * 1000 - minutes_ago * 60_000}
        if max_age is not None:
            body["maxAgeMinutes"] = max_age
        response = wire.post("clients", body)
        if refused:
            assert error_of(response) == (400, "test_too_old")
        else:
            assert response.status_code == 201, response.content

    def test_the_client_cannot_make_it_less_strict(self, wire: Wire) -> None:
        wire.make("builders")
        expire(wire.test_id)
        now = time.time() * 1000
        with nothing_written():
            response = wire.post("builders", {"testCreationTime": now, "maxAgeMinutes": 1440})
        assert error_of(response) == (400, "test_too_old")

    @each_creation
    def test_an_expired_run_takes_no_more(self, wire: Wire, path: str, body: Any) -> None:
        wire.post("verify-access")
        expire(wire.test_id)
        with nothing_written():
            response = wire.post(path, body)
        assert error_of(response) == (400, "test_too_old")

    def test_an_expired_run_is_not_joined_or_renewed(self, wire: Wire) -> None:
        wire.post("verify-access")
        expire(wire.test_id)
        with nothing_written():
            for response in (
                wire.post("verify-access"),
                wire.send("patch", f"runs/{wire.test_id}", {"maxAgeMinutes": 60}),
            ):
                assert error_of(response) == (400, "test_too_old")

    @pytest.mark.parametrize("path", [*(path for path, _ in CREATING), "verify-access", "cleanup"])
    @pytest.mark.parametrize("field", ["testCreationTime", "maxAgeMinutes"])
    @pytest.mark.parametrize("value", [-1, -0.5, "60", "NaN", None, True, [], {}, 1e300, 2**62, -(2**62)])
    def test_a_time_that_is_none_is_refused(
        self, wire: Wire, untouched: None, path: str, field: str, value: Any
    ) -> None:
        response = wire.post(path, {field: value})
        assert error_of(response) == (400, "invalid_body")
        assert field in response.json()["details"]

    @pytest.mark.parametrize("value", [0, 1e-12])
    def test_no_time_at_all_is_refused(self, wire: Wire, untouched: None, value: float) -> None:
        for path in ("verify-access", "builders"):
            assert error_of(wire.post(path, {"maxAgeMinutes": value})) == (400, "invalid_body")

    def test_a_run_that_ends_as_it_begins_is_too_old_at_once(self, wire: Wire) -> None:
        assert wire.post("verify-access", {"maxAgeMinutes": 1e-6}).status_code in (200, 400)
        wire.post("verify-access", {"maxAgeMinutes": 0.01})
        time.sleep(0.7)
        for path in ("verify-access", "builders"):
            assert error_of(wire.post(path, {"maxAgeMinutes": 60})) == (400, "test_too_old")

    @pytest.mark.parametrize("field", ["testCreationTime", "maxAgeMinutes"])
    @pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
    def test_a_number_that_is_none_is_refused(
        self, wire: Wire, untouched: None, field: str, value: str
    ) -> None:
        response = wire.post("builders", raw=f'{{"{field}": {value}}}'.encode())
        assert error_of(response) == (400, "invalid_body")

    @pytest.mark.parametrize("listed", [True, False])
    def test_it_never_refuses_a_clean_up(self, wire: Wire, unchanged_host: None, listed: bool) -> None:
        builder = wire.make("builders")
        expire(wire.test_id)
        body = {"createdData": [{"type": "builder", "id": builder["id"]}]} if listed else {}
        receipt = wire.cleanup(testCreationTime=LONG_AGO, maxAgeMinutes=1, **body)
        assert (receipt["success"], receipt["state"], receipt["remaining"]) == (True, "closed", 0)

    def test_it_never_refuses_a_delete(self, wire: Wire, unchanged_host: None) -> None:
        wire.make("builders")
        expire(wire.test_id)
        assert wire.send("delete", f"runs/{wire.test_id}").status_code == 200

    def test_an_expired_run_can_still_be_read(self, wire: Wire) -> None:
        wire.make("builders")
        expire(wire.test_id)
        run = wire.get(f"runs/{wire.test_id}").json()
        assert (run["expired"], run["state"], run["maxAgeMinutes"]) == (True, "open", 0)


class TestOperation:
    @pytest.mark.parametrize("method", ["get", "post", "patch", "delete"])
    @pytest.mark.parametrize("path", ["nonsense", "builder", "builders/1", "", "runs/x/y/z", "a%0Ab", "%00"])
    def test_an_unknown_one_is_refused(self, wire: Wire, untouched: None, method: str, path: str) -> None:
        response = wire.send(method, path, {})
        assert error_of(response) == (400, "unknown_operation")
        assert response.json()["message"] == "Unknown test operation"
        [text] = response.json()["details"]["operation"]
        assert text.startswith(f"No app here registers '{unquote(path)}': ")
        assert "'stagehand_testdata.marketplace'" in text

    def test_an_unknown_one_is_said_back_in_part(self, wire: Wire, untouched: None) -> None:
        assert "x" * 101 not in wire.post("x" * 3000).json()["details"]["operation"][0]

    @pytest.mark.parametrize(("method", "path"), [*ROUTES, ("post", "nonsense")])
    def test_a_wrong_method_is_refused_with_those_that_are_right(
        self, wire: Wire, untouched: None, method: str, path: str
    ) -> None:
        response = wire.send("put", path.format(testId=wire.test_id), {})
        assert error_of(response) == (405, "method_not_allowed")
        assert method.upper() in response["Allow"].split(", ")

    @pytest.mark.parametrize("method", ["get", "patch", "delete", "options", "trace", "put", "brew"])
    def test_an_operation_is_posted_and_nothing_else(self, wire: Wire, untouched: None, method: str) -> None:
        response = wire.send(method, "builders", {})
        assert error_of(response) == (405, "method_not_allowed")
        assert "POST" in response["Allow"]

    @pytest.mark.parametrize(("method", "path"), [each for each in ROUTES if each[0] != "delete"])
    def test_a_slash_at_the_end_changes_nothing(self, wire: Wire, method: str, path: str) -> None:
        wire.make("builders")
        wire.cleanup()
        path = path.format(testId=wire.test_id)
        with_slash = wire.send(method, f"{path}/", {})
        without = wire.send(method, path, {})
        assert with_slash.status_code == without.status_code
        assert with_slash["Content-Type"] == without["Content-Type"]


class TestOrder:
    """Of several faults, the first in the wire's order is answered."""

    def test_the_test_id_before_the_body(self, wire: Wire, untouched: None) -> None:
        for path in NEED_TEST_ID:
            response = wire.send("post", path, raw=b"{", **{"X-Test-ID": "nobody"})
            assert error_of(response) == (400, "invalid_test_id")

    def test_the_test_id_before_an_unknown_operation(self, wire: Wire, untouched: None) -> None:
        for method in ("get", "post", "patch", "delete"):
            response = wire.send(method, "nonsense", {}, **{"X-Test-ID": "nobody"})
            assert error_of(response) == (400, "invalid_test_id")

    @each_creation
    def test_the_body_before_the_age(self, wire: Wire, path: str, body: Any) -> None:
        wire.post("verify-access")
        expire(wire.test_id)
        with nothing_written():
            response = wire.post(path, {**body, "testCreationTime": LONG_AGO, "colour": 1})
        assert error_of(response) == (400, "invalid_body")

    def test_the_body_before_an_unknown_operation(self, wire: Wire, untouched: None) -> None:
        for raw in (b"{", b"[]", b"", b'{"isTest": false}'):
            assert error_of(wire.send("post", "nonsense", raw=raw)) == (400, "invalid_body")
        response = wire.post("nonsense", {"testId": "stagehand_test_other"})
        assert error_of(response) == (400, "test_id_mismatch")

    def test_the_age_before_an_unknown_operation(self, wire: Wire, untouched: None) -> None:
        response = wire.post("nonsense", {"testCreationTime": LONG_AGO})
        assert error_of(response) == (400, "test_too_old")

    def test_the_age_before_a_row_that_is_not_of_the_run(self, wire: Wire) -> None:
        wire.post("verify-access")
        expire(wire.test_id)
        assert error_of(wire.post("session-types", {"builderId": "1"})) == (400, "test_too_old")

    def test_a_closed_run_before_its_age(self, wire: Wire) -> None:
        wire.make("builders")
        wire.cleanup()
        expire(wire.test_id)
        assert error_of(wire.post("builders")) == (409, "run_closed")


class TestDatabase:
    @pytest.mark.parametrize(("method", "path"), [("post", p) for p, _ in CREATING] + [("get", "runs")])
    def test_away_it_is_unavailable_and_nothing_is_half_done(
        self, wire: Wire, untouched: None, method: str, path: str
    ) -> None:
        bodies = dict(CREATING)
        with database_away():
            response = wire.send(method, path, bodies.get(path))
        assert error_of(response) == (503, "unavailable")
        assert response["Retry-After"]

    def test_away_half_way_it_leaves_nothing(self, wire: Wire, untouched: None) -> None:
        from django.db import connection

        inserts = 0

        def fail_fourth_insert(execute: Any, sql: str, *args: Any) -> Any:
            nonlocal inserts
            inserts += "INSERT INTO" in sql
            if "INSERT INTO" in sql and inserts == 4:
                raise OperationalError("disk full")
            return execute(sql, *args)

        with connection.execute_wrapper(fail_fourth_insert):
            response = wire.post("booking-scenarios")
        assert inserts == 4
        assert error_of(response) == (503, "unavailable")


class TestAStrangeRequest:
    @pytest.mark.parametrize("path", ["runs", "entity-types", "schema", "docs", "runs/{testId}/entities"])
    def test_with_too_many_parameters_is_refused_in_our_shape(
        self, wire: Wire, caplog: pytest.LogCaptureFixture, path: str
    ) -> None:
        wire.make("builders")
        response = wire.get(f"{path.format(testId=wire.test_id)}?{'&'.join(['secret-word=1'] * 1001)}")
        if path == "entity-types":  # which asks for none
            assert response.status_code == 200
        else:
            assert error_of(response) == (400, "invalid_body")
        assert not [record for record in caplog.records if record.levelname == "ERROR" or record.exc_info]

    def test_that_cannot_be_read_is_kept_out_of_the_log_all_the_same(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*args: Any) -> Any:
            raise RuntimeError("cannot use my secret-word")

        monkeypatch.setattr("stagehand_testdata.api.views.authenticate", fail)
        response = wire.get(f"runs?{'&'.join(['a=1'] * 1001)}&b=secret%2Dword")
        assert error_of(response) == (500, "internal_error")
        assert "secret-word" not in "".join(record.getMessage() for record in caplog.records)

    @pytest.mark.parametrize("path", ["runs?pageSize=1", "schema", "docs"])
    def test_under_a_host_that_is_refused_is_no_fault_of_ours(
        self, wire: Wire, new_wire: Callable[[], Wire], settings: Any, path: str
    ) -> None:
        settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "CommonMiddleware" not in each]
        for each in (wire, new_wire()):
            each.make("builders")
        response = wire.get(path, Host="evil.example")
        assert response.status_code == 200 or error_of(response) == (400, "invalid_body")


class TestHandle:
    """Which exception becomes which answer."""

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (ours.GateClosed(), 403, "test_mode_disabled"),
            (ours.NotAuthenticated(), 401, "not_authenticated"),
            (ours.NotAllowed(), 403, "not_allowed"),
            (ours.InvalidInput(), 400, "invalid_body"),
            (ours.InvalidTestId(), 400, "invalid_test_id"),
            (ours.TestIdMismatch(), 400, "test_id_mismatch"),
            (ours.BodyTooLarge(), 413, "body_too_large"),
            (ours.UnknownOperation(), 400, "unknown_operation"),
            (ours.NotFound(), 404, "not_found"),
            (ours.NotInRun(), 404, "not_in_run"),
            (ours.UnknownEntityType(), 404, "unknown_type"),
            (ours.UnknownScenario(), 404, "unknown_scenario"),
            (ours.TooOld(), 400, "test_too_old"),
            (ours.Conflict(), 409, "conflict"),
            (ours.RunClosed(), 409, "run_closed"),
            (ours.FactoryFailed(), 500, "factory_failed"),
            (ours.UntrackedWrite(), 500, "untracked_write"),
            (ours.PrivilegedAccount(), 500, "privileged_account"),
            (ours.ConfigurationError(), 500, "misconfigured"),
            (ours.DuplicateName(), 500, "duplicate_name"),
            (drf.ValidationError({"name": ["Bad."]}), 400, "invalid_body"),
            (drf.ParseError(), 400, "invalid_body"),
            (drf.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
            (drf.NotFound(), 404, "not_found"),
            (drf.Throttled(30), 429, "throttled"),
            (Http404(), 404, "not_found"),
            (PermissionDenied(), 403, "not_allowed"),
            (RequestDataTooBig(), 413, "body_too_large"),
            (TooManyFieldsSent("secret"), 400, "invalid_body"),
            (DisallowedHost("secret"), 400, "invalid_body"),
            (SuspiciousOperation("secret"), 400, "invalid_body"),
            (OperationalError(), 503, "unavailable"),
            (InterfaceError(), 503, "unavailable"),
            (connection.Database.OperationalError(), 503, "unavailable"),
            (connection.Database.InterfaceError(), 503, "unavailable"),
            (RuntimeError("secret"), 500, "internal_error"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
    )
    def test_each_has_its_status_and_code(self, db: None, error: Exception, status: int, code: str) -> None:
        response = errors.handle(error, {})
        assert (response.status_code, response.data["code"]) == (status, code)
        assert response.data["error"] == response.data["message"] != ""
        assert "secret" not in response.data["message"]

    def test_every_error_of_the_app_has_a_status(self) -> None:
        def tree(kind: type[ours.TestDataError]) -> Any:
            yield kind
            for below in kind.__subclasses__():
                yield from tree(below)

        for kind in tree(ours.TestDataError):
            assert any(base in errors.STATUS for base in kind.__mro__), kind

    def test_throttled_says_when_to_come_back(self, db: None) -> None:
        assert errors.handle(drf.Throttled(30), {})["Retry-After"] == "30"

    def test_nested_details_become_paths(self) -> None:
        detail = {"a": [{"b": ["One."]}, {}], "non_field_errors": ["Two."]}
        assert errors.flatten(detail) == {"a.0.b": ["One."], "body": ["Two."]}

    def test_a_summary_names_the_first_five_fields(self) -> None:
        text = errors.summary({f"f{n}": ["Bad."] for n in range(7)})
        assert "f4: Bad." in text
        assert "f5" not in text
        assert "(and 2 more)" in text


def test_a_factory_that_fails_half_way_leaves_nothing(wire: Wire, untouched: None) -> None:
    assert error_of(wire.post("entities/failing")) == (500, "factory_failed")


def test_names_from_clients_reach_the_log_escaped(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    before = host_counts()
    forged = "x\nERROR forged line\r\x1b[31m"
    wire.post("entities/" + "x%0AERROR%20forged%20line", {})
    wire.post("entities/voucher", {"fields": {"note": forged}})
    wire.post("cleanup", {"createdData": [{"type": forged, "id": forged}]})
    for record in caplog.records:
        assert "\n" not in record.getMessage().replace(forged, "\n") or record.exc_info
        assert "\nERROR forged" not in record.getMessage()
    assert TestRun.objects.count() <= 1
    wire.cleanup()
    assert host_counts() == before
