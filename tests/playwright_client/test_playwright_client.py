"""The TypeScript client: its types are the server's, and its tests pass in Chromium and leave nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .schema import CLIENT

ROOT = CLIENT.parents[1]
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def packages() -> None:
    """What the client's package.json names, installed once into a directory that git ignores."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if not (CLIENT / "node_modules").is_dir():
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(command, cwd=CLIENT, capture_output=True, check=False, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm could not install the client's packages: {done.stderr[-300:]}")


def run(*command: str, **environment: str) -> None:
    done = subprocess.run(
        command,
        cwd=CLIENT,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("packages")
def test_the_types_are_those_of_the_openapi() -> None:
    """`python -m tests.playwright_client.schema` writes them anew."""
    run(sys.executable, "-m", "tests.playwright_client.schema", "--check", PYTHONPATH=str(ROOT))


@pytest.mark.usefixtures("packages")
def test_it_compiles(tmp_path: Path) -> None:
    run("npx", "--no-install", "tsc", "--noEmit")
    run("npx", "--no-install", "tsc", "--project", "tsconfig.build.json", "--outDir", str(tmp_path))
    assert (tmp_path / "index.d.ts").exists()


@pytest.mark.usefixtures("packages")
def test_its_tests_pass_in_chromium_and_every_table_is_as_before(tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium")
    run(
        sys.executable,
        "-m",
        "tests.playwright_client.product",
        str(tmp_path / "db.sqlite3"),
        PYTHONPATH=str(ROOT),
    )
