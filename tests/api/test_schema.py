"""The schema is OpenAPI 3.1, says the truth, and has a page that needs nobody else's server."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from stagehand_testdata.registry import get_registry
from tests.conftest import Wire, error_of
from tests.host.models import Book, Loan

from .conftest import ROUTES

#: Every registered type but those whose factories cannot succeed twice.
MAKEABLE = sorted(
    {each.name for each in get_registry().entity_types} - {"staff", "failing", "raw", "country"}
)

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def schema(wire: Wire) -> Any:
    response = wire.get("schema", **{"X-Test-ID": None})
    assert response.status_code == 200
    return response.json()


def operation_of(schema: Any, method: str, path: str) -> Any:
    """The schema's operation for a path with its parameters filled in."""
    candidates = []
    for template, item in schema["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, f"/api/test/{path}") and method in item:
            candidates.append((template.count("{"), template))
    assert candidates, f"the schema has no {method} {path}"
    return schema["paths"][min(candidates)[1]][method]


def check(schema: Any, method: str, path: str, response: Any) -> None:
    """The answer must be what the schema says of its route and status, to the letter."""
    responses = operation_of(schema, method, path)["responses"]
    status = str(response.status_code)
    assert status in responses, f"{method} {path}: {status} is not in the schema: {response.content!r}"
    shape = responses[status]["content"]["application/json"]["schema"]
    root = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **shape,
        "components": schema["components"],
    }
    faults = list(Draft202012Validator(closed(root)).iter_errors(response.json()))
    assert not faults, f"{method} {path} {status}: {[(list(f.absolute_path), f.message) for f in faults]}"


def closed(shape: Any) -> Any:
    """The same schema where objects take no property that it does not name."""
    if isinstance(shape, list):
        return [closed(each) for each in shape]
    if not isinstance(shape, dict):
        return shape
    found = {name: closed(each) for name, each in shape.items()}
    if found.get("type") == "object" and "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


class TestSchema:
    def test_it_is_openapi_3_1(self, schema: Any) -> None:
        assert schema["openapi"].startswith("3.1")
        OpenAPIV31SpecValidator(schema).validate()

    def test_it_holds_this_app_and_nothing_of_the_hosts(self, schema: Any) -> None:
        assert all(path.startswith("/api/test/") for path in schema["paths"])

    @pytest.mark.parametrize(
        ("method", "path"), [each for each in ROUTES if each[1] not in ("nonsense", "schema", "docs")]
    )
    def test_every_route_is_in_it(self, schema: Any, method: str, path: str) -> None:
        operation = operation_of(schema, method, path)
        assert operation["operationId"]
        assert operation["summary"]
        headers = [each["name"] for each in operation.get("parameters", []) if each["in"] == "header"]
        keyed = ["Idempotency-Key"] if method == "post" and path != "cleanup" else []
        assert headers == [*keyed, *(["X-Test-ID"] if method == "post" else [])]

    def test_operation_ids_are_unique(self, schema: Any) -> None:
        ids = [
            operation["operationId"]
            for item in schema["paths"].values()
            for operation in item.values()
            if isinstance(operation, dict)
        ]
        assert len(ids) == len(set(ids))

    def test_no_path_is_there_twice_for_its_slash(self, schema: Any) -> None:
        assert not [path for path in schema["paths"] if path.endswith("/")]

    @pytest.mark.parametrize("accept", ["*/*", "text/html", "application/yaml", "image/png"])
    def test_it_is_json_whatever_is_asked_for(self, wire: Wire, accept: str) -> None:
        response = wire.get("schema", Accept=accept)
        assert response.status_code == 200
        assert response.json()["openapi"]

    def test_the_commands_schema_has_no_warning(self) -> None:
        command = [sys.executable, "manage.py", "spectacular", "--validate", "--fail-on-warn"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr.lower()

    def test_this_projects_schema_has_no_warning(self) -> None:
        from django.core.management import call_command
        from drf_spectacular.drainage import GENERATOR_STATS

        GENERATOR_STATS.reset()
        call_command("spectacular", validate=True, fail_on_warn=True, stdout=io.StringIO())


class TestAnswers:
    """Real answers are what the schema says."""

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("verify-access", {"maxAgeMinutes": 5.5}),
            ("builders", {}),
            ("builders", {"availability": "limited", "hourlyRate": 12.5, "expertise": []}),
            ("clients", {}),
            ("booking-scenarios", {}),
            ("batch", {"builders": 2, "clients": 1, "sessionTypes": True, "bookings": 1, "book": 1}),
            ("scenarios/marketplace", {}),
            ("scenarios/booking", {}),
            ("scenarios/payment", {}),
            ("cleanup", {}),
            ("cleanup", {"createdData": [{"type": "builder", "id": "1"}]}),
        ],
    )
    def test_of_operations(self, wire: Wire, schema: Any, path: str, body: Any) -> None:
        response = wire.post(path, body)
        assert response.status_code in (200, 201)
        check(schema, "post", path, response)

    def test_of_session_types(self, wire: Wire, schema: Any) -> None:
        body = {"builderId": wire.make("builders")["id"], "sessionTypes": [{}, {"price": 0.5}]}
        check(schema, "post", "session-types", wire.post("session-types", body))

    @pytest.mark.parametrize("name", MAKEABLE)
    @pytest.mark.parametrize("body", [{}, {"count": 2}])
    def test_of_entities(self, wire: Wire, schema: Any, name: str, body: Any) -> None:
        response = wire.post(f"entities/{name}", body)
        assert response.status_code == 201
        check(schema, "post", f"entities/{name}", response)

    def test_of_everything_that_can_be_read(self, wire: Wire, schema: Any) -> None:
        wire.make("booking-scenarios")
        for route in ("runs", f"runs/{wire.test_id}", f"runs/{wire.test_id}/entities", "entity-types"):
            check(schema, "get", route, wire.get(route))
        patched = wire.send("patch", f"runs/{wire.test_id}", {"label": "x"})
        check(schema, "patch", f"runs/{wire.test_id}", patched)
        check(schema, "delete", f"runs/{wire.test_id}", wire.send("delete", f"runs/{wire.test_id}"))
        check(schema, "get", f"runs/{wire.test_id}/receipt", wire.get(f"runs/{wire.test_id}/receipt"))

    def test_of_a_residue(self, wire: Wire, schema: Any) -> None:
        Loan.objects.create(book=Book.objects.get(pk=wire.entity("book")["id"]), by="real")
        for method, path in (("post", "cleanup"), ("delete", f"runs/{wire.test_id}")):
            response = wire.send(method, path, {})
            assert response.status_code == 409
            check(schema, method, path, response)

    @pytest.mark.parametrize(
        ("method", "path"), [each for each in ROUTES if each[1] not in ("nonsense", "schema", "docs")]
    )
    def test_of_refusals(self, wire: Wire, schema: Any, configure: Any, method: str, path: str) -> None:
        path = path.format(testId=wire.test_id)
        answers = [wire.send(method, path, raw=b"["), wire.send(method, path, {"colour": 1})]
        if method == "post" and path != "cleanup":
            wire.make("clients")
            wire.cleanup()
            answers.append(wire.post(path, {"builderId": "1"} if path == "session-types" else {}))
            assert answers[-1].status_code == 409
        configure(REQUIRE_ACCESS_KEY=True)
        answers.append(wire.send(method, path, {}))
        configure(ENABLED=False, REQUIRE_ACCESS_KEY=False)
        answers.append(wire.send(method, path, {}))
        assert [each.status_code for each in answers[-2:]] == [401, 403]
        for response in answers:
            check(schema, method, path, response)

    def test_of_too_large_a_body(self, wire: Wire, schema: Any, configure: Any) -> None:
        configure(MAX_BODY_BYTES=10)
        response = wire.post("builders", {"name": "a long name"})
        assert error_of(response) == (413, "body_too_large")
        check(schema, "post", "builders", response)


