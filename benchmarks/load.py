"""64 test runners and 4 reapers on one PostgreSQL: `python -m benchmarks.load --runners 64 --reapers 4`.

A real server on loopback, real clients, real `purge_test_data --expired --watch`. Runners clean up, clean up
a part, clean up while another request of the same run is in flight, or go away and leave it to the reapers.
Exit 0: no 5xx, no deadlock, nothing left, and every real row is what it was.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import fresh
from .verdict import verdict

ROOT = Path(__file__).resolve().parent.parent
LEDGER = "stagehand_testdata"
TYPES = (
    *("author", "book", "chapter", "voucher", "restaurant", "person", "team"),
    *("note", "archived", "watched", "user", "product", "client"),
)
#: What a runner may be told once its run is over: it was cleaned up, or the reaper came.
OVER = {"run_closed", "test_too_old"}
STOP_SECONDS = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--runners", type=int, default=64)
    parser.add_argument("--reapers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=2, help="of the server")
    parser.add_argument("--threads", type=int, default=16, help="of each worker")
    parser.add_argument("--drain", type=float, default=120, help="seconds that the reapers get at the end")
    parser.add_argument("--guards", action="store_true", help="with the guards in the database")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not fresh.is_postgresql():
        return 2
    with fresh.database("load"):
        return measure(options)


# --- what the clients do ----------------------------------------------------------------------------------


@dataclass
class Results:
    """What all runners saw."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)

    def note(self, seconds: float, status: int, code: str) -> None:
        with self.lock:
            self.seconds.append(seconds)
            self.statuses[f"{status} {code}".strip()] += 1


class Server:
    """One keep-alive connection to the server."""

    def __init__(self, address: tuple[str, int], results: Results) -> None:
        self.connection = http.client.HTTPConnection(*address, timeout=60)
        self.results = results

    def send(self, method: str, path: str, test_id: str, body: Any = None, *, fine: tuple[int, ...]) -> Any:
        """The answer's body; what is neither fine nor says that the run is over is written down."""
        started = time.perf_counter()
        headers = {"Content-Type": "application/json", "X-Test-ID": test_id}
        self.connection.request(method, f"/api/test/{path}", json.dumps(body or {}), headers)
        answer = self.connection.getresponse()
        text = answer.read()
        took = time.perf_counter() - started
        try:
            found = json.loads(text)
        except ValueError:
            found = {}
        code = str(found.get("code", "")) if isinstance(found, dict) else ""
        self.results.note(took, answer.status, code)
        if answer.status not in fine and code not in OVER:
            with self.results.lock:
                self.results.surprises.append(f"{method} {path}: {answer.status} {text[:200]!r}")
        return found if answer.status < 300 else None


class Runner:
    """A test suite: one run after the other, each with a few rows and an end of some kind."""

    def __init__(self, number: int, address: tuple[str, int], results: Results, seed: int) -> None:
        self.number, self.address, self.results = number, address, results
        self.random = random.Random(seed * 1000 + number)
        self.server = Server(address, results)
        self.abandoned: list[str] = []

    def work_until(self, end: float) -> None:
        turn = 0
        while time.monotonic() < end:
            turn += 1
            self.one_run(f"stagehand_test_load_{self.number}_{turn}")

    def one_run(self, test_id: str) -> None:
        scope = self.random.choice(["ephemeral", "persistent_session", "persistent_environment"])
        self.server.send("POST", "verify-access", test_id, {"scope": scope}, fine=(200,))
        made: list[Any] = []
        for _ in range(self.random.randint(1, 5)):
            made += self.make(test_id)
        ending = self.random.choices(ENDINGS, [4, 2, 2, 1, 3])[0]
        with self.results.lock:
            self.results.endings[ending.__name__.replace("_", " ")] += 1
        ending(self, test_id, made)

    def make(self, test_id: str) -> list[Any]:
        kind = self.random.randrange(6)
        path, body = (
            ("builders", {"expertise": ["COBOL"]}),
            ("booking-scenarios", {}),
            ("batch", {"builders": 2, "clients": 1, "voucher": 3, "book": 1}),
            ("scenarios/booking", {}),
            (f"entities/{self.random.choice(TYPES)}", {"count": self.random.randint(1, 5)}),
            (f"entities/{self.random.choice(TYPES)}", {}),
        )[kind]
        found = self.server.send("POST", path, test_id, body, fine=(201,))
        if isinstance(found, list):
            return found
        return [found] if found and "id" in found else []

    def clean_up(self, test_id: str, made: list[Any]) -> None:
        self.server.send("POST", "cleanup", test_id, fine=(200,))

    def clean_up_in_parts(self, test_id: str, made: list[Any]) -> None:
        listed = [{"type": each.get("type", "builder"), "id": str(each["id"])} for each in made[::2]]
        self.server.send("POST", "cleanup", test_id, {"createdData": listed}, fine=(200, 409))
        self.server.send("POST", "cleanup", test_id, fine=(200,))

    def clean_up_in_flight(self, test_id: str, made: list[Any]) -> None:
        """While another request of the same run is under way."""
        other = Runner(self.number, self.address, self.results, self.random.randrange(10**6))

        def make_more() -> None:
            for _ in range(3):
                other.make(test_id)

        thread = threading.Thread(target=make_more)
        thread.start()
        time.sleep(self.random.random() / 20)
        self.server.send("POST", "cleanup", test_id, fine=(200,))
        thread.join()
        other.server.connection.close()

    def delete(self, test_id: str, made: list[Any]) -> None:
        self.server.send("DELETE", f"runs/{test_id}", test_id, fine=(200,))

    def go_away(self, test_id: str, made: list[Any]) -> None:
        self.abandoned.append(test_id)
        if self.random.random() < 0.3:  # or come back when the reaper may be at it
            time.sleep(0.3)
            self.make(test_id)


