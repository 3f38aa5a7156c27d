"""The host product in Chromium, and a test's run by the API alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")

_numbers = itertools.count(1)


@pytest.fixture
def new_browser(product: str) -> Iterator[Callable[..., Any]]:
    """A page of a browser with cookies of its own, or those of a storage state."""
    # .ci/run installs both, and fails where it cannot.
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install --group browser"
    )
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield lambda **options: chromium.new_context(base_url=product, **options).new_page()
        chromium.close()


class Run:
    """A test's run, by the API alone."""

    def __init__(self, page: Any) -> None:
        self.api = page.request
        self.test_id = f"stagehand_test_browser{next(_numbers)}"

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.api.post(f"/api/test/{path}", headers={"X-Test-ID": self.test_id}, data=body or {})
        assert answer.ok, answer.text()
        return answer.json()

    def get(self, path: str) -> Any:
        answer = self.api.get(f"/api/test/{path}", headers={"X-Test-ID": self.test_id})
        assert answer.ok, answer.text()
        return answer.json()

    def make_builder(self, name: str) -> Any:
        builder = self.post("builders", {"name": name})
        self.post("session-types", {"builderId": builder["id"]})
        return builder

    def take_pass(self, page: Any, url: str) -> None:
        cookie = self.post(f"runs/{self.test_id}/pass")["cookie"]
        page.context.add_cookies([{**cookie, "url": url}])
