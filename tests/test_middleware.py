"""Requests of the product that carry a pass, and all the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core import mail
from django.core.cache import cache
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import path

from stagehand_testdata.context import CurrentRun, current_run, use_run
from stagehand_testdata.exceptions import OutboundRefused, TestRunTouchedRealRow
from stagehand_testdata.middleware import test_run_middleware
from stagehand_testdata.models import Message, TestEntity, TestRun
from stagehand_testdata.operations import passes, runs
from tests.guarding import guards_up, on_postgresql
from tests.host.models import Label
from tests.mailing import OURS, host_mails_through, postbox
from tests.making import TEST_ID, perform

R = TypeVar("R")

OTHER = "stagehand_test_other"


def token_of(test_id: str) -> str:
    perform(lambda call: call.create("voucher"), test_id=test_id)
    return passes.issue(runs.find(test_id, "")).token


def seen() -> str:
    run = current_run()
    return run.test_id if run else "nobody"


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(seen())


async def async_view(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(f"{seen()} {await sync_to_async(seen)()}")


def request(**headers: str) -> HttpRequest:
    return RequestFactory().get("/", headers=headers)


def answer(get_response: Callable[[HttpRequest], Any], **headers: str) -> Any:
    return test_run_middleware(get_response)(request(**headers))


@pytest.mark.django_db
class TestARequest:
    def test_with_a_pass_in_the_header_is_under_its_run(self) -> None:
        response = answer(view, **{"X-Testdata-Pass": token_of(TEST_ID)})
        assert response.content.decode() == response.headers["X-Testdata-Run"] == TEST_ID
        assert current_run() is None

    def test_with_a_pass_in_a_cookie_is_under_its_run(self) -> None:
        response = answer(view, Cookie=f"theme=dark; testdata_pass={token_of(TEST_ID)}; other=1")
        assert response.content.decode() == TEST_ID

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"X-Test-ID": TEST_ID},
            {"X-Testdata-Pass": TEST_ID},
            {"X-Testdata-Pass": ""},
            {"Cookie": "testdata_pass"},
            {"Cookie": f"testdata_pass={TEST_ID}"},
            {"Cookie": "theme=testdata_pass"},
        ],
    )
    def test_without_one_that_counts_is_an_ordinary_request(self, headers: dict[str, str]) -> None:
        token_of(TEST_ID)
        response = answer(view, **headers)
        assert response.content == b"nobody"
        assert dict(response.headers) == dict(view(request()).headers)

    def test_that_fails_leaves_no_run_behind(self) -> None:
        def broken(request: HttpRequest) -> HttpResponse:
            raise RuntimeError(seen())

        with pytest.raises(RuntimeError, match=TEST_ID):
            answer(broken, **{"X-Testdata-Pass": token_of(TEST_ID)})
        assert current_run() is None

    def test_is_kept_by_no_cache_on_the_way(self) -> None:
        def cached(request: HttpRequest) -> HttpResponse:
            return HttpResponse(headers={"Cache-Control": "public, max-age=600"})

        kept = answer(cached, **{"X-Testdata-Pass": token_of(TEST_ID)}).headers["Cache-Control"]
        assert {"private", "no-store"} <= set(kept.split(", "))
        assert "public" not in kept

    def test_writes_to_its_inbox_and_to_nobody_else(self) -> None:
        def writes(request: HttpRequest) -> HttpResponse:
            return HttpResponse(mail.send_mail("Welcome", "Code 123456", None, [request.headers["X-To"]]))

        token = token_of(TEST_ID)
        with postbox() as box, host_mails_through(OURS, box):
            answer(writes, **{"X-Testdata-Pass": token, "X-To": "anybody@example.com"})
            assert [each.subject for each in Message.objects.filter(run__test_id=TEST_ID)] == ["Welcome"]
            with pytest.raises(OutboundRefused):
                answer(writes, **{"X-Testdata-Pass": token, "X-To": "somebody@shop.com"})
            assert box.received == []
            answer(writes, **{"X-To": "somebody@shop.com"})
            assert len(box.received) == 1

    def test_streams_its_body_under_the_run_and_nothing_else(self) -> None:
        def streaming(request: HttpRequest) -> StreamingHttpResponse:
            return StreamingHttpResponse(seen() for _ in range(3))

        parts = []
        for part in answer(streaming, **{"X-Testdata-Pass": token_of(TEST_ID)}):
            parts.append(part.decode())
            assert current_run() is None
        assert parts == [TEST_ID] * 3

    def test_whose_stream_is_given_up_closes_it(self) -> None:
        closed = []

        def body() -> Iterator[str]:
            try:
                yield "first"
                yield "second"
            finally:
                closed.append(True)

        response = answer(
            lambda request: StreamingHttpResponse(body()), **{"X-Testdata-Pass": token_of(TEST_ID)}
        )
        next(iter(response))
        response.close()
        assert closed


def in_a_loop(work: Coroutine[Any, Any, R]) -> R:
    """`asyncio.run`, without the connection of the thread in which asgiref lets database work be done."""

    async def main() -> R:
        try:
            return await work
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(main())


@pytest.mark.django_db(transaction=True)
class TestAnAsyncRequest:
    @staticmethod
    async def answer(get_response: Callable[[HttpRequest], Any], **headers: str) -> Any:
        middleware = test_run_middleware(get_response)
        assert iscoroutinefunction(middleware)
        return await middleware(AsyncRequestFactory().get("/", headers=headers))  # type: ignore[misc]

    def test_with_a_pass_is_under_its_run_in_threads_too(self) -> None:
        token = token_of(TEST_ID)
        response = in_a_loop(self.answer(async_view, **{"X-Testdata-Pass": token}))
        assert response.content.decode() == f"{TEST_ID} {TEST_ID}"

    def test_without_one_is_an_ordinary_request(self) -> None:
        assert in_a_loop(self.answer(async_view)).content == b"nobody nobody"

    def test_streams_its_body_under_the_run(self) -> None:
        async def body() -> AsyncIterator[str]:
            for _ in range(2):
                await asyncio.sleep(0)
                yield seen()

        async def streaming(request: HttpRequest) -> StreamingHttpResponse:
            return StreamingHttpResponse(body())

        async def parts(token: str) -> list[bytes]:
            response = await self.answer(streaming, **{"X-Testdata-Pass": token})
            return [part async for part in response]

        assert in_a_loop(parts(token_of(TEST_ID))) == [TEST_ID.encode()] * 2

    def test_among_64_others_sees_no_run_but_its_own(self) -> None:
        tokens = {None: "", TEST_ID: token_of(TEST_ID), OTHER: token_of(OTHER)}

        async def waits(request: HttpRequest) -> HttpResponse:
            before = seen()
            await asyncio.sleep(0.001)
            return HttpResponse(f"{before} {seen()} {await sync_to_async(seen)()}")

        async def all_of_them() -> list[Any]:
            asked = [*tokens.items()] * 22
            headers = [{"X-Testdata-Pass": token} if name else {} for name, token in asked]
            answers = await asyncio.gather(*(self.answer(waits, **each) for each in headers))
            return list(zip([name or "nobody" for name, _ in asked], answers, strict=True))

        for name, response in in_a_loop(all_of_them()):
            assert response.content.decode() == f"{name} {name} {name}"


def test_threads_that_serve_in_turns_see_no_run_but_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    admitted = {"one": CurrentRun(1, "one"), "two": CurrentRun(2, "two")}
    monkeypatch.setattr(passes, "admit", admitted.get)
    together = threading.Barrier(4)

    def waits(request: HttpRequest) -> HttpResponse:
        before = seen()
        together.wait(10)
        return HttpResponse(f"{before} {seen()}")

    def ask(token: str) -> tuple[str, str]:
        headers = {"X-Testdata-Pass": token} if token else {}
        return token or "nobody", answer(waits, **headers).content.decode()

    with ThreadPoolExecutor(4) as pool:
        for expected, found in pool.map(ask, ["one", "", "two", ""] * 16):
            assert found == f"{expected} {expected}"


@pytest.mark.django_db
class TestTheHostProduct:
    def test_answers_under_the_run_and_says_so(self) -> None:
        token = token_of(TEST_ID)
        assert Client(headers={"X-Testdata-Pass": token}).get("/").headers["X-Testdata-Run"] == TEST_ID
        assert "X-Testdata-Run" not in Client().get("/").headers

    def test_answers_under_asgi_too(self) -> None:
        headers = {"X-Testdata-Pass": token_of(TEST_ID)}
        response = async_to_sync(AsyncClient().get)("/", headers=headers)
        assert response.headers["X-Testdata-Run"] == TEST_ID

    def test_keeps_in_its_cache_nothing_of_a_run_for_others(self) -> None:
        run = TestRun.objects.get(pk=passes.admit(token_of(TEST_ID)).pk)  # type: ignore[union-attr]
        with use_run(CurrentRun(run.pk, run.test_id)):
            cache.set("page", "the run's")
        assert cache.get("page") is None


REFUSALS = {"fence": TestRunTouchedRealRow, "mail": OutboundRefused, "bug": ZeroDivisionError}


def refused(request: HttpRequest) -> HttpResponse:
    raise REFUSALS[request.GET["by"]]


def write(request: HttpRequest) -> HttpResponse:
    """The product's own code, as it is: it knows nothing of runs."""
    text = request.GET["text"]
    with transaction.atomic():
        Label.objects.bulk_create([Label(text=f"{text} one"), Label(text=f"{text} two")])
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO host_label (text) VALUES (%s)", [f"{text} three"])
    return HttpResponse(text)


