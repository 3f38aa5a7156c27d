"""`python -m benchmarks.large_purge [--rows 1000000 …] [--rounds 2] [--receiver] [--unanalysed]`

One run of many rows over five tables with as many real rows beside them, on PostgreSQL or SQLite
(DATABASE_URL). The limit that ours is measured against is the least that ends in the same state: one raw
`DELETE … USING the ledger` for each table, and one UPDATE that closes the entries; "rows only" leaves the
entries as they are. Each measurement starts from a fresh copy of the same database, in a process of its own;
the ways take turns. Prints times, ratios, and by how much the largest process grew.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TEST_ID = "stagehand_test_large"
WAYS = ("raw", "rows only", "ours", "two workers")
SQL_OF_A_UUID = {"postgresql": "lpad(to_hex({}), 32, '0')::uuid", "sqlite": "printf('%%032x', {})"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_purge", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--receiver", action="store_true", help="somebody listens to one of the five models")
    parser.add_argument("--unanalysed", action="store_true", help="PostgreSQL has no statistics of any table")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=None)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not os.environ.get("DATABASE_URL"):
        parser.error("Which database? Set DATABASE_URL=postgres:///NAME, or sqlite:////PATH.")
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    if options.child:
        return child(options.child, receiver=options.receiver)
    return compare(options)


def compare(options: argparse.Namespace) -> int:
    url = os.environ["DATABASE_URL"]
    store = Copies(url)
    ways = options.ways or [way for way in WAYS if way != "two workers" or store.vendor == "postgresql"]
    print(f"{store.vendor}, {options.rounds} rounds{', with a receiver on one model' * options.receiver}")
    print(f"{'rows':>9}  {'way':<12} {'seconds':>8} {'ratio':>6} {'µs/row':>7} {'peak MB':>8}")
    medians: dict[str, list[tuple[int, float]]] = {}
    for rows in options.rows:
        with_rows = store.build(rows, analysed=not options.unanalysed)
        results: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way in ways:
                copy = store.copy(with_rows)
                results[way].append(measure(way, copy, receiver=options.receiver))
                store.drop(copy)
        limit = statistics.median(each["seconds"] for each in results[ways[0]])
        for way, measured in results.items():
            seconds = statistics.median(each["seconds"] for each in measured)
            peak = max(each["grown"] for each in measured)
            medians.setdefault(way, []).append((rows, seconds))
            print(
                f"{rows:>9,}  {way:<12} {seconds:8.2f} {seconds / limit:6.2f} {seconds / rows * 1e6:7.1f}"
                f" {peak:8.1f}",
                flush=True,
            )
        store.drop(with_rows)
    for way, points in medians.items():
        if len(points) > 1:
            (few, short), (many, long) = points[0], points[-1]
            slope = math.log(long / short) / math.log(many / few)
            print(f"{way}: time grows as rows^{slope:.2f} from {few:,} to {many:,} (1.00 is linear)")
    return 0


def measure(way: str, url: str, *, receiver: bool) -> dict[str, float]:
    """Seconds from the start signal to the end of the last process, and how many MB the largest one grew."""
    command = [sys.executable, "-m", "benchmarks.large_purge", "--child", way]
    command += ["--receiver"] * receiver
    workers = 2 if way == "two workers" else 1
    environment = {**os.environ, "DATABASE_URL": url}
    started = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(workers)
    ]
    for process in started:
        ready = process.stdout.readline()  # type: ignore[union-attr]
        if ready != "ready\n":
            raise RuntimeError(f"the {way} process said {ready!r}")
    begin = time.perf_counter()
    for process in started:
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    grown = [json.loads(process.stdout.readline())["grown"] for process in started]  # type: ignore[union-attr]
    seconds = time.perf_counter() - begin
    if any(process.wait() for process in started):
        raise RuntimeError(f"a process of '{way}' failed")
    return {"seconds": seconds, "grown": max(grown)}


def child(way: str, *, receiver: bool) -> int:
    from django.db import connection
    from django.db.models.signals import post_delete

    from stagehand_testdata.models import TestEntity
    from stagehand_testdata.operations import guards, runs
    from stagehand_testdata.operations.purge.purge import purge_run
    from tests.host.models import Chapter
    from tests.making import changed

    heard: list[int] = [0]

    def listen(**kwargs: Any) -> None:
        heard[0] += 1

    run = runs.find(TEST_ID, "")
    work: Callable[[], Any] = lambda: purge_run(run)  # noqa: E731
    if way in ("raw", "rows only"):
        guards.remove(connection.alias)
        work = lambda: raw(run.pk, close=way == "raw")  # noqa: E731
    elif receiver:
        post_delete.connect(listen, sender=Chapter)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("ready", flush=True)
    sys.stdin.readline()
    with changed(MAX_ROWS_PER_PURGE=10**9):
        work()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"grown": (after - before) / 1024}), flush=True)
    left = TestEntity.objects.standing().count() if way != "rows only" else 0
    if left or any(model._base_manager.count() != real_rows(model) for model in tables()):
        raise RuntimeError(f"{way} left {left} entries, or took something else")
    if receiver and way == "ours" and not heard[0]:
        raise RuntimeError("the receiver was not told")
    return 0


def tables() -> list[Any]:
    from tests.host.models import Author, Book, Chapter, Label

    return [Chapter, Book.labels.through, Book, Label, Author]


def real_rows(model: Any) -> int:
    from stagehand_testdata.models import TestEntity

    return TestEntity.objects.filter(model=model._meta.label_lower).count()


def raw(run_id: int, *, close: bool) -> None:
    from django.db import connection, transaction

    from stagehand_testdata.models import TestEntity, key_column

    ledger = TestEntity._meta.db_table
    with transaction.atomic(), connection.cursor() as cursor:
        for model in tables():
            table = model._meta.db_table
            same_key = f"{table}.id = e.{key_column(model)}"
            mine = f"e.run_id = %s AND e.model = %s AND e.tombstone = 0 AND {same_key}"
            if connection.vendor == "postgresql":
                sql = f"DELETE FROM {table} USING {ledger} e WHERE {mine}"
            else:
                sql = f"DELETE FROM {table} WHERE id IN (SELECT {key_column(model)} FROM {ledger} e WHERE"
                sql += " e.run_id = %s AND e.model = %s AND e.tombstone = 0)"
            cursor.execute(sql, [run_id, model._meta.label_lower])
        if close:
            cursor.execute(
                f"UPDATE {ledger} SET state = 'removed', tombstone = id, removed_at = CURRENT_TIMESTAMP"
                " WHERE run_id = %s AND tombstone = 0",
                [run_id],
            )


class Copies:
    """Databases by URL: one that is built, and copies of it to be used up."""

    def __init__(self, url: str) -> None:
        self.url = urlsplit(url)
        self.vendor = "sqlite" if self.url.scheme == "sqlite" else "postgresql"
        self.count = 0

    def named(self, suffix: str) -> str:
        return f"{self.url.scheme}://{self.url.netloc}{self.url.path}_{suffix}"

    def build(self, rows: int, *, analysed: bool) -> str:
        url = self.named(f"rows{rows}")
        self.drop(url)
        self._create(url)
        here = "from benchmarks.large_purge import fill; import django; django.setup()"
        here += f"; fill({rows}, {analysed})"
        subprocess.run([sys.executable, "-c", here], env={**os.environ, "DATABASE_URL": url}, check=True)
        return url

    def copy(self, url: str) -> str:
        self.count += 1
        copy = f"{url}_{self.count}"
        self.drop(copy)
        self._create(copy, template=url)
        return copy

    def _create(self, url: str, template: str | None = None) -> None:
        if self.vendor == "sqlite":
            if template:
                shutil.copy(_path(template), _path(url))
                os.sync()  # as CHECKPOINT below: what is measured must not wait for the copy
            return
        of = f' TEMPLATE "{_name(template)}"' if template else ""
        self._administer(f'CREATE DATABASE "{_name(url)}"{of}')
        self._administer("CHECKPOINT")

    def drop(self, url: str) -> None:
        if self.vendor == "sqlite":
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(_path(url) + suffix).unlink(missing_ok=True)
        else:
            self._administer(f'DROP DATABASE IF EXISTS "{_name(url)}"')

    def _administer(self, sql: str) -> None:
        import psycopg

        with psycopg.connect(dbname="postgres", autocommit=True) as connection:
            connection.execute(sql)


def _path(url: str) -> str:
    return urlsplit(url).path


def _name(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


def fill(rows: int, analysed: bool) -> None:
    """A run of `rows` entities over five tables, as many real rows, and the guards."""
    from django.core.management import call_command
    from django.db import connection, transaction

    from stagehand_testdata.models import TestEntity
    from stagehand_testdata.operations import guards, runs

    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = wal")
    call_command("migrate", verbosity=0)
    guards.install(connection.alias)
    if not analysed:
        with connection.cursor() as cursor:
            for model in (*tables(), TestEntity):
                cursor.execute(f"ALTER TABLE {model._meta.db_table} SET (autovacuum_enabled = off)")
    with transaction.atomic():
        run = runs.open_or_join(TEST_ID)
    each = rows // 5
    uuid = SQL_OF_A_UUID[connection.vendor]
    ledger = TestEntity._meta.db_table
    # SQLite's own word for it has whole seconds, in which the guards went up too.
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now')" if connection.vendor == "sqlite" else "CURRENT_TIMESTAMP"
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            numbers = f"SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {2 * each}"
            series = f"(WITH RECURSIVE g(n) AS ({numbers}) SELECT n FROM g)"
        else:
            series = f"(SELECT n FROM generate_series(1, {2 * each}) n) g"
        books = f"SELECT n, 'book ' || n, '', {uuid.format('n')}, 1 FROM {series}"
        chapters = f"SELECT n, n, 1, 'chapter ' || n, {now} FROM {series}"
        for sql in (
            f"INSERT INTO host_author (id, name) SELECT {uuid.format('n')}, 'author ' || n FROM {series}",
            f"INSERT INTO host_label (id, text) SELECT n, 'label ' || n FROM {series}",
            f"INSERT INTO host_book (id, title, blurb, author_id, price) {books}",
            f"INSERT INTO host_book_labels (id, book_id, label_id) SELECT n, n, n FROM {series}",
            f"INSERT INTO host_chapter (id, book_id, position, title, created_at) {chapters}",
        ):
            cursor.execute(sql.replace("%", "%%") if "%%" not in sql else sql, [])
        for position, model in enumerate(tables()):
            key = uuid.format("n") if model._meta.label == "host.Author" else "NULL"
            number = "NULL" if model._meta.label == "host.Author" else "n"
            text = key if model._meta.label == "host.Author" else "n"
            # Every second row is the run's, in the order in which scenarios would have made them.
            cursor.execute(
                f"INSERT INTO {ledger} (run_id, ordinal, type, origin, state, reason, blocked_by, model,"
                " database, key_text, key_bigint, key_uuid, fingerprint, reference, tombstone, created_at)"
                f" SELECT %s, (n / 2) * 5 - {position}, %s, 'requested', 'live', '', '{{}}', %s, 'default',"
                f" CAST({text} AS varchar(255)), CAST({number} AS bigint), {key}, '{{}}', '', 0, {now}"
                f" FROM {series} WHERE n %% 2 = 0",
                [run.pk, model._meta.model_name, model._meta.label_lower],
            )
    with connection.cursor() as cursor:
        if analysed:
            cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


if __name__ == "__main__":
    sys.exit(main())
