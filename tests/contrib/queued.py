"""A host's tasks. Import it only where TASKS has the backend that they are for."""

from __future__ import annotations

from typing import Any

try:
    from django.tasks import task
except ModuleNotFoundError:
    from django_tasks import task

from stagehand_testdata.context import current_run


def _said(*said: Any) -> list[Any]:
    run = current_run()
    return [run.test_id if run else "nobody", *said]


@task()
def who(*words: str, **named: str) -> list[Any]:
    """In whose name this runs, and with which arguments."""
    return _said(*words, named)


@task()
async def who_async(word: str) -> list[Any]:
    return _said(word)


@task(takes_context=True)
def who_in_context(context: Any, word: str) -> list[Any]:
    return _said(word, context.task_result.task.name)


@task()
def send_on(word: str) -> None:
    who.enqueue(word)
