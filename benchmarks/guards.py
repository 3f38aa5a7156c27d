"""What guards cost a table's ordinary traffic: rows deleted in bulk, and a single save."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from django.db import connection, transaction

from stagehand_testdata.operations import guards
from stagehand_testdata.operations.runs import ledger_alias
from tests.host.models import Watched

from . import purging

#: How many saves are timed as one: a single one drowns in the noise.
SAVES = 500


def measure(rows: int = 100_000, rounds: int = 5) -> dict[str, float]:
    """Print the cost of a real row deleted in bulk and of one save(), both in microseconds, and return them.

    Rounds with and without guards alternate. A run's entries stand beside, so that the ledger is not empty.
    """
    purging._tracked(10**6, 2000)
    tasks: dict[str, Callable[[], float]] = {
        "a row deleted in bulk": lambda: _bulk_delete(rows),
        "a single save()": _saves,
        "a single delete of a row": _single_deletes,
    }
    times: dict[tuple[str, bool], list[float]] = {}
    try:
        for round_number in range(rounds + 1):
            # Whichever comes second finds the machine as the first has left it.
            for guarded in (False, True) if round_number % 2 else (True, False):
                (guards.install if guarded else guards.remove)(ledger_alias())
                for name, task in tasks.items():
                    taken = task()
                    if round_number:  # the first round warms up
                        times.setdefault((name, guarded), []).append(taken)
    finally:
        guards.remove(ledger_alias())
    print(f"Guards and ordinary traffic: median of {rounds} alternating rounds, {rows} rows")
    costs = {}
    for name in tasks:
        without, with_ = (statistics.median(times[name, guarded]) * 1e6 for guarded in (False, True))
        costs[name] = with_ - without
        print(f"  {name:<30} {without:9.2f} µs bare  {with_:9.2f} µs guarded  {with_ - without:+8.2f} µs")
    print()
    return costs


def _bulk_delete(rows: int) -> float:
    Watched.objects.bulk_create([Watched(name=f"row {n}") for n in range(rows)], batch_size=10_000)
    _settle()
    start = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM host_watched")
    return (time.perf_counter() - start) / rows


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
    with connection.cursor() as cursor:
        cursor.execute(
            "ANALYZE TABLE host_watched" if connection.vendor == "mysql" else "ANALYZE host_watched"
        )
