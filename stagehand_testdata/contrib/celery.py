"""The reaper as a Celery task, and the run of a request in the tasks that it starts.

The host's app finds it by `app.autodiscover_tasks(["stagehand_testdata.contrib"], related_name="celery")`;
`carry_runs()`, called there, makes its tasks go on under the run of whoever sent them.

# Note [A reaper that dies]
The message is acknowledged late, so a worker that dies gives it back. It would do without: whatever the dead
one had not committed is due still, and the next beat comes for it. That is also why a task whose process was
killed is not sent again to kill the next one (`reject_on_worker_lost` stays off).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

try:
    from celery import Task, shared_task, signals
except ModuleNotFoundError as missing:
    raise ImportError(
        "stagehand_testdata.contrib.celery needs Celery: pip install 'stagehand-testdata[celery]'"
    ) from missing

NAME = "stagehand_testdata.reap"
#: How long a round may take where no time limit is shorter.
SECONDS = 300.0
#: Of the shortest limit: the batch in hand is finished before it strikes.
SHARE = 0.8


@shared_task(bind=True, name=NAME, acks_late=True, ignore_result=False)  # type: ignore[untyped-decorator]
def reap(self: Task, limit: int | None = None) -> dict[str, Any]:
    """Purge what is past its end, until nothing is or the time is up; the round in numbers."""
    # Hosts import the schedule where they make their app, before any model may be.
    from ..access import trail
    from ..operations import reaper

    with trail.acting(trail.Act("task", NAME)):
        return reaper.reap(limit=limit, stop=reaper.within(_seconds(self) * SHARE)).counts()


def beat_schedule(every: float = 60.0, *, limit: int | None = None, **options: Any) -> dict[str, Any]:
    """What to put into the app's `beat_schedule`: a round every so many seconds.

    `options` are those of `apply_async`: a queue, say. A round that nobody took in time is dropped, so that
    no pile of them waits for a worker.
    """
    return {
        NAME: {
            "task": NAME,
            "schedule": every,
            "kwargs": {"limit": limit},
            "options": {"expires": every, **options},
        }
    }


def carry_runs() -> None:
    """Let every task that is sent under a run be worked on under that run, while the run is open.

    Call it where the app is made: who sends a task must know of it as well as who works on it.
    """
    for signal, receiver in (
        (signals.before_task_publish, _send_along),
        (signals.task_prerun, _enter),
        (signals.task_postrun, _leave),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"{NAME}.{receiver.__name__}")


#: What a task's message calls its pass.
_HEADER = "testdata_pass"
#: The tasks that this process works on under a run, by id.
_entered: dict[str, ExitStack] = {}


def _send_along(headers: dict[str, Any] | None = None, **kwargs: Any) -> None:
    from ..context import current_run
    from ..operations import passes

    if headers is not None and (run := current_run()) is not None:
        headers[_HEADER] = passes.hand_on(run)


def _enter(task_id: str, task: Task, **kwargs: Any) -> None:
    from ..context import use_run
    from ..operations import passes

    token = task.request.get(_HEADER)
    # Within the sender's own process (task_always_eager) no message was sent, and the run is current already.
    run = None if token is None else passes.admit(token)
    if run is not None:
        stack = _entered[task_id] = ExitStack()
        stack.enter_context(use_run(run))


def _leave(task_id: str, **kwargs: Any) -> None:
    stack = _entered.pop(task_id, None)
    if stack is not None:
        stack.close()


def _seconds(task: Task) -> float:
    """The shortest limit of this round: the caller's, the task's, the app's, or our own."""
    hard, soft = task.request.timelimit or (None, None)
    return min(soft or task.soft_time_limit or SECONDS, hard or task.time_limit or SECONDS, SECONDS)
