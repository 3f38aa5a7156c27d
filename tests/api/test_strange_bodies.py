"""Bodies that no honest client sends: each is refused in the one shape, and nothing is made or kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.registry import get_registry
from tests.conftest import Wire, error_of
from tests.host.models import Journal

from .conftest import NEED_TEST_ID, all_counts, nothing_written, only_hosts
from .test_parsers import is_plain, nested

#: `make soak` asks for many more.
EXAMPLES = int(os.environ.get("SOAK_EXAMPLES", "200"))

#: Factories of the test host that fail on purpose.
FAILING = {"staff", "failing", "raw"}
ENTITY_ROUTES = [f"entities/{each.name}" for each in get_registry().entity_types]
SCENARIO_ROUTES = [f"scenarios/{each.name}" for each in get_registry().scenarios]
POSTED = sorted({*NEED_TEST_ID, *ENTITY_ROUTES, *SCENARIO_ROUTES})

each_post = pytest.mark.parametrize("path", [path for path in NEED_TEST_ID if path != "nonsense"])

STRANGE: dict[str, bytes] = {
    "empty": b"",
    "blank": b"   ",
    "ten megabytes": b'{"name": "' + b"x" * 10_000_000 + b'"}',
    "ten megabytes of blanks": b" " * 10_000_000 + b"{}",
    "10,000 objects deep": nested(10_000),
    "10,000 arrays deep": b'{"sessionTypes": ' + nested(10_000, b"[", b"]") + b"}",
    "10,000 deep and not closed": b'{"a":' * 10_000,
    "21 deep": nested(21),
    "NUL escaped": b'{"name": "a\\u0000b"}',
    "NUL raw": b'{"name": "a\x00b"}',
    "NUL in a name": b'{"a\\u0000": 1}',
    "NUL alone": b"\x00",
    "half a surrogate pair": b'{"name": "\\ud800"}',
    "the other half": b'{"name": "\\udc00"}',
    "halves the wrong way round": b'{"name": "\\udc00\\ud800"}',
    "a surrogate in UTF-8": b'{"name": "\xed\xa0\x80"}',
    "NaN": b'{"hourlyRate": NaN}',
    "Infinity": b'{"hourlyRate": Infinity}',
    "-Infinity": b'{"maxAgeMinutes": -Infinity}',
    "a float out of range": b'{"hourlyRate": 1e999}',
    "a whole number out of range": b'{"hourlyRate": ' + b"9" * 400 + b"}",
    "a whole number of a megabyte": b'{"hourlyRate": ' + b"9" * 1_000_000 + b"}",
    "the same field twice": b'{"isTest": true, "isTest": true}',
    "the same field twice, escaped": b'{"isTest": true, "\\u0069sTest": true}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "latin-1": '{"name": "é"}'.encode("latin-1"),
    "UTF-16": "{}".encode("utf-16"),
    "an array": b"[]",
    "a text": b'"{}"',
    "a number": b"5",
    "null": b"null",
    "true": b"true",
    "two objects": b"{} {}",
    "a comment": b"{} // none",
    "not closed": b'{"name": "Ada"',
    "single quotes": b"{'name': 'Ada'}",
    "a trailing comma": b'{"isTest": true,}',
    "a form": b"name=Ada&isTest=true",
    "YAML": b"name: Ada",
    "XML": b"<name>Ada</name>",
    "binary": bytes(range(256)),
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00C\xbf\xa6\xa3\x02\x00\x00\x00",
}


@each_post
@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE.keys())
def test_a_strange_body_is_refused(wire: Wire, untouched: None, path: str, body: bytes) -> None:
    too_large = len(body) > 1024 * 1024
    expected = (413, "body_too_large") if too_large else (400, "invalid_body")
    assert error_of(wire.send("post", path, raw=body)) == expected


@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE.keys())
def test_a_strange_body_renews_no_run(wire: Wire, body: bytes) -> None:
    wire.post("verify-access")
    with nothing_written():
        response = wire.send("patch", f"runs/{wire.test_id}", raw=body)
    assert response.status_code in (400, 413)
    assert error_of(response)


class TestTransport:
    """What is said around the body."""

    @each_post
    @pytest.mark.parametrize(
        "content_type",
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "multipart/form-data; boundary=x",
            "application/xml",
            "application/octet-stream",
            "application/jsonp",
            "application",
            "",
            ";;;",
            "\x00",
            "a/b" * 1000,
        ],
    )
    def test_another_content_type_is_refused(
        self, wire: Wire, untouched: None, path: str, content_type: str
    ) -> None:
        response = Client(raise_request_exception=False).generic(
            "POST", f"/api/test/{path}", b"{}", content_type=content_type, headers={"X-Test-ID": wire.test_id}
        )
        assert error_of(response) == (400, "invalid_body")

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=latin-1",
            "application/json ; x=y",
        ],
    )
    def test_json_by_whatever_other_words_is_taken_as_utf_8(self, wire: Wire, content_type: str) -> None:
        response = Client().generic(
            "POST",
            "/api/test/builders",
            '{"name": "é"}'.encode(),
            content_type=content_type,
            headers={"X-Test-ID": wire.test_id},
        )
        assert response.json()["name"] == "stagehand_test_é"

    @pytest.mark.parametrize(
        "length",
        ["", "0", "000", "-1", "+2", "2.0", "x", "1e3", "\u00b2", "9" * 5000, "99999999999999999999999"],
    )
    def test_a_length_that_is_none_is_refused(self, wire: Wire, untouched: None, length: str) -> None:
        response = wire.client.generic(
            "POST",
            "/api/test/builders",
            b"{}",
            content_type="application/json",
            headers={"X-Test-ID": wire.test_id},
            CONTENT_LENGTH=length,
        )
        too_large = length.isdecimal() and length.strip("0") != ""
        assert error_of(response) == ((413, "body_too_large") if too_large else (400, "invalid_body"))

    def test_a_missing_length_is_refused(self, wire: Wire, untouched: None) -> None:
        factory = wire.client
        environ = factory._base_environ(  # as a server gives it for a chunked body
            PATH_INFO="/api/test/builders",
            REQUEST_METHOD="POST",
            CONTENT_TYPE="application/json",
            HTTP_X_TEST_ID=wire.test_id,
            HTTP_TRANSFER_ENCODING="chunked",
        )
        environ.pop("CONTENT_LENGTH", None)
        assert error_of(factory.request(**environ)) == (400, "invalid_body")

    def test_a_body_shorter_than_its_length_is_refused(self, wire: Wire, untouched: None) -> None:
        response = wire.client.generic(
            "POST",
            "/api/test/builders",
            b'{"name": ',
            content_type="application/json",
            headers={"X-Test-ID": wire.test_id},
            CONTENT_LENGTH="9",
        )
        assert error_of(response) == (400, "invalid_body")

    def test_a_method_in_a_header_or_the_body_is_no_method(self, wire: Wire) -> None:
        wire.make("builders")
        response = wire.post(
            f"runs/{wire.test_id}", {"_method": "DELETE"}, **{"X-HTTP-Method-Override": "DELETE"}
        )
        assert error_of(response) == (405, "method_not_allowed")
        assert TestRun.objects.get().state == "open"

    @pytest.mark.parametrize(
        "query", ["?format=api", "?format=xml", "?_method=DELETE", "?%00=%00", "?" + "a=1&" * 999]
    )
    def test_a_query_changes_nothing(self, wire: Wire, query: str) -> None:
        assert wire.post(f"builders{query}").status_code == 201

    @each_post
    def test_a_body_of_the_largest_size_is_read(
        self, wire: Wire, configure: Callable[..., None], path: str
    ) -> None:
        configure(MAX_BODY_BYTES=1000)
        body = b'{"colour": "' + b"x" * 986 + b'"}'
        assert error_of(wire.send("post", path, raw=body)) == (400, "invalid_body")
        assert error_of(wire.send("post", path, raw=body + b" ")) == (413, "body_too_large")


VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**62,
    -(2**63),
    0.1,
    -1e-300,
    1e308,
    "",
    " ",
    "x",
    "0",
    "é😀\u202e\ufeff",
    "\x7f\x1b[31m\n\r\t",
    "'; DROP TABLE auth_user; --",
    "<script>alert(1)</script>",
    "{{ 7*7 }}",
    "../../etc/passwd",
    "x" * 10_000,
    [],
    [None],
    [[]],
    [{}],
    ["x"] * 1000,
    {},
    {"": ""},
    {"id": 1},
    {"__proto__": {"isAdmin": True}},
]


FRAME = [
    "testId",
    "isTest",
    "createdAt",
    "includeDependencies",
    "testCreationTime",
    "maxAgeMinutes",
    "buildId",
    "scope",
]
OWN_FIELDS = {
    "verify-access": ["seed", "shadow", "testUserEmail", "label"],
    "builders": [
        "name",
        "email",
        "expertise",
        "hourlyRate",
        "availability",
        "validationTier",
        "headline",
        "bio",
    ],
    "session-types": ["builderId", "sessionTypes"],
    "clients": ["name", "email", "companyName"],
    "booking-scenarios": [
        "status",
        "paymentStatus",
        "builderId",
        "clientId",
        "sessionTypeId",
        "startTime",
        "amount",
        "currency",
    ],
    "cleanup": ["createdData"],
    "batch": ["builders", "clients", "sessionTypes", "bookings", "book"],
    "entities/book": ["count", "fields"],
    "scenarios/booking": ["status", "amount"],
}


class TestEveryField:
    """Every field of every operation with a value of every JSON type."""

    @pytest.mark.parametrize(
        ("path", "field"), [(path, field) for path, own in OWN_FIELDS.items() for field in [*FRAME, *own]]
    )
    def test_of_any_operation(self, wire: Wire, unchanged_host: None, path: str, field: str) -> None:
        for value in VALUES:
            answered_soundly(wire, path, {field: value})
            if path == "cleanup":
                wire.test_id += "x"
        assert wire.cleanup()["remaining"] == 0

    @pytest.mark.parametrize(
        "field", ["name", "description", "duration", "price", "currency", "calendlyUrl", "isTest"]
    )
    def test_of_a_session_type(self, wire: Wire, unchanged_host: None, field: str) -> None:
        builder = wire.make("builders")
        for value in VALUES:
            answered_soundly(
                wire, "session-types", {"builderId": builder["id"], "sessionTypes": [{field: value}]}
            )
        assert wire.cleanup()["remaining"] == 0

    @pytest.mark.parametrize("field", ["type", "id", "scope"])
    def test_of_a_listed_row(self, wire: Wire, field: str) -> None:
        wire.make("builders")
        for value in VALUES:
            response = wire.post("cleanup", {"createdData": [{"type": "x", "id": "y", field: value}]})
            assert response.status_code in (200, 400), (value, response.content)
            assert response.status_code == 200 or error_of(response)
        assert TestEntity.objects.filter(state="live").count() == 2

    @pytest.mark.parametrize("field", ["maxAgeMinutes", "label", "isTest", "seed"])
    def test_of_a_renewal(self, wire: Wire, field: str) -> None:
        wire.post("verify-access")
        for value in VALUES:
            response = wire.send("patch", f"runs/{wire.test_id}", {field: value})
            assert response.status_code in (200, 400), (value, response.content)
            assert response.status_code == 200 or error_of(response)

    @pytest.mark.parametrize("name", sorted({each.name for each in get_registry().entity_types} - FAILING))
    def test_of_any_registered_type(self, wire: Wire, unchanged_host: None, name: str) -> None:
        types = {each["name"]: each for each in wire.get("entity-types").json()}
        for field in types[name]["fields"]:
            for value in VALUES:
                answered_soundly(wire, f"entities/{name}", {"fields": {field["name"]: value}})
        assert wire.cleanup()["remaining"] == 0
        Journal.objects.all().delete()  # the test host's own diary of deletions


_numbers = count(1)


def answered_soundly(wire: Wire, path: str, body: Any) -> int:
    """No 5xx but for a factory that fails on purpose; and where it is no success, nothing is made or kept."""
    before = all_counts()
    response = wire.post(path, body)
    what = (path, body, response.status_code, response.content)
    if response.status_code >= 500:
        assert response.json()["code"] in ("privileged_account", "factory_failed", "untracked_write"), what
        assert FAILING & {path.removeprefix("entities/"), *body}, what
    if response.status_code >= 300:
        assert error_of(response), what
        assert all_counts() == before, what
    return int(response.status_code)


texts = st.text(max_size=30).filter(is_plain) | st.sampled_from(
    [
        "ada@example.com",
        "ADA@example.com",
        "ada@gmail.com",
        "1",
        "2030-01-01T00:00:00Z",
        "PENDING",
        "EUR",
        "ephemeral",
    ]
)
numbers = (
    st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 3)
)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
OWN_NAMES = sorted(
    {
        *FRAME,
        *(field for own in OWN_FIELDS.values() for field in own),
        *(each.name for each in get_registry().entity_types),
    }
)
items = st.fixed_dictionaries(
    {},
    optional={
        "name": texts,
        "description": texts,
        "duration": st.integers(0, 2000),
        "price": numbers,
        "currency": texts,
        "type": texts,
        "id": scalars,
        "isTest": st.just(True),
    },
)
columns = st.sampled_from(
    [
        "name",
        "title",
        "author",
        "boss",
        "position",
        "price",
        "published",
        "note",
        "email",
        "username",
        "top_skills",
    ]
)
bodies = st.dictionaries(
    st.sampled_from(OWN_NAMES) | texts,
    values | st.lists(items, max_size=3) | st.integers(0, 3) | st.dictionaries(columns, values, max_size=3),
    max_size=5,
)


@pytest.mark.django_db
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(path=st.sampled_from(POSTED), body=bodies)
def test_any_body_on_any_route_is_answered_soundly_and_can_be_taken_back(path: str, body: Any) -> None:
    before = only_hosts(all_counts())
    wire = Wire(f"stagehand_test_strange_{next(_numbers)}")
    if answered_soundly(wire, path, body) < 300:
        assert wire.cleanup()["remaining"] == 0
        Journal.objects.all().delete()
        assert only_hosts(all_counts()) == before


@pytest.mark.django_db
@settings(
    max_examples=EXAMPLES // 2,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from(POSTED),
    raw=st.binary(max_size=60)
    | bodies.map(lambda body: json.dumps(body, ensure_ascii=False).encode()[:-1])
    | st.tuples(st.binary(max_size=4), st.just(b'{"isTest": true}'), st.binary(max_size=4)).map(b"".join),
)
def test_any_bytes_on_any_route_are_answered(path: str, raw: bytes) -> None:
    before = all_counts()
    wire = Wire(f"stagehand_test_strange_{next(_numbers)}")
    response = wire.send("post", path, raw=raw)
    assert response.status_code < 500 or path.removeprefix("entities/") in FAILING
    if response.status_code >= 300:
        assert error_of(response)
        assert all_counts() == before


@pytest.mark.django_db
@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(
    method=st.sampled_from(["get", "post", "patch", "delete", "put"]),
    path=st.text(max_size=40).map(
        lambda text: "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))
    ),
    prefix=st.sampled_from(["", "runs/", "entities/", "scenarios/", "runs/stagehand_test_x/"]),
)
def test_any_path_is_answered_in_the_one_shape(method: str, path: str, prefix: str) -> None:
    before = all_counts()
    response = Wire("stagehand_test_x").send(method, f"{prefix}{path}", {"colour": 1})
    assert response.status_code < 500
    if response.status_code >= 300:
        assert error_of(response)
    assert all_counts() == before