ENDINGS: list[Callable[[Runner, str, list[Any]], None]] = [
    Runner.clean_up,
    Runner.clean_up_in_parts,
    Runner.clean_up_in_flight,
    Runner.delete,
    Runner.go_away,
]


# --- the stage --------------------------------------------------------------------------------------------


def measure(options: Any) -> int:
    from django.db import connection

    seed_real_rows()
    if options.guards:
        from stagehand_testdata.operations import guards

        guards.install(connection.alias)
    before, deadlocks = snapshot(), count_deadlocks()
    environment = os.environ | {"DATABASE_URL": server_url(), "PYTHONPATH": str(ROOT)}
    connection.close()
    results = Results()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        address = stack.enter_context(server(options, environment, log))
        reapers = [stack.enter_context(reaper(environment, log)) for _ in range(options.reapers)]
        started = time.monotonic()
        made_by_runners(options, address, results, started + options.seconds)
        elapsed = time.monotonic() - started
        drained = drain(options.drain)
        statuses = [reaper_stop() for reaper_stop in reapers]
        stack.close()
        log.seek(0)
        said = log.read().decode(errors="replace")
    return report(
        options,
        results,
        elapsed=elapsed,
        drained=drained,
        reapers=statuses,
        before=before,
        deadlocks=deadlocks,
        said=said,
    )


def server_url() -> str:
    from django.db import connection

    found = connection.settings_dict
    user, password = (urllib.parse.quote(found[name], safe="") for name in ("USER", "PASSWORD"))
    user += f":{password}" if password else ""
    port = f":{found['PORT']}" if found["PORT"] else ""
    host = urllib.parse.quote(found["HOST"], safe="")
    # Connections are kept, as in production; each of the server's threads has one.
    return f"postgres://{f'{user}@' if user else ''}{host}{port}/{found['NAME']}?conn_max_age=60"


@contextlib.contextmanager
def server(options: Any, environment: dict[str, str], log: Any) -> Iterator[tuple[str, int]]:
    from project.demo import bound_socket, wait_until_it_answers

    with bound_socket(0) as listener:
        host, port = listener.getsockname()
        command = [sys.executable, "-m", "gunicorn", "-c", "project/gunicorn_config.py"]
        command += ["--workers", str(options.workers), "--threads", str(options.threads)]
        command += ["--keep-alive", "75", "-b", f"fd://{listener.fileno()}", "project.wsgi"]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, pass_fds=[listener.fileno()], stdout=log, stderr=log
        )
    try:
        wait_until_it_answers(f"http://{host}:{port}", process)
        yield host, port
    finally:
        stop(process)


