"""Broken books and leaks, made by raw SQL where nothing of ours would make them, and what the audit says."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection, models, transaction
from django.test.utils import CaptureQueriesContext, isolate_apps

from stagehand_testdata import fingerprints
from stagehand_testdata.exceptions import (
    InvalidInput,
    NotFound,
)
from stagehand_testdata.models import Key, TestEntity, TestRun
from stagehand_testdata.operations import runs
from stagehand_testdata.operations.adoption import candidates
from stagehand_testdata.operations.audit import Finding, Report, audit
from stagehand_testdata.operations.purge.purge import purge_run
from tests.guarding import verb
from tests.host import factories
from tests.host.models import Book, Country, Loan, Place, Voucher
from tests.making import changed, create

pytestmark = pytest.mark.django_db

TEST_ID = "stagehand_test_audit"
OTHER = "stagehand_test_other"
ENTRIES = TestEntity._meta.db_table


def raw(sql: str, *params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def vouchers(count: int, test_id: str = TEST_ID) -> list[Voucher]:
    return [create(factories.VoucherFactory, test_id) for _ in range(count)]


def the_run(test_id: str = TEST_ID) -> TestRun:
    return TestRun.objects.get(test_id=test_id)


def entry_of(row: models.Model) -> TestEntity:
    return TestEntity.objects.standing().for_keys(type(row), [row.pk]).get()


def end(test_id: str = TEST_ID, *, hours_ago: float = 2, **values: Any) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours_ago)
    TestRun.objects.filter(test_id=test_id).update(
        opened_at=past - dt.timedelta(hours=1), expires_at=past, **values
    )


def close(test_id: str = TEST_ID) -> None:
    TestRun.objects.filter(test_id=test_id).update(state="closed", closed_at=dt.datetime.now(dt.UTC))


@contextmanager
def unchecked() -> Iterator[None]:
    """Within the block the ledger's check constraints are off, as an operator with a shell could have it."""
    off, on = {
        "sqlite": ("PRAGMA ignore_check_constraints = ON", "PRAGMA ignore_check_constraints = OFF"),
        "mysql": ("SET check_constraint_checks = 0", "SET check_constraint_checks = 1"),
        # The test's own transaction brings the constraint back.
        "postgresql": (f"ALTER TABLE {ENTRIES} DROP CONSTRAINT stagehand_entity_state_tombstone", "SELECT 1"),
    }[connection.vendor]
    connection.check_constraints()
    if connection.vendor == "postgresql":
        raw("SET CONSTRAINTS ALL IMMEDIATE")
    raw(off)
    try:
        yield
    finally:
        raw(on)


def short(findings: Any) -> list[tuple[str, str, int]]:
    return [(each.model, each.reason, each.count) for each in findings]


@pytest.fixture
def seat() -> Iterator[type[models.Model]]:
    """An installed model with a composite key, as long as the test runs."""
    with isolate_apps("tests.host"):

        class Seat(models.Model):
            pk = models.CompositePrimaryKey("hall", "number")
            hall = models.CharField(max_length=10)
            number = models.IntegerField()
            guest = models.CharField(max_length=100)

            class Meta:
                app_label = "host"

        yield from _installed(Seat)


@pytest.fixture
def guest() -> Iterator[type[models.Model]]:
    """A model with flags of every kind, and a key that is text in the ledger and a moment in its table."""
    with isolate_apps("tests.host"):

        class Guest(models.Model):
            since = models.DateTimeField(primary_key=True)
            name = models.CharField(max_length=100)
            is_test = models.BooleanField(default=False)
            is_test_user = models.CharField(max_length=100, default="")
            kind = models.CharField(max_length=100, choices=[("stagehand_test_kind", "one")], default="")
            email = models.EmailField(default="")

            class Meta:
                app_label = "host"

        yield from _installed(Guest)


@pytest.fixture
def bare() -> Iterator[type[models.Model]]:
    """A model with a flag and nothing else."""
    with isolate_apps("tests.host"):

        class Bare(models.Model):
            is_test = models.BooleanField(default=False)

            class Meta:
                app_label = "host"

        yield from _installed(Bare)


def _installed(model: type[models.Model]) -> Iterator[type[models.Model]]:
    name = str(model._meta.model_name)
    apps.all_models["host"][name] = model
    apps.clear_cache()
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        yield model
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)
        del apps.all_models["host"][name]
        apps.clear_cache()


