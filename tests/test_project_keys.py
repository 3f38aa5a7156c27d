"""The live product with keys required: made by the command, used over HTTP, revoked while the server runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from project.demo import fetch, running_server

ROOT = Path(__file__).resolve().parent.parent
TEST_ID = "stagehand_test_live"


@pytest.fixture
def manage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`manage.py` of a product of its own, whose server has the same environment."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project.settings")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'db.sqlite3'}")
    monkeypatch.setenv("STAGEHAND_TESTDATA_ENABLED", "1")
    monkeypatch.delenv("STAGEHAND_TESTDATA_REQUIRE_ACCESS_KEY", raising=False)

    def run(*arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ, capture_output=True, check=False, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("migrate", "--verbosity", "0")
    return run


@pytest.fixture
def server(manage: Any) -> Iterator[str]:
    with running_server() as (url, _):
        yield f"{url}/api/test"


def test_a_key_drives_the_product_until_it_is_revoked(manage: Any, server: str) -> None:
    made = json.loads(manage("testdata", "keys", "create", "CI", "--expires", "1h", "--json"))
    other = json.loads(manage("testdata", "keys", "create", "other", "--expires", "1h", "--json"))

    def send(method: str, path: str, key: str | None, body: Any = None, *, expect: int) -> Any:
        headers = {"X-Test-ID": TEST_ID} | ({"Authorization": f"Bearer {key}"} if key else {})
        return json.loads(fetch(f"{server}/{path}", method, body, headers, expect))

    assert send("POST", "builders", None, {}, expect=401)["code"] == "not_authenticated"
    assert send("POST", "verify-access", made["key"], {}, expect=200)["testId"] == TEST_ID
    builder = send("POST", "builders", made["key"], {}, expect=201)
    assert builder["email"] == f"{TEST_ID}@example.com"
    theirs = send("GET", f"runs/{TEST_ID}", other["key"], expect=404)
    assert theirs["code"] == "not_found"
    rotated = json.loads(manage("testdata", "keys", "rotate", made["id"], "--json"))
    assert send("GET", f"runs/{TEST_ID}", made["key"], expect=401)["code"] == "not_authenticated"
    assert send("GET", f"runs/{TEST_ID}", rotated["key"], expect=200)["testId"] == TEST_ID
    receipt = send("POST", "cleanup", rotated["key"], {}, expect=200)
    assert (receipt["remaining"], receipt["removed"]["builder"]) == (0, 1)
    manage("testdata", "keys", "revoke", made["id"])
    assert send("GET", "runs", rotated["key"], expect=401)["code"] == "not_authenticated"
    [listed] = json.loads(manage("testdata", "keys", "list", "--json"))
    assert listed["id"] == other["id"]