async def write_async(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return await sync_to_async(write)(request)


urlpatterns = [path("refused", refused), path("write", write), path("write-async", write_async)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.urls(__name__)
class TestWhatRequestsWrite:
    @pytest.fixture(autouse=True)
    def up(self, db: None) -> Iterator[None]:
        with guards_up():
            yield

    @pytest.fixture(params=[False, True], ids=["autocommit", "ATOMIC_REQUESTS"])
    def atomic_requests(self, request: Any) -> Iterator[None]:
        connection.settings_dict["ATOMIC_REQUESTS"] = request.param
        yield
        connection.settings_dict["ATOMIC_REQUESTS"] = False

    def test_is_their_runs_where_they_carry_a_pass_and_nobodys_otherwise(self, atomic_requests: None) -> None:
        tokens = self.tokens()
        for number in range(6):
            self.ask(Client().get, "/write", number, tokens)
        self.each_run_has_its_own(6)

    @on_postgresql
    def test_is_in_no_other_run_with_64_of_them_on_8_threads(self, atomic_requests: None) -> None:
        tokens = self.tokens()

        def work(number: int) -> None:
            try:
                self.ask(Client().get, "/write", number, tokens)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(64)))
        self.each_run_has_its_own(64)

    def test_is_in_no_other_run_with_64_of_them_in_one_loop(self) -> None:
        tokens = self.tokens()

        async def all_of_them() -> None:
            client = AsyncClient()
            await asyncio.gather(
                *(self.ask(client.get, "/write-async", number, tokens) for number in range(64))
            )

        in_a_loop(all_of_them())
        self.each_run_has_its_own(64)

    @staticmethod
    def tokens() -> list[tuple[str, str]]:
        return [(TEST_ID, token_of(TEST_ID)), ("nobody", ""), (OTHER, token_of(OTHER))]

    @staticmethod
    def ask(get: Any, url: str, number: int, tokens: list[tuple[str, str]]) -> Any:
        whose, token = tokens[number % 3]
        headers = {"X-Testdata-Pass": token} if token else {}
        return get(url, {"text": f"{whose} {number}"}, headers=headers)

    @staticmethod
    def each_run_has_its_own(requests: int) -> None:
        assert Label.objects.count() == 3 * requests
        for test_id in (TEST_ID, OTHER):
            own = Label.objects.filter(text__startswith=f"{test_id} ").values_list("pk", flat=True)
            entries = TestEntity.objects.of_model(Label).filter(run__test_id=test_id)
            assert own
            assert sorted(entries.values_list("key_bigint", flat=True)) == sorted(own)
        of_runs = Label.objects.exclude(text__startswith="nobody")
        assert TestEntity.objects.of_model(Label).count() == of_runs.count()


@pytest.mark.django_db
@pytest.mark.urls(__name__)
class TestWhatARunMayNotDo:
    @pytest.mark.parametrize(("by", "code"), [("fence", "real_row_touched"), ("mail", "outbound_refused")])
    def test_is_answered_with_its_code(self, by: str, code: str) -> None:
        headers = {"X-Testdata-Pass": token_of(TEST_ID)}
        for get in (Client().get, async_to_sync(AsyncClient().get)):
            response: Any = get("/refused", {"by": by}, headers=headers)
            assert (response.status_code, response.json()["code"]) == (409, code)
            assert response.json()["error"] == response.json()["message"]
            assert response.headers["X-Testdata-Run"] == TEST_ID

    def test_is_the_products_own_affair_otherwise(self) -> None:
        headers = {"X-Testdata-Pass": token_of(TEST_ID)}
        with pytest.raises(ZeroDivisionError):
            Client(headers=headers).get("/refused", {"by": "bug"})
        with pytest.raises(TestRunTouchedRealRow):
            Client().get("/refused", {"by": "fence"})
