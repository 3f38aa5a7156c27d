"""What every test may use: a client that speaks the wire, and the host's tables counted."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from django.apps import apps
from django.test import Client

_numbers = count(1)

AUDIT = "stagehand_testdata_auditentry"


def pytest_configure() -> None:
    """A shell's job in the background ignores Ctrl-C, and so would every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _quick_flush() -> Iterator[None]:
    """Rows are deleted where there are any: PostgreSQL takes longer to truncate all than for most tests."""
    from django.db import connection

    if connection.vendor != "postgresql":
        yield
        return
    truncating = connection.ops.sql_flush

    def deleting(style: Any, tables: Any, *, reset_sequences: bool = False, **options: Any) -> list[str]:
        if reset_sequences or not tables:
            return truncating(style, tables, reset_sequences=reset_sequences, **options)
        found = " UNION ALL ".join(f"(SELECT '{table}' FROM \"{table}\" LIMIT 1)" for table in tables)
        with connection.cursor() as cursor:
            cursor.execute(found)
            filled = [table for (table,) in cursor.fetchall()]
        # The audit's rows go by TRUNCATE alone.
        return [f'{"TRUNCATE" if table == AUDIT else "DELETE FROM"} "{table}"' for table in sorted(filled)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(connection.ops), "sql_flush", lambda _, *args, **kwargs: deleting(*args, **kwargs))
        yield


@pytest.fixture(autouse=True)
def _fresh_caches() -> Iterator[None]:
    """Neither a registry built under one test's settings nor the requests it counted are the next one's."""
    from django.core.cache import cache

    from stagehand_testdata.registry import load_registry

    cache.clear()
    load_registry.cache_clear()
    yield
    load_registry.cache_clear()


class Wire:
    """One test's client: posts JSON under its own test id."""

    def __init__(self, test_id: str) -> None:
        self.test_id = test_id
        self.client = Client(raise_request_exception=False)

    def send(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> Any:
        data = raw if raw is not None else (b"" if body is None else json.dumps(body).encode())
        sent = {"X-Test-ID": self.test_id, **headers}
        return self.client.generic(
            method.upper(),
            f"/api/test/{path}",
            data,
            content_type="application/json",
            headers={name: value for name, value in sent.items() if value is not None},
        )

    def post(self, path: str, body: Any = None, **kwargs: Any) -> Any:
        return self.send("post", path, {} if body is None else body, **kwargs)

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.send("get", path, **kwargs)

    def make(self, path: str, body: Any = None) -> Any:
        """The answer of a creation that must succeed."""
        response = self.post(path, body)
        assert response.status_code == 201, response.content
        return response.json()

    def entity(self, type_name: str, **fields: Any) -> Any:
        return self.make(f"entities/{type_name}", {"fields": fields})

    def cleanup(self, status: int = 200, **body: Any) -> Any:
        response = self.post("cleanup", body)
        assert response.status_code == status, response.content
        return response.json()


@pytest.fixture
def new_wire() -> Callable[[], Wire]:
    return lambda: Wire(f"stagehand_test_t{next(_numbers)}")


@pytest.fixture
def wire(new_wire: Callable[[], Wire], db: None) -> Wire:
    return new_wire()


def host_counts() -> dict[str, int]:
    """How many rows each table of the host has; the ledger's own are left out."""
    return {
        model._meta.label: model._base_manager.count()
        for model in apps.get_models(include_auto_created=True)
        if model._meta.app_label != "stagehand_testdata" and not model._meta.proxy
    }


@pytest.fixture
def unchanged_host(db: None) -> Iterator[None]:
    """The test must leave as many rows in each of the host's tables as it found."""
    before = host_counts()
    yield
    assert host_counts() == before


def error_of(response: Any) -> tuple[int, str]:
    """(status, code) of an error, once its shape is checked."""
    body = response.json()
    assert body["error"] == body["message"]
    assert body["message"]
    return response.status_code, body["code"]


@pytest.fixture
def product(live_server: Any) -> Iterator[str]:
    """Where the product answers, with its guards up and the real rows of a product in use."""
    from project.seed import seed
    from tests.guarding import guards_up

    with guards_up():
        seed()
        yield str(live_server.url)
