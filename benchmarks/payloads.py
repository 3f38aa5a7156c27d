"""Hostile payloads for a long time: `python -m benchmarks.payloads --payloads 100000 --seed 1 --processes 2`.

Over every registered model and through the whole API, on a database of its own, against a witness that sees
every change of a row (tests/payloads.py, tests/oracle.py). Exit 0: no payload raised a privilege, took an
address, touched a real row or broke the server.
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

#: Payloads of one seed: then comes another, in a world of its own.
PER_SEED = 2000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.payloads", description=__doc__)
    parser.add_argument("--payloads", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="each with a database and seeds of its own")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.processes > 1 and options.worker is None:
        return share(options)
    return work(options)


def share(options: Any) -> int:
    """Several processes with a part each; the worst exit status."""
    started = []
    for number in range(options.processes):
        command = [sys.executable, "-m", "benchmarks.payloads"]
        command += ["--payloads", str(-(-options.payloads // options.processes))]
        command += ["--seed", str(options.seed + number * 1_000_000), "--worker", str(number)]
        started.append(subprocess.Popen(command))
    return max(process.wait() for process in started)


def work(options: Any) -> int:
    # Refusals are most of what happens here.
    with fresh.database(f"payloads{options.worker or 0}", level="CRITICAL"):
        return send(options)


def send(options: Any) -> int:
    from django.db import connection

    from tests.payloads import PER_RUN, fuzzing

    started, sent, seed = time.monotonic(), 0, options.seed
    statuses, made = Counter[int](), Counter[str]()
    while sent < options.payloads:
        try:
            with fuzzing(seed) as fuzz:
                while fuzz.sent < min(PER_SEED, options.payloads - sent):
                    fuzz.run(PER_RUN)
        except Exception:  # noqa: BLE001 - whatever it is, the seed finds it again
            traceback.print_exc()
            print(f"FAILED at seed {seed}, after {sent:,} payloads")
            return 1
        sent += fuzz.sent
        statuses.update(fuzz.statuses)
        made.update(fuzz.made)
        print(f"seed {seed}: {sent:,} payloads, {sent / (time.monotonic() - started):.0f}/s", flush=True)
        seed += 1
    print(f"\n{connection.vendor}: {sent:,} payloads, seeds {options.seed} to {seed - 1}")
    print("answers: " + ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items())))
    print("made: " + ", ".join(f"{name} {count:,}" for name, count in made.most_common()))
    print(f"0 privileges raised, 0 real rows touched, 0 5xx in {sent:,} payloads", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
