"""The reaper as a Celery task: real workers and a real beat, on RabbitMQ and on Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connection

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.models import Receipt, TestEntity, TestRun
from stagehand_testdata.operations import reaper
from tests.host import models
from tests.operations.test_reaper import fresh, make, poisoned

kombu = pytest.importorskip("kombu")

from stagehand_testdata.contrib import celery as contrib  # noqa: E402
from stagehand_testdata.contrib.celery import NAME, beat_schedule  # noqa: E402

RABBITMQ = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/9")

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("every", [60.0, 5])
def test_the_schedule_is_what_beat_takes(every: float) -> None:
    entry = beat_schedule(every, limit=3, queue="reaper")[NAME]
    assert entry == {
        "task": "stagehand_testdata.reap",
        "schedule": every,
        "kwargs": {"limit": 3},
        "options": {"expires": every, "queue": "reaper"},
    }


def test_the_task_is_acknowledged_late_and_keeps_its_result() -> None:
    assert contrib.reap.name == "stagehand_testdata.reap"
    assert contrib.reap.acks_late
    assert not contrib.reap.ignore_result


@pytest.mark.django_db
class TestARound:
    def test_gives_the_numbers(self) -> None:
        make("stagehand_test_task")
        assert contrib.reap.apply(kwargs={"limit": 5}).get()["removed"] == 1

    def test_tells_of_a_failure_and_fails_no_task(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make("stagehand_test_bad")
        poisoned(monkeypatch, run.test_id)
        assert contrib.reap.apply().get()["failed"] == 1
        assert fresh(run).purge_failures == 1

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({}, 300.0),
            ({"soft_time_limit": 20}, 20),
            ({"time_limit": 30}, 30),
            ({"soft_time_limit": 20, "time_limit": 10}, 10),
            ({"soft_time_limit": 2000}, 300.0),
        ],
    )
    def test_ends_before_the_shortest_time_limit(
        self, monkeypatch: pytest.MonkeyPatch, asked: dict[str, float], expected: float
    ) -> None:
        make("stagehand_test_limit")
        given: list[float] = []
        monkeypatch.setattr(reaper, "within", lambda seconds: given.append(seconds) or (lambda: True))
        limits = (asked.get("time_limit"), asked.get("soft_time_limit"))
        contrib.reap.push_request(timelimit=limits)
        try:
            assert contrib.reap.run()["stopped"]
        finally:
            contrib.reap.pop_request()
        assert given == [expected * contrib.SHARE]


def reachable(url: str) -> bool:
    try:
        with kombu.Connection(url, connect_timeout=3) as broker:
            broker.ensure_connection(max_retries=1)
    except Exception:  # noqa: BLE001 - each transport has errors of its own
        return False
    return True


class Host:
    """A host's workers and beat as processes of their own, on one broker and under names of their own."""

    def __init__(self, broker: str, folder: Path) -> None:
        self.broker = broker
        self.folder = folder
        self.queue = f"stagehand-{uuid.uuid4().hex}"
        self.started: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "CELERY_TEST_BROKER": broker,
            "CELERY_TEST_RESULTS": f"file://{folder}",
            "CELERY_TEST_QUEUE": self.queue,
            "CELERY_TEST_DATABASE": str(connection.settings_dict["NAME"]),
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        self.log = self.folder / f"{len(self.started)}.log"
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.contrib.celery_app", *arguments],
                env=self.environment | environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        return process

    def worker(self, **environment: str) -> subprocess.Popen[bytes]:
        alone = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        name = f"{self.queue}-{len(self.started)}@localhost"
        return self.start("worker", "--pool", "solo", "-n", name, "-l", "INFO", *alone, **environment)

    def beat(self) -> subprocess.Popen[bytes]:
        schedule = self.folder / "schedule"
        return self.start("beat", "-l", "INFO", "--schedule", str(schedule), "--pidfile=")

    def send(self, name: str = NAME, **arguments: object) -> str:
        """The id under which the worker leaves the task's result."""
        from celery import Celery

        with Celery(broker=self.broker) as app:
            if self.broker.startswith("redis"):
                app.conf.broker_transport_options = {"global_keyprefix": f"{self.queue}:"}
            queue = kombu.Queue(self.queue, queue_arguments={"x-expires": 300_000})
            return str(app.send_task(name, kwargs=arguments, queue=queue).id)

    def result(self, task_id: str) -> object:
        from celery import Celery

        with Celery(backend=f"file://{self.folder}") as app:
            found = app.AsyncResult(task_id)
            self.wait_until(found.ready)
            return found.get()

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(each.read_text(errors="replace")[-3000:] for each in self.folder.glob("*.log"))

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        with kombu.Connection(self.broker) as broker:
            if self.broker.startswith("redis"):
                keys = broker.default_channel.client.keys(f"{self.queue}:*")
                for key in keys:
                    broker.default_channel.client.delete(key)
            else:
                broker.default_channel.queue_delete(self.queue)


