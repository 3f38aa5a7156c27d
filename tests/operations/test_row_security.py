"""PostgreSQL itself hides test rows: from raw SQL, base managers and whoever asks, not from the purge."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.signals import request_started
from django.db import Error, connection, models, transaction
from django.db.models import Count

from stagehand_testdata import apps as composition
from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.databases import database
from stagehand_testdata.exceptions import Conflict
from stagehand_testdata.isolation.capture import recording_inserts
from stagehand_testdata.isolation.statements import seeing_all_rows
from stagehand_testdata.models import TestRun
from stagehand_testdata.operations import row_security
from stagehand_testdata.operations.audit import audit
from stagehand_testdata.operations.purge.plan import make_plan
from stagehand_testdata.operations.purge.purge import purge_run
from stagehand_testdata.operations.row_security import Change, State
from tests.conftest import Wire
from tests.guarding import ALIAS, on_postgresql, sql
from tests.host.factories import FlyerFactory
from tests.host.models import Author, Flyer
from tests.making import create, registered
from tests.management.running import run_testdata

TABLE = "host_flyer"
RUNS = {"a": "stagehand_test_rls_a", "b": "stagehand_test_rls_b"}


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor == "postgresql", reason="it has some")
@pytest.mark.parametrize("action", ["install", "status", "remove"])
def test_a_database_that_has_no_row_level_security_says_so(action: str) -> None:
    status, text = run_testdata("rls", action)
    assert status == 2
    assert "PostgreSQL" in text


def role() -> str:
    """One that policies hold back, unlike the superuser that tests may run as."""
    return connection.ops.quote_name(f"held_back_in_{connection.settings_dict['NAME']}")


def make_role() -> None:
    """It owns the table, as a product's role does: what holds the owner back holds everybody back."""
    for statement in (
        "CREATE ROLE {role} NOLOGIN",
        "GRANT ALL ON SCHEMA public TO {role}",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
        f"ALTER TABLE {TABLE} OWNER TO {{role}}",
    ):
        sql(statement.format(role=role()))


_wanted = row_security._wanted


@pytest.fixture(autouse=True)
def _one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_security, "_wanted", lambda alias: [TABLE])


@pytest.fixture
def installed(db: None) -> None:
    row_security.install(ALIAS)


@pytest.fixture
def held_back(installed: None) -> None:
    """A real row, one of each run, and a role that policies hold back: all in the test's transaction."""
    make_role()
    sql(f"SET LOCAL ROLE {role()}")
    make_rows()


def make_rows() -> None:
    FlyerFactory(title="real")
    for who, test_id in RUNS.items():
        create(FlyerFactory, test_id, title=who)


def run_of(who: str) -> TestRun:
    return TestRun.objects.get(test_id=RUNS[who])


@contextmanager
def asking(who: str) -> Iterator[None]:
    with use_run(None if who == "nobody" else CurrentRun(run_of(who).pk, RUNS[who])):
        yield


def seen_in_sql() -> set[str]:
    return {row[0] for row in sql(f"SELECT title FROM {TABLE}")}


def status_of(table: str = TABLE) -> row_security.TableStatus:
    [found] = [each for each in row_security.status(ALIAS) if each.table == table]
    return found


WAYS: dict[str, Any] = {
    "raw SQL": seen_in_sql,
    "raw()": lambda: {row.title for row in Flyer.objects.raw(f"SELECT * FROM {TABLE}")},
    "the base manager": lambda: set(Flyer._base_manager.values_list("title", flat=True)),
    "the manager of all rows": lambda: set(Flyer.all_rows.values_list("title", flat=True)),
    "a named cursor": lambda: {row.title for row in models.QuerySet(Flyer).iterator(chunk_size=1)},
    "a join": lambda: set(Author.objects.exclude(flyers=None).values_list("flyers__title", flat=True)),
    "a subquery in SQL": lambda: {
        row[0] for row in sql(f"WITH f AS (SELECT * FROM {TABLE}) SELECT title FROM f")
    },
}


