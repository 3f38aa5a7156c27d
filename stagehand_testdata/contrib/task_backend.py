"""The run of a request in the tasks of Django's own framework that it enqueues.

A host names a backend of its own in TASKS, which is the one that it had and this:

    class TaskBackend(CarriesRuns, DatabaseBackend):
        pass

# Note [How the pass travels]
The framework has no headers: a worker gets the arguments that were enqueued and nothing else. So the pass is
one of them. The backend puts it in, and the task takes it out before its function is called. Not in `tasks`,
which makes a task: that asks for the backend, whose module it could not be then.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

try:
    from django.tasks.base import Task
except ModuleNotFoundError:
    try:
        from django_tasks.base import Task  # type: ignore[assignment]
    except ModuleNotFoundError as missing:
        raise ImportError(
            "stagehand_testdata.contrib.task_backend needs Django 6.0, or before it"
            " 'stagehand-testdata[tasks]'"
        ) from missing

from ..context import current_run, use_run

if TYPE_CHECKING:
    from django.tasks.backends.base import BaseTaskBackend
else:
    BaseTaskBackend = object  # a mixin: the host's backend comes after it

#: What a task's arguments call its pass.
_ARGUMENT = "testdata_pass"


class CarriedTask(Task):  # type: ignore[type-arg]
    """A task whose function runs under the run of whoever enqueued it, while that run is open."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        with _under(kwargs.pop(_ARGUMENT, None)):
            return super().call(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        with await sync_to_async(_under)(kwargs.pop(_ARGUMENT, None)):
            return await super().acall(*args, **kwargs)


class CarriesRuns(BaseTaskBackend):
    """For a backend of the host's own: `class TaskBackend(CarriesRuns, DatabaseBackend)`."""

    task_class = CarriedTask

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        return super().enqueue(task, args, _with_pass(task, kwargs))

    async def aenqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        return await super().aenqueue(task, args, _with_pass(task, kwargs))


def _with_pass(task: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    # TASKS is read while Django still loads its apps, so before any model may be.
    from ..operations import passes

    run = current_run()
    # A task of another backend (`using(backend=…)`) would hand the pass to its function.
    if run is None or not isinstance(task, CarriedTask):
        return kwargs
    return {**kwargs, _ARGUMENT: passes.hand_on(run)}


def _under(token: str | None) -> AbstractContextManager[None]:
    from ..operations import passes

    run = None if token is None else passes.admit(token)
    return nullcontext() if run is None else use_run(run)