@contextlib.contextmanager
def reaper(environment: dict[str, str], log: Any) -> Iterator[Callable[[], int]]:
    """`purge_test_data --expired --watch 1`, a process of its own; gives what stops it."""
    command = [sys.executable, "manage.py", "purge_test_data", "--expired", "--watch", "1", "--json"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield lambda: stop(process)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def made_by_runners(options: Any, address: tuple[str, int], results: Results, end: float) -> None:
    runners = [Runner(n, address, results, options.seed) for n in range(options.runners)]

    def work(runner: Runner) -> None:
        try:
            runner.work_until(end)
        except Exception as error:  # noqa: BLE001 - a client that broke is a finding
            with results.lock:
                results.surprises.append(f"runner {runner.number}: {error!r}")

    threads = [threading.Thread(target=work, args=[runner]) for runner in runners]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        let_expire([runner.abandoned.pop() for runner in runners if runner.abandoned])


def let_expire(test_ids: list[str] | None) -> None:
    """Put the end of these runs into the past: nobody waits for an hour here. None means all."""
    import datetime as dt

    from django.db.models import F
    from django.db.models.functions import Now

    from stagehand_testdata.models import TestRun

    past = dt.timedelta(days=2)
    found = TestRun.objects.unfinished().filter(expires_at__gt=Now())
    if test_ids is not None:
        found = found.filter(test_id__in=test_ids)
    found.update(opened_at=F("opened_at") - past, expires_at=Now() - dt.timedelta(seconds=1))


def drain(seconds: float) -> float | None:
    """Let the reapers have all that is left; how long it took them, None where they were not done in time."""
    from stagehand_testdata.models import TestRun

    let_expire(None)
    started = time.monotonic()
    while TestRun.objects.unfinished().exists():
        if time.monotonic() > started + seconds:
            return None
        time.sleep(0.2)
    return time.monotonic() - started


def seed_real_rows() -> None:
    from project.seed import seed
    from project.shop.models import Category, Tag
    from tests.host.models import Author, Book, Chapter, Country, Label, Note, Person, Voucher

    seed()
    # What factories find is nobody's: runs do not wait for one another's rows.
    country = Country.objects.create(code="NL", name="Netherlands")
    Category.objects.get_or_create(name="general")
    Tag.objects.get_or_create(name="new")
    for n in range(50):
        author = Author.objects.create(name=f"real {n}", country=country)
        book = Book.objects.create(title=f"real {n}", author=author)
        book.labels.add(Label.objects.create(text=f"real {n}"))
        Chapter.objects.create(book=book, position=n, title="real")
        Person.objects.create(name=f"real {n}")
        voucher = Voucher.objects.create(code=f"REAL-{n}", note="real")
        Note.objects.create(text="real", subject=voucher)


Tables = dict[str, Counter[tuple[Any, ...]]]


def snapshot() -> Tables:
    """Every row of every table but the ledger's."""
    from project.demo import host_tables

    return {
        table: Counter(tuple(map(repr, row)) for row in rows)
        for table, rows in host_tables().items()
        if table != "django_migrations"
    }


def count_deadlocks() -> int:
    from django.db import connection

    time.sleep(1.5)  # the counters come in once a second
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


# --- what came of it --------------------------------------------------------------------------------------


def report(
    options: Any,
    results: Results,
    *,
    elapsed: float,
    drained: float | None,
    reapers: list[int],
    before: Tables,
    deadlocks: int,
    said: str,
) -> int:
    from django.db.models import Count, F, Max, Q

    from stagehand_testdata.models import TestEntity, TestRun

    after = snapshot()
    left = sum(((after[table] - rows).total() for table, rows in before.items()), 0)
    touched = sum(((rows - after[table]).total() for table, rows in before.items()), 0)
    failures = sum(count for status, count in results.statuses.items() if status.startswith("5"))
    books = TestRun.objects.annotate(n=Count("entities"), last=Max("entities__ordinal"))
    times = sorted(results.seconds)
    quantiles = statistics.quantiles(times, n=100)
    states = dict(TestEntity.objects.values_list("state").annotate(Count("pk")).order_by("state"))
    print(f"{options.runners} runners, {options.reapers} reapers, {elapsed:.0f} s; guards: {options.guards}")
    print(f"  server: {options.workers} workers of {options.threads} threads; seed {options.seed}")
    print(
        f"  {len(times):,} requests, {len(times) / elapsed:.0f}/s; p50 {quantiles[49] * 1000:.0f} ms,",
        end=" ",
    )
    print(
        f"p95 {quantiles[94] * 1000:.0f} ms, p99 {quantiles[98] * 1000:.0f} ms, max {times[-1] * 1000:.0f} ms"
    )
    for status, count in sorted(results.statuses.items()):
        print(f"    {status:<24}{count:>8,}")
    print(f"  {TestRun.objects.count():,} runs, {TestEntity.objects.count():,} rows; entries now {states}")
    print(f"  ends of runs: {dict(results.endings.most_common())}")
    print(f"  drained in {'—' if drained is None else f'{drained:.1f} s'}; reapers ended with {reapers}")
    print(f"  {sum(rows.total() for rows in before.values()):,} real rows watched in {len(before)} tables")
    counted = {
        "answers of 5xx": failures,
        "deadlocks (pg_stat_database)": count_deadlocks() - deadlocks,
        "rows left in the host's tables": left,
        "real rows changed or gone": touched,
        "entries standing in closed runs": TestEntity.objects.standing().filter(run__state="closed").count(),
        "entries standing at all": TestEntity.objects.standing().count(),
        "runs not closed": TestRun.objects.unfinished().count(),
        "runs whose books are wrong": books.filter(Q(n__gt=0) & ~Q(n=F("last"))).count(),
        "answers that nobody expected": len(results.surprises),
        "reapers that did not stop cleanly": sum(1 for status in reapers if status not in (0, 1)),
    }
    surprises = "".join(f"    {line}\n" for line in results.surprises[:10])
    return verdict(counted, lambda: f"{surprises}\nthe server and the reapers said:\n{said[-4000:]}")


if __name__ == "__main__":
    sys.exit(main())
