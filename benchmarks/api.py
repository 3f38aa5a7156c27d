"""schemathesis against a running server: `python -m benchmarks.api --cases 10000`.

All its checks, with the statuses that they take narrowed down, on every operation of the schema: examples at
the limits, random ones, and walks from one operation to the next. Half of the cases goes to a server that
asks for access keys, half to one that does not. Each round has a seed of its own, which is printed.
Exit status 0: not a single check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PHASES = "examples,coverage,fuzzing,stateful"
#: Whatever a request that the schema allows may be told. That it collides or names nothing is for the
#: database to say; nothing else is, but for what is listed by operation.
ACCEPTED = ["2xx", 404, 409]
ACCEPTED_ALSO: dict[str, list[int]] = {
    "exchange_token": [401],  # no token that comes out of a hat is anybody's
    "shadow_copies": [403],  # the product has no model that may be copied
}
#: And one that it does not allow. 401: it came without a key; 404: the path was wrong, or names nothing.
REFUSED = [400, 401, 404, 413]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=60, help="random ones for each operation and round")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next ones count on")
    parser.add_argument("--report", type=Path, help="where to leave the reports; nowhere as a rule")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stagehand-api-") as directory:
        reports = options.report or Path(directory)
        reports.mkdir(parents=True, exist_ok=True)
        return measure(options, Path(directory), reports)


def measure(options: argparse.Namespace, directory: Path, reports: Path) -> int:
    from project import demo

    # One client sends as fast as it can: what is told to come back later is no answer to what was sent.
    os.environ |= {"STAGEHAND_TESTDATA_RATE_PER_KEY": "", "STAGEHAND_TESTDATA_RATE_PER_ADDRESS": ""}
    # A long line is for the app to refuse: gunicorn's own 414 is no answer of the schema's.
    os.environ["GUNICORN_CMD_ARGS"] = "--limit-request-line 0"
    demo.prepare(directory / "db.sqlite3")
    total, seed = 0, options.seed
    for required, share in ((False, options.cases // 2), (True, options.cases)):
        os.environ["STAGEHAND_TESTDATA_REQUIRE_ACCESS_KEY"] = "1" if required else "0"
        config = directory / f"schemathesis-{required}.toml"
        key = new_key() if required else ""
        config.write_text(configuration(key))
        with demo.running_server() as (url, _):
            schema = directory / f"schema-{required}.json"
            schema.write_text(json.dumps(read_schema(url, key)))
            while total < share:
                report = reports / f"round-{seed}.json"
                status = run(url, schema, config, report, seed=seed, examples=options.examples)
                found = json.loads(report.read_text()) if report.exists() else {}
                cases = found.get("test_cases", {}).get("generated", 0)
                total += cases
                asked = "with" if required else "without"
                failures = len(found.get("failures", ()))
                print(f"seed {seed}: {cases} cases {asked} keys, {failures} failures", flush=True)
                if status or not cases:
                    return status or 1
                seed += 1
    print(f"{total} cases in {seed - options.seed} rounds, 0 failures")
    return 0


def configuration(key: str) -> str:
    also = "".join(
        f'[[operations]]\ninclude-operation-id = "{name}"\n'
        f"checks.positive_data_acceptance.expected-statuses = {json.dumps(ACCEPTED + statuses)}\n"
        for name, statuses in ACCEPTED_ALSO.items()
    )
    return (
        'hooks = "benchmarks.api_hooks"\n'
        'generation.database = "none"\n'
        "cache.enabled = false\n"
        "phases.fuzzing.error-feedback.enabled = false\n"
        "generation.allow-x00 = false\n"  # no schema can say so in a pattern that other texts have
        f"checks.positive_data_acceptance.expected-statuses = {json.dumps(ACCEPTED)}\n"
        f"checks.negative_data_rejection.expected-statuses = {json.dumps(REFUSED)}\n"
        # The receipt outlives the run, which is what it is for.
        '[[operations]]\ninclude-operation-id = "get_run_receipt"\nchecks.use_after_free.enabled = false\n'
        + (f'[auth.openapi.accessKey]\nbearer = "{key}"\n' if key else "")
        + also
    )


def run(url: str, schema: Path, config: Path, report: Path, *, seed: int, examples: int) -> int:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color"),
        *("run", str(schema), "--url", url, "--phases", PHASES, "--checks", "all"),
        *("--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure"),
        *("--report", "json", "--report-json-path", str(report)),
    ]
    environment = {**os.environ, "FUZZ_ROUND": str(seed)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    return done.returncode


def read_schema(url: str, key: str) -> Any:
    from project.demo import fetch

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return json.loads(fetch(f"{url}/api/test/schema", headers=headers))


def new_key() -> str:
    import datetime as dt

    from stagehand_testdata.access import keys

    return keys.create("schemathesis", dt.timedelta(hours=12)).text


if __name__ == "__main__":
    sys.exit(main())
