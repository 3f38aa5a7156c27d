"""What guards cost a table's ordinary traffic, and what capture costs the requests of a run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps.registry import Apps
from django.db import connection, connections, models, transaction

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations import guards
from stagehand_testdata.operations.runs import ledger_alias
from tests.host.models import Watched

from . import purging

Model = type[Any]

BARE, ASLEEP, AWAKE = STATES = ("bare", "asleep", "awake")

#: How many rows are written as one turn: a single one drowns in the noise, and many at once in what else the
#: machine does meanwhile.
TURN = 100

#: How many rows one statement inserts in bulk.
_TOGETHER = 500


def measure(rows: int = 20_000, rounds: int = 20) -> dict[str, float]:
    """Print what guards cost ordinary traffic, and what capture costs a run; return the costs in µs by name.

    Two tables of one kind take turns, one without guards and one with them, the latter under a run too. A
    run's entries stand beside, so that the ledger is not empty.
    """
    run = purging._tracked(10**6, 2000)
    current = CurrentRun(run.pk, run.test_id, captured=True, fenced=True)
    # What is rolled back in bulk leaves the ledger's indexes full of dead entries: so it comes last.
    tasks: dict[str, tuple[Callable[[Model], float], int]] = {
        "an inserting save()": (_inserts, 10 * rounds),
        "an updating save()": (_updates, 10 * rounds),
        "a single delete of a row": (_deletes, 10 * rounds),
        "a row inserted in bulk": (lambda model: _bulk_insert(model, rows), rounds),
        "a row updated in bulk": (lambda model: _bulk_update(model, rows), rounds),
        "a row deleted in bulk": (lambda model: _bulk_delete(model, rows), rounds),
    }
    costs = {}
    bare = _opening()
    guards.install(ledger_alias())
    try:
        _print_opening(bare, _opening())
        with _twin(Watched) as twin:
            print(f"Guards and ordinary traffic: {rounds} rounds of {rows} rows, {10 * rounds} of {TURN}, µs")
            print(f"  {'':<26} {'bare':>9} {'asleep':>9} {'':>15} {'under a run':>13}")
            for name, (task, turns) in tasks.items():
                bare, asleep, awake = _take_turns(task, turns, {BARE: twin}, current)
                costs[name] = asleep - bare
                print(
                    f"  {name:<26} {bare:9.2f} {asleep:9.2f} {asleep - bare:+7.2f} x{asleep / bare:6.3f}"
                    f" {awake:9.2f} x{awake / bare:5.2f}"
                )
    finally:
        guards.remove(ledger_alias())
    print()
    return costs


def _opening() -> float:
    """Seconds that a connection takes to open and to answer once: SQLite reads its whole schema then."""

    def opened() -> float:
        start = time.perf_counter()
        one = connections.create_connection(ledger_alias())
        try:
            with one.cursor() as cursor:
                cursor.execute(f"SELECT 1 FROM {Watched._meta.db_table} LIMIT 1")
            return time.perf_counter() - start
        finally:
            one.close()

    return statistics.median(opened() for _ in range(40))


def _print_opening(bare: float, guarded: float) -> None:
    tables = len(guards.guardable())
    print(
        f"A connection opened, and its first answer: {bare * 1e3:.2f} ms without guards,"
        f" {guarded * 1e3:.2f} ms with those of {tables} tables\n"
    )


def _take_turns(
    task: Callable[[Model], float], turns: int, tables: dict[str, Model], current: CurrentRun
) -> tuple[float, float, float]:
    """The median of each state; of what guards cost asleep, the median over neighbouring turns."""
    times: dict[str, list[float]] = {state: [] for state in STATES}
    for number in range(turns + 1):
        # Whichever comes second finds the machine as the first has left it.
        for state in STATES if number % 2 else reversed(STATES):
            with use_run(current if state == AWAKE else None):
                taken = task(tables.get(state, Watched)) * 1e6
            if state == AWAKE and connection.vendor == "sqlite":
                connection.close()  # one that has served a run has triggers of its own
            if number:  # the first turn warms up
                times[state].append(taken)
    bare = statistics.median(times[BARE])
    more = statistics.median(map(lambda one, other: one - other, times[ASLEEP], times[BARE]))
    return bare, bare + more, statistics.median(times[AWAKE])


@contextmanager
def _twin(model: Model) -> Iterator[Model]:
    """A table of the same columns that gets no guards: no app knows its model."""
    meta = type("Meta", (), {"apps": Apps(), "app_label": "twin", "db_table": "twin"})
    columns = {field.name: field.clone() for field in model._meta.local_fields if not field.primary_key}
    twin = type("Twin", (models.Model,), {"__module__": __name__, "Meta": meta, **columns})
    with connection.schema_editor() as editor:
        editor.create_model(twin)
    try:
        yield twin
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(twin)


def _bulk_insert(model: Model, rows: int) -> float:
    # Not by bulk_create(), which takes twenty times what the database does, and never the same.
    statement = f"INSERT INTO {model._meta.db_table} (name) VALUES {', '.join(['(%s)'] * _TOGETHER)}"
    names = [f"row {n}" for n in range(_TOGETHER)]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, names)
        start = _now()
        for _ in range(rows // _TOGETHER):
            cursor.execute(statement, names)
        taken = (_now() - start) / rows
        transaction.set_rollback(True)
    return taken


def _bulk_update(model: Model, rows: int) -> float:
    return _in_bulk(f"UPDATE {model._meta.db_table} SET name = 'another'", model, rows)


def _bulk_delete(model: Model, rows: int) -> float:
    # Without a condition SQLite only forgets the pages, if there is no trigger.
    return _in_bulk(f"DELETE FROM {model._meta.db_table} WHERE id > 0", model, rows)


def _in_bulk(statement: str, model: Model, rows: int) -> float:
    with transaction.atomic():
        model.objects.bulk_create([model(name=f"row {n}") for n in range(rows)], batch_size=10_000)
        _settle(model)
        with connection.cursor() as cursor:
            start = _now()
            cursor.execute(statement)
            taken = (_now() - start) / rows
        transaction.set_rollback(True)
    return taken


def _inserts(model: Model) -> float:
    def insert(row: Any) -> None:
        model(name=row.name).save()

    return _one_by_one(model, insert)


def _updates(model: Model) -> float:
    def update(row: Any) -> None:
        row.name += " again"
        row.save()

    return _one_by_one(model, update)


def _deletes(model: Model) -> float:
    return _one_by_one(model, lambda row: model.objects.filter(pk=row.pk)._raw_delete(ledger_alias()))


def _one_by_one(model: Model, write: Callable[[Any], Any]) -> float:
    # Within one transaction: the wait for the disk hides all else.
    with transaction.atomic():
        rows = model.objects.bulk_create([model(name=f"row {n}") for n in range(TURN + 1)])
        write(rows.pop())
        start = _now()
        for row in rows:
            write(row)
        taken = (_now() - start) / TURN
        transaction.set_rollback(True)
    return taken


def _now() -> float:
    """Seconds. SQLite is at work in this very process: there, those of whoever else is busy do not count."""
    return time.process_time() if connection.vendor == "sqlite" else time.perf_counter()


def _settle(model: Model) -> None:
    """Statistics as a table in use has them."""
    if connection.vendor == "mysql":
        return  # there it commits, and counts as it goes
    with connection.cursor() as cursor:
        for each in (model, TestEntity):
            cursor.execute(f"ANALYZE {each._meta.db_table}")
