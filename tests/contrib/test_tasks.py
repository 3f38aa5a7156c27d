"""The reaper as a task of Django's own framework, or of the package that brings it to older Django."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from stagehand_testdata.models import TestRun
from tests.host import models
from tests.operations.test_reaper import fresh, make, poisoned

if not (find_spec("django.tasks") or find_spec("django_tasks")):
    pytest.skip("needs Django 6.0 or django-tasks", allow_module_level=True)

from stagehand_testdata.contrib import tasks

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.django_db(transaction=True)
class TestARound:
    def test_is_enqueued_and_gives_the_numbers(self) -> None:
        run = make("stagehand_test_task", "book")
        result = tasks.reap.enqueue()
        assert result.return_value["purged"] == 1
        assert fresh(run).state == "closed"
        assert not models.Book.objects.exists()

    def test_takes_as_many_runs_as_it_is_told(self) -> None:
        make("stagehand_test_1")
        make("stagehand_test_2")
        assert tasks.reap.enqueue(limit=1).return_value["purged"] == 1
        assert TestRun.objects.filter(state="open").count() == 1

    def test_ends_when_its_time_is_up(self) -> None:
        make("stagehand_test_task")
        assert tasks.reap.enqueue(seconds=0).return_value["stopped"] is True

    def test_tells_of_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make("stagehand_test_bad")
        poisoned(monkeypatch, run.test_id)
        assert tasks.reap.enqueue().return_value["failed"] == 1
        assert fresh(run).purge_failures == 1


PREPARE = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from tests.operations.test_reaper import make
make("stagehand_test_queued", "book", "voucher")
make("stagehand_test_on", expired_hours=None)
from stagehand_testdata.contrib.tasks import reap
reap.enqueue(limit=5)
"""

LOOK = """
import django, json
django.setup()
from django_tasks_db.models import DBTaskResult
from stagehand_testdata.models import TestRun
print(json.dumps([
    dict(TestRun.objects.values_list("test_id", "state")),
    [each.return_value for each in DBTaskResult.objects.all()],
]))
"""


def run_python(folder: Path, *arguments: str) -> str:
    """What a process prints that has a database of its own in this folder, and its tasks in there."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.contrib.tasks_settings",
            "DATABASE_URL": f"sqlite:///{folder / 'host.sqlite3'}",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not find_spec("django_tasks_db"), reason="needs django-tasks-db")
def test_a_worker_of_the_database_backend_purges_what_is_expired(tmp_path: Path) -> None:
    run_python(tmp_path, "-c", PREPARE)
    states, results = json.loads(run_python(tmp_path, "-c", LOOK))
    assert set(states.values()) == {"open"}
    assert results == [None]
    run_python(tmp_path, "manage.py", "db_worker", "--batch", "--no-startup-delay")
    states, results = json.loads(run_python(tmp_path, "-c", LOOK))
    assert states == {"stagehand_test_queued": "closed", "stagehand_test_on": "open"}
    assert [result["purged"] for result in results] == [1]
