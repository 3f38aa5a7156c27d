"""`python -m benchmarks [--rounds N] [--rows N]`: prints a table, of a test database at DATABASE_URL."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from . import fresh

Task = Callable[[], None]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="alternating rounds of each task")
    parser.add_argument("--rows", type=int, default=2000, help="vouchers and chapters in a purge")
    parser.add_argument("--bulk", type=int, default=20_000, help="rows that are made and deleted in bulk")
    options = parser.parse_args()
    with fresh.database("bench") as vendor:
        import django

        from . import creating, guards, keys, purging, shadow

        print(f"{vendor}, Django {django.__version__}, Python {sys.version.split()[0]}\n")
        keys.measure(options.rounds)
        keys.measure_refusals(options.rounds)
        report("A booking scenario of 6 rows", creating.tasks(), options.rounds)
        report("A booking scenario of 6 rows as a shadow", shadow.tasks(), options.rounds)
        print(f"  a shadow call: {shadow.count_statements()}\n")
        report(
            f"Removing {2 * options.rows} rows of 2 tables",
            purging.tasks(options.rows),
            max(options.rounds // 8, 3),
        )
        guards.measure(options.bulk, max(options.rounds // 2, 5))
    return 0


def report(title: str, tasks: dict[str, tuple[Task, Task]], rounds: int) -> None:
    """Run the tasks in turn; each is (prepare, timed). The first is what the others are measured against."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for round_number in range(rounds + 1):
        for name, (prepare, timed) in tasks.items():
            prepare()
            start = time.perf_counter()
            timed()
            if round_number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    base = next(iter(times.values()))
    print(f"{title}: median of {rounds} alternating rounds")
    for name, measured in times.items():
        ratios = [one / limit for one, limit in zip(measured, base, strict=True)]
        print(
            f"  {name:<48} {statistics.median(measured) * 1000:9.2f} ms   {statistics.median(ratios):6.2f} x"
        )
    print()


if __name__ == "__main__":
    sys.exit(main())