def leaked(code: str = "V1", **values: Any) -> Voucher:
    return Voucher.objects.create(code=code, **{"note": "stagehand_test_leak", **values})


def enter(row: models.Model, test_id: str = TEST_ID) -> TestEntity:
    """An entry for a row that the test made past us."""
    model = type(row)
    with transaction.atomic():
        run = runs.hold(test_id, "", exclusive=True)
        key = Key.of(model, row.pk)
        return TestEntity.objects.create(
            run=run,
            ordinal=run.last_ordinal + 1,  # type: ignore[attr-defined]
            type=model._meta.label_lower,
            origin="captured",
            model=model._meta.label_lower,
            database="default",
            key_text=key.text,
            key_bigint=key.bigint,
            key_uuid=key.uuid,
            fingerprint=fingerprints.take(model, row.__dict__),
        )


class TestNothingIsWrong:
    def test_with_nothing_there(self) -> None:
        report = audit()
        assert report.clean
        assert report.books.runs == 0

    def test_with_rows_of_every_kind_of_key(self) -> None:
        for factory_class in (
            factories.BookFactory,
            factories.VoucherFactory,
            factories.RestaurantFactory,
            factories.TeamFactory,
            factories.NoteFactory,
            factories.UserFactory,
        ):
            create(factory_class, TEST_ID)
        create(factories.AuthorFactory, OTHER, name=f"{OTHER} author")
        create(factories.VoucherFactory, OTHER, code=f"{OTHER}_code")
        report = audit(deep=True)
        assert report.clean, report
        assert report.books.created == report.books.live == TestEntity.objects.count()
        assert report.books.runs == 2

    def test_after_each_step_of_a_life(self) -> None:
        book = create(factories.BookFactory, TEST_ID)
        total = TestEntity.objects.count()
        voucher = create(factories.VoucherFactory, TEST_ID)
        Voucher.objects.filter(pk=voucher.pk).delete()
        Loan.objects.create(book=book, by="a real reader")
        purge_run(the_run())
        books = audit(deep=True).books
        assert books.hold
        assert (books.created, books.gone) == (total + 1, 1)
        assert books.quarantined + books.live > 0
        assert books.removed > 0
        Loan.objects.all().delete()
        purge_run(the_run())
        report = audit(deep=True)
        assert report.clean, report
        assert (report.books.removed, report.books.gone) == (total, 1)

    def test_real_rows_without_a_mark_are_nobodys_business(self) -> None:
        create(factories.VoucherFactory, TEST_ID)
        Voucher.objects.create(code="REAL", note="a real one, not a stagehand_test_ at all")
        assert audit(deep=True).clean

    def test_it_only_reads(self) -> None:
        vouchers(2)
        Voucher.objects.create(code="stagehand_test_leak", note="x")
        with CaptureQueriesContext(connection) as queries:
            audit(deep=True)
        verbs = {verb(each["sql"]) for each in queries.captured_queries}
        assert verbs <= {"SELECT", "DECLARE", "FETCH", "CLOSE"}

    def test_the_number_of_queries_does_not_follow_the_number_of_runs_and_rows(self) -> None:
        vouchers(1)
        with CaptureQueriesContext(connection) as few:
            audit()
        for number in range(4):
            vouchers(3, f"{OTHER}{number}")
        with CaptureQueriesContext(connection) as many:
            audit()
        assert len(many) == len(few)


