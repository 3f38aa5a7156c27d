"""One process of the load of `benchmarks.server_stop`: prints a line for each commit that it was told of."""

from __future__ import annotations

import json
import logging
import random
import signal
import sys
import time
from itertools import count
from types import FrameType
from typing import Any

_CREATORS_OF_A_RUN = 2


class Stopped(BaseException):
    """It is over."""


def main() -> None:
    role, number = sys.argv[1], int(sys.argv[2])
    import django

    django.setup()
    # Each stop of the server is an error in the log; what is asked here is what it left behind.
    logging.disable(logging.CRITICAL)
    from django.db import Error, connection

    from stagehand_testdata.databases import driver_faults

    rng = random.Random(number)
    work = creating(rng, number) if role == "create" else purging(rng)
    signal.signal(signal.SIGTERM, stop)
    while True:
        try:
            work()
        except Stopped:
            return
        except (Error, *driver_faults()):  # whatever a connection says that was cut off in the middle
            connection.close()
            time.sleep(0.02)


def stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def creating(rng: random.Random, number: int) -> Any:
    """Rows of every shape, in runs that two creators share; the next run once a purge has closed this one."""
    from stagehand_testdata.exceptions import Conflict, RunClosed
    from stagehand_testdata.models import Key
    from stagehand_testdata.operations import entities
    from tests.faults.graphs import SHAPES, Maker

    generations, calls = count(), count()
    generation = next(generations)

    def work() -> None:
        nonlocal generation
        test_id = f"stagehand_test_stop_{number // _CREATORS_OF_A_RUN}_{generation}"
        shape = rng.choice(SHAPES)

        def make(call: entities.Creation) -> list[Any]:
            # Anew for each attempt: a call that meets another's numbers starts over.
            maker = Maker(rng, f"{number}-{next(calls)}")
            shape(maker)
            return maker.made

        try:
            made = entities.perform(test_id, "", make)
        except RunClosed:
            generation = next(generations)
            return
        except Conflict:  # the other creator took the same numbers thrice
            return
        say([[test_id, row._meta.label_lower, Key.of(type(row), row.pk).text] for row in made])

    return work


def purging(rng: random.Random) -> Any:
    from stagehand_testdata.operations.purge.purge import due_runs, purge_run

    def work() -> None:
        due = list(due_runs())
        if not due:
            time.sleep(0.02)
            return
        purge_run(rng.choice(due), batch_size=rng.choice((1, 3, 10)))
        say("purged")

    return work


def say(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
