"""A Playwright test as a test author writes one: the client's few lines, Chromium, and the product."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stagehand_testdata.client import TestDataManager, errors
from stagehand_testdata.models import TestEntity
from tests.document_client.conftest import host_rows

LISTING = "/marketplace/builders"


@pytest.fixture
def as_before(settings: Any, product: str) -> Iterator[None]:
    """The database afterwards is what it was; nothing asks it while the browser runs."""
    # pytest-django keeps all mail in memory; the product's own backend keeps a run's for the run.
    settings.EMAIL_BACKEND = "stagehand_testdata.isolation.mail.TestDataEmailBackend"
    before = host_rows()
    yield
    assert host_rows() == before
    assert not TestEntity.objects.standing().exists()


def test_a_run_is_found_signed_in_booked_mailed_and_gone(
    as_before: None, new_browser: Callable[..., Any], product: str
) -> None:
    page = new_browser()
    with TestDataManager(product, label="browser") as run:
        builder = run.builder(name="Grace")
        run.session_types(builder)
        client = run.client(name="Zoe")
        run.sign_in(page, client, next_path=LISTING)
        assert page.url == f"{product}{LISTING}"
        assert f"Signed in as {client.email}" in page.content()
        page.get_by_role("link", name=builder.name).click()
        page.get_by_role("combobox", name="Session").select_option(index=1)
        start = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
        page.get_by_label("Start (UTC)").fill(start.strftime("%Y-%m-%dT%H:%M"))
        page.get_by_role("button", name="Book").click()
        assert page.get_by_role("heading", level=1).inner_text() == "Booking received"
        [mail] = run.messages(to=client.email)
        assert builder.name in mail.text
        [booking] = run.entities(origin="captured", type="booking")
        assert booking.state == "live"
    assert run.receipt is not None
    assert run.receipt.removed["booking"] == 1
    assert run.receipt.remaining == 0
    assert page.goto(f"{product}{LISTING}/{builder.id}").status == 404


def test_a_context_carries_the_pass(new_browser: Callable[..., Any], product: str) -> None:
    page, stranger = new_browser(), new_browser()
    with TestDataManager(product) as run:
        builder = run.builder()
        run.carry_pass(page.context)
        assert page.goto(f"{LISTING}/{builder.id}").status == 200
        assert stranger.goto(f"{LISTING}/{builder.id}").status == 404


def test_a_link_that_leads_nowhere_is_told(new_browser: Callable[..., Any], product: str) -> None:
    page, other = new_browser(), new_browser()
    with TestDataManager(product) as run:
        client = run.client()
        real = page.goto

        def used_up(link: str) -> Any:
            other.goto(link)
            return real(link)

        page.goto = used_up
        with pytest.raises(errors.UnexpectedAnswer) as caught:
            run.sign_in(page, client)
        assert "404" in str(caught.value)
