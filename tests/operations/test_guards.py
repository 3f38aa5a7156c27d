"""Guards put up, looked at and taken down; what tells a purge whether it may rely on them."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.models import CompositePrimaryKey, DateField, IntegerField, TextField

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.databases import database
from stagehand_testdata.databases.guards import PREFIX, GuardedTable, guard_name
from stagehand_testdata.exceptions import Conflict, GuardsDisabled
from stagehand_testdata.models import Guard, StatementUnderWay, TestEntity, TestRun
from stagehand_testdata.operations import guards
from stagehand_testdata.operations.guards import State
from stagehand_testdata.operations.purge import purge
from stagehand_testdata.operations.purge.graph import look_at_tables
from tests.guarding import (
    ALIAS,
    changes_tables,
    on_postgresql,
    on_sqlite,
    purging,
    refused,
    remove_row,
    sql,
    state_of,
    transactional_ddl,
)
from tests.host import factories, models
from tests.making import TEST_ID, changed, create, registered

pytestmark = changes_tables

TABLE = "host_person"
NAME = guard_name(TABLE)
NEVER = (
    f"CREATE TRIGGER {PREFIX}fence AFTER UPDATE ON {TABLE} FOR EACH ROW WHEN (false)"
    f" EXECUTE FUNCTION {NAME}()"
)


def captured(**fields: Any) -> tuple[TestRun, models.Voucher]:
    """A run with a voucher of its own, and one that the product has made under it."""
    create(factories.VoucherFactory)
    run = TestRun.objects.get(test_id=TEST_ID)
    with use_run(CurrentRun(run.pk, run.test_id, captured=True, fenced=True)):
        return run, models.Voucher.objects.create(code="by-the-product", **fields)


def tables() -> set[str]:
    return {each.table for each in guards.guardable()}


class TestWhatIsGuarded:
    def test_is_every_table_of_the_product(self) -> None:
        with registered():
            assert {"host_book", "host_voucher", "auth_user", "auth_user_groups"} <= tables()

    @pytest.mark.parametrize("left_alone", ["host", "host.Label"])
    def test_is_not_what_is_left_alone(self, left_alone: str) -> None:
        with registered(), changed(LEFT_ALONE=[left_alone]):
            assert "host_label" not in tables()
            assert ("host_voucher" in tables()) is (left_alone == "host.Label")

    def test_is_what_registered_rows_reach_though_it_is_left_alone(self) -> None:
        with registered(book=factories.BookFactory), changed(LEFT_ALONE=["host", "auth"]):
            found = tables()
        assert {"host_book", "host_book_labels", "host_chapter", "host_review", "host_loan"} <= found
        assert {"host_note"} <= found  # it can point at anything
        assert {"host_author", "host_label", "auth_user"} <= found  # what a book points at
        assert found.isdisjoint({"host_voucher", "host_person", "host_country"})

    def test_is_a_parents_table_and_a_childs_too(self) -> None:
        with registered(restaurant=factories.RestaurantFactory):
            assert {"host_place", "host_restaurant"} <= tables()

    def test_is_what_the_ledger_holds_though_it_is_registered_no_more(self) -> None:
        create(factories.VoucherFactory)
        with registered(), changed(LEFT_ALONE=["host"]):
            assert "host_voucher" in tables()
            assert "host_person" not in tables()

    def test_is_nothing_of_our_own_and_of_the_framework(self) -> None:
        found = tables()
        assert not [each for each in found if each.startswith("stagehand_testdata_")]
        assert found.isdisjoint({"django_content_type", "django_session", "django_migrations"})

    def test_is_no_table_that_the_product_derives(self) -> None:
        with changed(DERIVED_TABLES=["host_label"]):
            assert "host_label" not in tables()

    def test_is_no_table_of_another_database(self, settings: Any) -> None:
        class Elsewhere:
            def db_for_write(self, model: Any, **hints: Any) -> str | None:
                return "elsewhere" if model is models.Label else None

        settings.DATABASE_ROUTERS = [Elsewhere()]
        assert "host_label" not in tables()

    def test_knows_key_columns_and_what_is_exempt(self) -> None:
        found = {each.table: each for each in guards.guardable()}
        assert found["host_restaurant"] == GuardedTable(
            "host_restaurant",
            "host.restaurant",
            ("place_ptr_id",),
            "key_bigint",
            ("place_ptr_id", "serves"),
            type="restaurant",
        )
        assert (found["host_flyer"].mark, found["host_billboard"].mark) == ("test_run_id", "")

    def test_knows_what_a_run_may_change_in_any_row(self) -> None:
        with changed(FENCE_EXEMPT=["host.Restaurant", "HOST.person.Boss", "host.person.name"]):
            found = {each.table: each for each in guards.guardable()}
        assert found["host_restaurant"].free == found["host_restaurant"].columns
        assert (found["host_person"].free, found["host_place"].free) == (("name", "boss_id"), ())
        assert (found["host_author"].key, found["host_voucher"].key) == ("key_uuid", "key_text")

    def test_exempts_a_trees_own_columns_where_a_model_has_all_of_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guards, "TREE_COLUMNS", ({"title", "position"}, {"title", "depth"}))
        [chapter] = [each for each in guards.guardable() if each.table == "host_chapter"]
        [book] = [each for each in guards.guardable() if each.table == "host_book"]
        assert chapter.exempt == ("position", "title")
        assert book.exempt == ()

    def test_is_a_table_that_no_migration_makes_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(models.Person._meta, "managed", False)
        assert TABLE in tables()

    @on_postgresql
    def test_is_none_of_another_role(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(models.Person._meta, "managed", False)
        sql("CREATE ROLE stagehand_owner")
        sql(f"ALTER TABLE {TABLE} OWNER TO stagehand_owner")
        sql("CREATE ROLE stagehand_product")
        sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO stagehand_product")
        sql("SET LOCAL ROLE stagehand_product")
        assert status_of() == guards.TableStatus(
            TABLE, "host.person", State.NOT_GUARDABLE, "it belongs to another role"
        )

    @on_sqlite
    def test_is_no_virtual_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(models.Person._meta, "managed", False)
        monkeypatch.setattr(models.Person._meta, "db_table", "searched")
        sql("CREATE VIRTUAL TABLE searched USING fts5(name)")
        [found] = [each for each in guards.status(ALIAS) if each.table == "searched"]
        assert (found.state, found.reason) == (State.NOT_GUARDABLE, "it is a virtual table")

    @pytest.mark.parametrize(
        ("kinds", "reason"),
        [
            ([DateField], "its key is a DateField"),
            ([IntegerField, TextField], "its key has several columns that are not all integers"),
            ([IntegerField, IntegerField], None),
        ],
    )
    def test_is_not_what_the_database_could_not_find_in_the_ledger(
        self, monkeypatch: pytest.MonkeyPatch, kinds: list[Any], reason: str | None
    ) -> None:
        parts = [kind(primary_key=len(kinds) == 1) for kind in kinds]
        for number, part in enumerate(parts):
            part.set_attributes_from_name(f"part{number}")
        key: Any = parts[0]
        if len(parts) > 1:
            key = CompositePrimaryKey("part0", "part1")
            key.set_attributes_from_name("pk")
            key.__dict__["fields"] = tuple(parts)
        monkeypatch.setattr(models.Label._meta, "pk", key)
        monkeypatch.setattr(guards, "_within_reach", lambda: {models.Label})
        monkeypatch.setattr(guards, "_is_left_alone", lambda model: True)
        [status] = guards.status(ALIAS)
        if reason is None:
            assert status.state is State.NOT_INSTALLED
            assert guards.guardable()[0].pk == ("part0", "part1")
        else:
            assert (status.state, status.reason) == (State.NOT_GUARDABLE, reason)
            assert guards.guardable() == []


@pytest.fixture
def installed(django_db_blocker: Any) -> Iterator[None]:
    """Within the test's transaction, or taken down after it where the database commits at each DDL."""
    guards.install(ALIAS)
    yield
    if connection.vendor == "mysql":
        guards.remove(ALIAS)


