"""A run of many rows with as many real ones beside: a raw DELETE per table, the ORM's delete(), and ours."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from django.db import connection, transaction
from django.db.models import F

from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import entities, runs
from stagehand_testdata.operations.purge.purge import purge_run
from tests.host.models import Author, Book, Chapter, Voucher

_numbers = count()


def tasks(rows: int) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    current: dict[str, TestRun] = {}

    def prepare() -> None:
        number = next(_numbers)
        _rows(number * 2, rows)
        current["run"] = _tracked(number * 2 + 1, rows)

    return {
        "DELETE … WHERE key IN (the ledger), no proof": (prepare, lambda: raw(current["run"])),
        "queryset.delete() by the ledger's keys": (prepare, lambda: by_the_orm(current["run"])),
        "ours: proven, under locks, with a receipt": (prepare, lambda: ours(current["run"])),
    }


def _rows(number: int, rows: int) -> None:
    author = Author.objects.create(name=f"author {number}")
    book = Book.objects.create(title=f"book {number}", author=author)
    Voucher.objects.bulk_create([Voucher(code=f"{number}-{n}", note=f"note {n}") for n in range(rows)])
    Chapter.objects.bulk_create([Chapter(book=book, position=n, title=f"chapter {n}") for n in range(rows)])


def _tracked(number: int, rows: int) -> TestRun:
    test_id = f"stagehand_test_purge{number}"
    entities.perform(test_id, "", lambda _: _rows(number, rows))
    return runs.find(test_id, "")


@transaction.atomic
def raw(run: TestRun) -> None:
    entity = TestEntity._meta.db_table
    for model, key, column in ((Chapter, "id", "key_bigint"), (Voucher, "code", "key_text")):
        with connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {model._meta.db_table} WHERE {key} IN"
                f" (SELECT {column} FROM {entity} WHERE run_id = %s AND model = %s)",
                [run.pk, model._meta.label_lower],
            )
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {entity} SET state = 'removed', tombstone = id WHERE run_id = %s", [run.pk])


@transaction.atomic
def by_the_orm(run: TestRun) -> None:
    for model, column in ((Chapter, "key_bigint"), (Voucher, "key_text")):
        keys = list(run.entities.of_model(model).values_list(column, flat=True))
        for start in range(0, len(keys), 500):
            model.objects.filter(pk__in=keys[start : start + 500]).delete()
    run.entities.update(state="removed", tombstone=F("pk"))


def ours(run: TestRun) -> None:
    outcome = purge_run(run)
    if not outcome.success:
        raise RuntimeError(outcome.message)
