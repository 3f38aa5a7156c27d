"""64 pytest-xdist workers at once on one gunicorn and PostgreSQL: `python -m benchmarks.runners`.

Each test waits until all the others have begun, makes rows with the same names and defaults as they, and
looks whether it sees its own. Exit 0: no test failed, no row was given to two, nothing is left, and
every real row is what it was.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from . import fresh, load
from .verdict import verdict

SUITE = """
import json, os, time
from pathlib import Path
import pytest

HERE, ALL = Path(__file__).parent, int(os.environ["ALL"])

@pytest.mark.parametrize("number", range(ALL))
def test_it(testdata_run, number):
    run = testdata_run
    (HERE / f"begun-{number}").touch()
    end = time.monotonic() + 300
    while len(list(HERE.glob("begun-*"))) < ALL:
        assert time.monotonic() < end, "the others never began"
        time.sleep(0.05)
    builder = run.builder(name="Grace")
    offers = run.session_types(builder, {"name": "First"}, {"name": "Second"})
    client = run.client(name="Zoe")
    booking = run.booking_scenario(builder=builder, client=client, session_type=offers[1])
    products = run.create("product", count=5)
    run.booking_scenario(status="CONFIRMED")
    entries = run.entities(state="live")
    mine = {(each.type, each.id) for each in entries}
    assert {("builder", builder.id), ("client", client.id), ("booking", booking.id)} <= mine
    assert {("product", each.id) for each in products} <= mine
    (HERE / f"made-{number}.json").write_text(json.dumps({
        "test_id": run.test_id, "emails": [builder.email, client.email],
        "rows": [[each.model, each.id] for each in entries],
    }))
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runners", description=__doc__)
    parser.add_argument("--tests", type=int, default=64, help="as many workers")
    parser.add_argument("--workers", type=int, default=2, help="of the server")
    parser.add_argument("--threads", type=int, default=16, help="of each worker")
    parser.add_argument("--guards", action="store_true", help="with the guards in the database")
    options = parser.parse_args()
    if not fresh.is_postgresql():
        return 2
    with fresh.database("runners"):
        return measure(options)


def measure(options: Any) -> int:
    from django.db import connection

    load.seed_real_rows()
    if options.guards:
        from stagehand_testdata.operations import guards

        guards.install(connection.alias)
    before = load.snapshot()
    environment = os.environ | {"DATABASE_URL": load.server_url(), "PYTHONPATH": str(load.ROOT)}
    connection.close()
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile() as log:
        here = Path(directory)
        (here / "test_runners.py").write_text(SUITE)
        with load.server(options, environment, log) as (host, port):
            started = time.monotonic()
            done = run_suite(here, f"http://{host}:{port}", options.tests)
            elapsed = time.monotonic() - started
        made = [json.loads(each.read_text()) for each in here.glob("made-*.json")]
    return report(options, done, elapsed=elapsed, made=made, before=before)


def run_suite(here: Path, url: str, tests: int) -> subprocess.CompletedProcess[str]:
    words = ["-p", "stagehand_testdata", "-p", "xdist", "-p", "no:cacheprovider", "-q"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words, "-n", str(tests), "--testdata-url", url],
        cwd=here,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(load.ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "ALL": str(tests),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def report(
    options: Any,
    done: subprocess.CompletedProcess[str],
    *,
    elapsed: float,
    made: list[dict[str, Any]],
    before: load.Tables,
) -> int:
    from stagehand_testdata.models import TestEntity, TestRun

    after = load.snapshot()
    told = re.findall(r"^(?:testdata: .*|.*\d+ passed.*)$", done.stdout, re.MULTILINE)
    rows = Counter(tuple(row) for each in made for row in each["rows"])
    emails = Counter(email for each in made for email in each["emails"])
    ids = Counter(each["test_id"] for each in made)
    print(f"{options.tests} tests at once on {options.workers} x {options.threads} threads, {elapsed:.0f} s")
    print(f"  guards: {options.guards}; {rows.total():,} rows of {len(made)} runs; {'; '.join(told)}")
    counted = {
        "tests that failed": options.tests - len(made) + (done.returncode != 0),
        "rows that two runs were given": sum(each > 1 for each in rows.values()),
        "addresses that two runs were given": sum(each > 1 for each in emails.values()),
        "test ids that two runs had": sum(each > 1 for each in ids.values()),
        "rows left in the host's tables": sum(((after[t] - found).total() for t, found in before.items()), 0),
        "real rows changed or gone": sum(((found - after[t]).total() for t, found in before.items()), 0),
        "entries that stand": TestEntity.objects.standing().count(),
        "runs not closed": TestRun.objects.unfinished().count(),
    }
    return verdict(counted, lambda: f"\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
