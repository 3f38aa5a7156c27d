"""`manage.py check --deploy`: each problem of a deployment by its id, and a hardened host that has none."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from stagehand_testdata.access import keys
from stagehand_testdata.checks import check_deployment, check_keys, check_role, check_settings
from stagehand_testdata.databases import database
from stagehand_testdata.models import AccessKey, TestEntity
from stagehand_testdata.operations import guards
from tests.hardened_settings import HARDENED
from tests.making import changed

ALIAS = "default"
needs_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="roles of PostgreSQL")


def ids(problems: list[CheckMessage]) -> list[str | None]:
    assert all(each.hint for each in problems)
    return [each.id for each in problems]


@pytest.fixture
def hardened() -> Iterator[None]:
    with override_settings(**HARDENED), changed(REQUIRE_ACCESS_KEY=True):
        yield


@pytest.mark.usefixtures("hardened")
class TestHardenedHost:
    def test_it_has_no_problem(self) -> None:
        said = io.StringIO()
        call_command("check", "--deploy", "--fail-level", "WARNING", stdout=said, stderr=said)
        assert "no issues" in said.getvalue()

    @pytest.mark.django_db(transaction=True)
    def test_nor_has_its_database_once_the_guards_are_up(self) -> None:
        keys.create("CI", dt.timedelta(days=90))
        guards.install(ALIAS)
        try:
            problems = run_checks(include_deployment_checks=True, databases=[ALIAS])
        finally:
            guards.remove(ALIAS)
        ids = {each.id or "" for each in problems if not each.is_silenced()}
        ours = {each for each in ids if each.startswith(("stagehand.", "security."))}
        # The tests' own role owns the tables; MariaDB's guards do not see its cascades.
        assert ours - {"stagehand.W048", "stagehand.W022"} == set()

    def test_its_gate_may_be_shut(self) -> None:
        with changed(ENABLED=False, REQUIRE_ACCESS_KEY=False), override_settings(DEBUG=True):
            assert ids(check_deployment(None)) == []

    def test_stagehand_E044_no_key_is_required(self) -> None:
        with changed(REQUIRE_ACCESS_KEY=False):
            assert ids(check_deployment(None)) == ["stagehand.E044"]
        with changed(REQUIRE_ACCESS_KEY=False, ENABLED="some.flag"):
            assert ids(check_deployment(None)) == ["stagehand.E044"]

    def test_stagehand_E045_debug_is_on(self) -> None:
        with override_settings(DEBUG=True):
            assert ids(check_deployment(None)) == ["stagehand.E045"]

    def test_stagehand_W046_plain_http(self) -> None:
        with override_settings(SECURE_SSL_REDIRECT=False):
            assert ids(check_deployment(None)) == ["stagehand.W046"]
        with override_settings(MIDDLEWARE=[]):
            assert ids(check_deployment(None)) == ["stagehand.W046"]

    def test_they_speak_on_deploy_alone(self) -> None:
        with changed(REQUIRE_ACCESS_KEY=False), override_settings(DEBUG=True, SECURE_SSL_REDIRECT=False):
            plain, deployed = (
                {each.id for each in run_checks(include_deployment_checks=d)} for d in (False, True)
            )
        spoken = {"stagehand.E044", "stagehand.E045", "stagehand.W046"}
        assert spoken <= deployed
        assert not spoken & plain


@pytest.mark.parametrize("rate", ["often", "1", "/s", "1/", "1/x", "0/s", "-1/s", "1.5/s"])
@pytest.mark.parametrize("name", ["RATE_PER_KEY", "RATE_PER_ADDRESS"])
def test_stagehand_E043_a_rate_that_is_none(name: str, rate: str) -> None:
    with changed(**{name: rate}):
        assert ids(check_settings(None)) == ["stagehand.E043"]


@pytest.mark.parametrize("rate", ["", "1/s", "3000/m", "10/hour", "5/day"])
def test_stagehand_E043_is_silent_about_what_is_one(rate: str) -> None:
    from stagehand_testdata.api.throttling import _Rate

    with changed(RATE_PER_KEY=rate, RATE_PER_ADDRESS=rate):
        assert check_settings(None) == []
    if rate:
        assert _Rate(rate, "", "").parse_rate(rate)[0]


@pytest.mark.django_db
class TestKeys:
    def problems(self) -> list[CheckMessage]:
        return check_keys(None, databases=[ALIAS])

    def test_stagehand_W047_a_key_that_counts_for_years(self) -> None:
        keys.create("CI", dt.timedelta(days=365))
        assert self.problems() == []
        long, _ = keys.create("CI", dt.timedelta(days=1000))
        [problem] = self.problems()
        assert problem.id == "stagehand.W047"
        assert long.public_id in problem.msg
        assert AccessKey.objects.exclude(pk=long.pk).get().public_id not in problem.msg
        keys.revoke(long)
        assert self.problems() == []

    def test_stagehand_W047_asks_the_database_where_it_may_alone(self) -> None:
        keys.create("CI", dt.timedelta(days=1000))
        assert check_keys(None) == check_keys(None, databases=["other"]) == []


@pytest.mark.django_db
class TestRole:
    def problems(self) -> list[CheckMessage]:
        return check_role(None, databases=[ALIAS])

    @needs_postgresql
    def test_stagehand_W048_a_superuser(self) -> None:
        if not database(ALIAS).passing_role():
            pytest.skip("the tests' role is no superuser")
        [problem] = self.problems()
        assert problem.id == "stagehand.W048"
        assert "superuser" in problem.msg

    @needs_postgresql
    def test_stagehand_W048_the_owner_of_the_ledger_and_nobody_else(self) -> None:
        table = TestEntity._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE stagehand_w048 NOLOGIN")
            cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO stagehand_w048")
            cursor.execute("SET LOCAL ROLE stagehand_w048")
            assert self.problems() == []
            cursor.execute("RESET ROLE")
            cursor.execute(f'ALTER TABLE "{table}" OWNER TO stagehand_w048')
            cursor.execute("SET LOCAL ROLE stagehand_w048")
            [problem] = self.problems()
            cursor.execute("RESET ROLE")
        assert problem.id == "stagehand.W048"
        assert table in problem.msg

    def test_stagehand_W048_is_no_matter_where_the_gate_is_shut(self) -> None:
        with changed(ENABLED=False):
            assert self.problems() == []


@pytest.mark.usefixtures("hardened")
class TestTheIdentityProvider:
    CLERK = "stagehand_testdata.contrib.clerk.Clerk"

    @pytest.mark.parametrize(("key", "found"), [("sk_test_x", ["stagehand.E050"]), ("sk_live_x", [])])
    def test_stagehand_E050_a_development_instance_is_not_deployed(self, key: str, found: list[str]) -> None:
        with changed(IDENTITY_PROVIDER=self.CLERK, IDENTITY_OPTIONS={"secret_key": key}):
            assert ids(check_deployment(None)) == found

    def test_stagehand_E050_is_told_once(self) -> None:
        options = {"secret_key": "sk_test_x"}
        with changed(IDENTITY_PROVIDER=self.CLERK, IDENTITY_OPTIONS=options, ENVIRONMENT="production"):
            assert ids([*check_settings(None), *check_deployment(None)]).count("stagehand.E050") == 1

    def test_stagehand_E050_the_default_has_none(self) -> None:
        assert ids(check_deployment(None)) == []
