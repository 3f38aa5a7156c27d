"""`python -m tests.faults kill|fail` on the migrated database at DATABASE_URL; its figures are JSON.

`python -m benchmarks.crash` makes databases for several of these at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def main() -> int:
    """Exit 0: after every fault the books held, and the next purge reached the same end."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["kill", "fail"])
    parser.add_argument("--kills", type=int, default=0, help="at least so many")
    parser.add_argument("--graphs", type=int, default=50, help="at least so many")
    parser.add_argument("--seed", type=int, default=1, help="of the first graph")
    parser.add_argument("--step", type=int, default=1, help="from one graph's seed to the next one's")
    parser.add_argument("--sample", action="store_true", help="a few kills a graph, not one at every point")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no other graph after that")
    parser.add_argument("--journal", default="", help="SQLite's journal mode, where not WAL")
    options = parser.parse_args()
    set_up(options.journal)
    figures = killed(options) if options.what == "kill" else failed(options)
    print(json.dumps(figures))
    return 1 if figures["failures"] else 0


def set_up(journal: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django
    from django.conf import settings

    if journal:
        settings.DATABASES["default"]["OPTIONS"]["init_command"] = f"PRAGMA journal_mode={journal}"
    django.setup()
    # A fault is an error in the log, thousands of times; what it left behind is what is asked here.
    logging.disable(logging.CRITICAL)


def killed(options: argparse.Namespace) -> dict[str, Any]:
    from .killing import Trials

    trials = Trials(math.ceil(options.kills / options.graphs) if options.sample else None)
    with trials.prepared():
        return counted(trials, options, [trials.of_creating, trials.of_purging])


def failed(options: argparse.Namespace) -> dict[str, Any]:
    from .failing import Trials
    from .graphs import a_receiver

    trials = Trials(every_kind=True)
    with trials.prepared(), a_receiver():
        return counted(trials, options, [trials.of_creating, trials.of_purging])


def counted(
    trials: Any, options: argparse.Namespace, of_world: list[Callable[[int], None]]
) -> dict[str, Any]:
    start = time.monotonic()
    seeds = []
    for seed in wanted_seeds(trials, options, start):
        for each in of_world:
            each(seed)
        seeds.append(seed)
        print(f"{len(seeds)} graphs, {trials.tried.total()} trials", file=sys.stderr, flush=True)
    return {"seeds": seeds, "trials": trials.tried, "failures": trials.failures}


def wanted_seeds(trials: Any, options: argparse.Namespace, start: float) -> Iterator[int]:
    number = 0
    while number < options.graphs or trials.tried.total() < options.kills:
        if time.monotonic() - start > options.seconds:
            return
        yield options.seed + number * options.step
        number += 1


if __name__ == "__main__":
    sys.exit(main())
