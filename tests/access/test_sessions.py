"""Sessions that a run's users open in the product itself: noted, and ended with the run."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.views import LoginView
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from stagehand_testdata.access import sessions
from stagehand_testdata.models import RunSession, TestRun
from stagehand_testdata.operations import passes, runs
from stagehand_testdata.operations.purge import purge
from tests.making import TEST_ID, perform

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

User = get_user_model()


def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username() or "nobody")


urlpatterns = [path("login/", LoginView.as_view(next_page="/who/")), path("who/", who)]


@pytest.fixture
def user() -> Any:
    return perform(lambda call: call.create("user"))


@pytest.fixture
def real() -> Any:
    return User.objects.create_user("real", "real@shop.example", "secret")


def run() -> TestRun:
    return runs.find(TEST_ID, "")


def log_in(user: Any, *, under_a_pass: bool = False) -> tuple[Client, Any]:
    """By the product's own form."""
    browser = Client()
    if under_a_pass:
        browser.cookies[passes.COOKIE] = passes.issue(run()).token
    return browser, browser.post("/login/", {"username": user.username, "password": "secret"})


def name(browser: Client) -> str:
    return browser.get("/who/").content.decode()


def end_the_run() -> None:
    TestRun.objects.update(
        opened_at=Now() - dt.timedelta(hours=2), expires_at=Now() - dt.timedelta(seconds=1)
    )


@pytest.mark.parametrize("under_a_pass", [True, False])
def test_a_login_by_the_products_form_is_noted_and_ends_with_the_run(user: Any, under_a_pass: bool) -> None:
    browser, _ = log_in(user, under_a_pass=under_a_pass)
    assert name(browser) == user.username
    known = RunSession.objects.get()
    assert (known.run, known.session_key) == (run(), browser.session.session_key)
    assert known.link_until is None
    purge.purge_run(run())
    assert name(browser) == "nobody"
    assert not Session.objects.exists()
    assert not RunSession.objects.exists()


def test_a_session_counts_until_the_run_ends_though_nobody_purges_it(user: Any) -> None:
    browser, _ = log_in(user)
    stored = Session.objects.get()
    assert abs(stored.expire_date - run().expires_at) < dt.timedelta(seconds=2)
    # As if that moment had come.
    Session.objects.update(expire_date=Now())
    assert name(browser) == "nobody"


def test_a_run_that_is_cut_short_ends_the_sessions_that_would_outlive_it(user: Any) -> None:
    browser, _ = log_in(user)
    with transaction.atomic():
        runs.renew(run(), max_age_minutes=90)
    assert name(browser) == user.username
    with transaction.atomic():
        runs.renew(run(), max_age_minutes=1)
    assert name(browser) == "nobody"


@pytest.mark.parametrize("state", ["closing", "past its end"])
def test_nobody_logs_in_once_the_run_has_ended(user: Any, state: str) -> None:
    if state == "closing":
        TestRun.objects.update(state=TestRun.State.CLOSING)
    else:
        end_the_run()
    browser, answer = log_in(user)
    assert answer.status_code == 403
    assert name(browser) == "nobody"
    assert not RunSession.objects.exists()


def test_a_real_login_is_none_of_ours(real: Any, user: Any, django_assert_num_queries: Any) -> None:
    browser, _ = log_in(real)
    assert name(browser) == "real"
    assert not RunSession.objects.exists()
    # Two weeks, as the product has it.
    assert Session.objects.get().expire_date > run().latest_end
    with django_assert_num_queries(1):
        sessions.note_login(User, HttpRequest(), real)
    purge.purge_run(run())
    assert name(browser) == "real"


def test_a_real_account_under_a_recycled_key_logs_in_as_ever(user: Any) -> None:
    joined = user.date_joined - dt.timedelta(days=300)
    User.objects.filter(pk=user.pk).update(username="real", date_joined=joined)
    end_the_run()
    browser, _ = log_in(User.objects.get(pk=user.pk))
    assert name(browser) == "real"
    assert not RunSession.objects.exists()


def test_revoking_ends_the_runs_sessions_and_no_others(user: Any, real: Any) -> None:
    other_user = perform(lambda call: call.create("user"), "stagehand_test_other")
    mine, _ = log_in(user)
    others, _ = log_in(other_user)
    reals, _ = log_in(real)
    with transaction.atomic():
        sessions.revoke(run())
    assert [name(each) for each in (mine, others, reals)] == ["nobody", other_user.username, "real"]


def test_revoking_that_is_rolled_back_leaves_the_books_as_they_were(user: Any) -> None:
    log_in(user)
    with transaction.atomic():
        sessions.revoke(run())
        transaction.set_rollback(True)
    assert RunSession.objects.exists()
    assert Session.objects.exists()


@pytest.mark.parametrize("under_a_pass", [True, False])
def test_a_session_in_a_cache_is_found_under_the_runs_keys_and_under_everybodys(
    user: Any, under_a_pass: bool
) -> None:
    cache.clear()
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache"):
        browser, _ = log_in(user, under_a_pass=under_a_pass)
        assert name(browser) == user.username
        purge.purge_run(run())
        assert name(browser) == "nobody"
    assert not cache._cache  # type: ignore[attr-defined]


def test_a_cache_that_is_down_does_not_stop_a_purge(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("the cache is down")

    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache"):
        log_in(user)
        monkeypatch.setattr("django.contrib.sessions.backends.cache.SessionStore.delete", fail)
        assert purge.purge_run(run()).success
    assert not User.objects.filter(pk=user.pk).exists()


def test_a_clean_up_of_one_account_ends_its_sessions_and_the_run_goes_on(user: Any) -> None:
    other_user = perform(lambda call: call.create("user"))
    browser, _ = log_in(user)
    other, _ = log_in(other_user)
    purge.clean_up(TEST_ID, "", [("auth.user", str(user.pk)), ("user", str(user.pk))])
    assert run().state == TestRun.State.OPEN
    assert name(browser) == "nobody"
    assert name(other) == other_user.username
    assert [each.user_key for each in RunSession.objects.all()] == [str(other_user.pk)]


def test_in_cookies_a_session_is_not_noted_and_dies_with_its_account(user: Any) -> None:
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        browser, _ = log_in(user)
        assert name(browser) == user.username
        assert not RunSession.objects.exists()
        purge.purge_run(run())
        assert name(browser) == "nobody"
