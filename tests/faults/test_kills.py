"""Killed with SIGKILL at any point, a purge or a creating call leaves what a second purge ends."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

pytestmark = pytest.mark.django_db(transaction=True)


def kill(url: str, *arguments: str) -> dict[str, Any]:
    """The figures of a process that kills its own children; the databases must be left to it."""
    connection.close()
    command = [sys.executable, "-m", "tests.faults", "kill", "--sample", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "DATABASE_URL": url}
    )
    assert done.stdout, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


@pytest.mark.skipif(connection.vendor != "postgresql", reason="needs PostgreSQL (DATABASE_URL)")
def test_killed_at_any_point_on_postgresql(transactional_db: None) -> None:
    url, _, name = os.environ["DATABASE_URL"].rpartition("/")
    test_name = str(connection.settings_dict["NAME"])
    query = f"?{name.partition('?')[2]}" if "?" in name else ""

    figures = kill(f"{url}/{test_name}{query}", "--kills=40", "--graphs=4", "--seed=100")

    assert figures["failures"] == []
    assert sum(figures["trials"].values()) >= 80


@pytest.mark.skipif(connection.vendor != "sqlite", reason="needs SQLite (DATABASE_URL)")
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_killed_at_any_point_on_sqlite(journal: str, transactional_db: None, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite3"
    connection.ensure_connection()
    with sqlite3.connect(copy) as target:
        connection.connection.backup(target)
    target.close()

    figures = kill(f"sqlite:///{copy}", "--kills=25", "--graphs=2", "--seed=100", f"--journal={journal}")

    assert figures["failures"] == []
    assert sum(figures["trials"].values()) >= 40
