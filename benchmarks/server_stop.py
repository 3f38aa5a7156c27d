"""Stop a PostgreSQL server at once, again and again, under the load of creating calls and purges.

`python -m benchmarks.server_stop --stops 100` runs a server of its own in a temporary folder, with fsync
on; it needs the binaries alone. After each stop and its recovery every row that a creating call acknowledged
has its entry, each standing entry has its row and each row an entry, and no real row has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REAL_WORLDS = 5
CREATORS, PURGERS = 3, 2


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.server_stop", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--stops", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    binaries = server_binaries()
    if binaries is None:
        print("Skipped: no PostgreSQL server binaries (initdb, pg_ctl) were found.")
        return 0
    with own_server(binaries) as server:
        return trials(server, options.stops, random.Random(options.seed))


# --- the server ------------------------------------------------------------------------------------------


def server_binaries() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if config := shutil.which("pg_config"):
        found = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        folders.insert(0, Path(found.stdout.strip()))
    return next((each for each in folders if (each / "initdb").exists() and (each / "pg_ctl").exists()), None)


class Server:
    """A cluster in a folder, reached by a socket there alone."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.environment = {
            **os.environ,
            "PGHOST": str(folder),
            "PGPORT": "5432",
            "PGUSER": "stagehand",
            "DATABASE_URL": "postgres:///postgres",
            "DJANGO_SETTINGS_MODULE": "tests.settings",
        }

    def _do(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments],
            check=True,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            **self._user,
        )

    def make(self) -> None:
        self._do(
            "initdb", "--username=stagehand", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"
        )

    def start(self) -> None:
        settings = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=on"
        log = str(self._folder / "log")
        self._do("pg_ctl", "start", "--wait", "--timeout=120", "--silent", f"--log={log}", "-o", settings)

    def stop(self) -> None:
        self._do("pg_ctl", "stop", "--wait", "--timeout=60", "--silent", "--mode=immediate")

    @property
    def is_running(self) -> bool:
        return (self._folder / "data" / "postmaster.pid").exists()


@contextmanager
def own_server(binaries: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="stagehand_", ignore_cleanup_errors=True) as folder:
        server = Server(binaries, Path(folder))
        server.make()
        server.start()
        try:
            yield server
        finally:
            if server.is_running:
                server.stop()


# --- the load --------------------------------------------------------------------------------------------


class Worker:
    """A process that creates or purges until it is told to stop, and says what was acknowledged to it."""

    def __init__(self, server: Server, role: str, number: int) -> None:
        self.acknowledged: list[list[str]] = []
        self.purges = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server_stop_worker", role, str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env=server.environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if answer == "purged":
                self.purges += 1
            else:
                self.acknowledged += answer

    @property
    def has_failed(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(10)


@contextmanager
def load(server: Server) -> Iterator[list[Worker]]:
    roles = ["create"] * CREATORS + ["purge"] * PURGERS
    workers = [Worker(server, role, number) for number, role in enumerate(roles)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()


# --- the trials ------------------------------------------------------------------------------------------


def trials(server: Server, stops: int, rng: random.Random) -> int:
    """Exit 0: nothing was found after any stop."""
    os.environ.update(server.environment)
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from tests.faults.books import Books
    from tests.faults.graphs import World

    call_command("migrate", verbosity=0)
    for seed in range(REAL_WORLDS):
        World(seed).make_real()
    books = Books.open()
    connection.close()
    failures: list[str] = []
    start = time.monotonic()
    seen: dict[int, int] = {}
    with load(server) as workers:
        wait_for_load(workers)
        for stop in range(1, stops + 1):
            time.sleep(rng.uniform(0.05, 1))
            server.stop()
            server.start()
            failures += [f"stop {stop}: {each}" for each in checked(books, workers, seen)]
            connection.close()
            failures += [
                f"stop {stop}: worker {n} ended" for n, each in enumerate(workers) if each.has_failed
            ]
            if failures:
                break
    failures += [f"at last: {each}" for each in checked(books, workers, {})]
    failures += [f"at last: {each}" for each in purged_for_good(books)]
    connection.close()
    report(stops if not failures else stop, workers, failures, time.monotonic() - start)
    return 1 if failures else 0


def wait_for_load(workers: list[Worker]) -> None:
    deadline = time.monotonic() + 60
    while not all(worker.acknowledged or worker.purges for worker in workers):
        if time.monotonic() > deadline or any(worker.has_failed for worker in workers):
            raise RuntimeError("the workers did not get to work")
        time.sleep(0.05)


def checked(books: Any, workers: list[Worker], seen: dict[int, int]) -> list[str]:
    """What is wrong, in one snapshot; the workers go on meanwhile. `seen`: acknowledged rows looked at."""
    from django.db import connection, transaction

    acknowledged = []
    for number, worker in enumerate(workers):
        until = len(worker.acknowledged)
        acknowledged += worker.acknowledged[seen.get(number, 0) : until]
        seen[number] = until
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return books.faults() + unentered(acknowledged)


def unentered(acknowledged: list[list[str]]) -> list[str]:
    from stagehand_testdata.models import TestEntity

    entries = TestEntity.objects.order_by().values_list("run__test_id", "model", "key_text")
    missing = {tuple(each) for each in acknowledged} - set(entries)
    return [f"an acknowledged row without an entry: {each}" for each in sorted(missing)]


def purged_for_good(books: Any) -> list[str]:
    """With everybody gone, a purge of each run leaves the real rows and nothing else."""
    from stagehand_testdata.operations.purge.purge import due_runs, purge_run
    from tests.faults.books import differences
    from tests.faults.graphs import all_rows

    for run in due_runs():
        purge_run(run)
    return books.faults() + differences({"rows": all_rows()}, {"rows": books.real})


def report(stops: int, workers: list[Worker], failures: list[str], seconds: float) -> None:
    rows = sum(len(worker.acknowledged) for worker in workers)
    purges = sum(worker.purges for worker in workers)
    print(
        f"{stops} stops with 'immediate' in {seconds:.0f} s, under {CREATORS} creators and {PURGERS} purgers:"
    )
    print(f"  {rows} rows acknowledged, {purges} purges finished")
    for failure in failures[:20]:
        print(f"  FAILED {failure}")
    print(f"{len(failures)} failures in {stops} stops")


if __name__ == "__main__":
    sys.exit(main())
