"""The stateful property test for a long time: `python -m benchmarks.properties --steps 100000 --seed 1`.

Any sequence of what may happen to test rows, on a real database, against a witness that sees every change of
a row (tests/oracle.py, tests/operations/purge/test_properties.py). Exit 0: no real row was touched.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import traceback
from collections import Counter
from typing import Any

from . import fresh

#: Lives in one go: after each the tables are vacuumed, and a line is printed.
LIVES = 20
STEPS = 100


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.properties", description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop by then, with fewer steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="each with a database and seeds of its own")
    parser.add_argument("--no-shrink", action="store_true", help="show a failure as it was found")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.processes > 1 and options.worker is None:
        return share(options)
    return work(options)


def share(options: Any) -> int:
    """Several processes with a part each; the worst exit status."""
    started = []
    for number in range(options.processes):
        command = [sys.executable, "-m", "benchmarks.properties"]
        command += ["--steps", str(options.steps // options.processes)]
        command += ["--no-shrink"] if options.no_shrink else []
        command += ["--seconds", str(options.seconds)]
        command += ["--seed", str(options.seed + number * 1_000_000), "--worker", str(number)]
        started.append(subprocess.Popen(command))
    statuses = [process.wait() for process in started]
    return max(statuses)


def work(options: Any) -> int:
    # Refusals are half of what happens here.
    with fresh.database(f"properties{options.worker or 0}", level="CRITICAL"):
        return live_on(options)


def live_on(options: Any) -> int:
    from django.db import connection

    from tests.operations.purge.test_properties import live, living

    number, steps = options.seed, options.steps
    with living() as total:
        assert total.oracle is not None
        while total.steps < steps and time.monotonic() < total.started + options.seconds:
            lives = min(LIVES, (steps - total.steps) // STEPS + 1)
            try:
                live(lives, STEPS, number, shrink=not options.no_shrink)
            except BaseException:  # noqa: BLE001 - several failures come as a group
                traceback.print_exc()
                print(f"FAILED at seed {number}, after {total.failed_at:,} steps")
                return 1
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("VACUUM")
            pace = total.steps / (time.monotonic() - total.started)
            print(f"seed {number}: {total.steps:,} steps, {pace:.0f}/s", flush=True)
            number += 1
        report(connection.vendor, total, options.seed, number - 1)
    return 0


def report(vendor: str, total: Any, first: int, last: int) -> None:
    seconds = time.monotonic() - total.started
    print(f"\n{vendor}: {total.steps:,} steps in {total.examples:,} lives, {seconds:.0f} s")
    print(f"seeds {first} to {last}")
    for name, count in Counter(total.operations).most_common():
        print(f"  {name:<28}{count:>9,}")
    print(f"{total.purges:,} purges, {total.made:,} rows made in runs, {total.removed:,} removed")
    print(f"{total.oracle.real:,} real rows watched")
    print(f"0 real rows touched in {total.steps:,} steps", flush=True)


if __name__ == "__main__":
    sys.exit(main())