@on_postgresql
@pytest.mark.usefixtures("held_back")
class TestWhatIsSeen:
    @pytest.mark.parametrize("way", WAYS)
    def test_is_real_rows_and_a_run_s_own(self, way: str) -> None:
        assert WAYS[way]() == {"real"}
        for who in RUNS:
            with asking(who):
                assert WAYS[way]() == {"real", who}
                with seeing_all_rows():
                    assert WAYS[way]() == {"real", "a", "b"}
        with seeing_all_rows():
            assert WAYS[way]() == {"real", "a", "b"}
        assert WAYS[way]() == {"real"}

    def test_is_counted_alike_in_joins(self) -> None:
        Flyer.all_rows.update(author=Author.objects.first())
        with seeing_all_rows():
            Flyer.all_rows.update(author=Author.objects.first())
        assert Author.objects.aggregate(number=Count("flyers"))["number"] == 1
        with asking("a"):
            assert Author.objects.aggregate(number=Count("flyers"))["number"] == 2

    def test_is_not_widened_by_a_text_that_looks_like_a_tag(self) -> None:
        tag = f"/*stagehand run={run_of('a').pk}*/ "
        assert {row[0] for row in sql(f"SELECT title FROM {TABLE} WHERE title <> '{tag}'")} == {"real"}
        assert {row[0] for row in sql(f"SELECT title FROM {TABLE} /*stagehand all rows*/ ")} == {"real"}
        with asking("b"):
            assert {row[0] for row in sql(f"{tag}SELECT title FROM {TABLE}")} == {"real", "b"}
        rows = models.QuerySet(Flyer).exclude(title=f"CURSOR FOR {tag}").iterator(chunk_size=1)
        assert {row.title for row in rows} == {"real"}

    def test_is_what_can_be_changed_and_deleted(self) -> None:
        with asking("a"):
            sql(f"UPDATE {TABLE} SET title = title || '!'")
        with seeing_all_rows():
            assert seen_in_sql() == {"real!", "a!", "b"}
        sql(f"DELETE FROM {TABLE}")
        with seeing_all_rows():
            assert seen_in_sql() == {"a!", "b"}

    def test_is_what_can_be_made(self) -> None:
        author = Author.objects.first()
        for who in ("nobody", "b"):
            with asking(who), pytest.raises(Error, match="row-level security"), transaction.atomic():
                Flyer.all_rows.create(title="x", author=author, test_run_id=run_of("a").pk)
        with asking("a"):
            Flyer.all_rows.create(title="x", author=author, test_run_id=run_of("a").pk)
        Flyer.all_rows.bulk_create([Flyer(title="y", author=author)])

    def test_values_of_hidden_rows_are_known_to_be_taken(self) -> None:
        with asking("b"), recording_inserts() as recorder:
            flyers = [Flyer(title="a", author=Author.objects.first())]
            Flyer.objects.bulk_create(flyers, ignore_conflicts=True)
        assert recorder.rows == []