class TestTheBooks:
    def test_an_entry_that_was_deleted_shows(self) -> None:
        rows = vouchers(3)
        vouchers(2, OTHER)
        raw(f"DELETE FROM {ENTRIES} WHERE key_text = %s", rows[1].pk)
        books = audit().books
        assert not books.hold
        assert books.broken == 1
        [book] = books.examples
        assert (book.test_id, book.created, book.live) == (TEST_ID, 3, 2)
        assert "created 3, but 0 removed + 2 live + 0 already gone + 0 quarantined = 2" in book.problems[0]

    def test_a_state_that_nobody_knows_shows(self) -> None:
        vouchers(1)
        with unchecked():
            raw(f"UPDATE {ENTRIES} SET state = 'lost'")
            assert "created 1, but 0 removed" in audit().books.examples[0].problems[0]
            raw(f"UPDATE {ENTRIES} SET state = 'live'")

    @pytest.mark.parametrize(
        "values",
        ["state = 'removed', tombstone = 0", "state = 'live', tombstone = id"],
        ids=["closed", "live"],
    )
    def test_a_state_that_its_tombstone_belies_shows(self, values: str) -> None:
        vouchers(1)
        with unchecked():
            raw(f"UPDATE {ENTRIES} SET {values}")
            [book] = audit().books.examples
            raw(f"UPDATE {ENTRIES} SET state = 'live', tombstone = 0")
        assert book.problems == ("1 entries whose state and tombstone disagree",)

    def test_a_tombstone_that_is_not_the_entrys_own_shows(self) -> None:
        vouchers(1)
        raw(f"UPDATE {ENTRIES} SET state = 'removed', tombstone = id + 1")
        assert audit().books.examples[0].problems == ("1 entries whose state and tombstone disagree",)

    @pytest.mark.parametrize("origin", ["requested", "external"])
    def test_a_closed_run_with_a_standing_entry_shows(self, origin: str) -> None:
        vouchers(1)
        raw(f"UPDATE {ENTRIES} SET origin = %s", origin)
        close()
        [book] = audit().books.examples
        outside = " (1 of them outside the database)" if origin == "external" else ""
        assert book.problems == (f"closed, and 1 entries stand{outside}",)

    @pytest.mark.django_db(transaction=True)
    def test_two_entries_that_stand_for_one_row_show(self) -> None:
        [row] = vouchers(1)
        vouchers(1, OTHER)
        index = next(each for each in TestEntity._meta.indexes if each.name == "stagehand_entity_standing")
        with connection.schema_editor() as editor:
            editor.remove_index(TestEntity, index)
        try:
            raw(f"UPDATE {ENTRIES} SET key_text = %s", row.pk)
            books = audit().books
        finally:
            TestEntity.objects.all().delete()
            with connection.schema_editor() as editor:
                editor.add_index(TestEntity, index)
        assert not books.hold
        assert not books.broken
        assert [(each.model, each.key, each.count) for each in books.doubled] == [("host.voucher", row.pk, 2)]

    def test_only_the_first_are_shown_and_all_are_counted(self) -> None:
        for number in range(3):
            vouchers(2, f"{OTHER}{number}")
        raw(f"DELETE FROM {ENTRIES} WHERE ordinal = 1")
        books = audit(limit=2).books
        assert (books.broken, len(books.examples)) == (3, 2)
        assert audit(limit=0).books.broken == 3


class TestEntriesWithoutARow:
    @pytest.mark.parametrize(
        "factory_class",
        [factories.VoucherFactory, factories.AuthorFactory, factories.PersonFactory],
        ids=["text", "uuid", "number"],
    )
    def test_are_found_by_the_key_of_any_kind(self, factory_class: Any) -> None:
        row, _stays = create(factory_class, TEST_ID), create(factory_class, TEST_ID)
        entry = entry_of(row)
        type(row).objects.filter(pk=row.pk).delete()
        report = audit()
        assert not report.clean
        assert report.gone == (Finding(row._meta.label, "row_gone", 1, ((entry.key_text, TEST_ID),)),)

    def test_are_found_in_each_table_of_a_multi_table_model(self) -> None:
        row = create(factories.RestaurantFactory, TEST_ID)
        raw("DELETE FROM host_restaurant WHERE place_ptr_id = %s", row.pk)
        assert short(audit().gone) == [("host.Restaurant", "row_gone", 1)]
        Place.objects.all().delete()
        assert short(audit().gone) == [("host.Place", "row_gone", 1), ("host.Restaurant", "row_gone", 1)]

    @pytest.mark.django_db(transaction=True)
    def test_are_found_by_composite_keys(self, seat: Any) -> None:
        for number in (1, 2):
            enter(seat.objects.create(hall="A", number=number, guest="somebody"))
        assert audit(deep=True).clean
        seat.objects.filter(number=2).delete()
        assert audit().gone == (Finding("host.Seat", "row_gone", 1, (('["A", "2"]', TEST_ID),)),)

    @pytest.mark.django_db(transaction=True)
    def test_are_found_by_keys_that_databases_write_in_their_own_way(self, guest: Any) -> None:
        for hour in (1, 2):
            enter(guest.objects.create(since=dt.datetime(2020, 1, 1, hour, tzinfo=dt.UTC), name="somebody"))
        assert audit(deep=True).clean
        guest.objects.filter(since__hour=2).delete()
        assert short(audit().gone) == [("host.Guest", "row_gone", 1)]

    @pytest.mark.django_db(transaction=True)
    def test_page_by_page(self, seat: Any) -> None:
        for number in range(7):
            enter(seat.objects.create(hall="A", number=number, guest="somebody"))
        seat.objects.filter(number__in=[0, 3, 6]).delete()
        with changed(PURGE_BATCH_SIZE=2):
            [found] = audit(limit=2).gone
        assert found.count == 3
        assert [key for key, _ in found.examples] == ['["A", "0"]', '["A", "3"]']

    def test_whose_key_is_of_another_kind_now_are_found(self) -> None:
        vouchers(1)
        raw(f"UPDATE {ENTRIES} SET model = 'host.author'")
        assert short(audit(deep=True).gone) == [("host.Author", "row_gone", 1)]

    @pytest.mark.parametrize("label", ["lost.model", "host.nothing", "nonsense", "a.b.c", ""])
    def test_of_a_model_that_is_not_installed_are_said_to_be_so(self, label: str) -> None:
        [row] = vouchers(1)
        raw(f"UPDATE {ENTRIES} SET model = %s", label)
        found = audit(deep=True)
        assert found.gone == (Finding(label, "model_missing", 1, ((row.pk, TEST_ID),)),)

    def test_of_things_outside_the_database_have_none(self) -> None:
        vouchers(1)
        raw(f"UPDATE {ENTRIES} SET origin = 'external', model = 'mail.box', key_text = 'a@example.com'")
        Voucher.objects.all().delete()
        assert audit(deep=True).clean

    def test_are_counted_and_the_first_shown(self) -> None:
        rows = vouchers(5)
        Voucher.objects.all().delete()
        [found] = audit(limit=2).gone
        assert found.count == 5
        assert [key for key, _ in found.examples] == [rows[0].pk, rows[1].pk]
        assert audit(limit=0).gone[0].examples == ()


