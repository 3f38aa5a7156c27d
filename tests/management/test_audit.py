"""`manage.py testdata audit`, as an operator types it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from stagehand_testdata.models import TestEntity, TestRun
from tests.host import factories
from tests.host.models import Voucher
from tests.making import create

from .running import run_testdata

pytestmark = pytest.mark.django_db

TEST_ID = "stagehand_test_audit"
ENTRIES = TestEntity._meta.db_table


def auditing(*arguments: str) -> tuple[int, str]:
    return run_testdata("audit", *arguments)


def leak(code: str = "V1", note: str = "stagehand_test_leak") -> Voucher:
    return Voucher.objects.create(code=code, note=note)


class TestLooking:
    def test_is_0_where_all_holds(self) -> None:
        create(factories.VoucherFactory, TEST_ID)
        status, text = auditing()
        assert status == 0
        assert "1 runs: 1 created, 0 removed + 1 live + 0 already gone + 0 quarantined." in text
        assert "All holds, and nothing leaks." in text
        assert "--deep does" in text
        status, text = auditing("--deep")
        assert status == 0
        assert "--deep does" not in text

    def test_is_1_for_broken_books(self) -> None:
        for _ in range(2):
            create(factories.VoucherFactory, TEST_ID)
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {ENTRIES} WHERE ordinal = 1")
        status, text = auditing()
        assert status == 1
        assert f"{TEST_ID}: created 2, but 0 removed + 1 live" in text
        assert "All holds" not in text

    def test_is_1_for_an_entry_without_a_row(self) -> None:
        row = create(factories.VoucherFactory, TEST_ID)
        Voucher.objects.all().delete()
        status, text = auditing()
        assert status == 1
        assert f"host.Voucher: 1 entries whose row is gone: {row.pk} ({TEST_ID})" in text

    def test_is_1_for_a_stranger_in_depth_alone(self) -> None:
        row = create(factories.VoucherFactory, TEST_ID)
        Voucher.objects.update(note="another")
        Voucher.objects.filter(pk=row.pk).delete()
        Voucher.objects.create(code=row.pk, note="a real one")
        assert auditing()[0] == 0
        status, text = auditing("--deep")
        assert status == 1
        assert f"host.Voucher: 1 entries whose row is not the one we made: {row.pk} ({TEST_ID})" in text

    def test_is_1_for_a_leak_of_which_the_first_keys_are_shown(self) -> None:
        for number in range(3):
            leak(f"V{number}")
        status, text = auditing("--limit", "2")
        assert status == 1
        assert "host.Voucher: 3 rows with the prefix and no entry: V0, V1, 1 more" in text
        assert "entry: V" not in auditing("--limit", "0")[1]

    def test_is_1_for_a_run_past_its_end(self) -> None:
        create(factories.VoucherFactory, TEST_ID)
        run = TestRun.objects.get()
        hours = run.latest_end - run.opened_at
        TestRun.objects.update(
            opened_at=run.opened_at - 3 * hours,
            expires_at=run.opened_at - 2 * hours,
            purge_failures=2,
            purge_error="it\x1b[2J failed",
        )
        status, text = auditing()
        assert status == 1
        assert f"{TEST_ID}: open, 2d" in text or f"{TEST_ID}: open, 1d 23h" in text
        assert r"past its end, 2 purges failed: 'it\x1b[2J failed'" in text

    def test_one_run_alone(self) -> None:
        leak("V1")
        create(factories.VoucherFactory, TEST_ID)
        assert auditing("--run", TEST_ID)[0] == 0
        leak("V2", f"{TEST_ID} leak")
        status, text = auditing("--run", TEST_ID)
        assert status == 1
        assert "1 rows with the prefix and no entry: V2" in text

    def test_gives_one_json_document(self) -> None:
        leak()
        status, text = auditing("--json")
        document = json.loads(text)
        assert status == 1
        assert [each["reason"] for each in document["leaks"]] == ["prefix"]
        assert {"books", "gone", "strangers", "leaks", "overdue", "notes"} <= set(document)


class TestAdopting:
    def test_shows_the_row_and_takes_it(self) -> None:
        leak()
        status, text = auditing("--adopt", TEST_ID, "--model", "host.Voucher", "--key", "V1", "--yes")
        assert status == 0
        assert (
            "host.Voucher V1\n  code: 'V1'\n  note: 'stagehand_test_leak'\n  marks: note begins with" in text
        )
        assert f"1 rows are of the run {TEST_ID} now" in text
        assert auditing("--deep")[0] == 0

    def test_json_is_one_document_on_standard_output(self) -> None:
        leak()
        out, err = io.StringIO(), io.StringIO()
        arguments = ("--adopt", TEST_ID, "--model", "host.Voucher", "--key", "V1", "--yes", "--json")
        call_command("testdata", "audit", *arguments, stdout=out, stderr=err)
        assert json.loads(out.getvalue()) == {
            "testId": TEST_ID,
            "adopted": [{"model": "host.voucher", "key": "V1", "type": "host.voucher", "ordinal": 1}],
        }
        assert "marks: note begins" in err.getvalue()

    def test_needs_yes_where_nobody_can_be_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        leak()
        monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
        status, text = auditing("--adopt", TEST_ID, "--model", "host.Voucher", "--key", "V1")
        assert status == 2
        assert "--yes" in text
        assert not TestEntity.objects.exists()

    @pytest.mark.parametrize(
        ("answer", "status"), [("yes\n", 0), ("YES \n", 0), ("y\n", 2), ("\n", 2), ("", 2)]
    )
    def test_asks_a_person(self, monkeypatch: pytest.MonkeyPatch, answer: str, status: int) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        leak()
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        found, text = auditing("--adopt", TEST_ID, "--model", "host.Voucher", "--key", "V1")
        assert found == status
        assert f"Take 1 rows into {TEST_ID}, whose purge deletes them? Type 'yes': " in text
        assert TestEntity.objects.exists() is (status == 0)
        assert ("Nothing was adopted." in text) is (status == 2)


class TestMisuse:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--run", "stagehand_test_none"], "There is no run 'stagehand_test_none'"),
            (["--run", ""], "--run is empty"),
            (["--key", "V1"], "go with --adopt"),
            (["--model", "host.Voucher"], "go with --adopt"),
            (["--yes"], "go with --adopt"),
            (["--adopt", TEST_ID], "--model app.Model --key KEY"),
            (["--adopt", TEST_ID, "--model", "host.Voucher"], "--model app.Model --key KEY"),
            (["--adopt", TEST_ID, "--key", "V1"], "--model app.Model --key KEY"),
            (["--adopt", TEST_ID, "--model", "host.Voucher", "--key", "V1", "--deep"], "leave out"),
            (["--adopt", TEST_ID, "--model", "host.Voucher", "--key", "V1", "--limit", "0"], "leave out"),
            (["--adopt", TEST_ID, "--model", "host.Voucher", "--key", "V1", "--run", TEST_ID], "leave out"),
            (["--adopt", TEST_ID, "--model", "nothing", "--key", "V1", "--yes"], "app.Model"),
            (["--adopt", TEST_ID, "--model", "host.Person", "--key", "x", "--yes"], "'x' is no key of"),
            (["--adopt", TEST_ID, "--model", "host.Voucher", "--key", "V9", "--yes"], "no row of"),
            (
                ["--adopt", "real", "--model", "host.Voucher", "--key", "V1", "--yes"],
                "There is no run 'real'",
            ),
            (["--adopt", TEST_ID, "--model", "host.Voucher", "--key", "REAL", "--yes"], "carries no mark"),
            (
                ["--adopt", TEST_ID, "--model", "stagehand_testdata.TestEntity", "--key", "1", "--yes"],
                "is the ledger itself",
            ),
            (["--limit", "-1"], "type one from 0 up"),
            (["--limit", "many"], "type one from 0 up"),
        ],
    )
    def test_is_2_with_one_line_and_changes_nothing(self, arguments: list[str], says: str) -> None:
        leak()
        leak("REAL", "a real one")
        before = TestEntity.objects.count(), TestRun.objects.count()
        status, text = auditing(*arguments)
        assert status == 2 or "--limit" in text
        assert says in text
        assert len([line for line in text.splitlines() if not line.startswith(" ")]) <= 2
        assert (TestEntity.objects.count(), TestRun.objects.count()) == before


class TestAtATerminal:
    def shell(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "django", "testdata", "audit", *arguments]
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": "."}, check=False, text=True, timeout=60, **options
        )

    def test_help_says_what_the_statuses_mean(self) -> None:
        done = self.shell("--help", stdout=subprocess.PIPE)
        assert done.returncode == 0
        text = " ".join(done.stdout.split())
        assert "0 all holds and nothing leaks, 1 something was found, 2 misuse" in text
        for option in ("--run", "--deep", "--limit", "--adopt", "--model", "--key", "--yes", "--json"):
            assert option in text

    def test_misuse_is_status_2_without_a_traceback(self) -> None:
        done = self.shell("--yes", stderr=subprocess.PIPE)
        assert done.returncode == 2
        assert "go with --adopt" in done.stderr
        assert "Traceback" not in done.stderr

    def test_what_it_looks_at_is_shown_to_a_person_alone(self) -> None:
        class Screen(io.StringIO):
            def isatty(self) -> bool:
                return True

        create(factories.VoucherFactory, TEST_ID)
        screen, paper = Screen(), io.StringIO()
        call_command("testdata", "audit", stdout=io.StringIO(), stderr=screen)
        call_command("testdata", "audit", stdout=io.StringIO(), stderr=paper)
        assert "looking at rows of host.Voucher" in screen.getvalue()
        assert screen.getvalue().endswith("\r\033[K")
        assert paper.getvalue() == ""
