"""A CI job without a key: its own token is exchanged for one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from stagehand_testdata.client import TestDataManager, errors
from stagehand_testdata.client._sync import wire
from stagehand_testdata.client.command import main
from stagehand_testdata.models import AccessKey, TestRun
from tests.access.conftest import issuer  # noqa: F401 - a fixture
from tests.access.issuer import Issuer
from tests.making import changed


@pytest.fixture
def trusting(issuer: Issuer, product: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:  # noqa: F811
    monkeypatch.setattr(wire, "_job_keys", {})
    with changed(REQUIRE_ACCESS_KEY=True, OIDC_TRUST=[issuer.trust(audience=f"{product}/api/test")]):
        yield issuer


@pytest.fixture
def token(trusting: Issuer, product: str) -> Any:
    return lambda **claims: trusting.token(aud=f"{product}/api/test", **claims)


def test_gitlabs_is_exchanged_once_for_all_that_the_process_does(
    product: str, token: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TESTDATA_TOKEN", token())
    assert main(["prepare", "--url", product, "--build-id", "77"]) == 0
    assert main(["cleanup", "--url", product, "--build-id", "77"]) == 0
    assert AccessKey.objects.count() == 1
    assert TestRun.objects.get().state == "closed"


def test_a_second_process_takes_the_second_token(
    product: str, token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTDATA_TOKEN", token())
    monkeypatch.setenv("TESTDATA_TOKEN_2", token(jti="another"))
    TestDataManager(product).runs()
    wire._job_keys.clear()
    TestDataManager(product).runs()
    assert AccessKey.objects.count() == 2
    wire._job_keys.clear()
    with pytest.raises(errors.NotAuthenticated, match="a token of its own"):
        TestDataManager(product).runs()


def test_a_key_that_ran_out_is_exchanged_anew(
    product: str, token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTDATA_TOKEN", token())
    with TestDataManager(product) as run:
        AccessKey.objects.update(revoked_at="2020-01-01T00:00Z")
        monkeypatch.setenv("TESTDATA_TOKEN", token(jti="another"))
        run.client()
    assert AccessKey.objects.count() == 2
    assert TestRun.objects.get().state == "closed"


def test_githubs_is_asked_for_with_the_apis_address(
    product: str, token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    class GitHub(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            [audience] = parse_qs(urlsplit(self.path).query)["audience"]
            asked.append((audience, self.headers["Authorization"]))
            body = json.dumps({"value": token()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    github = HTTPServer(("127.0.0.1", 0), GitHub)
    threading.Thread(target=github.serve_forever, args=(0.02,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{github.server_address[1]}/token?api-version=2.0"
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", url)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the-jobs")
        TestDataManager(product).runs()
    finally:
        github.shutdown()
        github.server_close()
    assert asked == [(f"{product}/api/test", "bearer the-jobs")]


def test_github_that_gives_none_is_told_with_the_fix(product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "http://127.0.0.1:9/?a=b")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the-jobs")
    with pytest.raises(errors.ConnectionFailed, match="id-token: write"):
        TestDataManager(product).runs()