class TestStrangers:
    def test_are_looked_for_only_in_depth(self) -> None:
        [row, _] = vouchers(2)
        Voucher.objects.filter(pk=row.pk).delete()
        Voucher.objects.create(code=row.pk, note="a real voucher under a key that was used before")
        report = audit()
        assert report.clean
        assert report.strangers is None
        report = audit(deep=True)
        assert not report.clean
        assert report.strangers == (Finding("host.Voucher", "not_the_row_we_made", 1, ((row.pk, TEST_ID),)),)

    def test_of_every_kind_of_key(self) -> None:
        rows = [create(factories.AuthorFactory, TEST_ID), create(factories.RestaurantFactory, TEST_ID)]
        assert audit(deep=True).strangers == ()
        for row in rows:
            type(row).objects.filter(pk=row.pk).update(name="somebody else altogether")
        assert short(audit(deep=True).strangers) == [
            ("host.Author", "not_the_row_we_made", 1),
            ("host.Place", "not_the_row_we_made", 1),
        ]

    def test_an_entry_without_a_row_is_no_stranger(self) -> None:
        vouchers(1)
        Voucher.objects.all().delete()
        report = audit(deep=True)
        assert report.strangers == ()
        assert short(report.gone) == [("host.Voucher", "row_gone", 1)]


