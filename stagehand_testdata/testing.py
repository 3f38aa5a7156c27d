"""The client without a server, for Django tests: its requests are answered in this very process.

The views are called as they are, on the test's own connection and in its transaction. No socket, none of the
host's middleware, no key, and the gate is open for the call: the database is a test's.
"""

from __future__ import annotations

from typing import Any

import httpx
from django.test import RequestFactory, override_settings
from django.urls import NoReverseMatch, get_resolver, reverse

from .client import TestDataManager
from .conf import raw, settings

URL = "http://testserver"
_URLS = "stagehand_testdata.urls"
_ROUTE = "verify-access"


class InProcess(httpx.BaseTransport):
    """Calls the API's views; the host's URLs may include them or not."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        urls = None if _mounted_at() is not None else _URLS
        asked = RequestFactory().generic(
            request.method,
            request.url.raw_path.decode("ascii"),
            request.read(),
            content_type="application/json",
            headers={name: value for name, value in request.headers.items() if name != "host"},
        )
        if urls is not None:
            # What makes a link of this request looks there too.
            asked.urlconf = urls
        asked.resolver_match = found = get_resolver(urls).resolve(asked.path_info)
        opened = {**raw(), "ENABLED": True, "REQUIRE_ACCESS_KEY": False}
        with override_settings(STAGEHAND_TESTDATA=opened):
            answer = found.func(asked, *found.args, **found.kwargs)
            if hasattr(answer, "render"):
                answer.render()
        return httpx.Response(answer.status_code, headers=list(answer.items()), content=answer.content)


def in_process(**options: Any) -> TestDataManager:
    """A run on the test's own database. The test has to have one, and calls `cleanup` itself.

    Nothing renews it: a heartbeat's thread would have a connection of its own.
    """
    return TestDataManager(
        URL,
        api_path=_mounted_at() or "",
        prefix=settings.TEST_ID_PREFIX,
        transport=InProcess(),
        key="",
        keep=True,
        **options,
    )


def _mounted_at() -> str | None:
    """Where the host's URLs include the API's; None where they do not."""
    try:
        return reverse(f"stagehand_testdata:{_ROUTE}").removesuffix(f"/{_ROUTE}")
    except NoReverseMatch:
        return None
