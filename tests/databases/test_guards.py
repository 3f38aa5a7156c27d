"""What the triggers refuse while a purge is under way, and what they write down at any other time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import Error, IntegrityError, connection, transaction

from stagehand_testdata.databases import database
from stagehand_testdata.databases.guards import GuardedTable, digest_of, guard_name
from stagehand_testdata.models import PurgeUnderWay, TestEntity, TestRun
from stagehand_testdata.operations import guards
from stagehand_testdata.operations.purge.graph import look_at_tables
from tests.guarding import (
    ALIAS,
    guarded,  # noqa: F401 - a fixture
    on_mariadb,
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
from tests.making import TEST_ID, create, perform

OTHER = "stagehand_test_other"

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("guarded")]

KINDS = {
    "text": factories.VoucherFactory,
    "integer": factories.PersonFactory,
    "uuid": factories.AuthorFactory,
    "relation": factories.RestaurantFactory,
}


def text_of(row: Any) -> str:
    """A column of text that is no key."""
    return {"voucher": "note", "restaurant": "serves"}.get(row._meta.model_name, "name")


@pytest.fixture(autouse=True)
def run() -> TestRun:
    perform(lambda call: call.create("voucher"))
    return TestRun.objects.get(test_id=TEST_ID)


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Any:
    """A factory for each kind of primary key."""
    return KINDS[request.param]


class TestAPurge:
    def test_may_not_delete_a_real_row(self, kind: Any) -> None:
        real = kind()
        with refused(), purging():
            remove_row(real)
        assert type(real).objects.filter(pk=real.pk).exists()

    def test_closes_the_entry_of_its_own_row_in_the_same_statement(self, kind: Any) -> None:
        ours = create(kind)
        with purging():
            remove_row(ours)
            assert state_of(ours) == "removed"
        entry = TestEntity.objects.for_keys(type(ours), [ours.pk]).get()
        assert entry.tombstone == entry.pk

    def test_closes_a_quarantined_entry_for_good(self) -> None:
        ours = create(factories.PersonFactory)
        TestEntity.objects.for_keys(models.Person, [ours.pk]).update(
            state="quarantined", reason="referenced", blocked_by={"host.Loan": 1}
        )
        with purging():
            remove_row(ours)
        entry = TestEntity.objects.for_keys(models.Person, [ours.pk]).get()
        assert (entry.state, entry.reason, entry.blocked_by) == ("removed", "", {})

    def test_may_not_delete_another_runs_row(self, kind: Any) -> None:
        theirs = create(kind, OTHER)
        with refused(), purging():
            remove_row(theirs)
        assert state_of(theirs) == "live"

    def test_may_not_delete_a_row_whose_entry_is_closed(self) -> None:
        ours = create(factories.PersonFactory)
        entry = TestEntity.objects.for_keys(models.Person, [ours.pk])
        entry.update(state="gone", tombstone=entry.get().pk)
        with refused(), purging():
            remove_row(ours)

    def test_deletes_all_rows_of_a_statement_or_none(self) -> None:
        ours = [create(factories.PersonFactory) for _ in range(3)]
        real = factories.PersonFactory()
        with refused(), purging():
            models.Person.objects.filter(pk__in=[real.pk, *(each.pk for each in ours)])._raw_delete(ALIAS)
        assert models.Person.objects.count() == 4
        assert {state_of(each) for each in ours} == {"live"}

    def test_deletes_many_of_its_rows_at_once(self) -> None:
        ours = [create(factories.PersonFactory) for _ in range(5)]
        with purging():
            models.Person.objects.filter(pk__in=[each.pk for each in ours])._raw_delete(ALIAS)
        assert {state_of(each) for each in ours} == {"removed"}

    def test_may_delete_nothing_at_all(self) -> None:
        with purging():
            assert models.Person.objects.filter(pk=-1)._raw_delete(ALIAS) == 0

    def test_may_not_change_a_real_row(self, kind: Any) -> None:
        real = kind()
        with refused(), purging():
            sql(f"UPDATE {real._meta.db_table} SET {text_of(real)} = 'x'")

    def test_may_not_null_a_real_rows_key(self) -> None:
        book = create(factories.BookFactory)
        review = models.Review.objects.create(book=book, text="real")
        with refused(), purging():
            models.Review.objects.filter(pk=review.pk).update(book=None)

    def test_may_write_a_real_row_as_it_is(self) -> None:
        real = factories.PersonFactory(name="same")
        with purging():
            models.Person.objects.filter(pk=real.pk).update(name="same")

    def test_may_not_change_a_letters_case_either(self) -> None:
        real = factories.PersonFactory(name="same")
        with refused(), purging():
            models.Person.objects.filter(pk=real.pk).update(name="Same")

    def test_may_change_its_own_row(self, kind: Any) -> None:
        ours = create(kind)
        with purging():
            assert type(ours).objects.filter(pk=ours.pk).update(**{text_of(ours): "x"}) == 1

    def test_may_not_change_another_runs_row(self) -> None:
        theirs = create(factories.PersonFactory, OTHER)
        with refused(), purging():
            models.Person.objects.filter(pk=theirs.pk).update(name="x")

    @pytest.mark.parametrize("owned", [True, False])
    def test_may_not_change_a_key(self, owned: bool) -> None:
        row = create(factories.VoucherFactory) if owned else factories.VoucherFactory()
        with refused(), purging():
            models.Voucher.objects.filter(pk=row.pk).update(code="another")

    def test_may_write_new_rows(self) -> None:
        with purging():
            factories.PersonFactory()

    @transactional_ddl
    def test_may_change_what_a_tree_counts_and_nothing_else(self) -> None:
        [table] = [each for each in guards.guardable() if each.table == "host_chapter"]
        book = factories.BookFactory(chapter=None)
        chapter = factories.ChapterFactory(book=book)
        database(ALIAS).surface_broken_references()
        for statement in database(ALIAS).guard_sql(dataclasses.replace(table, exempt=("position",))):
            sql(statement)
        with purging():
            assert models.Chapter.objects.filter(pk=chapter.pk).update(position=77) == 1
        with refused(), purging():
            models.Chapter.objects.filter(pk=chapter.pk).update(position=78, title="x")

    @on_postgresql
    def test_may_not_truncate(self) -> None:
        factories.PersonFactory()
        database(ALIAS).surface_broken_references()
        with refused(), purging():
            sql("TRUNCATE host_person")

    @on_postgresql
    def test_is_guarded_under_the_role_of_a_replica_too(self) -> None:
        real = factories.PersonFactory()
        with refused(), purging():
            sql("SET LOCAL session_replication_role = replica")
            remove_row(real)

    @on_sqlite
    def test_may_not_change_a_key_by_its_other_name(self) -> None:
        real = factories.PersonFactory()
        with refused(), purging():
            sql(f"UPDATE host_person SET rowid = 4711 WHERE id = {real.pk}")


class TestASetThatAPurgeRemoves:
    """Its entries may be left for the purge to close; everything else goes on as ever."""

    @staticmethod
    @contextmanager
    def of(*rows: Any) -> Iterator[None]:
        entries = [TestEntity.objects.for_keys(type(row), [row.pk]).get() for row in rows]
        ids = [entry.pk for entry in entries]
        with purging(), database(ALIAS).removing_set(entries[0].model, min(ids), max(ids)):
            yield

    def test_is_closed_by_the_database_unless_that_is_left_to_the_purge(self, kind: Any) -> None:
        ours = create(kind)
        with self.of(ours):
            remove_row(ours)
            assert state_of(ours) == ("live" if database(ALIAS).leaves_sets_open else "removed")

    def test_has_no_row_of_a_smaller_or_larger_number(self) -> None:
        before, ours, after = (create(factories.PersonFactory) for _ in range(3))
        with self.of(ours):
            remove_row(before)
            remove_row(after)
        assert (state_of(before), state_of(ours), state_of(after)) == ("removed", "live", "removed")

    def test_has_no_row_of_another_model(self) -> None:
        first, other, last = (
            create(each)
            for each in (factories.PersonFactory, factories.VoucherFactory, factories.PersonFactory)
        )
        with self.of(first, last):
            remove_row(other)
        assert state_of(other) == "removed"

    def test_has_no_row_of_another_run(self, kind: Any) -> None:
        first, theirs, last = create(kind), create(kind, OTHER), create(kind)
        with refused(), self.of(first, last):
            remove_row(theirs)
        assert state_of(theirs) == "live"

    def test_has_no_real_row(self, kind: Any) -> None:
        ours, real = create(kind), kind()
        with refused(), self.of(ours):
            remove_row(real)

    def test_ends_with_its_block(self) -> None:
        ours, again = create(factories.PersonFactory), create(factories.PersonFactory)
        with purging():
            with database(ALIAS).removing_set("host.person", 0, 10**9):
                pass
            remove_row(again)
        assert (state_of(ours), state_of(again)) == ("live", "removed")


@transactional_ddl
class TestTheDatabasesOwnCascade:
    """Of a table that no model knows, pointing at a row of the run's."""

    @pytest.fixture(autouse=True, params=["CASCADE", "SET NULL"])
    def book(self, request: pytest.FixtureRequest) -> Iterator[models.Book]:
        document = "json" if connection.vendor == "postgresql" else "text"
        sql(
            "CREATE TABLE strange (id integer PRIMARY KEY, told varchar(9), document"
            f" {document}, book_id bigint REFERENCES host_book (id) ON DELETE {request.param})"
        )
        guards.install(ALIAS)
        book = create(factories.BookFactory, chapter=None, labels=None)
        models.Book.labels.through.objects.filter(book=book).delete()
        yield book
        look_at_tables()

    def test_does_not_reach_a_real_row(self, book: models.Book) -> None:
        sql("INSERT INTO strange (id, told, document, book_id) VALUES (1, 'real', '{}', %s)", [book.pk])
        with refused(), purging():
            remove_row(book)
        assert sql("SELECT book_id FROM strange") == [(book.pk,)]
        assert state_of(book) == "live"

    def test_is_let_alone_where_it_reaches_nothing(self, book: models.Book) -> None:
        sql("INSERT INTO strange (id, told) VALUES (1, 'real')")
        with purging():
            remove_row(book)
        assert state_of(book) == "removed"

    def test_takes_its_way_at_any_other_time(self, book: models.Book) -> None:
        sql("INSERT INTO strange (id, told, document, book_id) VALUES (1, 'real', '{}', %s)", [book.pk])
        remove_row(book)
        assert state_of(book) == "gone"
        assert sql("SELECT count(*) FROM strange WHERE book_id IS NOT NULL") == [(0,)]