@on_postgresql
@pytest.mark.usefixtures("held_back")
class TestWhoMustSeeEverything:
    def test_a_purge_removes_what_is_hidden_from_others(self) -> None:
        plan = make_plan(run_of("a"))
        assert dict(plan.removable) == {"thing": 1, "host.author": 1}
        assert not plan.gone
        outcome = purge_run(run_of("a"))
        assert outcome.success
        with seeing_all_rows():
            assert seen_in_sql() == {"real", "b"}
        assert seen_in_sql() == {"real"}

    def test_an_audit_finds_every_row(self) -> None:
        report = audit(deep=True)
        assert report.gone == ()
        assert report.strangers == ()

    def test_migrations(self) -> None:
        composition.lift_guards(ALIAS, [])
        assert seen_in_sql() == {"real", "a", "b"}
        composition.renew_guards(ALIAS)
        assert seen_in_sql() == {"real"}

    def test_migrations_that_failed_within_a_server_until_its_next_request(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(request_started, "receivers", [])
        composition.lift_guards(ALIAS, [])
        request_started.send(type(self))
        assert seen_in_sql() == {"real"}
        assert request_started.receivers == []


@on_postgresql
@pytest.mark.django_db(transaction=True)
class TestInAutocommit:
    @pytest.fixture(autouse=True)
    def held_back(self, db: None) -> Iterator[None]:
        row_security.install(ALIAS)
        make_role()
        sql(f"SET ROLE {role()}")
        try:
            yield
        finally:
            sql("RESET ROLE")
            sql(f"ALTER TABLE {TABLE} OWNER TO current_user")
            sql(f"DROP OWNED BY {role()}")
            sql(f"DROP ROLE {role()}")
            row_security.remove(ALIAS)

    def test_a_run_sees_its_own_rows_and_leaves_no_trace(self) -> None:
        make_rows()
        for way in WAYS.values():
            with asking("a"):
                assert way() == {"real", "a"}
            assert way() == {"real"}

    def test_the_api_makes_shows_and_removes_a_run_s_rows(self, wire: Wire) -> None:
        with registered(flyer=FlyerFactory):
            wire.entity("flyer", title="mine")
            with seeing_all_rows():
                assert seen_in_sql() == {"mine"}
            assert seen_in_sql() == set()
            wire.entity("flyer")
            wire.cleanup()
        with seeing_all_rows():
            assert seen_in_sql() == set()


@on_postgresql
class TestInstalling:
    def test_is_for_each_table_whose_rows_are_marked(self, installed: None) -> None:
        marked = {"booking", "builder", "client", "sessiontype"}
        assert set(_wanted(ALIAS)) == {TABLE, *(f"stagehand_marketplace_{name}" for name in marked)}
        assert [each.table for each in row_security.status(ALIAS)] == [TABLE]
        assert row_security.install(ALIAS) == []

    def test_is_of_no_use_to_a_superuser_and_the_status_says_so(self, installed: None) -> None:
        make_role()
        if database(ALIAS).passing_role():
            assert status_of().state is State.PASSED_BY
            assert database(ALIAS).passing_role() in status_of().reason
        sql(f"SET LOCAL ROLE {role()}")
        assert status_of().state is State.IN_FORCE

    @pytest.mark.parametrize(
        "change",
        [
            f"ALTER TABLE {TABLE} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {TABLE} DISABLE ROW LEVEL SECURITY",
            f"DROP POLICY stagehand_test_rows ON {TABLE}",
            f"DROP POLICY stagehand_any_row ON {TABLE}",
            f"ALTER POLICY stagehand_test_rows ON {TABLE} USING (true)",
            f"ALTER POLICY stagehand_test_rows ON {TABLE} TO postgres",
            "CREATE OR REPLACE FUNCTION stagehand_seen_run() RETURNS int8 LANGUAGE sql AS 'SELECT -1::int8'",
            f"COMMENT ON POLICY stagehand_test_rows ON {TABLE} IS 'of another release'",
        ],
    )
    def test_again_puts_up_what_somebody_has_changed(self, installed: None, change: str) -> None:
        sql(change)
        assert status_of().state is State.CHANGED
        assert row_security.install(ALIAS) == [Change(TABLE, "was changed: renewed")]
        assert row_security.install(ALIAS) == []

    def test_is_told_the_same_by_whatever_search_path(self, installed: None) -> None:
        sql("SET LOCAL search_path = public, pg_catalog")
        assert status_of().state is not State.CHANGED
        sql('CREATE SCHEMA "Other"')
        sql('SET LOCAL search_path = "Other", public')
        assert status_of().state is not State.CHANGED

    def test_leaves_every_row_in_sight_where_the_column_goes(self, held_back: None) -> None:
        sql("SET CONSTRAINTS ALL IMMEDIATE")
        sql(f"ALTER TABLE {TABLE} DROP COLUMN test_run_id CASCADE")
        assert seen_in_sql() == {"real", "a", "b"}

    def test_takes_down_what_is_wanted_no_more(
        self, installed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(row_security, "_wanted", lambda alias: [])
        assert status_of().reason == "no longer wanted"
        assert status_of().broken
        assert row_security.install(ALIAS) == [Change(TABLE, "no longer wanted: removed")]
        assert database(ALIAS).held_policies() == {}

    def test_leaves_a_table_alone_that_has_policies_of_the_product(self, db: None) -> None:
        sql(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
        sql(f"CREATE POLICY theirs ON {TABLE} USING (true)")
        before = sql("SELECT polname FROM pg_policy")
        assert status_of().state is State.NOT_POSSIBLE
        assert row_security.install(ALIAS) == []
        row_security.remove(ALIAS)
        assert sql("SELECT polname FROM pg_policy") == before
        assert sql("SELECT relrowsecurity FROM pg_class WHERE relname = %s", [TABLE]) == [(True,)]
        assert not [each for each in row_security.install_sql(ALIAS) if TABLE in each]

    def test_is_undone_without_a_trace(self, installed: None) -> None:
        assert row_security.remove(ALIAS) == [Change(TABLE, "removed")]
        assert database(ALIAS).held_policies() == {}
        assert sql("SELECT 1 FROM pg_proc WHERE proname LIKE 'stagehand\\_seen%%'") == []
        assert status_of().state is State.NOT_INSTALLED
        assert row_security.remove(ALIAS) == []


@on_postgresql
@pytest.mark.django_db(transaction=True)
def test_the_sql_as_it_is_printed_can_be_run_and_says_all() -> None:
    def psql(text: str) -> None:
        connection.close()
        subprocess.run(
            ["psql", "-v", "ON_ERROR_STOP=1", "-q", connection.settings_dict["NAME"]],
            input=text,
            text=True,
            check=True,
            capture_output=True,
        )

    try:
        psql("\n".join(row_security.install_sql(ALIAS)))
        assert row_security.install(ALIAS) == []
        assert status_of().state in (State.IN_FORCE, State.PASSED_BY)
        psql("\n".join(row_security.remove_sql(ALIAS)))
        assert status_of().state is State.NOT_INSTALLED
    finally:
        row_security.remove(ALIAS)


@on_postgresql
@pytest.mark.django_db
class TestTheCommand:
    def test_installs_shows_and_removes(self) -> None:
        assert run_testdata("rls", "status")[0] == 0
        assert run_testdata("rls", "install") == (0, f"{TABLE}: installed\n")
        assert run_testdata("rls", "install") == (0, "Nothing to do.\n")
        make_role()
        sql(f"SET LOCAL ROLE {role()}")
        status, text = run_testdata("rls", "status", "--json")
        assert status == 0
        assert {"table": TABLE, "state": "in force", "reason": ""} in json.loads(text)
        sql("RESET ROLE")
        assert json.loads(run_testdata("rls", "remove", "--json")[1]) == [{"table": TABLE, "done": "removed"}]

    def test_has_exit_status_1_where_a_policy_is_not_in_force(self) -> None:
        run_testdata("rls", "install")
        sql(f"ALTER TABLE {TABLE} DISABLE ROW LEVEL SECURITY")
        status, text = run_testdata("rls", "status")
        assert status == 1
        assert "changed" in text

    def test_has_exit_status_1_where_a_table_could_not_be_had(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def busy(alias: str) -> None:
            raise Conflict("at work on it")

        monkeypatch.setattr(row_security, "install", busy)
        assert run_testdata("rls", "install") == (1, "at work on it")

    def test_prints_its_sql_and_runs_none_of_it(self) -> None:
        assert "CREATE POLICY" in run_testdata("rls", "install", "--sql")[1]
        assert "DROP FUNCTION" in run_testdata("rls", "remove", "--sql")[1]
        assert database(ALIAS).held_policies() == {}
        assert run_testdata("rls", "status", "--sql")[0] == 2
        assert run_testdata("rls", "install", "--sql", "--json")[0] == 2