class TestRequests:
    """Bodies that the schema refuses are refused, and those that it takes are taken."""

    @pytest.mark.parametrize(
        "path",
        ["verify-access", "builders", "clients", "session-types", "booking-scenarios", "cleanup", "batch"],
    )
    def test_every_fields_type_is_the_schemas(self, wire: Wire, schema: Any, path: str) -> None:
        shape = operation_of(schema, "post", path)["requestBody"]["content"]["application/json"]["schema"]
        validator = Draft202012Validator({**shape, "components": schema["components"]})
        if "$ref" in shape:
            component = schema["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
            names = list(component["properties"])
        else:
            names = ["builders", "clients", "book"]
        base = {"builderId": wire.make("builders")["id"]} if path == "session-types" else {}
        for name in names:
            for value in ("x", "", 5, -5, 1.5, True, False, None, [], {}, ["x"], [5]):
                body = {**base, name: value}
                taken = wire.post(path, body).status_code
                if not validator.is_valid(body):
                    assert taken == 400, f"{path}: the schema refuses {body} and the server does not"

    def test_unknown_fields_are_refused_by_the_schema_too(self, wire: Wire, schema: Any) -> None:
        shape = operation_of(schema, "post", "builders")["requestBody"]["content"]["application/json"][
            "schema"
        ]
        assert not Draft202012Validator({**shape, "components": schema["components"]}).is_valid({"colour": 1})


class TestDocs:
    def test_the_page_needs_nobody_elses_server(self, wire: Wire) -> None:
        response = wire.get("docs", **{"X-Test-ID": None}, Accept="text/html")
        assert response.status_code == 200
        assert response["Content-Type"].startswith("text/html")
        page = response.content.decode()
        assert "swagger" in page
        loaded = re.findall(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']([^"']+)""", page)
        assert loaded
        for url in loaded:
            assert url.startswith("/static/"), url
            assert finders.find(url.removeprefix("/static/")), url
        assert not re.findall(r"""["'](?:https?:)?//[^"']+""", page)

    def test_the_page_asks_for_our_schema(self, wire: Wire) -> None:
        assert "/api/test/schema" in wire.get("docs").content.decode()

    @pytest.mark.parametrize("accept", ["text/html", "application/json", "image/png"])
    @pytest.mark.parametrize("path", ["schema", "docs"])
    def test_a_refusal_is_json_whatever_is_asked_for(
        self, wire: Wire, configure: Any, path: str, accept: str
    ) -> None:
        configure(ENABLED=False)
        response = wire.get(path, Accept=accept)
        assert error_of(response) == (403, "test_mode_disabled")
        assert response["Content-Type"] == "application/json"
