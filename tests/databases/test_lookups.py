"""The entry of a row is found by its key, however little the database knows of the ledger as yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.db.models import Exists

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.models import TestEntity, TestRun, entries_of_outer_row
from stagehand_testdata.operations import runs
from tests.guarding import (
    guarded,  # noqa: F401 - a fixture
    on_postgresql,
    on_sqlite,
    purging,
    sql,
)
from tests.host.models import Author, Person, Voucher
from tests.making import TEST_ID

pytestmark = pytest.mark.django_db

ROWS = 300

MAKERS: dict[str, Callable[[int], Any]] = {
    "integer": lambda n: Person(name=f"person {n}"),
    "uuid": lambda n: Author(name=f"author {n}"),
    "text": lambda n: Voucher(code=f"code {n}"),
}


@pytest.fixture(params=list(MAKERS))
def maker(request: pytest.FixtureRequest) -> Callable[[int], Any]:
    return MAKERS[request.param]


@pytest.fixture
def run(db: None) -> CurrentRun:
    with transaction.atomic():
        return current(runs.open_or_join(TEST_ID))


def current(run: TestRun) -> CurrentRun:
    return CurrentRun(run.pk, run.test_id, captured=True, fenced=True)


def entries_read() -> int:
    """How many rows of the ledger this transaction has looked at."""
    [(read,)] = sql(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s",
        [TestEntity._meta.db_table],
    )
    return int(read)


def delete(model: Any) -> None:
    sql(f"DELETE FROM {model._meta.db_table}")


def delete_as_a_purge(model: Any) -> None:
    with purging():
        delete(model)


def delete_as_a_run(model: Any) -> None:
    with use_run(current(TestRun.objects.get())):
        delete(model)


@on_sqlite
def test_of_a_run_it_is_found_by_the_key_alone() -> None:
    plan = Person.objects.filter(Exists(entries_of_outer_row(Person, 1))).explain()
    assert "stagehand_entity_by_bigint (key_bigint=? AND model=?)" in plan


@on_sqlite
@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"run": 1, "model__in": ["host.person"], "pk__gt": 5}, "of_run (run_id=? AND model=? AND id>?)"),
        ({"model": "host.voucher", "key_text": "a"}, "stagehand_entity_standing (model=? AND key_text=?)"),
        ({"model": "host.person", "key_bigint": 1}, "stagehand_entity_by_bigint (key_bigint=? AND model=?)"),
        ({"model": "host.author", "key_uuid": UUID(int=1)}, "entity_by_uuid (key_uuid=? AND model=?)"),
    ],
)
def test_each_question_has_its_index(asked: dict[str, Any], index: str) -> None:
    assert index in TestEntity.objects.standing().filter(**asked).order_by().explain()


@on_postgresql
@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("deleting", [delete, delete_as_a_purge, delete_as_a_run])
def test_many_rows_cost_a_few_entries_each(
    run: CurrentRun, maker: Callable[[int], Any], deleting: Callable[[Any], None]
) -> None:
    model = type(maker(0))
    # The plans that the triggers keep are made now, while the ledger is nearly empty.
    sql("DISCARD PLANS")
    with use_run(run):
        maker(0).save(force_insert=True)
    deleting(model)
    with use_run(run):
        model.objects.bulk_create([maker(n) for n in range(1, ROWS + 1)])
    before = entries_read()
    deleting(model)
    assert not TestEntity.objects.standing().exists()
    assert entries_read() - before < 10 * ROWS