def status_of(table: str = TABLE) -> guards.TableStatus:
    [found] = [each for each in guards.status(ALIAS) if each.table == table]
    return found


def put_off(suffix: str = "delete") -> None:
    sql(
        f"DROP TRIGGER {PREFIX}{suffix} ON {TABLE}"
        if connection.vendor == "postgresql"
        else f"DROP TRIGGER {NAME}_{suffix}"
    )


@pytest.mark.usefixtures("installed")
class TestInstalling:
    def test_is_recorded_for_each_table(self) -> None:
        assert {each.table: each.model for each in Guard.objects.all()} == {
            each.table: each.model for each in guards.guardable()
        }
        assert {each.state for each in guards.status(ALIAS)} == {State.AWAKE}
        assert set(guards.require_awake(ALIAS)) == {each.model for each in guards.guardable()}

    def test_twice_changes_nothing(self) -> None:
        before = list(Guard.objects.values())
        assert guards.install(ALIAS) == []
        assert list(Guard.objects.values()) == before

    @pytest.mark.parametrize("suffix", ["delete", "fence" if connection.vendor == "postgresql" else "update"])
    def test_again_puts_up_what_is_missing_and_takes_note_of_when(self, suffix: str) -> None:
        before = dict(Guard.objects.values_list("table", "installed_at"))
        put_off(suffix)
        assert status_of().state is State.MISSING
        with pytest.raises(GuardsDisabled, match=rf"{TABLE} \(missing\).*guards install"):
            guards.require_awake(ALIAS)
        assert guards.install(ALIAS) == [guards.Change(TABLE, "was missing: renewed")]
        after = dict(Guard.objects.values_list("table", "installed_at"))
        assert [table for table in after if after[table] != before[table]] == [TABLE]
        assert guards.require_awake(ALIAS)["host.person"] == after[TABLE] > before[TABLE]

    def test_again_puts_up_what_somebody_has_changed(self) -> None:
        if connection.vendor == "postgresql":
            sql(
                f"CREATE OR REPLACE FUNCTION {NAME}() RETURNS trigger LANGUAGE plpgsql"
                " AS 'BEGIN RETURN NULL; END'"
            )
        else:
            put_off()
            body = "SELECT 1;" if connection.vendor == "sqlite" else "SET @nothing = 1;"
            sql(f"CREATE TRIGGER {NAME}_delete AFTER DELETE ON {TABLE} FOR EACH ROW BEGIN {body} END")
        assert status_of().state is State.CHANGED
        with pytest.raises(GuardsDisabled, match=rf"{TABLE} \(changed\)"):
            guards.require_awake(ALIAS)
        assert guards.install(ALIAS) == [guards.Change(TABLE, "was changed: renewed")]
        ours = create(factories.PersonFactory)
        remove_row(ours)
        assert state_of(ours) == "gone"

    @on_postgresql
    def test_again_wakes_what_somebody_has_disabled(self) -> None:
        sql(f"ALTER TABLE {TABLE} DISABLE TRIGGER USER")
        assert status_of().state is State.DISABLED
        with pytest.raises(GuardsDisabled, match=rf"{TABLE} \(disabled\)"):
            guards.require_awake(ALIAS)
        assert guards.install(ALIAS) == [guards.Change(TABLE, "was disabled: renewed")]
        guards.require_awake(ALIAS)

    @on_postgresql
    @pytest.mark.parametrize(
        "change",
        [
            f"ALTER TABLE {TABLE} ENABLE TRIGGER {PREFIX}delete",
            f"ALTER FUNCTION {NAME}() SECURITY INVOKER",
            f"ALTER FUNCTION {NAME}() RESET enable_seqscan",
            f"ALTER FUNCTION {NAME}_made() SECURITY INVOKER",
            f"ALTER TABLE {TABLE} ENABLE TRIGGER {PREFIX}insert",
            f"DROP TRIGGER {PREFIX}fence ON {TABLE}; {NEVER}",
        ],
    )
    def test_again_notices_the_least_change(self, change: str) -> None:
        sql(change)
        if "CREATE TRIGGER" in change:
            sql(f"ALTER TABLE {TABLE} ENABLE ALWAYS TRIGGER {PREFIX}fence")
        assert status_of().state is State.CHANGED

    @on_postgresql
    def test_takes_down_what_an_earlier_release_had(self) -> None:
        sql(f"CREATE TRIGGER {PREFIX}update AFTER UPDATE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION {NAME}()")
        assert guards.install(ALIAS) == [guards.Change(TABLE, "was changed: renewed")]
        named = sql("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass", [TABLE])
        assert f"{PREFIX}fence" in {name for (name,) in named}
        assert f"{PREFIX}update" not in {name for (name,) in named}

    @on_postgresql
    def test_is_told_the_same_by_whatever_search_path(self) -> None:
        sql("SET LOCAL search_path = public, pg_catalog")
        guards.require_awake(ALIAS)
        sql('CREATE SCHEMA "Other"')
        sql('SET LOCAL search_path = "Other", public')
        guards.require_awake(ALIAS)

    def test_again_brings_what_a_newer_release_wants(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Guard.objects.filter(table=TABLE).update(
            definition="0" * 32 + Guard.objects.get(table=TABLE).definition[32:]
        )
        assert "another release" in status_of().reason
        guards.require_awake(ALIAS)
        assert [each.table for each in guards.install(ALIAS)] == [TABLE]
        assert status_of().reason == ""

    @transactional_ddl
    def test_again_while_they_watch_strands_no_captured_row(self) -> None:
        run, _ = captured(note="made by the product")
        before = Guard.objects.get(table=TABLE).installed_at
        with changed(FENCE_POINTERS="block"):
            assert guards.install(ALIAS)[0].done.endswith("has changed: renewed")
            assert Guard.objects.get(table=TABLE).installed_at == before
            assert purge.purge_run(run).receipt["removed"] == {"host.voucher": 1, "thing": 1}
        guards.install(ALIAS)

    @on_sqlite
    def test_again_takes_down_what_an_older_release_had_besides(self) -> None:
        for suffix in ("crossing", "removing"):
            sql(f"CREATE TRIGGER {NAME}_{suffix} AFTER UPDATE ON {TABLE} BEGIN SELECT 1; END")
        digest = database(ALIAS).held_guards()[NAME].digest
        Guard.objects.filter(table=TABLE).update(definition="0" * 32 + digest)
        assert (status_of().state, "another release" in status_of().reason) == (State.AWAKE, True)
        assert [each.table for each in guards.install(ALIAS)] == [TABLE]
        [[count]] = sql("SELECT count(*) FROM sqlite_master WHERE name LIKE %s", [f"{NAME}%"])
        assert count == 4

    def test_again_takes_down_what_a_setting_no_longer_asks_for(self) -> None:
        with changed(FENCE_POINTERS="block"):
            guards.install(ALIAS)
        guards.install(ALIAS)
        assert {each.state for each in guards.status(ALIAS)} == {State.AWAKE}

    def test_takes_down_what_left_the_registry(self) -> None:
        with registered(voucher=factories.VoucherFactory), changed(LEFT_ALONE=["host"]):
            assert status_of().reason == "no longer wanted"
            changes = guards.install(ALIAS)
            assert guards.Change(TABLE, "no longer wanted: removed") in changes
            assert set(Guard.objects.values_list("table", flat=True)) == tables()
        assert NAME not in database(ALIAS).held_guards()

    def test_takes_down_what_nobody_has_on_record(self) -> None:
        Guard.objects.filter(table=TABLE).delete()
        assert status_of().state is State.NOT_INSTALLED
        assert not status_of().broken
        with registered(voucher=factories.VoucherFactory), changed(LEFT_ALONE=["host"]):
            guards.install(ALIAS)
        assert NAME not in database(ALIAS).held_guards()

    def test_is_undone_without_a_trace(self) -> None:
        changes = guards.remove(ALIAS)
        assert {each.done for each in changes} == {"removed"}
        assert database(ALIAS).held_guards() == {}
        assert not Guard.objects.exists()
        assert guards.require_awake(ALIAS) == {}
        ours = create(factories.PersonFactory)
        remove_row(ours)
        assert state_of(ours) == "live"
        assert guards.remove(ALIAS) == []

    @on_sqlite
    def test_is_of_no_use_where_triggers_are_switched_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import sqlite3

        option = getattr(sqlite3, "SQLITE_DBCONFIG_ENABLE_TRIGGER", None)
        if option is None:
            pytest.skip("this Python cannot switch them off")
        connection.connection.setconfig(option, False)
        try:
            with pytest.raises(GuardsDisabled, match="switched off"):
                guards.require_awake(ALIAS)
        finally:
            connection.connection.setconfig(option, True)


class TestWithoutGuards:
    def test_nothing_is_awake_and_nothing_refused(self) -> None:
        assert guards.require_awake(ALIAS) == {}
        assert {each.state for each in guards.status(ALIAS)} == {State.NOT_INSTALLED}

    def test_an_unknown_database_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(database(ALIAS)), "can_guard", False)
        assert {each.state for each in guards.status(ALIAS)} == {State.NOT_GUARDABLE}
        assert guards.install(ALIAS) == []


