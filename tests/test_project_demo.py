"""`make demo`, as a newcomer runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def start(*arguments: str, **kwargs: Any) -> subprocess.Popen[str]:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "DATABASE_"))
    }
    command = [sys.executable, "-u", "-m", "project.demo", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, **kwargs)


def test_runs_the_whole_cycle_and_leaves_nothing() -> None:
    with start(stderr=subprocess.STDOUT) as demo:
        output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    assert "OK: all" in output


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_takes_its_server_with_it_when_interrupted(signum: int) -> None:
    with start() as demo:
        assert demo.stdout
        url = demo.stdout.readline().split()[7].rstrip(".")
        demo.send_signal(signum)
        demo.communicate(timeout=60)
    assert demo.returncode == 130
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(url, timeout=5)
