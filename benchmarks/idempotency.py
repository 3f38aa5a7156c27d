"""Many duplicates of each request at once: `python -m benchmarks.idempotency --keys 1000 --duplicates 8`.

A real gunicorn on loopback, PostgreSQL. Each key's duplicates are sent at the same moment on connections of
their own; those that are told that the first is still under way come again until they have an answer.
Exit 0: one effect for each key, and one answer, the same bytes for all who asked.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from typing import Any, NamedTuple

from . import fresh
from .load import ROOT, server, server_url
from .verdict import verdict

TEST_IDS = 16
PATHS = ("entities/person", "clients", "batch")
BODIES: dict[str, Any] = {"entities/person": {}, "clients": {}, "batch": {"voucher": 2}}
ROWS = {"entities/person": 1, "clients": 1, "batch": 2}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idempotency", description=__doc__)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--duplicates", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2, help="of the server")
    parser.add_argument("--threads", type=int, default=8, help="of each worker")
    options = parser.parse_args()
    if not fresh.is_postgresql():
        return 2
    with fresh.database("keys"):
        return measure(options)


class Told(NamedTuple):
    """One answer: `replayed` as the header says, `code` where it is a refusal."""

    key: int
    status: int
    replayed: bool
    code: str
    body: bytes


class Sender:
    """One client with a keep-alive connection, which sends each key once it is everybody's turn."""

    def __init__(self, address: tuple[str, int], barrier: threading.Barrier) -> None:
        self.connection = http.client.HTTPConnection(*address, timeout=60)
        self.barrier = barrier
        self.told: list[Told] = []

    def send_all(self, keys: int) -> None:
        for key in range(keys):
            self.barrier.wait(60)
            while self.send(key).code == "in_progress":
                time.sleep(0.005)

    def send(self, key: int) -> Told:
        path = PATHS[key % len(PATHS)]
        headers = {
            "Content-Type": "application/json",
            "X-Test-ID": test_id(key),
            "Idempotency-Key": f"key-{key}",
        }
        self.connection.request("POST", f"/api/test/{path}", json.dumps(BODIES[path]), headers)
        answer = self.connection.getresponse()
        body = answer.read()
        code = json.loads(body).get("code", "") if answer.status >= 300 else ""
        replayed = answer.headers.get("Idempotency-Replayed") == "true"
        told = Told(key, answer.status, replayed, code, body)
        self.told.append(told)
        return told


def test_id(key: int) -> str:
    return f"stagehand_test_keys_{key % TEST_IDS}"


def measure(options: Any) -> int:
    from django.db import connection

    environment = os.environ | {"DATABASE_URL": server_url(), "PYTHONPATH": str(ROOT)}
    connection.close()
    barrier = threading.Barrier(options.duplicates)
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        address = stack.enter_context(server(options, environment, log))
        senders = [Sender(address, barrier) for _ in range(options.duplicates)]
        threads = [threading.Thread(target=sender.send_all, args=[options.keys]) for sender in senders]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.monotonic() - started
    return report(options, [told for sender in senders for told in sender.told], elapsed)


def report(options: Any, told: list[Told], elapsed: float) -> int:
    from stagehand_testdata.models import IdempotentAnswer, TestEntity

    kinds = Counter(
        f"{each.status} {each.code or ('replayed' if each.replayed else 'done')}" for each in told
    )
    done = Counter(each.key for each in told if each.status == 201 and not each.replayed)
    bodies: dict[int, set[bytes]] = {}
    for each in told:
        if each.status == 201:
            bodies.setdefault(each.key, set()).add(each.body)
    entered = Counter(TestEntity.objects.filter(origin="requested").values_list("run__test_id", flat=True))
    wanted = Counter[str]()
    for key in range(options.keys):
        wanted[test_id(key)] += ROWS[PATHS[key % len(PATHS)]]
    print(f"{options.keys:,} keys, {options.duplicates} duplicates of each at once, {elapsed:.0f} s")
    print(f"  server: {options.workers} workers of {options.threads} threads; {len(told):,} requests")
    for kind, count in sorted(kinds.items()):
        print(f"    {kind:<24}{count:>8,}")
    unexpected = [each for each in told if each.status != 201 and each.code != "in_progress"]
    counted = {
        "keys without exactly one effect": sum(1 for key in range(options.keys) if done[key] != 1),
        "keys with more answers than one": sum(1 for found in bodies.values() if len(found) != 1),
        "keys without an answer": options.keys - len(bodies),
        "rows too many or too few": sum(abs(entered[each] - wanted[each]) for each in wanted | entered),
        "answers kept, but for one a key": abs(IdempotentAnswer.objects.count() - options.keys),
        "answers that nobody expected": len(unexpected),
    }
    return verdict(counted, lambda: str(unexpected[:5]))


if __name__ == "__main__":
    sys.exit(main())
