"""What a shell hands over by mistake is misuse: one line, exit status 2, and nothing is done."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from stagehand_testdata.models import AuditEntry, Receipt
from stagehand_testdata.operations import runs
from tests.conftest import Wire
from tests.host import models

from .running import run_command
from .test_purge_test_data import environment

#: As Python has a byte of the command line that is no UTF-8.
NO_TEXT = os.fsdecode(b"\xff")

#: What Django says of an argument that its parser refused, where the command is called; on a command line 2.
BY_PARSER = 1


def refused(*arguments: str, status: int = 2) -> str:
    ended, said = run_command(*arguments)
    assert (ended, len(said.strip().splitlines())) == (status, 1), said
    assert said.isprintable()
    return said


@pytest.mark.django_db
class TestMisuse:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("testdata", "keys", "revoke", NO_TEXT),
            ("testdata", "keys", "create", NO_TEXT, "--expires", "1h"),
            ("testdata", "keys", "create", "x", "--expires", "1h", "--types", f"a,{NO_TEXT}"),
            ("testdata", "receipts", "--run", NO_TEXT),
            ("testdata", "log", "--run", NO_TEXT),
            ("testdata", "log", "--owner", NO_TEXT),
            ("testdata", "audit", "--run", NO_TEXT),
            ("testdata", "audit", "--adopt", "x", "--model", "host.Book", "--key", NO_TEXT, "--yes"),
            ("purge_test_data", "--run", NO_TEXT),
        ],
    )
    def test_what_is_no_text(self, arguments: tuple[str, ...]) -> None:
        assert "no text" in refused(*arguments)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("testdata", "receipts"),
            ("testdata", "log"),
            ("testdata", "audit"),
            ("purge_test_data",),
            ("purge_test_data", "--expired"),
        ],
    )
    def test_a_run_without_a_name(self, wire: Wire, arguments: tuple[str, ...]) -> None:
        wire.make("entities/voucher")
        assert "--run is empty" in refused(*arguments, "--run", "")
        assert models.Voucher.objects.exists()

    @pytest.mark.parametrize(
        "when",
        ["0001-01-01T00:00+10:00", "9999-12-31T23:59-10:00", "999999d", "2026-13-01", "0d0"],
    )
    def test_a_time_that_no_database_knows(self, when: str) -> None:
        refused("testdata", "log", "--since", when, status=BY_PARSER)

    @pytest.mark.parametrize(
        "when", ["0001-01-02T00:00+10:00", "9999-12-31T23:59", "36500d", "2026-11-26T08:00Z"]
    )
    def test_but_not_one_that_is_far_away(self, when: str) -> None:
        assert run_command("testdata", "log", "--since", when)[0] == 0

    @pytest.mark.parametrize(
        "arguments",
        [("--expired", "--watch", "999999d"), ("--older-than", "999999d"), ("--older-than", "36501d")],
    )
    def test_a_length_of_time_that_ends_nowhere(self, arguments: tuple[str, ...]) -> None:
        assert "too long" in refused("purge_test_data", *arguments, status=BY_PARSER)

    def test_an_answer_that_does_not_come(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing(*args: Any) -> str:
            raise EOFError

        wire.make("entities/voucher")
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        monkeypatch.setattr(builtins, "input", nothing)
        assert "Nothing was purged." in refused("purge_test_data", "--all")
        assert models.Voucher.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_reader_that_has_had_enough_ends_it_quietly() -> None:
    AuditEntry.objects.bulk_create(
        AuditEntry(via="code", operation="x", result="done", subject="s" * 200) for _ in range(1000)
    )
    with subprocess.Popen(
        [sys.executable, "manage.py", "testdata", "log"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"done" in process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
    assert (process.returncode, said) == (1, "")


@pytest.mark.django_db
class TestReceipts:
    @pytest.fixture
    def two(self, new_wire: Callable[[], Wire]) -> str:
        """A test ID that two owners have: the first one's purge left a row, the second's none."""
        test_id = new_wire().test_id
        for owner, left in (("key:a", 1), ("key:b", 0)):
            run = runs.open_or_join(test_id, owner=owner)
            body = {
                "testId": test_id,
                "state": "closed",
                "removed": {},
                "remaining": left,
                "success": not left,
            }
            Receipt.objects.create(run=run, body={**body, "digest": "d"}, digest="d")
        return test_id

    def test_of_two_owners_with_one_test_id_are_two_runs(self, two: str) -> None:
        status, text = run_command("testdata", "receipts", "--run", two)
        assert status == 1
        assert "key:a" in text
        assert "key:b" in text

    def test_the_last_of_each_run_counts(self, two: str) -> None:
        first = runs.open_or_join(two, owner="key:a")
        body = {**Receipt.objects.filter(run=first).get().body, "remaining": 0, "success": True}
        Receipt.objects.create(run=first, body=body, digest="d")
        assert run_command("testdata", "receipts")[0] == 0


@pytest.mark.django_db
def test_the_key_of_a_row_that_stays_steers_no_terminal(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    book = wire.entity("book")
    models.Review.objects.create(book_id=book["id"], text="real")
    from stagehand_testdata.operations.purge import plan

    wire_of = plan.Held.as_wire
    monkeypatch.setattr(plan.Held, "as_wire", lambda self: {**wire_of(self), "id": "1\x1b[31m"})
    _, said = run_command("purge_test_data", "--run", wire.test_id, "--dry-run")
    assert "stays" in said
    assert "\x1b[31m" not in said


@pytest.mark.django_db
def test_what_a_driver_says_in_its_own_name_is_a_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django lets through what is said as a cursor on the server is closed."""

    def away(*args: Any, **kwargs: Any) -> Any:
        raise connection.Database.OperationalError("the server closed the connection")

    monkeypatch.setattr("stagehand_testdata.management.topics.audit.audit", away)
    assert "refused: the server closed the connection" in refused("testdata", "audit", status=1)