class TestLeaks:
    def test_a_text_that_begins_with_the_prefix(self) -> None:
        vouchers(1)
        Voucher.objects.create(code="V1", note="stagehand_test_leak")
        Voucher.objects.create(code="V2", note="no stagehand_test_ at the beginning")
        report = audit()
        assert not report.clean
        assert report.leaks == (Finding("host.Voucher", "prefix", 1, (("V1", ""),)),)

    def test_the_wildcards_of_like_stand_for_themselves(self) -> None:
        for code in ("stagehandXtestXleak", "stagehand-test-leak", "STAGEHAND_TEST_LEAK"):
            Voucher.objects.create(code=code, note="real")
        assert audit().clean
        with changed(TEST_ID_PREFIX="100%_"):
            Voucher.objects.create(code="100 or more_", note="real")
            assert audit().clean
            Voucher.objects.create(code="100%_x", note="ours")
            assert short(audit().leaks) == [("host.Voucher", "prefix", 1)]

    @pytest.mark.parametrize("address", ["stagehand_test_x@example.com", "Stagehand_TEST_x+2@example.com"])
    def test_an_address_that_begins_with_the_prefix_in_any_case(self, address: str) -> None:
        user = User.objects.create(username="somebody", email=address)
        User.objects.create(username="real", email="stagehandXtest_@example.com")
        assert audit().leaks == (Finding("auth.User", "address", 1, ((str(user.pk), ""),)),)

    def test_the_addresses_that_we_give_out_ourselves(self) -> None:
        with changed(TEST_ID_PREFIX="Stagehand_Test_", ENTITY_TYPES={}):
            User.objects.create(username="somebody", email="stagehand_test_abc@example.com")
            assert short(audit().leaks) == [("auth.User", "address", 1)]

    @pytest.mark.django_db(transaction=True)
    def test_a_flag_on_any_model(self, guest: Any) -> None:
        since = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        for hours, values in enumerate(
            [
                {"is_test": True},
                {"is_test": True},
                {},
                {"is_test_user": "True"},
                {"kind": "stagehand_test_kind"},
                {"name": "stagehand_test_x"},
            ]
        ):
            guest.objects.create(since=since + dt.timedelta(hours=hours), **values)
        entered = guest.objects.filter(is_test=True).order_by("since").first()
        assert short(audit().leaks) == [("host.Guest", "flag", 2), ("host.Guest", "prefix", 1)]
        enter(entered)
        assert short(audit().leaks) == [("host.Guest", "flag", 1), ("host.Guest", "prefix", 1)]

    @pytest.mark.django_db(transaction=True)
    def test_composite_keys(self, seat: Any) -> None:
        rows = [
            seat.objects.create(hall="A", number=number, guest="stagehand_test_guest") for number in range(5)
        ]
        enter(rows[1])
        with changed(PURGE_BATCH_SIZE=2):
            [found] = audit(limit=3).leaks
        assert (found.reason, found.count) == ("prefix", 4)
        assert [key for key, _ in found.examples] == ['["A", "0"]', '["A", "2"]', '["A", "3"]']

    def test_in_each_table_of_a_multi_table_model(self) -> None:
        row = create(factories.RestaurantFactory, TEST_ID, name="stagehand_test_diner")
        assert audit().clean
        raw(f"DELETE FROM {ENTRIES} WHERE model = 'host.restaurant'")
        assert audit().leaks == (Finding("host.Restaurant", "prefix", 1, ((str(row.pk), ""),)),)
        raw(f"DELETE FROM {ENTRIES}")
        assert short(audit().leaks) == [("host.Place", "prefix", 1), ("host.Restaurant", "prefix", 1)]

    @pytest.mark.parametrize(
        ("factory_class", "values"),
        [
            (factories.VoucherFactory, {"code": f"{TEST_ID}_code"}),
            (factories.AuthorFactory, {"name": f"{TEST_ID} author"}),
            (factories.PersonFactory, {"name": f"{TEST_ID} person"}),
        ],
        ids=["text", "uuid", "number"],
    )
    def test_a_row_whose_entry_was_closed_leaks(self, factory_class: Any, values: Any) -> None:
        row = create(factory_class, TEST_ID, **values)
        assert audit().clean
        raw(f"UPDATE {ENTRIES} SET state = 'removed', tombstone = id")
        assert audit().leaks == (Finding(row._meta.label, "prefix", 1, ((str(row.pk), ""),)),)

    def test_models_of_entries_are_searched_though_nothing_registers_them(self) -> None:
        with changed(ENTITY_TYPES={}):
            Country.objects.create(code="X", name="stagehand_test_land")
            assert "host.Country" not in {each.model for each in audit().leaks}
            create(factories.AuthorFactory, TEST_ID)
            assert "host.Country" in {each.model for each in audit().leaks}

    def test_counted_and_the_first_shown(self) -> None:
        for number in range(4):
            Voucher.objects.create(code=f"stagehand_test_{number}", note="x")
        [found] = audit(limit=2).leaks
        assert found.count == 4
        assert [key for key, _ in found.examples] == ["stagehand_test_0", "stagehand_test_1"]

    def test_an_empty_prefix_marks_nothing(self) -> None:
        Voucher.objects.create(code="V1", note="real")
        with changed(TEST_ID_PREFIX=""):
            report = audit()
            assert report.clean
            assert any("TEST_ID_PREFIX is empty" in note for note in report.notes)
            with pytest.raises(InvalidInput, match="carries no mark"):
                candidates("host.Voucher", ["V1"])

    def test_a_type_whose_model_cannot_be_known_is_noted(self) -> None:
        with changed(ENTITY_TYPES={"lost": "no.such.Factory"}):
            report = audit()
        assert report.clean
        assert any("'lost'" in note for note in report.notes)


