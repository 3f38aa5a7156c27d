"""The command, as an operator types it."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from stagehand_testdata.models import TestRun
from stagehand_testdata.operations import runs
from tests.conftest import Wire, host_counts
from tests.host import models

pytestmark = pytest.mark.django_db


def purge(*arguments: str) -> tuple[int, str]:
    """(exit status, output) of the command."""
    out = io.StringIO()
    try:
        call_command("purge_test_data", *arguments, stdout=out, stderr=out)
    except SystemExit as stopped:
        return int(stopped.code or 0), out.getvalue()
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return 0, out.getvalue()


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


class TestMisuse:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ((), "Say which runs"),
            (("--run", "nobody"), "There is no run 'nobody'"),
            (("--all", "--run", "x"), "--all stands alone"),
            (("--all", "--expired"), "--all stands alone"),
            (("--all",), "--all needs --yes"),
            (("--older-than", "soon"), "'soon' is no duration"),
            (("--batch-size", "0", "--expired"), "'0' is no number of rows"),
            (("--scope", "nothing"), "invalid choice"),
        ],
    )
    def test_is_one_line_and_exit_status_2(self, arguments: tuple[str, ...], says: str) -> None:
        done = subprocess.run(
            [sys.executable, "manage.py", "purge_test_data", *arguments],
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment()},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert says in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.stderr


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
