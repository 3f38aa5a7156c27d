"""How tests put up the guards, wake them, and look at what they refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management.color import no_style
from django.db import IntegrityError, connection, models, transaction

from stagehand_testdata.databases import database
from stagehand_testdata.models import AuditEntry, TestEntity, TestRun
from stagehand_testdata.operations import guards
from stagehand_testdata.operations.purge.graph import look_at_tables
from tests.making import TEST_ID

ALIAS = "default"


@contextmanager
def guards_up() -> Iterator[None]:
    """Committed, so not within a test's own transaction."""
    guards.install(ALIAS)
    try:
        yield
    finally:
        guards.remove(ALIAS)
        look_at_tables()
        forget_the_audit()


def forget_the_audit() -> None:
    """What was committed outside of any test; others count the audit's rows."""
    connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), [AuditEntry._meta.db_table]))


@pytest.fixture(scope="module")
def guarded(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), guards_up():
        yield


@contextmanager
def purging(test_id: str = TEST_ID) -> Iterator[None]:
    run = TestRun.objects.get(test_id=test_id)
    with transaction.atomic(), database(ALIAS).purging(run.pk):
        yield


@contextmanager
def refused() -> Iterator[None]:
    """The guards stop what is done within the block."""
    with pytest.raises(IntegrityError, match="stagehand guard"), transaction.atomic():
        yield


def sql(statement: str, params: list[Any] | None = None) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def verb(statement: str) -> str:
    """What a statement that was captured begins with, its tags aside."""
    return re.sub(r"\A(/\*stagehand [^*]*\*/ )+", "", statement).split(None, 1)[0].upper()


def remove_row(row: models.Model) -> int:
    """One DELETE, as the database sees it: no collector, no signal."""
    count: int = models.QuerySet(type(row)).filter(pk=row.pk)._raw_delete(ALIAS)
    return count


def state_of(row: models.Model, key: Any = None) -> str:
    entry = TestEntity.objects.for_keys(type(row), [key if key is not None else row.pk]).get()
    assert (entry.tombstone == 0) is (entry.removed_at is None)
    return entry.state


on_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's own")
on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's own")
on_mariadb = pytest.mark.skipif(connection.vendor != "mysql", reason="MariaDB's own")
#: For tests that put up guards by themselves.
changes_tables = pytest.mark.django_db(transaction=connection.vendor == "mysql")
#: Where a test may change tables within its transaction.
transactional_ddl = pytest.mark.skipif(connection.vendor == "mysql", reason="MariaDB commits at each DDL")
