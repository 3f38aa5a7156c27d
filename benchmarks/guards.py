"""What guards cost a table's ordinary traffic, and what capture costs the requests of a run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from django.db import connection, transaction

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations import guards
from stagehand_testdata.operations.runs import ledger_alias
from tests.host.models import Watched

from . import purging

BARE, ASLEEP, AWAKE = STATES = ("bare", "asleep", "awake")

#: How many saves are timed as one: a single one drowns in the noise.
SAVES = 500


def measure(rows: int = 100_000, rounds: int = 5) -> dict[str, float]:
    """Print what guards cost ordinary traffic, and what capture costs a run; return the costs in µs by name.

    Rounds without guards, with them, and under a run alternate. A run's entries stand beside, so that the
    ledger is not empty.
    """
    run = purging._tracked(10**6, 2000)
    current = CurrentRun(run.pk, run.test_id, captured=True, fenced=True)
    tasks: dict[str, Callable[[], float]] = {
        "a row deleted in bulk": lambda: _bulk_delete(rows),
        "a row inserted in bulk": lambda: _bulk_insert(rows),
        "an inserting save()": _inserts,
        "a single save()": _saves,
        "a single delete of a row": _single_deletes,
    }
    times: dict[tuple[str, str], list[float]] = {}
    try:
        for round_number in range(rounds + 1):
            # Whichever comes second finds the machine as the first has left it.
            for state in STATES if round_number % 2 else reversed(STATES):
                (guards.remove if state == BARE else guards.install)(ledger_alias())
                for name, task in tasks.items():
                    with use_run(current if state == AWAKE else None):
                        taken = task()
                    if round_number:  # the first round warms up
                        times.setdefault((name, state), []).append(taken)
    finally:
        guards.remove(ledger_alias())
    print(f"Guards and ordinary traffic: median of {rounds} alternating rounds, {rows} rows, µs")
    print(f"  {'':<26} {'bare':>9} {'asleep':>9} {'':>15} {'under a run':>13}")
    costs = {}
    for name in tasks:
        bare, asleep, awake = (statistics.median(times[name, state]) * 1e6 for state in STATES)
        costs[name] = asleep - bare
        print(
            f"  {name:<26} {bare:9.2f} {asleep:9.2f} {asleep - bare:+7.2f} x{asleep / bare:5.2f}"
            f" {awake:9.2f} x{awake / bare:5.2f}"
        )
    print()
    return costs


def _bulk_delete(rows: int) -> float:
    Watched.objects.bulk_create([Watched(name=f"row {n}") for n in range(rows)], batch_size=10_000)
    _settle()
    start = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM host_watched")
    return (time.perf_counter() - start) / rows


def _bulk_insert(rows: int) -> float:
    with transaction.atomic():
        start = time.perf_counter()
        Watched.objects.bulk_create([Watched(name=f"row {n}") for n in range(rows)], batch_size=10_000)
        taken = (time.perf_counter() - start) / rows
        transaction.set_rollback(True)
    return taken


def _inserts() -> float:
    with transaction.atomic():
        start = time.perf_counter()
        for n in range(SAVES):
            Watched(name=f"row {n}").save()
        taken = (time.perf_counter() - start) / SAVES
        transaction.set_rollback(True)
    return taken


@transaction.atomic  # without the wait for the disk, which hides all else
def _saves() -> float:
    row = Watched.objects.create(name="somebody")
    start = time.perf_counter()
    for n in range(SAVES):
        row.name = f"somebody {n}"
        row.save()
    taken = (time.perf_counter() - start) / SAVES
    Watched.objects.filter(pk=row.pk).delete()
    return taken


@transaction.atomic  # without the wait for the disk, which hides all else
def _single_deletes() -> float:
    rows = Watched.objects.bulk_create([Watched(name=f"row {n}") for n in range(SAVES)])
    start = time.perf_counter()
    for row in rows:
        Watched.objects.filter(pk=row.pk)._raw_delete(ledger_alias())
    return (time.perf_counter() - start) / SAVES


def _settle() -> None:
    """Statistics as a table in use has them."""
    verb = "ANALYZE TABLE" if connection.vendor == "mysql" else "ANALYZE"
    with connection.cursor() as cursor:
        for model in (Watched, TestEntity):
            cursor.execute(f"{verb} {model._meta.db_table}")