class TestRunsPastTheirEnd:
    def test_are_shown_with_their_failures(self) -> None:
        vouchers(1)
        vouchers(1, OTHER)
        end(purge_failures=3, purge_error="it failed")
        report = audit()
        assert not report.clean
        assert report.overdue.count == 1
        [late] = report.overdue.examples
        assert (late.test_id, late.state, late.failures, late.error) == (TEST_ID, "open", 3, "it failed")
        assert dt.timedelta(hours=2) <= late.overdue < dt.timedelta(hours=2, minutes=5)

    def test_and_closed_are_not(self) -> None:
        vouchers(1)
        end()
        purge_run(the_run())
        assert audit().clean

    def test_the_longest_overdue_first(self) -> None:
        for number in range(3):
            vouchers(1, f"{OTHER}{number}")
            end(f"{OTHER}{number}", hours_ago=number + 1)
        overdue = audit(limit=2).overdue
        assert overdue.count == 3
        assert [late.test_id for late in overdue.examples] == [f"{OTHER}2", f"{OTHER}1"]


class TestOneRunAlone:
    @pytest.fixture(autouse=True)
    def _two(self) -> None:
        """Everything is wrong with both."""
        for test_id in (TEST_ID, OTHER):
            rows = vouchers(4, test_id)
            Voucher.objects.filter(pk__in=[rows[1].pk, rows[2].pk]).delete()
            Voucher.objects.create(code=rows[2].pk, note="another under an old key")
            raw(f"DELETE FROM {ENTRIES} WHERE key_text = %s", rows[0].pk)
            Voucher.objects.create(code=f"{test_id}_leak", note="x")
            User.objects.create(username=f"u{test_id[-5:]}", email=f"{test_id}+2@example.com")
            end(test_id)

    def test_is_looked_at(self) -> None:
        report = audit(TEST_ID, deep=True)
        assert (report.books.runs, report.books.broken) == (1, 1)
        assert short(report.gone) == [("host.Voucher", "row_gone", 1)]
        assert short(report.strangers) == [("host.Voucher", "not_the_row_we_made", 1)]
        assert short(report.leaks) == [("auth.User", "address", 1), ("host.Voucher", "prefix", 1)]
        assert report.overdue.count == 1
        assert {run for each in report.gone for _, run in each.examples} == {TEST_ID}

    def test_or_all(self) -> None:
        report = audit(deep=True)
        assert (report.books.runs, report.books.broken, report.overdue.count) == (2, 2, 2)
        assert [each.count for each in (*report.gone, *(report.strangers or ()), *report.leaks)] == [
            2,
            2,
            2,
            2,
        ]

    def test_that_is_not_there_is_said(self) -> None:
        with pytest.raises(NotFound, match="There is no run 'stagehand_test_none'"):
            audit("stagehand_test_none")

    def test_its_flagged_rows_cannot_be_told(self) -> None:
        assert any("A flag does not say" in note for note in audit(TEST_ID).notes)


class TestAsAWhole:
    def test_the_report_is_one_json_document(self) -> None:
        vouchers(2)
        leaked()
        document = json.loads(json.dumps(audit(deep=True).as_wire()))
        assert set(document) == {
            "clean",
            "books",
            "gone",
            "strangers",
            "leaks",
            "overdue",
            "outside",
            "notes",
        }
        assert document["books"]["created"] == 2
        assert document["leaks"] == [
            {"model": "host.Voucher", "reason": "prefix", "count": 1, "examples": [{"key": "V1"}]}
        ]
        assert document["clean"] is False

    def test_what_it_looks_at_is_told(self) -> None:
        vouchers(1)
        told: list[str] = []
        report: Report = audit(deep=True, progress=told.append)
        assert report.clean
        assert "the books" in told
        assert {"entries of host.Voucher", "rows of host.Voucher", "fingerprints of host.Voucher"} <= set(
            told
        )

    def test_books_are_counted_apart_for_each_run(self) -> None:
        vouchers(3)
        vouchers(2, OTHER)
        assert audit(TEST_ID).books.created == 3
        assert audit(OTHER).books.created == 2
        assert Book.objects.count() == 0