class TestOrdinaryTraffic:
    def test_that_deletes_a_row_of_a_run_closes_its_entry_as_gone(self, kind: Any) -> None:
        ours, theirs = create(kind), create(kind, OTHER)
        remove_row(ours)
        assert state_of(ours) == "gone"
        assert state_of(theirs) == "live"

    def test_that_touches_real_rows_leaves_the_ledger_alone(self, kind: Any) -> None:
        ours, real = create(kind), kind()
        before = list(TestEntity.objects.order_by("pk").values())
        real.save()
        remove_row(real)
        assert list(TestEntity.objects.order_by("pk").values()) == before
        assert state_of(ours) == "live"

    def test_that_changes_a_row_of_a_run_leaves_its_entry_alone(self, kind: Any) -> None:
        ours = create(kind)
        ours.save()
        assert state_of(ours) == "live"

    def test_that_gives_a_row_another_key_closes_its_entry(self) -> None:
        ours = create(factories.VoucherFactory, code="before")
        models.Voucher.objects.filter(pk="before").update(code="after")
        assert state_of(ours, "before") == "gone"
        assert not TestEntity.objects.for_keys(models.Voucher, ["after"]).exists()

    def test_under_a_key_that_is_used_again_meets_no_standing_entry(self) -> None:
        ours = create(factories.VoucherFactory, code="again")
        remove_row(ours)
        models.Voucher.objects.create(code="again", note="real")
        with refused(), purging():
            sql("DELETE FROM host_voucher WHERE code = 'again'")

    def test_writes_the_databases_time_as_django_does(self) -> None:
        ours = create(factories.PersonFactory)
        remove_row(ours)
        entry = TestEntity.objects.for_keys(models.Person, [ours.pk]).get()
        assert entry.removed_at is not None
        assert 0 <= (entry.removed_at - entry.created_at).total_seconds() < 60

    def test_makes_rows_of_a_run_after_a_first_try_was_rolled_back(self) -> None:
        def work(call: Any) -> Any:
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                call.create("voucher", code="twice")
                raise ZeroDivisionError
            call.made.clear()
            return call.create("voucher", code="twice")

        assert state_of(perform(work)) == "live"

    @on_postgresql
    @pytest.mark.parametrize("how", ["", "RESTART IDENTITY"])
    def test_that_truncates_closes_every_entry_of_the_table(self, how: str) -> None:
        ours, voucher = create(factories.PersonFactory), create(factories.VoucherFactory)
        database(ALIAS).surface_broken_references()
        sql(f"TRUNCATE host_person {how}")
        assert state_of(ours) == "gone"
        assert state_of(voucher) == "live"

    @on_postgresql
    def test_in_the_role_of_a_replica_is_seen_too(self) -> None:
        ours = create(factories.PersonFactory)
        sql("SET LOCAL session_replication_role = replica")
        remove_row(ours)
        assert state_of(ours) == "gone"

    @on_postgresql
    def test_by_a_role_without_rights_on_the_ledger_goes_on(self) -> None:
        ours = create(factories.PersonFactory)
        sql("CREATE ROLE stagehand_somebody")
        sql("GRANT DELETE, SELECT ON host_person TO stagehand_somebody")
        sql("SET ROLE stagehand_somebody")
        sql("DELETE FROM host_person")
        sql("RESET ROLE")
        assert state_of(ours) == "gone"

    @on_postgresql
    @pytest.mark.parametrize("end", ["", "_made"])
    def test_cannot_call_a_guard_for_a_table_of_its_own(self, end: str) -> None:
        sql("CREATE ROLE stagehand_somebody")
        sql("GRANT CREATE ON SCHEMA public TO stagehand_somebody")
        sql("SET ROLE stagehand_somebody")
        sql("CREATE TABLE mine (id bigint)")
        function = f"{guard_name('host_person')}{end}"
        with pytest.raises(Exception, match="permission denied for function"), transaction.atomic():
            sql(
                "CREATE TRIGGER mine AFTER DELETE ON mine REFERENCING OLD TABLE AS gone"
                f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            )
        sql("RESET ROLE")

    @on_postgresql
    def test_with_another_search_path_is_seen_too(self) -> None:
        ours = create(factories.PersonFactory)
        with purging():
            sql("SET LOCAL search_path = pg_catalog")
            sql(f"DELETE FROM public.host_person WHERE id = {ours.pk}")
            sql("SET LOCAL search_path = public")
        assert state_of(ours) == "removed"

    @on_sqlite
    def test_that_replaces_a_row_closes_its_entry(self) -> None:
        ours = create(factories.PersonFactory)
        sql(f"REPLACE INTO host_person (id, name) VALUES ({ours.pk}, 'real')")
        assert state_of(ours) == "gone"

    @on_sqlite
    def test_that_moves_a_row_to_the_place_of_another_closes_that_ones_entry(self) -> None:
        ours, real = create(factories.PersonFactory), factories.PersonFactory()
        sql(f"UPDATE OR REPLACE host_person SET id = {ours.pk} WHERE id = {real.pk}")
        assert state_of(ours) == "gone"
        with refused(), purging():
            remove_row(ours)

    @on_mariadb
    def test_that_replaces_a_row_closes_its_entry_there_too(self) -> None:
        ours = create(factories.PersonFactory)
        sql(f"REPLACE INTO host_person (id, name) VALUES ({ours.pk}, 'real')")
        assert state_of(ours) == "gone"