@pytest.mark.django_db(transaction=True)
class TestMigrate:
    @pytest.fixture(autouse=True)
    def up(self, db: None) -> Iterator[None]:
        guards.install(ALIAS)
        yield
        guards.remove(ALIAS)

    def test_puts_up_what_it_has_dropped(self) -> None:
        put_off()
        call_command("migrate", verbosity=0)
        guards.require_awake(ALIAS)

    def test_rebuilds_a_hosts_table(self) -> None:
        with connection.schema_editor() as editor:
            editor.alter_field(
                models.Voucher, models.Voucher._meta.get_field("note"), _text(models.Voucher, "note")
            )
        call_command("migrate", verbosity=0)
        guards.require_awake(ALIAS)
        ours = create(factories.VoucherFactory)
        with purging():
            remove_row(ours)
        assert state_of(ours) == "removed"

    @on_sqlite
    @pytest.mark.parametrize("app_label", ["host", "stagehand_testdata"])
    def test_captured_rows_outlive_a_while_without_guards(self, app_label: str) -> None:
        class Migration:
            pass

        run, row = captured(note="made by the product")
        migration: Any = Migration()
        migration.app_label = app_label
        guards.before_migrate(ALIAS, [(migration, False)])
        guards.lift(ALIAS)  # as the rebuilding of a table does
        guards.after_migrate(ALIAS)
        assert purge.purge_run(run).receipt["removed"] == {"host.voucher": 1, "thing": 1}
        assert not models.Voucher.objects.filter(pk=row.pk).exists()

    @on_sqlite
    def test_a_row_that_came_in_the_place_of_a_captured_one_meanwhile_stays(self) -> None:
        class Migration:
            app_label = "host"

        run, row = captured(note="made by the product")
        guards.before_migrate(ALIAS, [(Migration(), False)])
        guards.lift(ALIAS)
        row.delete()
        models.Voucher.objects.create(code="by-the-product", note="a customer's")
        guards.after_migrate(ALIAS)
        assert purge.purge_run(run).receipt["removed"] == {"thing": 1}
        assert models.Voucher.objects.get(code="by-the-product").note == "a customer's"

    def test_rebuilds_the_ledger_and_takes_it_away(self) -> None:
        label = "stagehand_testdata"
        call_command("migrate", label, "0002", verbosity=0)
        try:
            remove_row(factories.VoucherFactory())
            assert database(ALIAS).held_guards() == {}
        finally:
            call_command("migrate", verbosity=0)
        assert guards.install(ALIAS)
        guards.require_awake(ALIAS)

    def test_lifts_the_guards_where_they_are_in_the_way_and_keeps_the_record(self) -> None:
        class Migration:
            app_label = "stagehand_testdata"

        guards.before_migrate(ALIAS, [(Migration(), True)])
        assert database(ALIAS).held_guards() == {}
        assert Guard.objects.exists()
        guards.after_migrate(ALIAS)
        guards.require_awake(ALIAS)

    @on_sqlite
    def test_lifts_guards_of_a_release_that_had_fewer_tables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Migration:
            app_label = "stagehand_testdata"

        names = set(connection.introspection.table_names()) - {StatementUnderWay._meta.db_table}
        monkeypatch.setattr(type(connection.introspection), "table_names", lambda self, *_: sorted(names))
        guards.before_migrate(ALIAS, [(Migration(), False)])
        assert database(ALIAS).held_guards() == {}
        assert Guard.objects.exists()

    def test_may_rebuild_the_ledger_while_the_guards_are_lifted(self) -> None:
        class Migration:
            app_label = "stagehand_testdata"

        guards.before_migrate(ALIAS, [(Migration(), False)])
        with connection.schema_editor() as editor:
            old = TestEntity._meta.get_field("type")
            editor.alter_field(TestEntity, old, _text(TestEntity, "type"))
            editor.alter_field(TestEntity, _text(TestEntity, "type"), old)
        guards.after_migrate(ALIAS)
        guards.require_awake(ALIAS)

    @on_sqlite
    def test_lets_a_column_go_that_the_guards_name(self) -> None:
        class Migration:
            app_label = "host"

        note = models.Voucher._meta.get_field("note")
        guards.before_migrate(ALIAS, [(Migration(), False)])
        with connection.schema_editor() as editor:
            editor.remove_field(models.Voucher, note)
        with connection.schema_editor() as editor:
            editor.add_field(models.Voucher, note)
        guards.after_migrate(ALIAS)
        guards.require_awake(ALIAS)

    def test_leaves_them_alone_for_the_migration_of_another_app(self) -> None:
        class Migration:
            app_label = "elsewhere"

        guards.before_migrate(ALIAS, [(Migration(), True)])
        guards.require_awake(ALIAS)

    def test_goes_on_though_the_guards_cannot_be_renewed(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(alias: str) -> None:
            raise RuntimeError("no")

        monkeypatch.setattr(guards, "install", broken)
        guards.after_migrate(ALIAS)
        assert "could not be renewed" in caplog.text


def _text(model: Any, name: str) -> Any:
    field = TextField(default="")
    field.set_attributes_from_name(name)
    field.model = model
    return field


@pytest.mark.django_db(transaction=True)
class TestTheSql:
    def test_as_it_is_printed_can_be_run_and_says_all(self) -> None:
        assert database(ALIAS).held_guards() == {}
        connection.close()
        run_script("\n".join(guards.install_sql(ALIAS)))
        try:
            assert {each.state for each in guards.status(ALIAS)} == {State.AWAKE}
            assert guards.install(ALIAS) == []
            script = "\n".join(guards.remove_sql(ALIAS))
            connection.close()
            run_script(script)
            assert database(ALIAS).held_guards() == {}
            assert not Guard.objects.exists()
        finally:
            guards.remove(ALIAS)

    def test_is_printed_without_being_run(self) -> None:
        guards.install_sql(ALIAS)
        guards.remove_sql(ALIAS)
        assert database(ALIAS).held_guards() == {}
        assert not Guard.objects.exists()


def run_script(text: str) -> None:
    """As an operator runs it: by the database's own command line."""
    at = connection.settings_dict
    name = str(at["NAME"])
    command = {
        "postgresql": ["psql", "-v", "ON_ERROR_STOP=1", "-q", "-d", name],
        "sqlite": ["sqlite3", "-bail", name],
        "mysql": ["mariadb", name],
    }[connection.vendor]
    options = {"-h": at["HOST"], "-p" if connection.vendor == "postgresql" else "-P": at["PORT"]}
    if connection.vendor != "sqlite":
        options["-U" if connection.vendor == "postgresql" else "-u"] = at["USER"]
        command[1:1] = [part for key, value in options.items() if value for part in (key, str(value))]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ERROR" not in done.stderr


@pytest.mark.django_db(transaction=True)
@on_postgresql
def test_installing_does_not_wait_long_for_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    locked, done = threading.Event(), threading.Event()

    def busy() -> None:
        with transaction.atomic():
            sql(f"LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE")
            locked.set()
            done.wait(20)
        connections.close_all()

    thread = threading.Thread(target=busy)
    thread.start()
    locked.wait(10)
    try:
        with pytest.raises(Conflict, match=f"at work on {TABLE}"):
            guards.install(ALIAS)
    finally:
        done.set()
        thread.join()
    tables = [each.table for each in guards.guardable()]
    before = tables[: tables.index(TABLE)]
    assert list(Guard.objects.order_by("pk").values_list("table", flat=True)) == before
    assert sql("SHOW lock_timeout") == [("0",)]
    try:
        assert [each.table for each in guards.install(ALIAS)] == tables[len(before) :]
    finally:
        guards.remove(ALIAS)


@transactional_ddl
def test_a_table_that_no_model_knows_is_guarded_too() -> None:
    sql("CREATE TABLE strange (id integer PRIMARY KEY, book_id bigint REFERENCES host_book (id))")
    try:
        guards.install(ALIAS)
        sql("INSERT INTO strange (id) VALUES (1)")
        create(factories.VoucherFactory)
        with refused(), purging():
            sql("DELETE FROM strange")
    finally:
        look_at_tables()