@pytest.fixture(params=[RABBITMQ, REDIS], ids=["rabbitmq", "redis"])
def host(request: pytest.FixtureRequest, transactional_db: None, tmp_path: Path) -> Iterator[Host]:
    if not reachable(request.param):
        text = f"nobody answers at {request.param.partition('@')[2] or request.param}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(text)
    host = Host(request.param, tmp_path)
    try:
        yield host
    finally:
        host.close()


def test_a_task_is_worked_on_under_the_run_that_sent_it_while_that_is_open(host: Host) -> None:
    contrib.carry_runs()
    run, ended = make("stagehand_test_sender", expired_hours=None), make("stagehand_test_ended")
    with use_run(CurrentRun(ended.pk, ended.test_id)):
        too_late = host.send("who")
    assert reaper.reap().success
    with use_run(CurrentRun(run.pk, run.test_id)):
        under, sender = host.send("who"), host.send("who", send_on=True)
    ordinary = host.send("who")
    host.worker()
    assert host.result(under) == run.test_id
    assert host.result(str(host.result(sender))) == run.test_id
    assert host.result(too_late) == host.result(ordinary) == "nobody"


def closed(run: TestRun) -> bool:
    return bool(fresh(run).state == "closed")


def test_a_worker_purges_what_is_expired_when_beat_says_so(host: Host) -> None:
    run, running = make("stagehand_test_beaten", "book"), make("stagehand_test_on", expired_hours=None)
    host.worker()
    host.beat()
    host.wait_until(lambda: closed(run))
    assert fresh(running).state == "open"
    assert models.Voucher.objects.count() == 1
    assert not models.Book.objects.exists()


def test_what_a_killed_worker_leaves_another_finishes(host: Host) -> None:
    run = make("stagehand_test_killed", *["watched"] * 12, "voucher")
    first = host.worker(CELERY_TEST_SLOW_DELETE="0.5", STAGEHAND_TESTDATA_PURGE_BATCH_SIZE="3")
    host.send()
    host.wait_until(lambda: TestEntity.objects.filter(run=run, state="removed").count() >= 3)
    first.send_signal(signal.SIGKILL)
    assert first.wait(10) == -signal.SIGKILL
    standing = TestEntity.objects.standing().filter(run=run)
    assert standing.filter(type="watched").count() == models.Watched.objects.count()
    assert 0 < standing.count() < 13
    host.worker()
    host.send()
    host.wait_until(lambda: closed(run))
    assert not models.Watched.objects.exists()
    assert not models.Voucher.objects.exists()
    assert not standing.exists()
    assert Receipt.objects.filter(run=run, body__success=True).count() == 1


def test_a_worker_that_is_asked_to_stop_finishes_what_it_is_at(host: Host) -> None:
    run = make("stagehand_test_warm", *["watched"] * 6)
    worker = host.worker(CELERY_TEST_SLOW_DELETE="0.3")
    host.send()
    host.wait_until(lambda: "received" in host.logs())
    worker.terminate()
    assert worker.wait(60) == 0, host.logs()
    assert closed(run)


def test_no_message_waits_for_a_worker_for_longer_than_the_next_beat(host: Host) -> None:
    """A host without a worker for a day comes back to one round, not to thousands."""
    host.beat()
    time.sleep(6)
    worker = host.worker()
    host.wait_until(lambda: "succeeded" in host.logs())
    assert worker.poll() is None
    done = host.logs().count("succeeded")
    assert done <= 3, host.logs()
