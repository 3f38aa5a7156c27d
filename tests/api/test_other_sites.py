"""A browser that is on another site's page can do nothing here, whoever is logged in there."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.conftest import Wire, error_of

from .conftest import ROUTES, nothing_written

ORIGIN = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{m} {p}" for m, p in ROUTES])
def test_no_answer_opens_itself_to_another_site(wire: Wire, method: str, path: str) -> None:
    response = wire.send(method, path.format(testId=wire.test_id), {}, **ORIGIN)
    assert [name for name in response.headers if name.lower().startswith("access-control-")] == []
    assert response["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{m} {p}" for m, p in ROUTES])
def test_a_browser_that_asks_beforehand_is_told_no(wire: Wire, method: str, path: str) -> None:
    asked = {
        "Access-Control-Request-Method": method.upper(),
        "Access-Control-Request-Headers": "authorization,x-test-id,content-type",
    }
    with nothing_written():
        response = wire.send("options", path.format(testId=wire.test_id), **ORIGIN, **asked)
    assert error_of(response) == (405, "method_not_allowed")
    assert [name for name in response.headers if name.lower().startswith("access-control-")] == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
@pytest.mark.parametrize("path", ["builders", "cleanup", "verify-access", "entities/book", "batch", "tokens"])
def test_what_a_form_can_send_is_refused(wire: Wire, path: str, kind: str) -> None:
    """Those are the types that a page may send anywhere without asking beforehand."""
    client = Client(raise_request_exception=False)
    headers = {"X-Test-ID": wire.test_id, **ORIGIN}
    with nothing_written():
        response = client.generic("POST", f"/api/test/{path}", b"{}", content_type=kind, headers=headers)
    assert error_of(response) == (400, "invalid_body")


@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "get"])
@pytest.mark.parametrize("method", ["get", "head"])
def test_what_a_link_or_a_picture_can_ask_for_changes_nothing(wire: Wire, method: str, path: str) -> None:
    wire.make("builders")
    with nothing_written():
        wire.send(method, path.format(testId=wire.test_id), **ORIGIN)


def test_a_body_in_a_query_is_none(wire: Wire, untouched: None) -> None:
    """As JSONP would have it."""
    response: Any = wire.get("entity-types?callback=evil&jsonp=evil&format=jsonp")
    assert response["Content-Type"] == "application/json"
    assert response.content.startswith(b"[")
