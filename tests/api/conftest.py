"""What the API's tests share: settings changed for one test, every table counted, every route listed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from stagehand_testdata.models import AuditEntry, TestRun

#: Everything that makes something, with a body that succeeds.
CREATING: list[tuple[str, Any]] = [
    ("builders", {}),
    ("clients", {}),
    ("booking-scenarios", {}),
    ("batch", {"builders": 1}),
    ("entities/voucher", {"fields": {"note": "for you"}}),
    ("scenarios/marketplace", {}),
]

#: (method, path) of every route; `{testId}` stands for the run's.
ROUTES = [
    ("post", "verify-access"),
    ("post", "builders"),
    ("post", "session-types"),
    ("post", "clients"),
    ("post", "booking-scenarios"),
    ("post", "cleanup"),
    ("post", "batch"),
    ("get", "runs"),
    ("get", "runs/{testId}"),
    ("patch", "runs/{testId}"),
    ("delete", "runs/{testId}"),
    ("get", "runs/{testId}/entities"),
    ("get", "runs/{testId}/messages"),
    ("get", "runs/{testId}/receipt"),
    ("get", "entity-types"),
    ("post", "entities/voucher"),
    ("post", "scenarios/booking"),
    ("get", "schema"),
    ("get", "docs"),
    ("post", "nonsense"),
]

#: Those that name their run in the header.
NEED_TEST_ID = [path for method, path in ROUTES if method == "post"]


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    """Change these of the app's settings for the test."""

    def change(**changes: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, **changes}

    return change


def all_counts() -> dict[str, int]:
    """How many rows each table has, the ledger's own too; in one query, because it is asked often.

    But for the audit, which has a row for each refusal too: tests/access/test_trail.py.
    """
    models = [
        model
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy and model._meta.managed and model is not AuditEntry
    ]
    quote = connection.ops.quote_name
    counts = [f"SELECT '{each._meta.label}', COUNT(*) FROM {quote(each._meta.db_table)}" for each in models]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(counts))
        return dict(cursor.fetchall())


def only_hosts(counts: dict[str, int]) -> dict[str, int]:
    """The same without the ledger's own tables."""
    return {label: count for label, count in counts.items() if not label.startswith("stagehand_testdata.")}


@contextmanager
def nothing_written() -> Iterator[None]:
    """The block must leave as many rows in every table, the ledger's own too, as it found."""
    before = all_counts()
    yield
    assert all_counts() == before


@pytest.fixture
def untouched(db: None) -> Iterator[None]:
    """The test must write nothing at all."""
    with nothing_written():
        yield


def expire(test_id: str) -> None:
    """Let the run's time be over, as the database's clock has it."""
    past = timezone.now() - dt.timedelta(hours=2)
    changed = TestRun.objects.filter(test_id=test_id).update(
        opened_at=past,
        expires_at=past + dt.timedelta(hours=1),
        latest_end=past + dt.timedelta(hours=24),
    )
    assert changed == 1
    assert TestRun.objects.filter(test_id=test_id, expires_at__lt=Now()).exists()


@contextmanager
def database_away() -> Iterator[None]:
    """Every statement fails as it does where the server is gone."""
    from django.db import OperationalError

    def fail(*args: Any) -> Any:
        raise OperationalError("server closed the connection unexpectedly")

    with connection.execute_wrapper(fail):
        yield
