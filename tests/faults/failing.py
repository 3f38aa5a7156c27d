"""Make each statement and commit of a purge, or of a creating call, fail once; then look, and purge again.

The errors are the server's own wherever it can be brought to raise them.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, OperationalError, connection, connections

from stagehand_testdata.exceptions import NotFound, StatementTimeout
from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations.purge.purge import purge_run

from .books import Books, differences, end
from .graphs import World
from .points import Strike, Watch
from .states import SavedState


class DidNotStrike(AssertionError):
    """The harness's own fault: the statement that had to fail did not."""


# --- faults, by name -------------------------------------------------------------------------------------


def connection_lost(ours: Any, go_on: Callable[[], Any], run: Any) -> Any:
    """The server ends our connection just before the statement comes."""
    process = _process_of(ours)
    with _another(ours) as other, other.cursor() as cursor:
        if ours.vendor == "postgresql":
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [process])
        else:
            cursor.execute(f"KILL {process}")
    go_on()
    raise DidNotStrike("the connection survived")


def answer_lost(ours: Any, go_on: Callable[[], Any], run: Any) -> Any:
    """It was done, and the answer never came."""
    go_on()
    if ours.vendor == "sqlite":
        raise OperationalError("disk I/O error")
    ours.connection.close()
    raise OperationalError("server closed the connection unexpectedly")


def raised_by_postgresql(state: str) -> Strike:
    """The server raises an error with this SQLSTATE in place of the statement, and aborts the transaction."""

    def strike(ours: Any, go_on: Callable[[], Any], run: Any) -> Any:
        run(f"DO $$BEGIN RAISE EXCEPTION 'provoked' USING ERRCODE = '{state}'; END$$")
        raise DidNotStrike(state)

    return strike


def cancelled_by_postgresql(ours: Any, go_on: Callable[[], Any], run: Any) -> Any:
    run("SET LOCAL statement_timeout = 1; SELECT pg_sleep(5)")
    raise DidNotStrike("the statement was not cancelled")


def raised_by_mysql(number: int, state: str) -> Strike:
    """A deadlock takes back the whole transaction, as MySQL does; then the server raises the error."""

    def strike(ours: Any, go_on: Callable[[], Any], run: Any) -> Any:
        run("ROLLBACK")
        run(f"SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'provoked'")
        raise DidNotStrike(state)

    return strike


def interrupted_by_sqlite(ours: Any, go_on: Callable[[], Any], run: Any) -> Any:
    """SQLite breaks off the statement by itself; those too short to be broken off are reported as if."""
    ours.connection.set_progress_handler(lambda: 1, 1)
    try:
        go_on()
    finally:
        ours.connection.set_progress_handler(None, 0)
    raise OperationalError("interrupted")


def locked_sqlite(ours: Any, go_on: Callable[[], Any], run: Any) -> Any:
    raise OperationalError("database is locked") from sqlite3.OperationalError("database is locked")


def full_sqlite(ours: Any, go_on: Callable[[], Any], run: Any) -> Any:
    """A full disk may end the whole transaction, savepoints and all."""
    if ours.connection.in_transaction:
        ours.connection.rollback()
    raise OperationalError("database or disk is full") from sqlite3.OperationalError("full")


STATEMENTS: dict[str, dict[str, Strike]] = {
    "postgresql": {
        "connection lost": connection_lost,
        "deadlock": raised_by_postgresql("40P01"),
        "serialization failure": raised_by_postgresql("40001"),
        "cancel": cancelled_by_postgresql,
        "disk full": raised_by_postgresql("53100"),
        "out of memory": raised_by_postgresql("53200"),
        "lock not available": raised_by_postgresql("55P03"),
    },
    "sqlite": {"interrupted": interrupted_by_sqlite, "locked": locked_sqlite, "disk full": full_sqlite},
    "mysql": {"connection lost": connection_lost, "deadlock": raised_by_mysql(1213, "40001")},
}
COMMITS: dict[str, dict[str, Strike]] = {
    "postgresql": {"connection lost": connection_lost, "answer lost": answer_lost},
    "sqlite": {"locked": locked_sqlite, "answer lost": answer_lost},
    "mysql": {"connection lost": connection_lost, "answer lost": answer_lost},
}


