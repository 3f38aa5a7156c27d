"""`make soak`: the fuzz and race tests for a long time. SOAK_EXAMPLES and SOAK_SECONDS say how long."""

from __future__ import annotations

import os
import subprocess
import sys
import time

EXAMPLES = os.environ.get("SOAK_EXAMPLES", "20000")
TESTS = [
    "tests/api/test_strange_bodies.py",
    "tests/operations/purge/test_concurrency.py",
    "tests/operations/test_entities.py",
    "tests/isolation/test_mail.py",
]
SECONDS = float(os.environ.get("SOAK_SECONDS", "900"))


def main() -> int:
    """Exit 0: every round passed. Each round has a seed of its own, printed by pytest."""
    end = time.monotonic() + SECONDS
    rounds = 0
    while True:
        rounds += 1
        print(f"round {rounds}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-seed=random", *TESTS]
        status = subprocess.call(command, env={**os.environ, "SOAK_EXAMPLES": EXAMPLES})
        if status != 0:
            return status
        if time.monotonic() >= end:
            print(f"{rounds} rounds of {EXAMPLES} examples passed")
            return 0


if __name__ == "__main__":
    sys.exit(main())
