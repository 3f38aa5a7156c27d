"""Accounts of a run that cannot be removed: nobody signs in as one any more."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.test import Client

from stagehand_testdata.marketplace.models import Client as MarketClient
from stagehand_testdata.operations import runs
from stagehand_testdata.operations.purge import purge
from tests.making import TEST_ID, perform

pytestmark = pytest.mark.django_db

User = get_user_model()


@pytest.fixture
def held() -> Any:
    """An account that a real row points at."""
    user = perform(lambda call: call.create("user"))
    MarketClient.objects.create(user=user, display_name="real")
    return user


def clean_up() -> Any:
    return purge.purge_run(runs.find(TEST_ID, ""))


def test_an_account_that_stays_lets_nobody_in(held: Any) -> None:
    browser = Client()
    browser.force_login(held)
    assert "_auth_user_id" in browser.session
    assert authenticate(username=held.username, password="secret") == held

    outcome = clean_up()
    assert not outcome.success
    held.refresh_from_db()
    assert not held.is_active
    assert not held.has_usable_password()
    assert authenticate(username=held.username, password="secret") is None
    assert "Signed in" not in browser.get("/marketplace/builders").content.decode()


def test_it_goes_with_the_next_purge_once_nothing_holds_it(held: Any) -> None:
    clean_up()
    MarketClient.objects.all().delete()
    assert clean_up().success
    assert not User.objects.filter(pk=held.pk).exists()


def test_a_real_account_under_the_key_of_one_is_left_as_it_is(held: Any) -> None:
    other = perform(lambda call: call.create("user"))
    MarketClient.objects.create(user=other, display_name="real")
    joined = held.date_joined.replace(year=2001)
    User.objects.filter(pk=held.pk).update(username="real", date_joined=joined)
    before = User.objects.values().get(pk=held.pk)
    reasons = {each["reason"] for each in clean_up().receipt["quarantined"]}
    assert reasons == {"not_the_row_we_made", "referenced"}
    assert User.objects.values().get(pk=held.pk) == before
    other.refresh_from_db()
    assert not other.is_active
