"""The reaper as a task of Django's own framework, or of the `django-tasks` package before Django 6.0.

`reap.enqueue()` puts one round into the queue of the task backend that the host has configured. The framework
has no clock of its own: whoever enqueues it says how often.
"""

from __future__ import annotations

from typing import Any

try:
    from django.tasks import task
except ModuleNotFoundError:
    try:
        from django_tasks import task  # type: ignore[no-redef]
    except ModuleNotFoundError as missing:
        raise ImportError(
            "stagehand_testdata.contrib.tasks needs Django 6.0, or 'stagehand-testdata[tasks]' before it"
        ) from missing

from ..access import trail
from ..operations.reaper import reap as reap_expired
from ..operations.reaper import within

SECONDS = 300.0


@task()
def reap(limit: int | None = None, seconds: float = SECONDS) -> dict[str, Any]:
    """Purge what is past its end, until nothing is or the time is up; the round in numbers."""
    with trail.acting(trail.Act("task", "stagehand_testdata.reap")):
        return reap_expired(limit=limit, stop=within(seconds)).counts()
