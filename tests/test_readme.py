"""The README is true when it is pasted."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, heading: str) -> list[str]:
    """The fenced blocks of that language under that heading."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert section is not None, heading
    return re.findall(rf"^```{language}\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)


def commands(heading: str) -> list[str]:
    lines = "".join(blocks("sh", heading)).splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: str, product: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "DATABASE_"))
    }
    return subprocess.run(
        words,
        cwd=product,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh Django project with the quick start's two blocks at the end of its two files."""
    directory = tmp_path_factory.mktemp("product")
    started = run("python -m django startproject mysite .", directory)
    assert started.returncode == 0, started.stderr
    for block in blocks("python", "Quick start"):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None
        with (directory / "mysite" / name[1]).open("a") as file:
            file.write(f"\n{block}")
    return directory


@pytest.fixture(scope="module")
def server(product: Path) -> Iterator[str]:
    *prepare, serve = commands("Quick start")[:3]
    for command in prepare:
        done = run(command, product)
        assert done.returncode == 0, done.stderr
    port = free_port()
    words = shlex.split(serve.removesuffix("&").replace("8000", f"127.0.0.1:{port}"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("DJANGO_SETTINGS_MODULE", "DATABASE_URL"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, *words[1:], "--noreload"],
        cwd=product,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/login/", timeout=1)
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def test_the_quick_start_is_short() -> None:
    lines = [*blocks("python", "Quick start"), *blocks("sh", "Quick start")]
    assert sum(len(block.splitlines()) for block in lines) < 20


def test_the_quick_start_works(product: Path, server: str) -> None:
    create, cleanup = (line.replace("localhost:8000", server) for line in commands("Quick start")[3:])
    made = json.loads(run(create, product).stdout)
    assert made["status"] == "CONFIRMED"
    assert set(made["entities"]) == {"builder", "sessionType", "client", "booking"}
    receipt = json.loads(run(cleanup, product).stdout)
    assert receipt["success"] is True
    assert sum(receipt["removed"].values()) == 6


def test_the_quick_start_leaves_no_pass_without_effect(product: Path, server: str) -> None:
    done = run("python manage.py check --database default", product)
    assert done.returncode == 0, done.stderr
    assert "stagehand.W020" not in done.stderr
    assert "stagehand.W051" not in done.stderr
    granted = f"http://{server}/api/test/runs/stagehand_test_2"
    made = run(
        f"curl -s http://{server}/api/test/verify-access -H 'X-Test-ID: stagehand_test_2' --json '{{}}'",
        product,
    )
    assert '"success":true' in made.stdout
    token = json.loads(run(f"curl -s {granted}/pass --json '{{}}'", product).stdout)["token"]
    page = run(f"curl -si http://{server}/admin/login/ -H 'X-Testdata-Pass: {token}'", product)
    assert "X-Testdata-Run: stagehand_test_2" in page.stdout


@pytest.mark.parametrize("command", commands("Clean up"))
def test_the_commands_work(product: Path, server: str, command: str) -> None:
    done = run(command, product)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", commands("See it"))
def test_the_make_targets_exist(command: str) -> None:
    done = run(f"{command} --dry-run", ROOT)
    assert done.returncode == 0, done.stderr


def test_it_names_every_link_that_it_gives() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
