"""Kill purges and creations with SIGKILL at every statement of generated graphs, on PostgreSQL or SQLite.

`python -m benchmarks.crash --kills 5000 --seed 1` makes a database for each job beside DATABASE_URL's.
It kills before a statement, after it, before a COMMIT, with the COMMIT sent and no answer read, and after it.
After each kill no real row has changed and the books hold, and a second purge reaches the same end as an
undisturbed one. With `--statements N` each statement of N graphs fails once with each kind of error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5000, help="at least so many")
    parser.add_argument("--graphs", type=int, default=50, help="at least so many, each at every statement")
    parser.add_argument("--seed", type=int, default=1, help="of the first graph")
    parser.add_argument("--seconds", type=float, default=86_400, help="start no other graph after that")
    parser.add_argument("--statements", type=int, default=0, help="instead: fail each statement of so many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--guards", action="store_true", help="with the guards in the database")
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.db import connection

    if not options.statements and connection.vendor not in ("postgresql", "sqlite"):
        print(f"Skipped: kills are tried on PostgreSQL and SQLite, not on {connection.vendor}.")
        return 0
    start = time.monotonic()
    with databases(options.jobs, guarded=options.guards) as urls:
        jobs = [started(url, number, options) for number, url in enumerate(urls)]
        figures = [finished(job) for job in jobs]
    where = f"{connection.vendor}{', with guards' * options.guards}"
    return report(where, figures, time.monotonic() - start)


@contextmanager
def databases(count: int, *, guarded: bool) -> Iterator[list[str]]:
    """Migrated databases of our own, for as long as the block lasts."""
    from django.db import connection

    with tempfile.TemporaryDirectory() as folder:
        names = [f"stagehand_crash_{os.getpid()}_{number}" for number in range(count)]
        if connection.vendor == "sqlite":
            urls = [f"sqlite:///{Path(folder) / name}" for name in names]
        else:
            urls = [url_of(name) for name in names]
        try:
            for name, url in zip(names, urls, strict=True):
                if connection.vendor != "sqlite":
                    execute(f'CREATE DATABASE "{name}"')
                    # The server is not what is killed here.
                    execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
                prepare = [["migrate", "-v0"], *[["testdata", "guards", "install"]] * guarded]
                for command in prepare:
                    subprocess.run(
                        [sys.executable, "-m", "django", *command],
                        check=True,
                        stdout=subprocess.DEVNULL,
                        env={**os.environ, "DATABASE_URL": url},
                    )
            yield urls
        finally:
            if connection.vendor != "sqlite":
                for name in names:
                    execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def url_of(name: str) -> str:
    before, _, last = os.environ["DATABASE_URL"].rpartition("/")
    return f"{before}/{name}{'?' + last.partition('?')[2] if '?' in last else ''}"


def execute(sql: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql)


def started(url: str, number: int, options: argparse.Namespace) -> subprocess.Popen[str]:
    if options.statements:
        what, share = "fail", {"--graphs": options.statements}
    else:
        what, share = "kill", {"--kills": options.kills, "--graphs": options.graphs}
    arguments = [f"{name}={math.ceil(each / options.jobs)}" for name, each in share.items()]
    arguments += [f"--seed={options.seed + number}", f"--step={options.jobs}", f"--seconds={options.seconds}"]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults", what, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "DATABASE_URL": url},
    )


def finished(job: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = job.communicate()
    if not out.strip():
        raise RuntimeError(f"a job ended with status {job.returncode} and no figures; its error is above")
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def report(where: str, figures: list[dict[str, Any]], seconds: float) -> int:
    trials = sum((Counter(each["trials"]) for each in figures), Counter[str]())
    failures = [failure for each in figures for failure in each["failures"]]
    seeds = sorted(seed for each in figures for seed in each["seeds"])
    print(f"{where}: {len(seeds)} generated graphs, seeds {seeds[0]} to {seeds[-1]}, {seconds:.0f} s")
    for kind, count in sorted(trials.items()):
        print(f"  {kind:<40} {count:6}")
    for failure in failures:
        print(f"  FAILED {failure}")
    total = trials.total()
    print(f"{len(failures)} failures in {total} trials ({total / seconds:.0f} a second)")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
