"""`manage.py testdata guards`, as an operator types it; the system checks that look at the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection

from stagehand_testdata.checks import check_guards
from stagehand_testdata.databases import database
from stagehand_testdata.databases.guards import PREFIX, guard_name
from stagehand_testdata.exceptions import Conflict
from stagehand_testdata.operations import guards
from tests.guarding import ALIAS, changes_tables, sql
from tests.making import changed

from .running import run_testdata

pytestmark = changes_tables

TABLE = "host_person"


def command(*arguments: str) -> tuple[int, str]:
    return run_testdata("guards", *arguments)


def put_off() -> None:
    sql(
        f"DROP TRIGGER {PREFIX}delete ON {TABLE}"
        if connection.vendor == "postgresql"
        else f"DROP TRIGGER {guard_name(TABLE)}_delete"
    )


@pytest.fixture(autouse=True)
def _down_again() -> Iterator[None]:
    yield
    if connection.vendor == "mysql":  # it commits at each DDL
        guards.remove(ALIAS)


class TestInstall:
    def test_says_what_it_did_and_then_that_there_is_nothing_to_do(self) -> None:
        status, text = command("install")
        assert status == 0
        assert f"{TABLE}: installed" in text
        assert command("install") == (0, "Nothing to do.\n")

    def test_in_json(self) -> None:
        assert {"table": TABLE, "done": "installed"} in json.loads(command("install", "--json")[1])
        assert json.loads(command("install", "--json")[1]) == []

    def test_that_could_not_have_a_table_has_exit_status_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def busy(alias: str) -> None:
            raise Conflict("at work on it")

        monkeypatch.setattr(guards, "install", busy)
        assert command("install") == (1, "at work on it")

    def test_prints_its_sql_and_runs_none_of_it(self) -> None:
        status, text = command("install", "--sql")
        assert status == 0
        assert "CREATE" in text
        assert database(ALIAS).held_guards() == {}


class TestStatus:
    def test_of_what_was_never_installed_is_no_failure(self) -> None:
        status, text = command("status")
        assert status == 0
        assert "not installed" in text

    def test_of_guards_that_are_awake(self) -> None:
        command("install")
        rows = json.loads(command("status", "--json")[1])
        [row] = [each for each in rows if each["table"] == TABLE]
        assert (row["state"], row["model"]) == ("awake", "host.person")
        assert row["since"]
        assert command("status")[0] == 0

    def test_of_guards_that_are_missing_has_exit_status_1(self) -> None:
        command("install")
        put_off()
        status, text = command("status")
        assert status == 1
        assert "missing" in text


class TestRemove:
    def test_says_what_it_did(self) -> None:
        command("install")
        status, text = command("remove")
        assert status == 0
        assert f"{TABLE}: removed" in text
        assert database(ALIAS).held_guards() == {}
        assert command("remove") == (0, "Nothing to do.\n")

    def test_prints_its_sql_and_runs_none_of_it(self) -> None:
        command("install")
        assert "DROP" in command("remove", "--sql")[1]
        assert command("status")[0] == 0


class TestMisuse:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ((), "install|status|remove"),
            (("wake",), "invalid choice: 'wake'"),
            (("status", "--sql"), "--sql goes with install or remove"),
            (("install", "--sql", "--json"), "--sql goes with install or remove"),
        ],
    )
    def test_is_exit_status_2(self, arguments: tuple[str, ...], says: str) -> None:
        status, text = command(*arguments)
        assert says in text
        assert status == (2 if arguments and "--sql" in arguments else 1)

    def test_before_migrate_says_what_to_type(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guards, "can_tell", lambda alias: False)
        status, text = command("install")
        assert status == 2
        assert "manage.py migrate" in text


def ids(**options: Any) -> list[str | None]:
    return [each.id for each in check_guards(None, **options)]


class TestChecks:
    def test_ask_no_database_unless_they_are_told_to(self, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            assert ids() == []
            assert ids(databases=["another"]) == []

    def test_stagehand_W020_no_guards_are_installed(self) -> None:
        [problem] = check_guards(None, databases=[ALIAS])
        assert problem.id == "stagehand.W020"
        assert "guards install" in str(problem.hint)
        with changed(ENABLED=False):
            assert ids(databases=[ALIAS]) == []

    def test_stagehand_W021_guards_are_not_awake(self) -> None:
        guards.install(ALIAS)
        put_off()
        problems = check_guards(None, databases=[ALIAS])
        [problem] = [each for each in problems if each.id == "stagehand.W021"]
        assert f"{TABLE} (missing)" in problem.msg
        assert problem.hint

    def test_stagehand_W022_the_database_promises_less(self) -> None:
        guards.install(ALIAS)
        expected = [] if database(ALIAS).closes_entries else ["stagehand.W022"]
        assert ids(databases=[ALIAS]) == expected

    def test_are_silent_before_migrate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guards, "can_tell", lambda alias: False)
        assert ids(databases=[ALIAS]) == []

    def test_are_registered_with_django(self) -> None:
        assert "stagehand.W020" in [each.id for each in run_checks(databases=[ALIAS])]

    def test_never_stop_a_migrate(self) -> None:
        guards.install(ALIAS)
        put_off()
        call_command("migrate", skip_checks=False, verbosity=0)
        guards.require_awake(ALIAS)
