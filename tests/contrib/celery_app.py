"""A host's Celery app as the docs write it, with names of its own so that tests at once do not meet."""

import os
import time

from celery import Celery
from celery.signals import worker_ready
from django.conf import settings
from kombu import Queue

from stagehand_testdata.contrib.celery import beat_schedule, carry_runs

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
# The test's own database, which its process made under another name.
if name := os.environ.get("CELERY_TEST_DATABASE"):
    settings.DATABASES["default"]["NAME"] = name

QUEUE = os.environ.get("CELERY_TEST_QUEUE", "stagehand")

app = Celery("host")
app.conf.update(
    broker_url=os.environ.get("CELERY_TEST_BROKER"),
    result_backend=os.environ.get("CELERY_TEST_RESULTS"),
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    task_default_queue=QUEUE,
    task_queues=[Queue(QUEUE, queue_arguments={"x-expires": 300_000})],
)
if str(app.conf.broker_url).startswith("redis"):
    app.conf.broker_transport_options = {"global_keyprefix": f"{QUEUE}:"}

# As docs/reaper.md has it.
app.autodiscover_tasks(["stagehand_testdata.contrib"], related_name="celery")
carry_runs()
app.conf.beat_schedule = {**app.conf.beat_schedule, **beat_schedule(every=1.0)}


@app.task(name="who")
def who(*, send_on: bool = False) -> str:
    """In whose name this runs: here, or in a task that this one sends."""
    from stagehand_testdata.context import current_run

    if send_on:
        return str(who.delay().id)
    run = current_run()
    return run.test_id if run else "nobody"


@worker_ready.connect
def make_deletions_slow(**kwargs: object) -> None:
    if pause := os.environ.get("CELERY_TEST_SLOW_DELETE"):
        from django.db.models.signals import pre_delete

        from tests.host.models import Watched

        pre_delete.connect(lambda **kwargs: time.sleep(float(pause)), sender=Watched, weak=False)
