"""The command, as an operator types it."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import runs
from tests.conftest import Wire, host_counts
from tests.host import models
from tests.making import changed

from .running import run_command

pytestmark = pytest.mark.django_db


def purge(*arguments: str) -> tuple[int, str]:
    """(exit status, output) of the command."""
    return run_command("purge_test_data", *arguments)


def expire(wire: Wire) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    TestRun.objects.filter(test_id=wire.test_id).update(
        opened_at=past - dt.timedelta(hours=1), expires_at=past
    )


class TestWhichRuns:
    def test_one_by_name(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        other = new_wire()
        wire.entity("voucher")
        other.entity("voucher")
        status, text = purge("--run", wire.test_id)
        assert status == 0
        assert f"{wire.test_id}: removed 1 voucher, closed" in text
        assert models.Voucher.objects.count() == 1

    def test_expired_ones_by_the_databases_clock(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        other = new_wire()
        wire.entity("voucher")
        other.entity("voucher")
        expire(wire)
        assert purge("--expired")[0] == 0
        assert runs.find(wire.test_id, "").state == "closed"
        assert runs.find(other.test_id, "").state == "open"

    def test_those_of_a_scope_and_an_age(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        other = new_wire()
        wire.entity("voucher")
        other.post("verify-access", {"scope": "persistent_session"})
        other.entity("voucher")
        assert purge("--scope", "persistent_session", "--older-than", "1h")[0] == 0
        assert models.Voucher.objects.count() == 2
        assert purge("--scope", "persistent_session")[0] == 0
        assert runs.find(other.test_id, "").state == "closed"
        assert models.Voucher.objects.count() == 1
        assert purge("--older-than", "1s")[0] == 0

    def test_all_of_them_when_told_twice(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        wire.entity("book")
        new_wire().entity("voucher")
        assert purge("--all", "--yes")[0] == 0
        assert not models.Book.objects.exists()
        assert not models.Voucher.objects.exists()

    def test_with_the_gate_closed_and_a_key_required(self, wire: Wire, settings: Any) -> None:
        wire.entity("voucher")
        settings.STAGEHAND_TESTDATA = {}
        assert purge("--run", wire.test_id)[0] == 0
        assert not models.Voucher.objects.exists()


class TestWhatIsLeft:
    def test_is_said_and_makes_the_exit_status_1(self, wire: Wire) -> None:
        book = wire.entity("book")
        models.Review.objects.create(book_id=book["id"], text="real")
        status, text = purge("--run", wire.test_id)
        assert status == 1
        assert (
            f"stays: book {book['id']}: rows that this purge may not remove point at it (1 host.Review)"
            in text
        )
        assert "3 rows left" in text

    def test_is_in_the_json_too(self, wire: Wire) -> None:
        book = wire.entity("book")
        models.Review.objects.create(book_id=book["id"], text="real")
        status, text = purge("--run", wire.test_id, "--json")
        document = json.loads(text)
        assert status == 1
        assert document["failed"] == []
        assert document["runs"][0]["remaining"] == 3
        assert document["runs"][0]["success"] is False

    def test_by_one_poisoned_run_does_not_keep_the_others_waiting(
        self, wire: Wire, new_wire: Callable[[], Wire], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from stagehand_testdata.management.commands import purge_test_data

        other = new_wire()
        wire.entity("voucher")
        other.entity("voucher")
        plain = purge_test_data.purge_run

        def poisoned(run: TestRun, **kwargs: Any) -> Any:
            if run.test_id == wire.test_id:
                raise RuntimeError("poison")
            return plain(run, **kwargs)

        monkeypatch.setattr(purge_test_data, "purge_run", poisoned)
        status, text = purge("--all", "--yes")
        assert status == 1
        assert "failed, RuntimeError: poison" in text
        assert runs.find(other.test_id, "").state == "closed"


class TestDryRun:
    def test_changes_nothing_and_says_what_would_go(self, wire: Wire) -> None:
        wire.entity("book")
        before = host_counts()
        status, text = purge("--run", wire.test_id, "--dry-run")
        assert status == 0
        assert "would remove 1 author, 1 book, 1 chapter" in text
        assert host_counts() == before
        assert runs.find(wire.test_id, "").state == "open"

    def test_of_a_held_row_has_exit_status_1(self, wire: Wire) -> None:
        book = wire.entity("book")
        models.Review.objects.create(book_id=book["id"], text="real")
        status, text = purge("--all", "--dry-run", "--json")
        assert status == 1
        plan = json.loads(text)["runs"][0]
        assert {each["type"] for each in plan["quarantined"]} == {"author", "book", "country"}


MISUSED = [
    ((), "Say which runs"),
    (("--run", "nobody"), "There is no run 'nobody'"),
    (("--all", "--run", "x"), "--all stands alone"),
    (("--all", "--expired"), "--all stands alone"),
    (("--all",), "--all needs --yes"),
    (("--older-than", "soon"), "'soon' is no duration"),
    (("--batch-size", "0", "--expired"), "'0' is no number of rows"),
    (("--scope", "nothing"), "invalid choice"),
    (("--expired", "--watch", "0"), "0 is no pause"),
    (("--expired", "--watch", "0m"), "0 is no pause"),
    (("--expired", "--watch", "-5"), "'-5' is no duration"),
    (("--expired", "--watch", "1.5"), "'1.5' is no duration"),
    (("--expired", "--watch", "often"), "'often' is no duration"),
    (("--expired", "--watch", "999999d"), "'999999d' is too long"),
    (("--run", ""), "--run is empty"),
    (("--run", os.fsdecode(b"\xff")), "is no text"),
    (("--watch", "30"), "Say which runs"),
    (("--all", "--yes", "--watch", "30"), "--watch needs --expired"),
    (("--scope", "ephemeral", "--watch", "30"), "--watch needs --expired"),
    (("--expired", "--watch", "30", "--dry-run"), "leave out --dry-run"),
    (("--limit", "3", "--all", "--yes"), "--limit needs --expired"),
    (("--expired", "--limit", "0"), "'0' is no number"),
    (("--expired", "--confirm", "abc"), "--confirm is for one plan"),
    (("--confirm", "abc"), "Say which runs"),
]

EACH_MISUSE = """
import contextlib, io, json, sys, django
django.setup()
from stagehand_testdata.management.commands.purge_test_data import Command
told = []
for arguments in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            Command(stderr=said).run_from_argv(["manage.py", "purge_test_data", *arguments])
            status = 0
        except SystemExit as stopped:
            status = stopped.code
    told.append([status, said.getvalue()])