def _process_of(ours: Any) -> int:
    if ours.vendor == "postgresql":
        return int(ours.connection.info.backend_pid)
    return int(ours.connection.thread_id())


@contextmanager
def _another(ours: Any) -> Iterator[Any]:
    other = ours.copy()
    try:
        yield other
    finally:
        other.close()


# --- trials ----------------------------------------------------------------------------------------------


class Trials:
    """One world after another, each failing once at each of its points."""

    def __init__(self, *, every_kind: bool) -> None:
        self.tried: Counter[str] = Counter()
        self.failures: list[str] = []
        self._every_kind = every_kind
        self._empty = SavedState("empty")
        self._state = SavedState("saved")

    @contextmanager
    def prepared(self) -> Iterator[None]:
        self._empty.save()
        self._state.save()
        try:
            yield
        finally:
            self._empty.restore()
            self._empty.drop()
            self._state.drop()

    def of_creating(self, seed: int) -> None:
        """Each call that makes rows leaves all of its rows with their entries, or none."""
        world = World(seed)
        self._empty.restore()
        world.make_real()
        self._state.save()
        books = Books.open()
        watch, sizes = Watch(), {0}
        for call in world.calls():
            with watch.on(connection):
                call()
            sizes.add(TestEntity.objects.count())
        for stop, name, strike in self._chosen(watch):
            self._state.restore()
            wrong = self._fail(world.make_run, stop, strike) + books.faults()
            if (made := TestEntity.objects.count()) not in sizes:
                wrong.append(f"half a call's rows: {made} are in the ledger, not one of {sorted(sizes)}")
            try:
                purge(world)
            except NotFound:
                wrong += [] if made == 0 else ["the run is lost"]
            wrong += differences({"rows": end()["rows"]}, {"rows": books.real})
            self._note(wrong, f"{world}, creating, {name} at point {stop} ({watch.points[stop].text})")

    def of_purging(self, seed: int) -> None:
        """Each batch is all or nothing, and a second purge reaches the end that an undisturbed one does."""
        world = World(seed)
        self._empty.restore()
        world.make_real()
        world.make_run()
        books = Books.open(world.spoil())
        self._state.save()
        watch = Watch()
        with watch.on(connection):
            purge(world)
        self._note(books.faults(), f"{world}, purging, undisturbed")
        expected = end()
        for stop, name, strike in self._chosen(watch):
            self._state.restore()
            wrong = self._fail(lambda: purge(world), stop, strike) + books.faults()
            purge(world)
            wrong += differences(end(), expected)
            self._note(wrong, f"{world}, purging, {name} at point {stop} ({watch.points[stop].text})")

    def _fail(self, work: Callable[[], Any], stop: int, strike: Strike) -> list[str]:
        """Do the work with this fault; what is wrong about how it ended."""
        found = []
        watch = Watch(stop, strike)
        try:
            with watch.on(connection):
                work()
        except (DatabaseError, StatementTimeout):
            pass
        except Exception as error:  # noqa: BLE001 - any other way to fail is what is looked for
            found.append(f"it failed with {error!r}")
        if len(watch.points) <= stop:
            found.append(f"it came to {len(watch.points)} points only")
        if connection.in_atomic_block:
            found.append("it left a transaction open")
        for each in connections.all():
            each.close_if_unusable_or_obsolete()
        return found

    def _chosen(self, watch: Watch) -> Iterator[tuple[int, str, Strike]]:
        """Each point with every kind of fault, or with one in turn."""
        for stop, point in enumerate(watch.points):
            kinds = list((COMMITS if point.is_commit else STATEMENTS)[connection.vendor].items())
            for name, strike in kinds if self._every_kind or point.is_commit else [kinds[stop % len(kinds)]]:
                self.tried[f"{name}, {point.kind}"] += 1
                yield stop, name, strike

    def _note(self, wrong: list[str], where: str) -> None:
        if wrong:
            self.failures.append(f"{where}: {'; '.join(wrong[:5])}")


def purge(world: World) -> None:
    purge_run(world.run, batch_size=world.batch_size)
