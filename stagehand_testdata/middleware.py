"""Put the product's own requests under the run whose pass they carry.

# Note [What a tagged answer must not do]
It may show rows that nobody else may see. So no cache on the way may keep it (`no-store`), and a body that is
streamed is made under the run too, though the view has long returned. The product's own caches are for
`isolation.caching`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase, StreamingHttpResponse
from django.utils.cache import patch_cache_control
from django.utils.decorators import sync_and_async_middleware

from .context import CurrentRun, current_run, use_run
from .exceptions import OutboundRefused, RunClosed, TestRunTouchedRealRow
from .operations import passes

logger = logging.getLogger(__name__)

#: What an answer that was made under a run says of it.
RUN_HEADER = "X-Testdata-Run"

GetResponse = Callable[[HttpRequest], Any]

_META, _COOKIE = passes.META, passes.COOKIE


@sync_and_async_middleware
def test_run_middleware(get_response: GetResponse) -> GetResponse:
    """Runs a request under the run of its pass: a header or a cookie. Any other request goes straight on.

    Belongs before whatever asks the database. Where the answer says `X-Testdata-Run`, the pass counted. A
    forged, expired or foreign one makes an ordinary request.
    """
    tagged = _tagged_async if iscoroutinefunction(get_response) else _tagged

    def middleware(request: HttpRequest) -> Any:
        # Every request of the product comes by here: `request.headers` and `request.COOKIES` cost far more.
        meta = request.META
        if _META in meta or _COOKIE in meta.get("HTTP_COOKIE", ""):
            return tagged(get_response, request)
        return get_response(request)

    middleware.process_exception = _answer_refusal  # type: ignore[attr-defined]
    return markcoroutinefunction(middleware) if tagged is _tagged_async else middleware


test_run_middleware.__test__ = False  # type: ignore[attr-defined]


def _tagged(get_response: GetResponse, request: HttpRequest) -> HttpResponseBase:
    run = passes.admit(_token(request))
    if run is None:
        answer: HttpResponseBase = get_response(request)
        return answer
    with use_run(run):
        return _seal(get_response(request), run)


async def _tagged_async(get_response: GetResponse, request: HttpRequest) -> HttpResponseBase:
    run = await sync_to_async(passes.admit)(_token(request))
    if run is None:
        answer: HttpResponseBase = await get_response(request)
        return answer
    with use_run(run):
        return _seal(await get_response(request), run)


def _answer_refusal(request: HttpRequest, error: Exception) -> HttpResponseBase | None:
    """A test learns what it was not allowed to do, and not that the product is broken."""
    if current_run() is None or not isinstance(error, OutboundRefused | RunClosed | TestRunTouchedRealRow):
        return None
    logger.warning("%s", error.message)
    # The shape of every error of the API.
    return JsonResponse({"error": error.message, "message": error.message, "code": error.code}, status=409)


def _token(request: HttpRequest) -> str:
    return str(request.META.get(passes.META) or request.COOKIES.get(passes.COOKIE, ""))


def _seal(response: HttpResponseBase, run: CurrentRun) -> HttpResponseBase:
    """See Note [What a tagged answer must not do]."""
    response.headers[RUN_HEADER] = run.test_id
    patch_cache_control(response, private=True, no_store=True)
    if isinstance(response, StreamingHttpResponse):
        body: Any = response.streaming_content
        response.streaming_content = _under_async(run, body) if response.is_async else _under(run, body)
    return response


def _under(run: CurrentRun, parts: Iterator[bytes]) -> Iterator[bytes]:
    # Not one block around the loop: between two parts the thread may serve somebody else.
    while True:
        with use_run(run):
            part = next(parts, None)
        if part is None:
            return
        yield part


async def _under_async(run: CurrentRun, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while True:
        with use_run(run):
            part = await anext(parts, None)
        if part is None:
            return
        yield part
