"""The host product in Chromium, signed in as a run's own user: by the link and by the storage state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Run

LISTING = "/marketplace/builders"


def signed_in(page: Any) -> str | None:
    """Whose name is on the page."""
    page.goto(LISTING)
    names = page.get_by_text("Signed in as").all_inner_texts()
    return names[0].removeprefix("Signed in as ") if names else None


@pytest.fixture
def run(new_browser: Callable[..., Any]) -> Run:
    run = Run(new_browser())
    run.client = run.post("clients", {"name": "Zoe"})
    return run


def open_session(run: Run, **body: Any) -> Any:
    [user] = run.get(f"runs/{run.test_id}/entities?type=auth.user")["results"]
    return run.post(f"runs/{run.test_id}/sessions", {"userId": user["id"], **body})


def test_the_link_signs_a_browser_in_until_the_clean_up(new_browser: Callable[..., Any], run: Run) -> None:
    tester, stranger = new_browser(), new_browser()
    link = open_session(run, next=LISTING)["link"]
    # As soon as it is back the test goes on.
    tester.goto(link)
    assert tester.url.endswith(LISTING)
    assert signed_in(tester) == run.client["email"]
    builder = run.make_builder("Grace")
    tester.goto(LISTING)
    assert tester.get_by_role("heading", name=builder["name"]).count() == 1

    assert stranger.goto(link).status == 404
    assert signed_in(stranger) is None

    assert run.post("cleanup")["remaining"] == 0
    assert signed_in(tester) is None
    assert tester.get_by_role("heading", name=builder["name"]).count() == 0


def test_a_context_with_the_storage_state_is_signed_in_until_the_clean_up(
    new_browser: Callable[..., Any], run: Run
) -> None:
    state = open_session(run)["storageState"]
    tester = new_browser(storage_state=state)
    # Playwright writes down what it was given.
    kept = {each["name"]: each for each in tester.context.storage_state()["cookies"]}
    for cookie in state["cookies"]:
        assert kept[cookie["name"]] == {**cookie, "expires": pytest.approx(cookie["expires"], abs=1)}
    assert signed_in(tester) == run.client["email"]

    assert run.post("cleanup")["remaining"] == 0
    assert signed_in(tester) is None


def test_a_page_that_only_looks_at_the_link_leaves_it_for_the_test(
    new_browser: Callable[..., Any], run: Run
) -> None:
    bystander, tester = new_browser(), new_browser()
    link = open_session(run)["link"]
    bystander.goto(LISTING)
    bystander.evaluate(
        "link => new Promise(done => { const image = new Image(); image.onerror = done; image.src = link })",
        link,
    )
    assert signed_in(bystander) is None
    tester.goto(link)
    assert signed_in(tester) == run.client["email"]
