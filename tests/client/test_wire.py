"""Lost answers, 429, 503 and worse, between a real server and a client: one effect, or a clear error."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import time
from typing import Any

import httpx
import pytest
from _pytest._io.saferepr import saferepr
from django.db import OperationalError

from stagehand_testdata.access import keys
from stagehand_testdata.client import TestDataManager, errors
from stagehand_testdata.client.retries import NEVER, Retries
from stagehand_testdata.marketplace.models import Builder
from stagehand_testdata.models import TestEntity

from .conftest import Road

QUICK = Retries(first=0.01, cap=0.02)


class TestALostAnswer:
    @pytest.mark.parametrize("lost", [1, 3])
    def test_has_one_effect(self, road: Road, lost: int) -> None:
        before = Builder._base_manager.count()
        with TestDataManager(road.url, retries=QUICK) as run:
            road.lose = lost
            builder = run.builder(name="Grace")
            assert Builder._base_manager.count() == before + 1
            assert TestEntity.objects.get(type="builder").key_text == builder.id
            road.lose = lost
            assert len(run.create("product", count=3)) == 3
            assert TestEntity.objects.filter(type="product").count() == 3
            road.lose = lost
        assert TestEntity.objects.standing().count() == 0
        sent = [headers["Idempotency-Key"] for _, path, headers in road.seen if path.endswith("/builders")]
        assert len(sent) == lost + 1
        assert len(set(sent)) == 1

    def test_of_the_opening_leaves_no_run_that_nobody_ends(self, road: Road) -> None:
        road.lose = 1
        with pytest.raises(errors.AnswerLost), TestDataManager(road.url, retries=NEVER):
            pytest.fail("the answer was lost")
        from stagehand_testdata.models import TestRun

        assert TestRun.objects.get().state == "closed"

    def test_of_a_session_is_told_and_not_asked_for_again(self, road: Road) -> None:
        """It takes no key, and a second session would be a second effect."""
        with TestDataManager(road.url, retries=QUICK) as run:
            client = run.client()
            road.lose = 1
            with pytest.raises(errors.AnswerLost) as caught:
                run.session(client)
            assert caught.value.code == "answer_lost"
            assert sum(path.endswith("/sessions") for _, path, _ in road.seen) == 1


class TestAnAnswerThatSaysLater:
    def test_of_a_proxy_is_tried_again(self, road: Road) -> None:
        with TestDataManager(road.url, retries=QUICK) as run:
            road.instead = [(503, {}), (502, {}), (504, {}), (429, {"Retry-After": "0"})]
            run.builder()
            assert not road.instead
            assert TestEntity.objects.filter(type="builder").count() == 1

    def test_of_a_proxy_says_nothing_of_what_takes_no_key(self, road: Road) -> None:
        with TestDataManager(road.url, retries=QUICK) as run:
            client = run.client()
            road.instead = [(503, {})]
            with pytest.raises(errors.UnexpectedAnswer):
                run.session(client)

    def test_is_waited_for_as_long_as_it_says_up_to_a_limit(self, road: Road) -> None:
        with TestDataManager(road.url, retries=Retries(first=0.01, cap=0.01, longest=0.5)) as run:
            road.instead = [(429, {"Retry-After": "3600"}), (503, {"Retry-After": "0.3"})]
            started = time.monotonic()
            run.builder()
            assert 0.8 <= time.monotonic() - started < 5

    def test_of_the_server_itself_is_tried_again(self, road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
        from stagehand_testdata.operations import scenarios

        real, failures = scenarios.run_operation, [1, 2]

        def failing(*arguments: Any) -> Any:
            if failures:
                failures.pop()
                raise OperationalError("the database is away")
            return real(*arguments)

        monkeypatch.setattr(scenarios, "run_operation", failing)
        with TestDataManager(road.url) as run:
            started = time.monotonic()
            run.builder()
            assert time.monotonic() - started >= 2  # Retry-After: 1, twice
            assert TestEntity.objects.filter(type="builder").count() == 1

    def test_too_often_is_an_error_in_the_servers_words(self, road: Road, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {
            **settings.STAGEHAND_TESTDATA,
            "REQUIRE_ACCESS_KEY": True,
            "RATE_PER_KEY": "3/m",
        }
        text = keys.create("ci", dt.timedelta(hours=1)).text
        patient = Retries(attempts=2, first=0.01, longest=0.05)
        run = TestDataManager(road.url, key=text, retries=patient, keep=True)
        with pytest.raises(errors.Throttled) as caught:
            for _ in range(5):
                run.runs()
        assert (caught.value.status, caught.value.code) == (429, "throttled")


class TestWhatCannotWork:
    def refused(self, url: str, **options: Any) -> errors.TestDataError:
        with pytest.raises(errors.TestDataError) as caught, TestDataManager(url, retries=NEVER, **options):
            pytest.fail("it was let in")
        return caught.value

    def test_nobody_listens(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            error = self.refused(f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert isinstance(error, errors.ConnectionFailed)
        assert "is it running?" in str(error)

    def test_it_does_not_answer(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            error = self.refused(url, timeout=0.2, keep=True)
        assert isinstance(error, errors.TimedOut)

    def test_another_program_answers(self, product: str) -> None:
        error = self.refused(product, api_path="/marketplace/builders")
        assert isinstance(error, errors.UnexpectedAnswer)
        assert "No API of stagehand_testdata" in str(error)

    def test_it_redirects(self, road: Road) -> None:
        road.instead = [(301, {"Location": "https://shop.example/api/test/verify-access?a=b"})] * 2
        error = self.refused(road.url, key="tdk_secret")
        assert "https://shop.example/api/test/verify-access:" in str(error)
        assert len(road.seen) == 2

    def test_the_gate_is_off(self, product: str, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "ENABLED": False}
        error = self.refused(product)
        assert isinstance(error, errors.GateClosed)
        assert (error.code, error.status) == ("test_mode_disabled", 403)
        assert str(error) == "Test mode is not enabled in this environment"

    def test_the_key_is_wrong(self, product: str, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "REQUIRE_ACCESS_KEY": True}
        assert isinstance(self.refused(product, key="tdk_wrong"), errors.NotAuthenticated)
        assert isinstance(self.refused(product), errors.NotAuthenticated)

    def test_the_fields_at_fault_are_named(self, product: str) -> None:
        with TestDataManager(product) as run:
            with pytest.raises(errors.InvalidRequest) as caught:
                run.create("product", colour="red")
            assert caught.value.details == {"fields.colour": ["Unknown field."]}
            with pytest.raises(errors.NotFound) as caught_too:
                run.create("nothing")
            assert caught_too.value.code == "unknown_type"

    def test_a_run_that_is_over(self, product: str) -> None:
        with TestDataManager(product) as run:
            run.cleanup()
            with pytest.raises(errors.RunClosed):
                run.builder()

    @pytest.mark.parametrize(
        "url", ["", "shop.example", "ftp://shop.example", "http://", "http://shop:port", "http://a.test/?q=1"]
    )
    def test_the_url_is_none(self, url: str) -> None:
        with pytest.raises(errors.Misuse):
            TestDataManager(url)


class TestTheKey:
    def test_is_sent_and_shown_nowhere(
        self, road: Road, settings: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "REQUIRE_ACCESS_KEY": True}
        text = keys.create("ci", dt.timedelta(hours=1)).text
        caplog.set_level(logging.DEBUG)
        with TestDataManager(road.url, key=text, retries=NEVER) as run:
            run.builder()
            road.lose = 1
            with pytest.raises(errors.AnswerLost) as caught:
                run.client()
        assert {headers["Authorization"] for _, _, headers in road.seen} == {f"Bearer {text}"}
        # All frames but this test's own, which knows the key.
        frames = [step.frame.f_locals.values() for step in caught.traceback[1:]]
        shown = [repr(run), repr(run._wire.connection), repr(caught.value), caplog.text, *capfd.readouterr()]
        shown += [repr(value) for values in frames for value in values]
        assert len(shown) > 20
        assert not [each for each in shown if text in each]

    def test_is_taken_from_the_environment(self, road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STAGEHAND_TESTDATA_KEY", "tdk_of_the_environment\n")
        TestDataManager(road.url).runs()
        assert road.seen[0][2]["Authorization"] == "Bearer tdk_of_the_environment"
        TestDataManager(road.url, key="").runs()
        assert "Authorization" not in road.seen[1][2]

    def test_that_no_header_can_carry_is_refused_unseen(self) -> None:
        with pytest.raises(errors.Misuse) as caught:
            TestDataManager("http://127.0.0.1:9", key="tdk_a\nX-Evil: 1")
        assert "tdk_a" not in str(caught.value)
        frames = [step.frame.f_locals.values() for step in caught.traceback[1:]]
        assert not [each for values in frames for each in values if "tdk_a" in saferepr(each)]

    def test_a_password_in_the_url_is_refused_unseen(self) -> None:
        with pytest.raises(errors.Misuse) as caught:
            TestDataManager("https://me:hunter2@shop.example")
        assert "hunter2" not in str(caught.value)


def test_any_transport_of_httpx_will_do() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(
            200, json=[{"name": "a", "model": "b.C", "plural": None, "fields": [], "new": 1}]
        )

    run = TestDataManager("http://shop.example", transport=httpx.MockTransport(answer))
    assert [each.raw["new"] for each in run.entity_types()] == [1]
    assert asked == ["/api/test/entity-types"]


class TestAnOutsideProvidersSignIn:
    """Its link leads elsewhere, so the page gets the pass before it goes there."""

    ANSWER = {
        "testId": "stagehand_test_1",
        "userId": "7",
        "link": "https://idp.example/ticket",
        "linkExpiresAt": "2030-01-01T00:00:00Z",
        "storageState": {"cookies": [{"name": "testdata_pass", "value": "p"}], "origins": []},
        "expiresAt": "2030-01-01T00:00:00Z",
        "identity": {"provider": "Elsewhere", "testingToken": "t-secret"},
    }

    def test_the_page_carries_the_pass_and_goes_to_its_link(self) -> None:
        page = Page()
        transport = httpx.MockTransport(lambda request: httpx.Response(201, json=self.ANSWER))
        opened = TestDataManager("http://shop.example", transport=transport).sign_in(page, "7")
        assert page.done == [("cookies", "testdata_pass"), ("goto", "https://idp.example/ticket")]
        assert opened.identity["testingToken"] == "t-secret"
        assert "secret" not in repr(opened)


class Page:
    """What Playwright is asked, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.context = self

    def add_cookies(self, cookies: Any) -> None:
        self.done += [("cookies", each["name"]) for each in cookies]

    def goto(self, url: str) -> Any:
        self.done.append(("goto", url))
        return httpx.Response(200, request=httpx.Request("GET", url))
