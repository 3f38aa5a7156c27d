"""A CI's machine: an environment with nothing but httpx beside the package, and no Django."""

from __future__ import annotations

import os
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 0.3
EVERY_MODULE = """
import importlib, pkgutil, stagehand_testdata.client as client
for each in pkgutil.walk_packages(client.__path__, client.__name__ + "."):
    if not each.name.endswith("__main__"):
        importlib.import_module(each.name)
"""


def closure(name: str) -> set[str]:
    """What pip would install with that distribution, by what is installed here; no extras."""
    found, waiting = set(), [name]
    while waiting:
        if (each := waiting.pop()) in found:
            continue
        found.add(each)
        for text in distribution(each).requires or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed.name)
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fresh environment, as `pip install --no-deps stagehand-testdata` and httpx make it."""
    home = tmp_path_factory.mktemp("ci")
    venv.create(home, with_pip=False, symlinks=True)
    [site] = home.glob("lib/python*/site-packages")
    for name in closure("httpx"):
        for file in distribution(name).files or []:
            top = file.parts[0]
            if top != ".." and not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    (site / "stagehand_testdata").symlink_to(ROOT / "stagehand_testdata")
    return home / "bin" / "python"


def run(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *words], cwd=python.parent, capture_output=True, text=True, check=False)


def test_there_is_no_django_there(python: Path) -> None:
    assert "No module named 'django'" in run(python, "-c", "import django").stderr


@pytest.mark.parametrize(
    "words",
    [
        ("-c", "from stagehand_testdata.client import TestDataManager, AsyncTestDataManager"),
        ("-c", EVERY_MODULE),
        ("-m", "stagehand_testdata.client", "--version"),
        ("-m", "stagehand_testdata.client", "cleanup", "--url", "http://127.0.0.1:9"),
    ],
    ids=["import", "every module", "version", "cleanup"],
)
def test_the_client_works(python: Path, words: tuple[str, ...]) -> None:
    done = run(python, *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_talks_to_a_server(python: Path, live_server: object) -> None:
    done = run(python, "-m", "stagehand_testdata.client", "types", "--url", str(live_server))
    assert done.returncode == 0, done.stderr
    assert "builder" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("-c", "from stagehand_testdata.client import TestDataManager"),
        ("-m", "stagehand_testdata.client", "--version"),
        # All that a command imports, up to the socket.
        ("-m", "stagehand_testdata.client", "types", "--url", "ftp://none"),
    ],
    ids=["import", "version", "command"],
)
def test_it_starts_in_a_moment(python: Path, words: tuple[str, ...]) -> None:
    took = []
    for _ in range(8):
        child = subprocess.Popen(
            [python, *words], cwd=python.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, usage = os.wait4(child.pid, 0)
        child.returncode = 0
        took.append(usage.ru_utime + usage.ru_stime)
    # The processor's time, and the least of it: what else the machine does is not the client's.
    assert min(took) < LIMIT, took
