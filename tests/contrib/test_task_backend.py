"""Tasks of Django's framework go on under the run that enqueued them: at once, and by a real worker."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from stagehand_testdata.context import CurrentRun, current_run, use_run
from stagehand_testdata.operations import reaper
from tests.making import changed
from tests.operations.test_reaper import make

from .test_tasks import run_python

if not (find_spec("django.tasks") or find_spec("django_tasks")):
    pytest.skip("needs Django 6.0 or django-tasks", allow_module_level=True)

FRAMEWORK = "django.tasks" if find_spec("django.tasks") else "django_tasks"
TASKS = {
    "default": {"BACKEND": "tests.contrib.task_backends.Immediate"},
    "plain": {"BACKEND": f"{FRAMEWORK}.backends.immediate.ImmediateBackend"},
}


def shout(word: str) -> str:
    return word.upper()


@pytest.fixture
def queued() -> Iterator[ModuleType]:
    """The host's tasks, made for a backend that works on them at once."""
    with override_settings(TASKS=TASKS):
        module = importlib.import_module("tests.contrib.queued")
        yield module
    del sys.modules[module.__name__]


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    def test_a_task_runs_under_the_run_that_enqueued_it(self, queued: ModuleType) -> None:
        run = make("stagehand_test_sender", expired_hours=None)
        with use_run(CurrentRun(run.pk, run.test_id)):
            result = queued.who.enqueue("a", b="c")
        assert result.return_value == [run.test_id, "a", {"b": "c"}]
        assert current_run() is None

    def test_a_task_that_is_enqueued_without_a_run_is_unchanged(
        self, queued: ModuleType, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(0):
            result = queued.who.enqueue("a", b="c")
        assert (result.args, result.kwargs) == (["a"], {"b": "c"})
        assert result.return_value == ["nobody", "a", {"b": "c"}]

    def test_whatever_a_task_is_like(self, queued: ModuleType) -> None:
        run = make("stagehand_test_sender", expired_hours=None)

        async def enqueue() -> Any:
            return await queued.who.aenqueue("a")

        with use_run(CurrentRun(run.pk, run.test_id)):
            assert queued.who_async.enqueue("a").return_value == [run.test_id, "a"]
            in_context = queued.who_in_context.enqueue("a")
            assert async_to_sync(enqueue)().return_value == [run.test_id, "a", {}]
            assert queued.who.using(priority=7).enqueue().return_value == [run.test_id, {}]
        assert in_context.return_value == [run.test_id, "a", "who_in_context"]

    def test_one_that_goes_to_another_backend_gets_no_argument_that_it_does_not_know(
        self, queued: ModuleType
    ) -> None:
        run = make("stagehand_test_sender", expired_hours=None)
        with use_run(CurrentRun(run.pk, run.test_id)):
            result = queued.who.using(backend="plain").enqueue("a")
        assert result.kwargs == {}
        assert result.return_value == [run.test_id, "a", {}]

    def test_one_that_was_made_for_another_backend_gets_none_either(self, queued: ModuleType) -> None:
        run = make("stagehand_test_sender", expired_hours=None)
        plain = queued.task(backend="plain")(shout).using(backend="default")
        with use_run(CurrentRun(run.pk, run.test_id)):
            assert plain.enqueue("a").return_value == "A"

    @pytest.mark.parametrize("way", ["call", "acall"])
    def test_a_worker_asks_the_ledger_whether_the_pass_still_counts(
        self, queued: ModuleType, way: str
    ) -> None:
        run, ended = make("stagehand_test_sender", expired_hours=None), make("stagehand_test_ended")
        passes = {}
        for each in (run, ended):
            with use_run(CurrentRun(each.pk, each.test_id)):
                passes[each] = queued.who.enqueue("a").kwargs
        assert reaper.reap().success

        def work(**kwargs: Any) -> Any:
            if way == "call":
                return queued.who.call("a", **kwargs)
            return async_to_sync(queued.who.acall)("a", **kwargs)

        assert work(**passes[run]) == [run.test_id, "a", {}]
        assert work(**passes[ended]) == ["nobody", "a", {}]
        assert work(testdata_pass="forged") == ["nobody", "a", {}]
        assert work() == ["nobody", "a", {}]
        with changed(ENABLED=False):
            assert work(**passes[run]) == ["nobody", "a", {}]


ENQUEUE = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.operations import reaper
from tests.operations.test_reaper import make
from tests.contrib import queued
run, ended = make("stagehand_test_sender", expired_hours=None), make("stagehand_test_ended")
with use_run(CurrentRun(ended.pk, ended.test_id)):
    queued.who.enqueue("too late")
assert reaper.reap().success
with use_run(CurrentRun(run.pk, run.test_id)):
    queued.who.enqueue("under", word="w")
    queued.who_async.enqueue("async")
    queued.who_in_context.enqueue("context")
    queued.send_on.enqueue("sent on")
queued.who.enqueue("ordinary")
"""

LOOK = """
import django, json
django.setup()
from django_tasks_db.models import DBTaskResult
print(json.dumps([
    [each.status, each.return_value] for each in DBTaskResult.objects.exclude(task_path__endswith="send_on")
]))
"""


@pytest.mark.skipif(not find_spec("django_tasks_db"), reason="needs django-tasks-db")
def test_a_worker_of_the_database_backend_works_under_the_run_while_that_is_open(tmp_path: Path) -> None:
    run_python(tmp_path, "-c", ENQUEUE)
    run_python(tmp_path, "manage.py", "db_worker", "--batch", "--no-startup-delay")
    results = json.loads(run_python(tmp_path, "-c", LOOK))
    assert {status for status, _ in results} == {"SUCCESSFUL"}
    sender = "stagehand_test_sender"
    assert sorted([each for _, each in results], key=str) == sorted(
        [
            [sender, "under", {"word": "w"}],
            [sender, "async"],
            [sender, "context", "who_in_context"],
            [sender, "sent on", {}],
            ["nobody", "too late", {}],
            ["nobody", "ordinary", {}],
        ],
        key=str,
    )
