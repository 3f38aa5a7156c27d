"""The host product in Chromium: a browser that carries a run's pass, and one that does not.

Nothing here asks the database while the browser runs: like any end-to-end test it has the API and the pages.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from .conftest import Run

LISTING = "/marketplace/builders"


def read(page: Any, path: str) -> tuple[int, bytes]:
    """The page as the server sent it."""
    answer = page.goto(path)
    return answer.status, answer.body()


def names(page: Any) -> set[str]:
    """Who is on the listing."""
    page.goto(LISTING)
    return set(page.get_by_role("main").get_by_role("heading", level=2).all_inner_texts())


def test_with_the_pass_the_runs_builder_is_listed_and_booked(
    new_browser: Callable[[], Any], product: str
) -> None:
    stranger, tester, other_tester = new_browser(), new_browser(), new_browser()
    before, real = read(stranger, LISTING), names(stranger)
    run, other_run = Run(new_browser()), Run(new_browser())
    builder, other_builder = run.make_builder("Grace"), other_run.make_builder("Jean")
    run.take_pass(tester, product)
    other_run.take_pass(other_tester, product)

    assert names(tester) == {*real, builder["name"]}
    assert names(other_tester) == {*real, other_builder["name"]}
    assert read(stranger, LISTING) == before
    assert read(stranger, f"{LISTING}/{builder['id']}")[0] == 404

    tester.goto(LISTING)
    tester.get_by_role("link", name=builder["name"]).click()
    tester.get_by_label("Your name").fill("Zoe")
    tester.get_by_label("Your e-mail").fill("zoe@example.com")
    tester.get_by_role("combobox", name="Session").select_option(index=1)
    start = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    tester.get_by_label("Start (UTC)").fill(start.strftime("%Y-%m-%dT%H:%M"))
    tester.get_by_role("button", name="Book").click()
    assert builder["name"] in tester.get_by_role("status").inner_text()
    assert tester.get_by_role("heading", level=1).inner_text() == "Booking received"
    assert read(stranger, LISTING) == before

    captured = run.get(f"runs/{run.test_id}/entities?origin=captured")["results"]
    assert [each["type"] for each in captured] == ["booking"]
    receipt = run.post("cleanup")
    assert (receipt["removed"]["booking"], receipt["remaining"]) == (1, 0)
    assert other_run.get(f"runs/{other_run.test_id}/entities?origin=captured")["results"] == []


def test_a_pass_that_counts_no_more_shows_what_everybody_sees(
    new_browser: Callable[[], Any], product: str
) -> None:
    stranger, tester = new_browser(), new_browser()
    before = read(stranger, LISTING)
    run = Run(stranger)
    run.make_builder("Grace")
    run.take_pass(tester, product)
    assert read(tester, LISTING) != before
    run.post("cleanup")
    assert read(tester, LISTING) == before