json.dump(told, sys.stdout)
"""


def test_misuse_is_one_line_and_exit_status_2() -> None:
    """One process for all of them, as each would be on a command line: starting takes the time."""
    done = subprocess.run(
        [sys.executable, "-c", EACH_MISUSE],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment()},
        input=json.dumps([arguments for arguments, _ in MISUSED]),
        capture_output=True,
        text=True,
        check=True,
    )
    for (arguments, says), (status, said) in zip(MISUSED, json.loads(done.stdout), strict=True):
        assert status == 2, (arguments, said)
        assert says in said.strip().splitlines()[-1], arguments
        assert "Traceback" not in said


def test_misuse_of_the_real_command_line_is_one_line_and_exit_status_2() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "purge_test_data", "--all", "--run", "x"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment()},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 2
    assert "--all stands alone" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


class TestConfirm:
    def digest(self, wire: Wire) -> str:
        status, text = purge("--run", wire.test_id, "--dry-run", "--json")
        assert status == 0
        digest: str = json.loads(text)["runs"][0]["digest"]
        assert f"plan: {digest}" in purge("--run", wire.test_id, "--dry-run")[1]
        return digest

    def test_lets_a_run_over_the_limits_go(self, wire: Wire) -> None:
        wire.entity("book")
        with changed(MAX_ROWS_PER_PURGE=2):
            status, text = purge("--run", wire.test_id)
            assert status == 1
            assert "halted" in text
            assert f"--confirm {self.digest(wire)}" in text
            assert models.Book.objects.exists()
            assert runs.find(wire.test_id, "").state == "open"
            assert purge("--run", wire.test_id, "--confirm", self.digest(wire))[0] == 0
        assert not models.Book.objects.exists()

    def test_of_another_plan_removes_nothing_and_says_to_look_again(self, wire: Wire) -> None:
        wire.entity("book")
        digest = self.digest(wire)
        wire.entity("voucher")
        for each in (digest, "", "x" * 64, digest[:12]):
            status, text = purge("--run", wire.test_id, "--confirm", each)
            assert status == 2
            assert "--dry-run" in text
        assert models.Book.objects.exists()
        assert runs.find(wire.test_id, "").purge_failures == 0

    def test_of_a_closed_run_is_misuse(self, wire: Wire) -> None:
        wire.entity("voucher")
        digest = self.digest(wire)
        purge("--run", wire.test_id)
        status, text = purge("--run", wire.test_id, "--confirm", digest)
        assert (status, "closed" in text) == (2, True)


class TestReaper:
    def test_takes_as_many_runs_as_it_is_told(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        other = new_wire()
        for each in (wire, other):
            each.entity("voucher")
            expire(each)
        assert "1 runs purged" in purge("--expired", "--limit", "1")[1]
        assert models.Voucher.objects.count() == 1

    def test_leaves_alone_what_has_just_failed_and_still_says_so(self, wire: Wire) -> None:
        book = wire.entity("book")
        models.Review.objects.create(book_id=book["id"], text="real")
        expire(wire)
        assert purge("--expired")[0] == 1
        status, text = purge("--expired")
        assert status == 1
        assert f"{wire.test_id}: put off, its last purge failed" in text
        assert json.loads(purge("--expired", "--json")[1])["putOff"][0]["testId"] == wire.test_id

    def test_by_name_it_is_tried_at_once(self, wire: Wire) -> None:
        book = wire.entity("book")
        review = models.Review.objects.create(book_id=book["id"], text="real")
        expire(wire)
        purge("--expired")
        review.delete()
        assert purge("--run", wire.test_id)[0] == 0
        assert runs.find(wire.test_id, "").purge_failures == 0

    def test_by_name_and_expired_leaves_a_run_that_is_in_use(self, wire: Wire) -> None:
        wire.entity("voucher")
        assert purge("--run", wire.test_id, "--expired")[0] == 0
        assert models.Voucher.objects.exists()

    def test_tells_its_log_of_a_second_failure_as_an_error(
        self, wire: Wire, caplog: pytest.LogCaptureFixture
    ) -> None:
        book = wire.entity("book")
        models.Review.objects.create(book_id=book["id"], text="real")
        purge("--run", wire.test_id)
        caplog.clear()
        assert purge("--run", wire.test_id)[0] == 1
        assert [record.levelname for record in caplog.records if "in a row" in record.getMessage()] == [
            "ERROR"
        ]


class Watching:
    """The command with --watch in a process of its own, and what it says."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "purge_test_data", "--expired", "--watch", *arguments],
                env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment()},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.err.read_text()
            assert self.process.poll() is None, self.err.read_text()
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def start(*arguments: str) -> Watching:
        started.append(Watching(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def state(wire: Wire) -> str:
    return str(runs.find(wire.test_id, "").state)


@pytest.mark.django_db(transaction=True)
class TestWatch:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_goes_round_by_round_until_a_signal_wakes_and_ends_it(
        self, new_wire: Callable[[], Wire], watch: Callable[..., Watching], number: int
    ) -> None:
        first, second = new_wire(), new_wire()
        first.entity("voucher")
        expire(first)
        watching = watch("1", "--json")
        watching.wait_until(lambda: state(first) == "closed")
        second.entity("voucher")
        expire(second)
        watching.wait_until(lambda: state(second) == "closed")
        watching.wait_until(lambda: second.test_id in watching.out.read_text())
        assert watching.stop(number) == 0, watching.err.read_text()
        rounds = [json.loads(line) for line in watching.out.read_text().splitlines()]
        assert [each["testId"] for told in rounds for each in told["runs"]] == [first.test_id, second.test_id]

    def test_does_not_sleep_through_a_signal(
        self, new_wire: Callable[[], Wire], watch: Callable[..., Watching]
    ) -> None:
        wire = new_wire()
        wire.entity("voucher")
        expire(wire)
        watching = watch("10m")
        watching.wait_until(lambda: "1 runs purged" in watching.out.read_text())
        began = time.monotonic()
        assert watching.stop() == 0
        assert time.monotonic() - began < 5

    def test_finishes_the_batch_in_hand_and_leaves_the_rest_to_the_next(
        self, new_wire: Callable[[], Wire], watch: Callable[..., Watching]
    ) -> None:
        wire = new_wire()
        for _ in range(150):
            wire.entity("voucher")
        expire(wire)
        watching = watch("60", "--batch-size", "1")
        watching.wait_until(lambda: models.Voucher.objects.count() < 148)
        assert watching.stop() == 0, watching.err.read_text()
        left = models.Voucher.objects.count()
        assert 0 < left < 150
        run = runs.find(wire.test_id, "")
        assert TestEntity.objects.standing().filter(run=run).count() == left
        assert run.purge_failures == 0
        assert purge("--expired")[0] == 0
        assert not models.Voucher.objects.exists()

    def test_ends_with_1_where_the_last_round_left_something(
        self, new_wire: Callable[[], Wire], watch: Callable[..., Watching]
    ) -> None:
        wire = new_wire()
        book = wire.entity("book")
        models.Review.objects.create(book_id=book["id"], text="real")
        expire(wire)
        watching = watch("1")
        watching.wait_until(lambda: runs.find(wire.test_id, "").purge_failures > 0)
        watching.wait_until(lambda: "runs purged" in watching.out.read_text())
        assert watching.stop() == 1

    @pytest.mark.skipif(connection.vendor != "postgresql", reason="needs PostgreSQL (DATABASE_URL)")
    def test_survives_that_the_database_goes_away_and_comes_back(
        self, new_wire: Callable[[], Wire], watch: Callable[..., Watching]
    ) -> None:
        first, second = new_wire(), new_wire()
        first.entity("voucher")
        expire(first)
        watching = watch("1")
        watching.wait_until(lambda: state(first) == "closed")
        second.entity("voucher")
        expire(second)
        name = connection.settings_dict["NAME"]
        quoted = connection.ops.quote_name(name)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (ours,) = cursor.fetchone()
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {quoted} WITH ALLOW_CONNECTIONS false")
            try:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s",
                    [name, ours],
                )
                runs_away = "a round of the reaper failed"
                watching.wait_until(lambda: watching.err.read_text().count(runs_away) >= 2)
            finally:
                cursor.execute(f"ALTER DATABASE {quoted} WITH ALLOW_CONNECTIONS true")
        watching.wait_until(lambda: state(second) == "closed")
        assert watching.stop() == 0


def environment() -> dict[str, str]:
    """The environment in which a command of its own process sees this test's database."""
    url = os.environ.get("DATABASE_URL", "")
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        return {"DATABASE_URL": f"sqlite:///{name}"}
    return {"DATABASE_URL": f"{url.rpartition('/')[0]}/{name}"}


@pytest.mark.django_db(transaction=True)
def test_progress_is_shown_on_a_terminal_only(new_wire: Callable[[], Wire]) -> None:
    wire = new_wire()
    wire.entity("book")
    primary, secondary = pty.openpty()
    done = subprocess.run(
        [sys.executable, "manage.py", "purge_test_data", "--run", wire.test_id, "--batch-size", "1"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment()},
        stdout=subprocess.PIPE,
        stderr=secondary,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    os.close(secondary)
    shown = os.read(primary, 65536).decode()
    os.close(primary)
    assert done.returncode == 0, shown
    assert f"{wire.test_id}: 8 of 8 rows" in shown
    assert b"of 8 rows" not in done.stdout
