"""The ledger's rules, kept by the database whoever writes."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, models, transaction
from django.db.models import F, ProtectedError
from django.db.models.functions import Now
from django.test.utils import isolate_apps
from django.utils import timezone

from stagehand_testdata.models import Key, Receipt, TestEntity, TestRun, entries_of_outer_row, key_column
from stagehand_testdata.seeding import SEED_LIMIT
from tests.host.models import Author, Chapter, Person, Restaurant, Voucher

pytestmark = pytest.mark.django_db

HOUR = dt.timedelta(hours=1)


def new_run(**values: Any) -> TestRun:
    given = {
        "test_id": f"stagehand_test_{uuid.uuid4().hex}",
        "seed": 1,
        "opened_at": Now(),
        "expires_at": Now() + HOUR,
        "latest_end": Now() + 24 * HOUR,
        **values,
    }
    return TestRun.objects.get(pk=TestRun.objects.create(**given).pk)


def new_entry(run: TestRun, key: Any = "A", model: type[models.Model] = Voucher, **values: Any) -> TestEntity:
    found = Key.of(model, key)
    return TestEntity.objects.create(
        run=run,
        type="thing",
        origin=TestEntity.Origin.REQUESTED,
        model=model._meta.label_lower,
        key_text=found.text,
        key_bigint=found.bigint,
        key_uuid=found.uuid,
        **{"database": "default", "ordinal": TestEntity.objects.filter(run=run).count() + 1, **values},
    )


def refused(write: Callable[[], Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        write()


class TestRuns:
    def test_the_time_of_opening_is_the_databases(self) -> None:
        run = TestRun.objects.create(test_id="a", seed=1, expires_at=Now() + HOUR, latest_end=Now() + HOUR)
        run.refresh_from_db()
        clock = TestRun.objects.annotate(now=Now()).values_list("now", flat=True).get(pk=run.pk)
        assert abs(clock - run.opened_at) < dt.timedelta(seconds=5)

    def test_it_opens_by_default(self) -> None:
        run = new_run()
        assert (run.state, run.scope, run.owner) == ("open", "ephemeral", "")
        assert str(run) == run.test_id

    def test_it_ends_after_it_was_opened(self) -> None:
        refused(lambda: new_run(expires_at=Now() - HOUR))
        now = timezone.now()
        refused(lambda: new_run(opened_at=now, expires_at=now))

    def test_it_ends_within_its_cap(self) -> None:
        refused(lambda: new_run(expires_at=Now() + 25 * HOUR))
        run = new_run()
        rows = TestRun.objects.filter(pk=run.pk)
        refused(lambda: rows.update(expires_at=F("latest_end") + dt.timedelta(seconds=1)))
        rows.update(expires_at=F("latest_end"))

    @pytest.mark.parametrize("seed", [-1, SEED_LIMIT, SEED_LIMIT + 1])
    def test_its_seed_is_one_that_javascript_holds(self, seed: int) -> None:
        refused(lambda: new_run(seed=seed))

    @pytest.mark.parametrize("seed", [0, SEED_LIMIT - 1])
    def test_every_other_seed_is_taken(self, seed: int) -> None:
        assert new_run(seed=seed).seed == seed

    @pytest.mark.parametrize(
        "values",
        [
            {"state": "closed"},
            {"state": "open", "closed_at": Now()},
            {"state": "closing", "closed_at": Now()},
            {"state": "gone"},
            {"state": ""},
        ],
        ids=str,
    )
    def test_it_has_a_time_of_closing_exactly_where_it_is_closed(self, values: Any) -> None:
        refused(lambda: new_run(**values))

    def test_it_closes(self) -> None:
        assert new_run(state="closed", closed_at=Now()).closed_at

    def test_an_owner_has_each_test_id_once(self) -> None:
        new_run(test_id="a", owner="one")
        new_run(test_id="a", owner="two")
        refused(lambda: new_run(test_id="a", owner="one"))

    def test_ids_that_differ_in_case_are_different(self) -> None:
        new_run(test_id="stagehand_test_a")
        new_run(test_id="stagehand_test_A")
        assert TestRun.objects.filter(test_id="stagehand_test_a").count() == 1

    def test_the_newest_comes_first(self) -> None:
        first, second = new_run(), new_run()
        assert list(TestRun.objects.all()) == [second, first]

    def test_unfinished_and_expired_ones_are_found_by_the_databases_clock(self) -> None:
        live = new_run()
        past = {"opened_at": Now() - 3 * HOUR, "expires_at": Now() - HOUR, "latest_end": Now() - HOUR}
        late = new_run(**past)
        closing = new_run(**past, state="closing")
        new_run(**past, state="closed", closed_at=Now())
        assert set(TestRun.objects.unfinished()) == {live, late, closing}
        assert set(TestRun.objects.expired()) == {late, closing}

    def test_it_cannot_go_while_it_has_entries_or_receipts(self) -> None:
        run = new_run()
        entry = new_entry(run)
        with pytest.raises(ProtectedError):
            run.delete()
        entry.delete()
        Receipt.objects.create(run=run, body={}, digest="d")
        with pytest.raises(ProtectedError):
            run.delete()


class TestEntries:
    def test_one_row_has_one_standing_entry(self) -> None:
        new_entry(new_run(), "A")
        refused(lambda: new_entry(new_run(), "A"))

    def test_a_row_may_be_made_again_once_the_first_is_gone(self) -> None:
        run = new_run()
        for _ in range(3):
            entry = new_entry(run, "A")
            TestEntity.objects.filter(pk=entry.pk).update(state="removed", tombstone=F("pk"))
        new_entry(run, "A")
        assert TestEntity.objects.standing().count() == 1

    def test_other_rows_have_entries_of_their_own(self) -> None:
        run = new_run()
        new_entry(run, "A")
        new_entry(run, "a")
        new_entry(run, "B")
        new_entry(run, 1, Person)
        new_entry(run, "A", database="other")
        assert run.entities.count() == 5

    @pytest.mark.parametrize(
        ("state", "tombstone"),
        [("live", 5), ("quarantined", 5), ("removed", 0), ("gone", 0), ("other", 0), ("other", 5)],
    )
    def test_a_state_and_its_tombstone_agree(self, state: str, tombstone: int) -> None:
        refused(lambda: new_entry(new_run(), state=state, tombstone=tombstone))

    @pytest.mark.parametrize(
        ("state", "tombstone"), [("live", 0), ("quarantined", 0), ("removed", 5), ("gone", 5)]
    )
    def test_every_state_can_be_entered(self, state: str, tombstone: int) -> None:
        assert new_entry(new_run(), state=state, tombstone=tombstone).state == state

    def test_a_run_numbers_its_entries_once(self) -> None:
        run = new_run()
        new_entry(run, "A", ordinal=1)
        refused(lambda: new_entry(run, "B", ordinal=1))
        new_entry(new_run(), "C", ordinal=1)

    def test_an_entry_has_a_run(self) -> None:
        def write() -> None:
            entry = new_entry(new_run())
            TestEntity.objects.filter(pk=entry.pk).update(run_id=10**9)
            connection.check_constraints()

        refused(write)

    def test_the_time_of_creation_is_the_databases(self) -> None:
        entry = new_entry(new_run())
        entry.refresh_from_db()
        clock = TestEntity.objects.annotate(now=Now()).values_list("now", flat=True).get(pk=entry.pk)
        assert abs(clock - entry.created_at) < dt.timedelta(seconds=5)

    def test_they_come_in_the_order_of_their_making(self) -> None:
        run = new_run()
        second, first = new_entry(run, "B", ordinal=2), new_entry(run, "A", ordinal=1)
        assert list(run.entities.all()) == [first, second]


class TestReceipts:
    def test_the_newest_comes_first(self) -> None:
        run = new_run()
        first = Receipt.objects.create(run=run, body={"n": 1}, digest="1")
        second = Receipt.objects.create(run=run, body={"n": 2}, digest="2")
        assert list(run.receipts.all()) == [second, first]
        first.refresh_from_db()
        assert first.created_at <= timezone.now() + HOUR
        assert str(first) == "1"


class TestKeys:
    def test_a_number_is_kept_as_one(self) -> None:
        assert Key.of(Person, "5") == Key("5", 5, None)
        assert Key.of(Person, 2**63 - 1).bigint == 2**63 - 1

    def test_a_uuid_is_kept_as_one(self) -> None:
        key = uuid.uuid4()
        assert Key.of(Author, str(key).upper()) == Key(str(key), None, key)

    def test_text_is_kept_as_it_is(self) -> None:
        assert Key.of(Voucher, " É-1 ") == Key(" É-1 ", None, None)

    def test_a_child_of_another_table_has_its_parents_key(self) -> None:
        assert key_column(Restaurant) == "key_bigint"
        assert Key.of(Restaurant, 7) == Key("7", 7, None)

    @pytest.mark.parametrize("key", [None])
    def test_none_is_no_key(self, key: Any) -> None:
        with pytest.raises(ValueError, match="no primary key"):
            Key.of(Person, key)

    def test_a_key_too_long_to_be_kept_is_refused(self) -> None:
        Key.of(Voucher, "x" * 255)
        with pytest.raises(ValueError, match="longer"):
            Key.of(Voucher, "x" * 256)

    @isolate_apps("tests.host")
    def test_a_composite_key_is_kept_whole_and_given_back(self) -> None:
        class Seat(models.Model):
            pk = models.CompositePrimaryKey("hall", "number")
            hall = models.CharField(max_length=10)
            number = models.IntegerField()

            class Meta:
                app_label = "host"

        assert Key.of(Seat, ("A,1", 2)).text == '["A,1", "2"]'
        assert Key.of(Seat, ("A", "1, 2")) != Key.of(Seat, ("A, 1", "2"))
        assert TestEntity(key_text='["A,1", "2"]').row_key(Seat) == ("A,1", 2)

    def test_the_key_of_a_row_comes_back_in_its_own_type(self) -> None:
        run = new_run()
        key = uuid.uuid4()
        assert new_entry(run, 5, Person).row_key(Person) == 5
        assert new_entry(run, key, Author).row_key(Author) == key
        assert new_entry(run, "A", Voucher).row_key(Voucher) == "A"

    def test_entries_are_found_by_their_rows_keys(self) -> None:
        run = new_run()
        key = uuid.uuid4()
        entries = [new_entry(run, 5, Person), new_entry(run, key, Author), new_entry(run, "A", Voucher)]
        assert list(TestEntity.objects.for_keys(Person, [5, 6])) == [entries[0]]
        assert list(TestEntity.objects.for_keys(Author, [str(key)])) == [entries[1]]
        assert list(TestEntity.objects.for_keys(Voucher, ["A", "a"])) == [entries[2]]
        assert not TestEntity.objects.for_keys(Chapter, [5]).exists()
        assert not TestEntity.objects.for_keys(Person, []).exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Person.objects.create(name="a"),
        lambda: Author.objects.create(name="a"),
        lambda: Voucher.objects.create(code="A", note="x"),
        lambda: Restaurant.objects.create(name="a", serves="b"),
    ],
)
def test_a_row_finds_its_standing_entry_from_within_a_query(make: Callable[[], models.Model]) -> None:
    row, other = make(), new_run()
    model = type(row)
    run = new_run()
    entry = new_entry(run, row.pk, model)

    def owned(by: TestRun) -> bool:
        return model._base_manager.filter(models.Exists(entries_of_outer_row(model, by))).exists()

    assert owned(run)
    assert not owned(other)
    TestEntity.objects.filter(pk=entry.pk).update(state="gone", tombstone=F("pk"))
    assert not owned(run)
