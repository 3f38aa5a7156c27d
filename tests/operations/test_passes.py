"""What a pass proves, and when it proves nothing any more."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.core import signing
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext, override_settings

from stagehand_testdata.context import CurrentRun
from stagehand_testdata.exceptions import InvalidPass, RunClosed, TooOld
from stagehand_testdata.models import TestRun
from stagehand_testdata.operations import passes, runs
from stagehand_testdata.operations.purge import purge
from tests.conftest import Wire
from tests.making import TEST_ID, changed, perform

OTHER = "stagehand_test_other"

pytestmark = pytest.mark.django_db


@pytest.fixture
def run() -> TestRun:
    perform(lambda call: call.create("voucher"))
    return runs.find(TEST_ID, "")


@pytest.fixture
def token(run: TestRun) -> str:
    return passes.issue(run).token


def let_pass(run: TestRun, **changes: Any) -> None:
    TestRun.objects.filter(pk=run.pk).update(**changes)


class TestAPass:
    def test_names_its_run(self, run: TestRun, token: str) -> None:
        assert passes.admit(token) == CurrentRun(run.pk, TEST_ID, captured=True, fenced=True)
        passes.require(token, TEST_ID)
        passes.require(token, None)

    def test_counts_for_an_hour_and_never_past_the_end_of_its_run(self, run: TestRun) -> None:
        with changed(PASS_MINUTES=10):
            until = passes.issue(run).expires_at
        assert until - run.now == dt.timedelta(minutes=10)  # type: ignore[attr-defined]
        with changed(PASS_MINUTES=10_000):
            assert passes.issue(run).expires_at == run.expires_at

    def test_counts_on_a_host_without_time_zones(self, settings: Any, wire: Wire) -> None:
        settings.USE_TZ = False
        user = wire.make("clients")["userId"]
        answer = wire.post(f"runs/{wire.test_id}/pass")
        assert answer.status_code == 201, answer.content
        found = passes.admit(answer.json()["token"])
        assert found is not None
        assert found.test_id == wire.test_id
        assert wire.post(f"runs/{wire.test_id}/sessions", {"userId": user}).status_code == 201
        assert wire.cleanup()["success"]

    def test_expires_by_the_ledgers_clock_though_its_run_goes_on(self, run: TestRun) -> None:
        with changed(PASS_MINUTES=1e-9):
            token = passes.issue(run).token
        assert passes.admit(token) is None

    def test_ends_with_its_run(self, run: TestRun, token: str) -> None:
        let_pass(run, opened_at=Now() - dt.timedelta(hours=2), expires_at=Now() - dt.timedelta(seconds=1))
        assert passes.admit(token) is None
        with pytest.raises(TooOld):
            passes.issue(runs.find(TEST_ID, ""))

    def test_is_worth_nothing_once_the_run_is_closed(self, run: TestRun, token: str) -> None:
        assert purge.purge_run(run).success
        assert passes.admit(token) is None
        with pytest.raises(InvalidPass, match="expired, or its run has ended"):
            passes.require(token, TEST_ID)
        with pytest.raises(RunClosed):
            passes.issue(runs.find(TEST_ID, ""))

    def test_does_not_count_while_the_gate_is_closed(self, token: str) -> None:
        with changed(ENABLED=False):
            assert passes.admit(token) is None
        assert passes.admit(token) is not None

    def test_that_is_handed_on_counts_until_the_run_ends(self, run: TestRun) -> None:
        with changed(PASS_MINUTES=1e-9):
            token = passes.hand_on(CurrentRun(run.pk, TEST_ID))
        assert passes.admit(token) == CurrentRun(run.pk, TEST_ID, captured=True, fenced=True)
        assert purge.purge_run(run).success
        assert passes.admit(token) is None

    def test_of_another_run_is_told_apart(self, token: str) -> None:
        with pytest.raises(InvalidPass, match="another run"):
            passes.require(token, OTHER)

    def test_of_a_product_with_the_same_key_and_another_environment_is_forged(self, token: str) -> None:
        with changed(ENVIRONMENT="staging"):
            assert passes.admit(token) is None

    def test_of_an_earlier_key_counts_as_long_as_django_takes_that_key(self, token: str) -> None:
        from django.conf import settings

        with override_settings(SECRET_KEY="new"):
            assert passes.admit(token) is None
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            assert passes.admit(token) is not None


def forgeries(token: str, run: TestRun) -> dict[str, str]:
    salt = "stagehand_testdata.pass:test"
    return {
        "empty": "",
        "the bare test id": TEST_ID,
        "truncated": token[:-1],
        "tampered": token.replace(token[0], "A" if token[0] != "A" else "B", 1),
        "no text": "\x00\udcff:\n",
        "very long": token + "A" * 100_000,
        "of another salt": signing.dumps([run.pk, TEST_ID, None], salt="other"),
        "of another key": signing.dumps([run.pk, TEST_ID, None], key="other", salt=salt),
        "of no shape": signing.dumps([run.pk], salt=salt),
        "of no run": signing.dumps([run.pk + 1, TEST_ID, None], salt=salt),
        "of another test id": signing.dumps([run.pk, OTHER, None], salt=salt),
    }


@pytest.mark.parametrize("kind", forgeries("abc", TestRun(pk=1)))
def test_a_forged_pass_counts_for_nothing(run: TestRun, token: str, kind: str) -> None:
    forged = forgeries(token, run)[kind]
    assert passes.admit(forged) is None
    with pytest.raises(InvalidPass):
        passes.require(forged, None)


def test_a_forged_pass_costs_no_query_and_a_good_one_costs_one(token: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        passes.admit(token[:-1])
    assert not queries.captured_queries
    with CaptureQueriesContext(connection) as queries:
        passes.admit(token)
    assert len(queries.captured_queries) == 1
