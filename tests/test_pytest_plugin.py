"""The pytest plugin in suites of their own: against a server, with xdist, and on Django's test database."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from project.seed import seed
from stagehand_testdata.client import TestDataManager
from stagehand_testdata.models import TestEntity, TestRun
from tests.conftest import host_counts

ROOT = Path(__file__).resolve().parent.parent

CHROMIUM = Path("/usr/bin/chromium")

Suite = Callable[..., subprocess.CompletedProcess[str]]

#: No other plugin than these, each by the name of its entry point.
OURS = ("-p", "stagehand_testdata", "-p", "xdist")
ON_A_SERVER = OURS
IN_PROCESS = (*OURS, "-p", "django")


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Runs a suite of that code with those options."""

    def run(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_suite.py").write_text(textwrap.dedent(code))
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("STAGEHAND_", "PYTEST_", "DJANGO_", "TEST_"))
        }
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=tmp_path,
            env={
                **clean,
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "PYTHONPATH": str(ROOT),
                "PYTHONWARNINGS": "error",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def server(live_server: Any) -> str:
    seed()
    return str(live_server.url)


def told(done: subprocess.CompletedProcess[str]) -> str:
    [line] = re.findall(r"^testdata: (.*)$", done.stdout, re.MULTILINE)
    return str(line)


class TestOnAServer:
    def test_each_test_has_a_run_of_its_own_and_leaves_nothing(self, suite: Suite, server: str) -> None:
        before = host_counts()
        code = """
            import pytest
            @pytest.mark.parametrize("number", range(3))
            def test_it(testdata_run, number):
                assert len(testdata_run.create("product", count=2)) == 2
                listed = testdata_run.entities(type="product")
                assert len(listed) == 2
        """
        done = suite(code, *ON_A_SERVER, "--testdata-url", server)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.fullmatch(r"3 runs, \d+ rows removed, 0 left", told(done))
        assert host_counts() == before
        labels = {each.label for each in TestRun.objects.all()}
        assert labels == {f"test_suite.py::test_it[{number}]" for number in range(3)}

    def test_a_failure_says_which_run_it_was_and_how_to_replay_it(self, suite: Suite, server: str) -> None:
        code = """
            def test_it(testdata_run):
                title = testdata_run.create("product")["title"]
                assert title == "x", f"<{title}>"
        """
        done = suite(code, *ON_A_SERVER, "--testdata-url", server)
        assert done.returncode == 1
        [run] = TestRun.objects.all()
        assert f"run {run.test_id} at {server}, seed {run.seed}" in done.stdout
        [again] = re.findall(r"to replay: pytest (\S+ --testdata-seed \d+)", done.stdout)
        assert again.endswith(str(run.seed))
        [title] = set(re.findall(r"<.*?>", re.findall(r"AssertionError: .*", done.stdout)[0]))
        replayed = suite(code, *ON_A_SERVER, "--testdata-url", server, *again.split())
        assert title in replayed.stdout
        assert TestRun.objects.filter(seed=run.seed).count() == 2

    def test_a_test_that_passes_says_nothing_of_its_run(self, suite: Suite, server: str) -> None:
        done = suite("def test_it(testdata_run): pass", *ON_A_SERVER, "--testdata-url", server)
        assert "to replay" not in done.stdout

    def test_the_session_has_one_run(self, suite: Suite, server: str) -> None:
        code = """
            def test_one(testdata_session):
                testdata_session.client()
            def test_two(testdata_session):
                assert testdata_session.status().entities["live"] == 2
                assert False
        """
        done = suite(code, *ON_A_SERVER, "--testdata-url", server)
        [run] = TestRun.objects.all()
        assert run.state == "closed"
        assert f"run {run.test_id}" in done.stdout
        assert told(done) == "1 runs, 2 rows removed, 0 left"

    def test_with_xdist_each_worker_has_its_own_and_all_are_summed_up(
        self, suite: Suite, server: str
    ) -> None:
        code = """
            import pytest, time
            @pytest.mark.parametrize("number", range(6))
            def test_it(testdata_session, testdata_run, number):
                testdata_run.client()
                testdata_session.client()
                time.sleep(0.5)
        """
        before = host_counts()
        done = suite(code, *ON_A_SERVER, "--testdata-url", server, "-n", "2")
        assert done.returncode == 0, done.stdout + done.stderr
        assert told(done) == "8 runs, 24 rows removed, 0 left"
        assert TestRun.objects.filter(label="session").count() == 2
        assert host_counts() == before

    def test_what_had_to_stay_is_an_error_and_is_told(self, suite: Suite, server: str) -> None:
        code = """
            import time
            def test_it(testdata_run):
                print("id", testdata_run.builder().id)
                time.sleep(3)
        """
        import threading

        from tests.client.conftest import wait_for
        from tests.client.test_manager import hold_for_ever

        results: list[subprocess.CompletedProcess[str]] = []
        thread = threading.Thread(
            target=lambda: results.append(suite(code, *ON_A_SERVER, "--testdata-url", server))
        )
        thread.start()
        entry = wait_for(lambda: TestEntity.objects.filter(type="builder").first(), 60)

        class Made:
            id = entry.key_text

        hold_for_ever(Made)  # type: ignore[arg-type]
        thread.join()
        [done] = results
        assert done.returncode == 1
        assert "1 error" in done.stdout
        assert told(done).endswith("2 left")
        assert "1 stagehand_marketplace.SessionType" in done.stdout.partition("testdata: ")[2]

    def test_kept_rows_stay_and_it_is_said_how_they_go(self, suite: Suite, server: str) -> None:
        code = "def test_it(testdata_run): testdata_run.client()"
        done = suite(code, *ON_A_SERVER, "--testdata-url", server, "--testdata-keep")
        assert told(done) == "1 runs, 0 rows removed, 0 left, 1 runs kept"
        [run] = TestRun.objects.all()
        assert run.state == "open"
        assert f"stagehand-testdata cleanup --url {server} --test-id {run.test_id}" in done.stdout
        assert TestDataManager(server, test_id=run.test_id).cleanup().removed["client"] == 1

    def test_ini_values_and_the_configured_environments_will_do(
        self, suite: Suite, server: str, tmp_path: Path
    ) -> None:
        (tmp_path / "stagehand-testdata.toml").write_text(
            f'prefix = "stagehand_test_ours_"\n[environments]\nstaging = "{server}"\n'
        )
        (tmp_path / "pytest.ini").write_text(
            "[pytest]\ntestdata_environment = staging\ntestdata_max_age_minutes = 7\n"
        )
        code = """
            import pytest
            @pytest.fixture(scope="session")
            def testdata_options():
                return {"build_id": "77", "keep": True}
            def test_it(testdata_run): pass
        """
        done = suite(code, *ON_A_SERVER)
        assert done.returncode == 0, done.stdout + done.stderr
        [run] = TestRun.objects.all()
        assert run.build_id == "77"
        assert run.test_id.startswith("stagehand_test_ours_")
        assert (run.expires_at - run.opened_at).total_seconds() == pytest.approx(7 * 60, abs=5)

    @pytest.mark.parametrize("options", [(), ("--testdata-environment", "nowhere")])
    def test_without_a_server_it_says_what_to_do(self, suite: Suite, options: tuple[str, ...]) -> None:
        done = suite("def test_it(testdata_run): pass", *ON_A_SERVER, *options)
        assert done.returncode == 1
        assert "--testdata-url" in done.stdout or "[environments]" in done.stdout


def test_with_pytest_playwright_the_browser_carries_the_pass(suite: Suite, server: str) -> None:
    pytest.importorskip("pytest_playwright", reason="not installed: pip install --group browser")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium")
    code = f"""
        import pytest
        @pytest.fixture(scope="session")
        def browser_type_launch_args(browser_type_launch_args):
            args = ["--no-sandbox"]
            return {{**browser_type_launch_args, "executable_path": {str(CHROMIUM)!r}, "args": args}}
        def test_it(page, testdata_run, browser):
            url = f"{{testdata_run.url}}/marketplace/builders/{{testdata_run.builder().id}}"
            assert page.goto(url).status == 200
            stranger = browser.new_context()
            assert stranger.new_page().goto(url).status == 404
            stranger.close()
        def test_without_a_browser(testdata_run): pass
        def test_without_a_run(page): pass
    """
    done = suite(code, *ON_A_SERVER, "-p", "playwright", "--testdata-url", server, PYTHONWARNINGS="default")
    assert done.returncode == 0, done.stdout + done.stderr


class TestOnDjangosDatabase:
    DJANGO = {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": "sqlite://:memory:"}

    def test_a_run_is_made_by_the_operations_themselves(self, suite: Suite) -> None:
        code = """
            import pytest
            from stagehand_testdata.marketplace.models import Builder
            from stagehand_testdata.models import TestEntity
            def test_it(testdata_run, client):
                builder = testdata_run.builder(name="Grace")
                assert Builder._base_manager.get().display_name == "stagehand_test_Grace"
                page = f"/marketplace/builders/{builder.id}"
                assert client.get(page).status_code == 404
                assert client.get(page, headers=testdata_run.pass_().headers).status_code == 200
                assert testdata_run.cleanup().removed["builder"] == 1
                assert not Builder._base_manager.exists()
            def test_nothing_of_it_is_left(db):
                assert not TestEntity.objects.exists()
            def test_on_real_transactions_too(testdata_run, transactional_db):
                testdata_run.booking_scenario()
        """
        done = suite(code, *IN_PROCESS, **self.DJANGO)
        assert done.returncode == 0, done.stdout + done.stderr
        assert told(done) == "2 runs, 8 rows removed, 0 left"

    @pytest.mark.parametrize(
        "change",
        [
            "settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, 'ENABLED': False}",
            "settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, 'REQUIRE_ACCESS_KEY': True}",
            "settings.ROOT_URLCONF = 'tests.urls_without'",
        ],
    )
    def test_whatever_the_host_lets_in_from_outside(self, suite: Suite, change: str) -> None:
        code = f"""
            import pytest
            @pytest.fixture(autouse=True)
            def changed(settings):
                {change}
            def test_it(testdata_run):
                assert testdata_run.create("product", title="Lamp")["title"] == "Lamp"
                assert [each.type for each in testdata_run.entities(type="product")] == ["product"]
        """
        done = suite(code, *IN_PROCESS, **self.DJANGO)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_a_host_that_sets_nothing_and_includes_nothing_will_do(self, suite: Suite) -> None:
        code = """
            import pytest
            @pytest.fixture(autouse=True)
            def changed(settings):
                del settings.STAGEHAND_TESTDATA
                settings.ROOT_URLCONF = "tests.urls_without"
            def test_it(testdata_run, client):
                made = testdata_run.client()
                opened = testdata_run.session(made, next_path="/marketplace/builders")
                assert opened.link.startswith("http://testserver/sign-in/")
                for each in opened.storage_state["cookies"]:
                    client.cookies[each["name"]] = each["value"]
                page = client.get("/marketplace/builders")
                assert page.wsgi_request.user.pk == int(made.user_id)
        """
        done = suite(code, *IN_PROCESS, **self.DJANGO)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_the_documented_fixtures_give_it_an_inbox_and_capture(self, suite: Suite, tmp_path: Path) -> None:
        page = (ROOT / "docs" / "client.md").read_text()
        [recipe] = re.findall(r"^```python\n(# conftest\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
        code = """
            import datetime as dt
            import pytest
            from django.core import mail
            from django.core.management import call_command
            def book(run, client):
                builder = run.builder()
                [offer] = run.session_types(builder)
                start = (dt.datetime.now(dt.UTC) + dt.timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
                form = {"name": "Zoe", "email": "zoe@example.com"}
                form |= {"session_type": offer.id, "start_time": start}
                page = f"/marketplace/builders/{builder.id}"
                return client.post(page, form, headers=run.pass_().headers)
            @pytest.mark.parametrize("number", range(2))
            def test_it(testdata_run, client, number):
                answer = book(testdata_run, client)
                assert answer.status_code == 302, answer.content
                [message] = testdata_run.messages(to="zoe@example.com")
                assert message.subject.startswith("Booking received")
                assert mail.outbox == []
                mail.send_mail("Hello", "you", None, ["somebody@shop.com"])
                assert len(mail.outbox) == 1
                assert len(testdata_run.entities(origin="captured")) == 1
                assert testdata_run.cleanup().remaining == 0
            @pytest.mark.parametrize("number", range(2))
            def test_on_real_transactions_too(testdata_run, transactional_db, client, number):
                call_command("testdata", "guards", "install")
                assert book(testdata_run, client).status_code == 302
                assert len(testdata_run.entities(origin="captured")) == 1
            def test_without_transactions_again(testdata_run, client):
                test_it(testdata_run, client, 3)
        """
        without = suite(code, *IN_PROCESS, **self.DJANGO)
        assert "3 failed" in without.stdout, without.stdout
        (tmp_path / "conftest.py").write_text(recipe)
        done = suite(code, *IN_PROCESS, **self.DJANGO)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_its_only_environment_is_never_taken_unasked(self, suite: Suite, tmp_path: Path) -> None:
        (tmp_path / "stagehand-testdata.toml").write_text(
            '[environments]\nproduction = "http://127.0.0.1:9"\n'
        )
        done = suite("def test_it(testdata_run): testdata_run.client()", *IN_PROCESS, **self.DJANGO)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_who_asks_in_passing_is_refused_the_real_database(self, suite: Suite) -> None:
        code = "def test_it(request): request.getfixturevalue('testdata_run')"
        done = suite(code, *IN_PROCESS, **self.DJANGO)
        assert done.returncode == 1
        assert "must be an argument of the test itself" in done.stdout

    def test_the_session_wants_a_server(self, suite: Suite) -> None:
        done = suite("def test_it(testdata_session): pass", *IN_PROCESS, **self.DJANGO)
        assert done.returncode == 1
        assert "--testdata-url" in done.stdout


class TestWhereNobodyUsesIt:
    def test_nothing_is_imported(self, suite: Suite) -> None:
        code = """
            import sys
            def test_it():
                ours = [name for name in sys.modules if name.startswith("stagehand_testdata")]
                assert sorted(ours) == ["stagehand_testdata", "stagehand_testdata.pytest_plugin"]
                assert not {"django", "httpx"} & set(sys.modules)
        """
        others = ("django", "schemathesis", "hypothesispytest", "playwright", "faker", "anyio", "randomly")
        hidden = [word for name in others for word in ("-p", f"no:{name}")]
        done = suite(code, *hidden, PYTEST_DISABLE_PLUGIN_AUTOLOAD="")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "testdata:" not in done.stdout

    def test_loading_it_takes_no_time(self) -> None:
        code = "import pytest, time; at = time.perf_counter(); import stagehand_testdata.pytest_plugin; "
        code += "print(time.perf_counter() - at)"
        took = [
            float(
                subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout
            )
            for _ in range(5)
        ]
        assert min(took) < 0.05


def test_a_server_that_is_down_is_one_clear_line_and_waited_for_once(suite: Suite) -> None:
    code = """
        import pytest
        @pytest.mark.parametrize("number", range(3))
        def test_it(testdata_run, number): pass
        def test_of_the_session(testdata_session): pass
    """
    started = time.monotonic()
    done = suite(code, *ON_A_SERVER, "--testdata-url", "http://127.0.0.1:9", "--durations=0", "-vv")
    assert done.returncode == 1
    assert "4 errors" in done.stdout
    line = r"^The server at \S+ cannot be reached .*: is it running\?$"
    assert len(re.findall(line, done.stdout, re.MULTILINE)) == 4
    assert "testdata:" not in done.stdout
    assert "Traceback" not in done.stdout
    waited = [float(each) for each in re.findall(r"^([\d.]+)s setup", done.stdout, re.MULTILINE)]
    assert len([each for each in waited if each > 0.5]) == 1
    # One patience: eight attempts, and at most 19 seconds between them.
    assert time.monotonic() - started < 30
