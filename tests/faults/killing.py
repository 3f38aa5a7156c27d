"""Kill a purge, or the making of its rows, at every statement; then look, and purge again.

# Note [The nursery]
Starting Django for each kill would take a second. So a process that has everything loaded, and no connection
open, forks one child a kill; the child opens a connection of its own, starts to work and kills itself at the
point that it was told. The checker, which has a connection, never forks.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn

from django.db import connection, connections

from stagehand_testdata.exceptions import NotFound
from stagehand_testdata.operations.purge.purge import purge_run

from .books import Books, differences, end
from .graphs import World, a_receiver
from .points import Point, Watch
from .states import SavedState

PURGING, CREATING = "purging", "creating"


def kill_before(connection: Any, go_on: Callable[[], Any], run: Any) -> NoReturn:
    die()


def kill_after(connection: Any, go_on: Callable[[], Any], run: Any) -> NoReturn:
    try:
        go_on()
    finally:  # a statement may be one that the database refuses, to be tried again with other values
        die()


def kill_once_sent(connection: Any, go_on: Callable[[], Any], run: Any) -> NoReturn:
    """The server has been told to commit, and nobody waits for its answer."""
    driver = connection.connection.pgconn
    driver.send_query(b"COMMIT")
    driver.flush()
    die()


STRIKES = {"before": kill_before, "after": kill_after, "once sent": kill_once_sent}


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(1)


def act(action: str, world: World) -> None:
    if action == CREATING:
        world.make_run()
    else:
        purge_run(world.run, batch_size=world.batch_size)


class Nursery:
    """Forks a child for each order. Start it with no connection open: see Note [The nursery]."""

    def __init__(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._pipe = ours
        gc.freeze()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _serve(theirs)
        theirs.close()

    def record(self, action: str, seed: int) -> list[Point]:
        """Let the action run to its end; the points that it passed."""
        answer = self._order(action, seed, None, None)
        if not isinstance(answer, list):
            raise RuntimeError(f"the undisturbed {action} of seed {seed} failed: {answer}")
        return answer

    def kill(self, action: str, seed: int, stop: int, kind: str) -> None:
        answer = self._order(action, seed, stop, kind)
        if answer != signal.SIGKILL:
            raise RuntimeError(f"{action}, seed {seed}: not killed {kind} point {stop}: {answer}")

    def _order(self, *order: Any) -> Any:
        self._pipe.send(order)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        os.waitpid(self._pid, 0)


def _serve(pipe: Any) -> NoReturn:
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            os._exit(0)
        child = os.fork()
        if child == 0:
            _obey(pipe, *order)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            pipe.send(os.WTERMSIG(status))


def _obey(pipe: Any, action: str, seed: int, stop: int | None, kind: str | None) -> NoReturn:
    gc.disable()
    try:
        watch = Watch(stop, STRIKES[kind] if kind else None)
        connection.ensure_connection()
        with watch.on(connection):
            act(action, World(seed))
        pipe.send(watch.points)
    except BaseException:  # noqa: BLE001 - the other end of the pipe reports it
        pipe.send(traceback.format_exc())
    os._exit(0)


class Trials:
    """One database's worth of kills, with what they showed."""

    def __init__(self, sample: int | None) -> None:
        self.tried: Counter[str] = Counter()
        self.failures: list[str] = []
        self._sample = sample
        self._empty = SavedState("empty")
        self._state = SavedState("saved")
        self._nursery: Nursery

    @contextmanager
    def prepared(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(a_receiver())
            self._empty.save()
            self._state.save()
            stack.callback(self._empty.drop)
            stack.callback(self._state.drop)
            stack.callback(self._empty.restore)
            # Whatever Django reads once a process is read before the first fork.
            world = World(0)
            world.make_real()
            for action in (CREATING, PURGING):
                act(action, world)
            self._empty.restore()
            connections.close_all()
            self._nursery = Nursery()
            stack.callback(self._nursery.close)
            yield

    def of_creating(self, seed: int) -> None:
        world = World(seed)
        self._empty.restore()
        world.make_real()
        self._state.save()
        self._each_point(CREATING, world, Books.open())

    def of_purging(self, seed: int) -> None:
        world = World(seed)
        self._empty.restore()
        world.make_real()
        world.make_run()
        taken = world.spoil()
        self._state.save()
        self._each_point(PURGING, world, Books.open(taken))

    def _each_point(self, action: str, world: World, books: Any) -> None:
        points = self._nursery.record(action, world.seed)
        wrong = books.faults() if action == PURGING else []
        expected = end()
        self._note(wrong, f"{world}, {action}, undisturbed")
        for stop, kind in self._chosen(points, world.seed):
            self._state.restore()
            self._nursery.kill(action, world.seed, stop, kind)
            self.tried[f"killed {action}, {kind} a {points[stop].kind}"] += 1
            wait_until_alone()
            where = f"{world}, {action}, killed {kind} point {stop} ({points[stop].text})"
            if action == PURGING:
                self._after_purging(world, books, expected, where)
            else:
                self._after_creating(world, books, where)

    def _after_purging(self, world: World, books: Any, expected: Any, where: str) -> None:
        wrong = books.faults()
        act(PURGING, world)
        self._note(wrong + differences(end(), expected), where)

    def _after_creating(self, world: World, books: Any, where: str) -> None:
        """What was committed of the run is in the books, and a purge takes all of it."""
        wrong = books.faults()
        with suppress(NotFound):
            act(PURGING, world)
        rows = {"rows": end()["rows"]}
        self._note(wrong + books.faults() + differences(rows, {"rows": books.real}), where)

    def _chosen(self, points: list[Point], seed: int) -> list[tuple[int, str]]:
        kinds = ["before", "after"]
        every = [(stop, kind) for stop, _ in enumerate(points) for kind in kinds]
        if connection.vendor == "postgresql":
            every += [(stop, "once sent") for stop, point in enumerate(points) if point.is_commit]
        if self._sample is None or self._sample >= len(every):
            return every
        return sorted(random.Random(seed).sample(every, self._sample))

    def _note(self, wrong: list[str], where: str) -> None:
        if wrong:
            self.failures.append(f"{where}: {'; '.join(wrong[:5])}")
            print(self.failures[-1], file=sys.stderr, flush=True)


def wait_until_alone() -> None:
    """Until the server has noticed that a client is gone: what it sent last may still be carried out."""
    if connection.vendor != "postgresql":
        return
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    deadline = time.monotonic() + 10
    with connection.cursor() as cursor:
        while True:
            cursor.execute(others)
            if not cursor.fetchone()[0]:
                return
            if time.monotonic() > deadline:
                raise RuntimeError("a killed client's connection is still there after 10 s")
            time.sleep(0.001)
