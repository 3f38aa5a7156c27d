"""The command line against a real server, as a CI runs it."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stagehand_testdata.access import keys
from stagehand_testdata.client import TestDataManager, env_file, errors
from stagehand_testdata.client.command import main
from stagehand_testdata.marketplace.models import Builder, Client, SessionType
from stagehand_testdata.models import TestEntity, TestRun
from tests.document_client.conftest import host_rows

from .conftest import ROOT
from .test_manager import hold_for_ever

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command in an empty directory: (status, what it printed, what it complained of)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main(list(words))
        except SystemExit as error:  # argparse's own
            status = int(str(error.code))
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def staging(command: Command, product: str, tmp_path: Path) -> Command:
    """With the server configured as `staging` and as `production`."""
    configured = f'[environments]\nstaging = "{product}"\nproduction = "{product}"\n'
    (tmp_path / "stagehand-testdata.toml").write_text(configured)
    return command


def variables(path: Path = Path(".env.test")) -> dict[str, str]:
    found = env_file.read(path)
    assert found is not None
    return found


PREPARE = ("prepare", "--environment", "staging", "--build-id", "77")


class TestPrepare:
    def test_makes_the_documents_accounts_and_writes_the_file(self, staging: Command) -> None:
        status, said, complained = staging(*PREPARE)
        assert (status, complained) == (0, "")
        assert "Created CI test accounts for build 77" in said
        run = TestRun.objects.get()
        assert (run.scope, run.build_id, run.test_user_email) == (
            "persistent_environment",
            "77",
            "ci-77@example.com",
        )
        assert dt.timedelta(hours=23) < run.expires_at - run.opened_at <= dt.timedelta(hours=24)
        builder = Builder._base_manager.get(display_name="stagehand_test_CI Builder 77")
        assert builder.user.email == "ci-builder-77@example.com"
        assert SessionType._base_manager.filter(builder=builder).count() == 1
        assert Client._base_manager.get(display_name="stagehand_test_CI Client 77")
        found = variables()
        assert found["TEST_ID"] == run.test_id
        assert found["TEST_BUILD_ID"] == "77"
        assert found["TEST_SHADOW"] == "0"

    def test_the_file_is_nobody_elses_and_its_pass_counts(self, staging: Command, product: str) -> None:
        import httpx

        os.umask(0o022)
        staging(*PREPARE)
        assert stat.S_IMODE(Path(".env.test").stat().st_mode) == 0o600
        found = variables()
        builder = Builder._base_manager.get(display_name__endswith="CI Builder 77")
        page = f"{product}/marketplace/builders/{builder.pk}"
        assert httpx.get(page, headers={found["TEST_PASS_HEADER"]: found["TEST_PASS"]}).status_code == 200
        assert httpx.get(page, cookies={found["TEST_PASS_COOKIE"]: found["TEST_PASS"]}).status_code == 200

    def test_a_shell_reads_the_file(self, staging: Command) -> None:
        staging(*PREPARE)
        done = subprocess.run(
            ["sh", "-c", "set -a; . ./.env.test; printf %s $TEST_ID"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == variables()["TEST_ID"]

    def test_github_gets_it_too_and_is_told_what_to_hide(
        self, staging: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "github").write_text("OTHER=1\n")
        monkeypatch.setenv("GITHUB_ENV", str(tmp_path / "github"))
        _, said, complained = staging(*PREPARE)
        found = variables()
        lines = (tmp_path / "github").read_text().splitlines()
        assert lines == ["OTHER=1", *(f"{name}={value}" for name, value in found.items())]
        assert complained == f"::add-mask::{found['TEST_PASS']}\n"
        assert found["TEST_PASS"] not in said

    def test_a_product_without_the_marketplace_is_prepared_without_accounts(
        self, staging: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def ask_for_what_nobody_registers(run: TestDataManager, **fields: Any) -> Any:
            return run.operation("artisans", name="x")

        monkeypatch.setattr(TestDataManager, "builder", ask_for_what_nobody_registers)
        before = host_rows()
        status, said, complained = staging(*PREPARE)
        assert (status, complained) == (0, "")
        assert "Opened the run of build 77, without accounts" in said
        assert host_rows() == before
        assert variables()["TEST_PASS"]
        assert variables()["TEST_SHADOW"] == "0"
        assert staging("create", "product")[0] == 0

    def test_an_account_that_is_refused_is_no_missing_marketplace(
        self, staging: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(TestDataManager, "builder", lambda run, **fields: run.create("nothing"))
        assert staging(*PREPARE)[0] == 1

    def test_in_production_no_account_is_made(self, staging: Command) -> None:
        before = host_rows()
        status, said, _ = staging("prepare", "-e", "production", "--build-id", "77")
        assert status == 0
        assert "Set up production shadow test mode for build 77" in said
        assert host_rows() == before
        assert TestRun.objects.get().state == "open"
        assert variables()["TEST_SHADOW"] == "1"
        assert staging("create", "product")[0] == 0
        assert host_rows() == before
        assert staging("cleanup")[0] == 0

    def test_where_the_server_calls_itself_production_neither(self, staging: Command, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "ENVIRONMENT": "production"}
        before = host_rows()
        assert staging(*PREPARE)[0] == 0
        assert host_rows() == before

    def test_four_shards_share_one_run(self, staging: Command, product: str, tmp_path: Path) -> None:
        shards = [
            subprocess.Popen(
                [sys.executable, "-m", "stagehand_testdata.client", *PREPARE, "--env-file", f"shard{number}"],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        for shard in shards:
            _, complained = shard.communicate(timeout=60)
            assert shard.returncode == 0, complained
        [run] = TestRun.objects.all()
        assert {variables(tmp_path / f"shard{each}")["TEST_ID"] for each in range(4)} == {run.test_id}
        assert Builder._base_manager.filter(display_name__endswith="CI Builder 77").count() == 1
        assert Client._base_manager.filter(display_name__endswith="CI Client 77").count() == 1
        assert staging("cleanup", "--env-file", "shard3")[0] == 0
        assert TestEntity.objects.standing().count() == 0

    def test_a_build_that_was_cleaned_up_gets_a_new_run(self, staging: Command) -> None:
        staging(*PREPARE)
        first = variables()["TEST_ID"]
        staging("cleanup")
        assert staging(*PREPARE)[0] == 0
        assert variables()["TEST_ID"] == f"{first}_2"
        assert Builder._base_manager.filter(display_name__endswith="CI Builder 77").count() == 1

    def test_what_breaks_half_way_leaves_a_file_that_a_clean_up_can_use(
        self, staging: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: Any, **more: Any) -> None:
            raise errors.Unavailable("The database is unavailable; nothing was done.", status=503)

        monkeypatch.setattr(TestDataManager, "client", fail)
        assert staging(*PREPARE)[0] == 1
        assert staging("cleanup")[0] == 0
        assert TestEntity.objects.standing().count() == 0
        assert TestRun.objects.get().state == "closed"

    def test_a_build_has_the_name_that_the_ci_gives_it(
        self, staging: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CI_PIPELINE_ID", "4711")
        assert staging("prepare", "-e", "staging")[0] == 0
        assert variables()["TEST_BUILD_ID"] == "4711"


class TestCleanUp:
    def test_where_there_is_nothing_it_says_so(self, staging: Command) -> None:
        assert staging("cleanup", "-e", "staging") == (0, "No test data to clean up\n", "")

    def test_reads_the_file(self, staging: Command) -> None:
        before = host_rows()
        staging(*PREPARE)
        status, said, _ = staging("cleanup")
        assert status == 0
        assert "1 builder" in said
        assert host_rows() == before
        assert staging("cleanup")[0] == 0

    @pytest.mark.parametrize("known", ["--test-id", "--build-id", "TEST_ID"])
    def test_another_job_needs_to_know_one_id(
        self, staging: Command, known: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        staging(*PREPARE)
        test_id = variables()["TEST_ID"]
        Path(".env.test").unlink()
        words = [] if known == "TEST_ID" else [known, "77" if known == "--build-id" else test_id]
        if known == "TEST_ID":
            monkeypatch.setenv(known, test_id)
        assert staging("cleanup", "-e", "staging", *words)[0] == 0
        assert TestRun.objects.get().state == "closed"

    def test_what_had_to_stay_is_told_and_exit_1(self, staging: Command, product: str) -> None:
        staging(*PREPARE)
        run = TestDataManager(product, test_id=variables()["TEST_ID"])
        hold_for_ever(run.builder())
        status, said, _ = staging("cleanup")
        assert status == 1
        assert "1 stagehand_marketplace.SessionType" in said
        status, said, _ = staging("cleanup", "--json")
        assert status == 1
        assert json.loads(said)["remaining"] == 2


class TestTheRun:
    def test_rows_status_receipt(self, staging: Command) -> None:
        staging(*PREPARE)
        status, said, _ = staging("create", "product", "title=77", "price:=3.5", "--json")
        assert status == 0
        assert json.loads(said)["fields"]["title"] == "77"
        assert staging("create", "product", "--count", "2")[1].count("product ") == 2
        assert "booking " in staging("scenario", "booking", "status=CONFIRMED")[1]
        found = json.loads(staging("status", "--json")[1])
        assert found["entities"]["live"] == TestEntity.objects.standing().count()
        assert "open, " in staging("status")[1]
        staging("cleanup")
        status, said, _ = staging("receipt")
        assert status == 0
        assert "3 product removed" in said
        assert json.loads(staging("receipt", "--json")[1])["removed"]["product"] == 3

    @pytest.mark.parametrize(
        "words",
        [
            ("product", "--count", "2", "title=Lamp", "price:=9.5"),
            ("--count", "2", "product", "title=Lamp", "price:=9.5"),
            ("product", "title=Lamp", "--count", "2", "price:=9.5"),
            ("product", "title=Lamp", "price:=9.5", "--count", "2"),
        ],
    )
    def test_fields_stand_wherever_one_likes(self, staging: Command, words: tuple[str, ...]) -> None:
        staging(*PREPARE)
        status, said, complained = staging("create", "--json", *words)
        assert (status, complained) == (0, "")
        assert [(each["fields"]["title"], each["fields"]["price"]) for each in json.loads(said)] == [
            ("Lamp", "9.50")
        ] * 2

    def test_types(self, staging: Command) -> None:
        status, said, _ = staging("types", "-e", "staging")
        assert status == 0
        assert any(line.startswith("product ") and "title" in line for line in said.splitlines())
        assert {each["name"] for each in json.loads(staging("types", "-e", "staging", "--json")[1])} > {
            "builder"
        }


class TestMisuse:
    """One line with the fix, exit 2, no traceback, no secret."""

    def misused(self, command: Command, *words: str) -> str:
        status, said, complained = command(*words)
        assert (status, said) == (2, "")
        assert complained.count("\n") == 1
        assert complained.startswith("stagehand-testdata: ")
        assert "Traceback" not in complained
        return complained

    def test_the_server_is_down(self, command: Command) -> None:
        line = self.misused(command, "types", "--url", "http://127.0.0.1:9")
        assert "cannot be reached" in line
        assert "is it running?" in line

    def test_the_gate_is_off(self, staging: Command, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "ENABLED": False}
        assert "Switch ENABLED" in self.misused(staging, *PREPARE)
        assert not Path(".env.test").exists()

    def test_the_key_is_wrong(self, staging: Command, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "REQUIRE_ACCESS_KEY": True}
        monkeypatch.setenv("STAGEHAND_TESTDATA_KEY", "tdk_not_this_one")
        line = self.misused(staging, *PREPARE)
        assert "STAGEHAND_TESTDATA_KEY" in line
        assert "tdk_not_this_one" not in line
        monkeypatch.setenv("STAGEHAND_TESTDATA_KEY", keys.create("ci", dt.timedelta(hours=1)).text)
        assert staging(*PREPARE)[0] == 0

    @pytest.mark.parametrize("cut", [0, 1, 20, 60, -1])
    def test_the_file_is_half_written(self, staging: Command, cut: int) -> None:
        staging(*PREPARE)
        whole = Path(".env.test").read_text()
        Path(".env.test").write_text(whole[:cut])
        line = self.misused(staging, "cleanup", "-e", "staging")
        assert "is not whole" in line
        assert "--test-id" in line
        assert TestRun.objects.get().state == "open"
        assert staging(*PREPARE)[0] == 0

    def test_the_file_is_binary(self, staging: Command) -> None:
        Path(".env.test").write_bytes(b"\xff\x00TEST_ID=x")
        assert "is not whole" in self.misused(staging, "cleanup")

    def test_the_environment_is_unknown(self, staging: Command, tmp_path: Path) -> None:
        line = self.misused(staging, "types", "-e", "nowhere")
        assert "It has: staging, production." in line
        (tmp_path / "stagehand-testdata.toml").unlink()
        assert "[environments]" in self.misused(staging, "types", "-e", "nowhere")

    @pytest.mark.parametrize(
        "text",
        [
            "[environments",
            "environments = 1",
            "[environments]\na = 1",
            '[environments]\na = "b"',
            "[other]",
            'api_path = "x"\nprefix = 1',
            '[environments]\na = "https://me:hunter2@shop.example"',
        ],
    )
    def test_the_configuration_is_wrong(self, command: Command, text: str) -> None:
        Path("stagehand-testdata.toml").write_text(text)
        line = self.misused(command, "types", "-e", "a")
        assert "stagehand-testdata.toml" in line
        assert "hunter2" not in line

    def test_the_file_cannot_be_written(self, staging: Command) -> None:
        assert "nowhere/.env" in self.misused(staging, *PREPARE, "--env-file", "nowhere/.env")

    @pytest.mark.parametrize("build", ["a b", "$(id)", "-x", "x" * 65, "a\nb"])
    def test_the_build_id_is_none(self, staging: Command, build: str) -> None:
        assert "build id" in self.misused(staging, "prepare", "-e", "staging", f"--build-id={build}")

    @pytest.mark.parametrize("field", ["title", "=x", ":=1", "price:={"])
    def test_a_field_is_none(self, staging: Command, field: str) -> None:
        self.misused(staging, "create", "product", field, "--test-id", "stagehand_test_x", "-e", "staging")

    def test_a_field_is_refused_by_its_name(self, staging: Command) -> None:
        words = ("create", "product", "colour=red", "--test-id", "stagehand_test_x", "-e", "staging")
        assert "colour" in self.misused(staging, *words)

    def test_no_run_is_known(self, staging: Command) -> None:
        line = self.misused(staging, "status", "-e", "staging")
        assert "Give --test-id, or run `stagehand-testdata prepare` first" in line

    @pytest.mark.parametrize(
        "words",
        [
            (),
            ("nothing",),
            ("create",),
            ("create", "x", "--count", "many"),
            ("create", "x", "--cuont", "3", "title=Lamp"),
            ("types", "title=Lamp"),
            ("status", "x"),
        ],
    )
    def test_the_words_are_wrong(self, command: Command, words: tuple[str, ...]) -> None:
        status, said, complained = command(*words)
        assert (status, said) == (2, "")
        assert "Traceback" not in complained

    def test_a_run_that_is_not_there_is_exit_1(self, staging: Command) -> None:
        status, _, complained = staging("status", "-e", "staging", "--test-id", "stagehand_test_none")
        assert status == 1
        assert complained.count("\n") == 1


def test_pyproject_will_do_for_a_configuration(command: Command, product: str, tmp_path: Path) -> None:
    text = f'[tool.stagehand-testdata.environments]\nstaging = "{product}"\n'
    (tmp_path / "pyproject.toml").write_text(text)
    (tmp_path / "below").mkdir()
    os.chdir(tmp_path / "below")
    assert command("types")[0] == 0


def test_interrupted_it_says_so_in_a_line(product: str) -> None:
    code = "import signal, sys, threading, os, time\n"
    code += "from stagehand_testdata.client.command import main\n"
    code += "threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()\nsys.exit(main(sys.argv[1:]))"
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", code, "types", "--url", url],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stderr) == (130, "stagehand-testdata: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is not None