class TestBeingAwake:
    def test_ends_with_the_block(self, run: TestRun) -> None:
        with transaction.atomic():
            with database(ALIAS).purging(run.pk):
                pass
            remove_row(factories.PersonFactory())

    def test_ends_with_the_block_that_fails(self, run: TestRun) -> None:
        with transaction.atomic():
            with pytest.raises(ZeroDivisionError), database(ALIAS).purging(run.pk):
                raise ZeroDivisionError
            remove_row(factories.PersonFactory())

    def test_goes_on_after_a_savepoint_within_it_was_rolled_back(self) -> None:
        real, ours = factories.PersonFactory(), create(factories.PersonFactory)
        with purging():
            with refused():
                remove_row(real)
            remove_row(ours)
            with refused():
                remove_row(real)
        assert state_of(ours) == "removed"

    def test_pauses(self) -> None:
        mine, real = factories.PersonFactory(), factories.PersonFactory()
        with purging():
            with database(ALIAS).unguarded():
                remove_row(mine)
            with refused():
                remove_row(real)

    def test_pauses_though_the_pause_fails(self) -> None:
        real = factories.PersonFactory()
        with purging():
            with pytest.raises(IntegrityError), transaction.atomic(), database(ALIAS).unguarded():
                models.Label.objects.create(text="one")
                models.Label.objects.create(text="one")
            with refused():
                remove_row(real)

    def test_a_pause_of_nothing_is_nothing(self) -> None:
        with transaction.atomic(), database(ALIAS).unguarded():
            remove_row(factories.PersonFactory())
        remove_row(factories.PersonFactory())

    def test_is_no_insert_that_a_watch_over_inserts_would_refuse(self) -> None:
        from stagehand_testdata.isolation.capture import recording_inserts

        with recording_inserts() as recorder, purging(), database(ALIAS).unguarded():
            pass
        assert recorder.rows == []

    def test_leaves_no_row_behind(self) -> None:
        with purging():
            pass
        assert not PurgeUnderWay.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestATransaction:
    @pytest.fixture(autouse=True)
    def run(self, guarded: None) -> TestRun:  # noqa: F811
        perform(lambda call: call.create("voucher"))
        return TestRun.objects.get(test_id=TEST_ID)

    def test_is_needed(self, run: TestRun) -> None:
        with (
            pytest.raises(transaction.TransactionManagementError, match="within a transaction"),
            database(ALIAS).purging(run.pk),
        ):
            pytest.fail("awake without a transaction")

    def test_knows_nothing_of_an_earlier_purge_that_committed(self) -> None:
        real = factories.PersonFactory()
        with purging():
            pass
        assert remove_row(real) == 1

    def test_knows_nothing_of_an_earlier_purge_that_was_refused(self) -> None:
        real = factories.PersonFactory()
        with refused(), purging():
            remove_row(real)
        assert remove_row(real) == 1
        assert not PurgeUnderWay.objects.exists()

    def test_knows_nothing_of_an_earlier_purge_whose_transaction_was_given_up(self) -> None:
        real = factories.PersonFactory()
        with pytest.raises(ZeroDivisionError), purging():
            transaction.set_rollback(True)
            raise ZeroDivisionError
        assert remove_row(real) == 1
        assert not PurgeUnderWay.objects.exists()

    def test_knows_nothing_of_an_earlier_purge_that_lost_its_connection(self) -> None:
        real = factories.PersonFactory()
        with pytest.raises(Error), purging():
            connection.connection.close()
            sql("SELECT 1")
        connection.close()
        assert remove_row(real) == 1


