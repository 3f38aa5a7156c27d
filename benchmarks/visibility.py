"""`python -m benchmarks.visibility [--rows 1000000]`: what it costs real users that test rows are hidden.

Each query through the hiding manager and through a plain one, in turns in one run, with 1 % test rows, in a
database of its own beside DATABASE_URL. The limits are for a million rows on PostgreSQL.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from . import fresh

#: One row of so many is a test row.
SHARE = 100
PAGE = 50
#: How often a query is asked before the clock is looked at; the limits by the mark and by the ledger.
QUERIES: dict[str, tuple[int, float | None, float | None]] = {
    f"a page of {PAGE}": (20, 1.2, 1.8),
    "get": (60, 1.2, 1.5),
    "count": (1, None, 2.5),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.visibility", description=__doc__)
    parser.add_argument("--rows", type=int, help="a million on PostgreSQL, a tenth of that elsewhere")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    with fresh.database("visibility") as vendor:
        rows = options.rows or (1_000_000 if vendor == "postgresql" else 100_000)
        fill(rows)
        print(
            f"Hiding test rows: {vendor}, {rows:,} rows, 1 of {SHARE} a test row;"
            f" median of {options.rounds} alternating rounds"
        )
        report(rows, options.rounds)
    return 0


def fill(rows: int) -> None:
    """As many flyers and posters; every hundredth is a test row, of which posters are in the ledger."""
    from django.db import connection, transaction

    from stagehand_testdata.models import Key, TestEntity
    from stagehand_testdata.operations import runs
    from tests.host.models import Author, Flyer, Poster

    with transaction.atomic():
        run = runs.open_or_join("stagehand_test_visibility")
    author = Author.objects.create(name="somebody")
    owner = Author._meta.pk.get_db_prep_value(author.pk, connection)
    text = "CAST(n AS CHAR(20))" if connection.vendor == "mysql" else "CAST(n AS varchar(20))"
    # Six digits joined are a million numbers, in a way that every database has.
    digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
    joined = ", ".join(f"({digits}) d{place}" for place in range(6))
    number = " + ".join(f"d{place}.d * {10**place}" for place in range(6))
    numbers = f"(SELECT {number} + 1 AS n FROM {joined}) numbers WHERE n <= {rows} ORDER BY 1"
    marked = f"CASE WHEN n %% {SHARE} = 0 THEN {run.pk} END"
    with transaction.atomic(), connection.cursor() as cursor:
        for model, column, value in ((Flyer, ", test_run_id", f", {marked}"), (Poster, "", "")):
            cursor.execute(
                f"INSERT INTO {model._meta.db_table} (id, title, author_id, printed{column})"
                f" SELECT n, {text}, %s, CURRENT_DATE{value} FROM {numbers}",
                [owner],
            )
    keys = range(SHARE, rows + 1, SHARE)
    TestEntity.objects.bulk_create(
        [
            TestEntity(
                run=run,
                ordinal=ordinal,
                type="poster",
                origin=TestEntity.Origin.REQUESTED,
                model=Poster._meta.label_lower,
                database="default",
                key_text=str(key),
                key_bigint=Key.of(Poster, key).bigint,
            )
            for ordinal, key in enumerate(keys, 1)
        ],
        batch_size=5000,
    )
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(
                f"ANALYZE TABLE {Flyer._meta.db_table}, {Poster._meta.db_table}, {TestEntity._meta.db_table}"
            )
        else:
            cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def report(rows: int, rounds: int) -> None:
    from django.db import connection

    from tests.host.models import Flyer, Poster

    print(f"  {'':<18} {'':<12} {'plain':>10} {'hiding':>10} {'ratio':>7} {'limit':>6}")
    for title, model, which in (("TestDataModel", Flyer, 1), ("TestDataManager", Poster, 2)):
        for name, query in QUERIES.items():
            plain, hiding, ratio = measure(model, name, rows, rounds, repeats=query[0])
            row = f"  {title:<18} {name:<12} {plain:7.2f} ms {hiding:7.2f} ms {ratio:7.2f}"
            limit = query[which] if connection.vendor == "postgresql" else None
            print(f"{row} {limit or '':>6}", flush=True)
    print()


def measure(model: Any, name: str, rows: int, rounds: int, *, repeats: int) -> tuple[float, float, float]:
    """The medians in ms without and with the condition, and of the ratios of the rounds."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for round_number in range(rounds + 1):
        keys = [random.randrange(rows // SHARE) * SHARE + 1 for _ in range(repeats)]
        # Whichever comes second finds the machine as the first has left it.
        for hidden in (False, True) if round_number % 2 else (True, False):
            ask = question(model._default_manager if hidden else model._base_manager, name)
            start = time.perf_counter()
            for key in keys:
                ask(key)
            if round_number:  # the first round warms up
                times[hidden].append((time.perf_counter() - start) / repeats * 1000)
    ratios = [one / other for one, other in zip(times[True], times[False], strict=True)]
    return statistics.median(times[False]), statistics.median(times[True]), statistics.median(ratios)


def question(manager: Any, name: str) -> Callable[[int], Any]:
    match name:
        case "get":
            return lambda key: manager.get(pk=key)
        case "count":
            return lambda _: manager.count()
        case _:
            return lambda _: list(manager.order_by("-pk")[:PAGE])


if __name__ == "__main__":
    sys.exit(main())