@pytest.mark.django_db(transaction=True)
def test_a_key_of_several_integers_is_found(guarded: None) -> None:  # noqa: F811
    table = GuardedTable("strange_pair", "host.pair", ("one", "two"), "key_text", ("one", "two", "told"))
    sql("CREATE TABLE strange_pair (one integer, two integer, told varchar(9), PRIMARY KEY (one, two))")
    try:
        for statement in database(ALIAS).guard_sql(table):
            sql(statement)
        run = perform(lambda call: call.run)
        for n in (1, 2):
            sql(f"INSERT INTO strange_pair VALUES ({n}, 20, 'x')")
            TestEntity.objects.create(
                run=run,
                ordinal=10 + n,
                type="pair",
                origin="requested",
                model="host.pair",
                database=ALIAS,
                key_text=json.dumps([str(n), "20"]),
            )
        sql("INSERT INTO strange_pair VALUES (12, 0, 'real')")
        with purging():
            sql("DELETE FROM strange_pair WHERE one = 1")
        sql("DELETE FROM strange_pair WHERE one = 2")
        assert list(
            TestEntity.objects.filter(type="pair").order_by("ordinal").values_list("state", flat=True)
        ) == [
            "removed",
            "gone",
        ]
        with refused(), purging():
            sql("DELETE FROM strange_pair")
    finally:
        for statement in database(ALIAS).unguard_sql(table.name):
            sql(statement)
        sql("DROP TABLE strange_pair")


class TestNames:
    def test_are_legible_unique_and_short_enough(self) -> None:
        assert guard_name("host_book").startswith("stagehand_guard_host_book_")
        long = [guard_name("x" * 60 + end) for end in ("a", "b")]
        assert len(set(long)) == 2
        assert max(map(len, long)) <= 53

    @pytest.mark.parametrize("table", ['"other"."book"', "Bücher", "a b", "50%"])
    def test_need_no_quoting(self, table: str) -> None:
        assert guard_name(table).isidentifier()
        assert guard_name(table).isascii()

    def test_digests_tell_texts_apart(self) -> None:
        assert len(digest_of(["a"])) == 32
        assert digest_of(["a", "b"]) != digest_of(["ab"])
