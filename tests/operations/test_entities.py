"""Rows and entries commit together: all of them, or none."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import factory
import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.db.models.functions import Now

from stagehand_testdata import context
from stagehand_testdata.exceptions import (
    ConfigurationError,
    Conflict,
    FactoryFailed,
    InvalidInput,
    NotInRun,
    RunClosed,
    TestDataError,
    TooOld,
    UnknownEntityType,
    UntrackedWrite,
)
from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import entities, runs, scenarios
from stagehand_testdata.operations.purge import purge
from stagehand_testdata.registry import EntityType, Scenario
from tests.conftest import Wire, host_counts
from tests.host import models
from tests.host.factories import BookFactory, CountryFactory, VoucherFactory
from tests.making import TEST_ID, changed, create, owned, owns, perform, registered

User = get_user_model()


@pytest.mark.django_db
class TestTheLedger:
    @pytest.mark.parametrize(
        ("type_name", "made"),
        [
            ("voucher", {"host.voucher": 1}),
            ("author", {"host.author": 1, "host.country": 1}),
            ("restaurant", {"host.place": 1, "host.restaurant": 1}),
            ("team", {"host.team": 1, "host.player": 1}),
            ("note", {"host.note": 1, "host.voucher": 1}),
            ("bulk", {"host.voucher": 1, "host.label": 3}),
            (
                "book",
                {
                    "host.book": 1,
                    "host.author": 1,
                    "host.country": 1,
                    "host.chapter": 1,
                    "host.label": 2,
                    "host.book_labels": 2,
                },
            ),
        ],
    )
    def test_every_row_that_a_factory_makes_is_in_it(self, type_name: str, made: dict[str, int]) -> None:
        from django.contrib.contenttypes.models import ContentType

        ContentType.objects.get_for_model(models.Voucher)
        before = host_counts()
        perform(lambda call: call.create(type_name))
        assert Counter(owned()) == made
        grown = {label.lower(): n - before[label] for label, n in host_counts().items() if n != before[label]}
        assert grown == made

    def test_a_row_that_was_found_is_not(self) -> None:
        models.Country.objects.create(code="NL", name="real")
        author = perform(lambda call: call.create("author"))
        assert owned() == ["host.author"]
        assert author.country.name == "real"

    def test_asking_for_a_row_that_is_found_is_a_conflict(self) -> None:
        models.Country.objects.create(code="NL", name="real")
        with pytest.raises(Conflict, match="found a row"):
            perform(lambda call: call.create("country"))
        assert owned() == []

    def test_unless_it_is_of_a_reference_model(self) -> None:
        models.Country.objects.create(code="NL", name="real")
        with changed(REFERENCE_MODELS=["host.Country"]):
            assert perform(lambda call: call.create("country")).name == "real"
        assert owned() == []

    def test_a_row_of_the_run_may_be_found_again(self) -> None:
        first = create(CountryFactory)
        assert create(CountryFactory) == first
        assert owned() == ["host.country"]

    def test_a_row_of_another_run_may_not(self) -> None:
        create(CountryFactory, "stagehand_test_other")
        with pytest.raises(Conflict):
            create(CountryFactory)

    def test_entries_say_what_was_asked_for_and_what_came_along(self) -> None:
        book = perform(lambda call: call.create("book"))
        asked = TestEntity.objects.get(origin=TestEntity.Origin.REQUESTED)
        assert (asked.type, asked.model, asked.row_key(models.Book)) == ("book", "host.book", book.pk)
        others = TestEntity.objects.filter(origin=TestEntity.Origin.ON_THE_WAY)
        assert {entry.type for entry in others} == {
            "author",
            "chapter",
            "country",
            "host.label",
            "host.book_labels",
        }

    def test_entries_are_numbered_without_gaps_from_one(self) -> None:
        for _ in range(3):
            perform(lambda call: call.create("book"))
        numbers = TestEntity.objects.filter(run__test_id=TEST_ID).values_list("ordinal", flat=True)
        assert list(numbers) == list(range(1, len(numbers) + 1))

    def test_a_call_that_makes_nothing_leaves_nothing(self) -> None:
        assert perform(lambda call: call.test_id) == TEST_ID
        assert owned() == []

    def test_the_run_is_current_while_the_factory_runs_and_not_after(self) -> None:
        class Asking(VoucherFactory):
            note = factory.LazyFunction(lambda: str(context.current_run()))

        note = create(Asking).note
        assert TEST_ID in note
        assert context.current_run() is None

    def test_names_get_the_prefix_once(self) -> None:
        name = perform(lambda call: (call.name("Ann"), call.name("stagehand_test_Ann")))
        assert name == ("stagehand_test_Ann", "stagehand_test_Ann")

    def test_numbers_count_on_through_the_calls_of_a_run(self) -> None:
        def make(call: entities.Creation) -> list[int]:
            found = [call.number]
            call.create("voucher")
            return [*found, call.number]

        assert perform(make) == [1, 2]
        assert perform(make) == [2, 3]


# --- all or nothing --------------------------------------------------------------------------------------


class UnsavedFactory(VoucherFactory):
    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
        return models.Person(name="never saved")


class NothingFactory(VoucherFactory):
    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
        return None


class UpsertingFactory(VoucherFactory):
    @factory.post_generation
    def upsert(self, create: bool, extracted: Any, **kwargs: Any) -> None:
        unique = ["text"] if connection.features.supports_update_conflicts_with_target else None
        models.Label.objects.bulk_create(
            [models.Label(text="a")], update_conflicts=True, unique_fields=unique, update_fields=["text"]
        )


class CatchingFactory(VoucherFactory):
    """Tries, fails and carries on, as a host's own code may."""

    @factory.post_generation
    def attempt(self, create: bool, extracted: Any, **kwargs: Any) -> None:
        try:
            with transaction.atomic():
                models.Label.objects.create(text="given up")
                raise ValueError("changed my mind")
        except ValueError:
            models.Label.objects.create(text="kept")


@pytest.mark.django_db
class TestAllOrNothing:
    @pytest.mark.parametrize(
        ("factory_class", "error"),
        [
            ("tests.host.factories.FailingFactory", FactoryFailed),
            ("tests.host.factories.RawFactory", UntrackedWrite),
            (UpsertingFactory, UntrackedWrite),
            (UnsavedFactory, FactoryFailed),
            (NothingFactory, FactoryFailed),
        ],
        ids=str,
    )
    def test_a_factory_that_fails_leaves_no_row_and_no_entry(
        self, factory_class: Any, error: type[Exception], unchanged_host: None
    ) -> None:
        with pytest.raises(error):
            create(factory_class)
        assert not TestEntity.objects.exists()
        assert not TestRun.objects.exists()

    def test_an_exception_half_way_through_leaves_no_row_and_no_entry(self, unchanged_host: None) -> None:
        def work(call: entities.Creation) -> None:
            call.create("book")
            call.create("restaurant")
            raise RuntimeError("half-way")

        with pytest.raises(FactoryFailed):
            perform(work)
        assert not TestEntity.objects.exists()

    def test_a_scenario_that_fails_half_way_leaves_no_row_and_no_entry(self, unchanged_host: None) -> None:
        def make(call: entities.Creation, data: Any) -> None:
            call.create("book")
            call.create("failing")

        with pytest.raises(FactoryFailed):
            perform(lambda call: scenarios.run_scenario(call, Scenario("half", make), {}))
        assert not TestEntity.objects.exists()

    def test_what_the_run_had_before_stays(self) -> None:
        voucher = perform(lambda call: call.create("voucher"))
        with pytest.raises(FactoryFailed):
            perform(lambda call: call.create("failing"))
        assert owns(voucher)
        assert owned() == ["host.voucher"]

    def test_a_failure_to_enter_takes_the_rows_back(self, unchanged_host: None) -> None:
        """The ledger already has a standing entry for the key, of a row that is gone."""
        with registered(voucher=VoucherFactory):
            perform(lambda call: call.create("voucher", code="SAME"), "stagehand_test_other")
            models.Voucher.objects.all().delete()
            with pytest.raises(Conflict):
                perform(lambda call: call.create("voucher", code="SAME"))
        assert owned() == []

    def test_a_row_that_the_factory_took_back_is_not_entered(self) -> None:
        create(CatchingFactory)
        assert owned() == ["host.label", "host.voucher"]
        assert models.Label.objects.get().text == "kept"

    def test_an_error_of_ours_is_passed_on_as_it_is(self) -> None:
        def work(call: entities.Creation) -> None:
            raise Conflict("mine")

        with pytest.raises(Conflict, match="mine"):
            perform(work)

    def test_a_value_that_is_taken_is_a_conflict(self, unchanged_host: None) -> None:
        def work(call: entities.Creation) -> None:
            call.create("voucher", code="A")
            call.create("voucher", code="A")

        with pytest.raises(Conflict):
            perform(work)
        assert not TestEntity.objects.exists()

    def test_a_factory_parameter_that_is_none_is_the_factorys_fault_without_a_body(self) -> None:
        with pytest.raises(FactoryFailed):
            create(VoucherFactory, nonsense=1)

    def test_and_the_clients_with_one(self) -> None:
        with registered(thing=VoucherFactory), pytest.raises(InvalidInput):
            perform(lambda call: call.create("thing", nonsense=1), data={"fields": {"nonsense": 1}})

    def test_an_unknown_type_is_named(self) -> None:
        with pytest.raises(UnknownEntityType, match="nothing"):
            perform(lambda call: call.create("nothing"))

    def test_a_transaction_of_the_callers_own_takes_everything_back(self) -> None:
        with pytest.raises(ValueError, match="x"), transaction.atomic():
            perform(lambda call: call.create("book"))
            raise ValueError("x")
        assert owned() == []
        assert not models.Book.objects.exists()


# --- finding ---------------------------------------------------------------------------------------------


@pytest.mark.django_db
class TestFinding:
    def test_the_runs_own_row_is_found(self) -> None:
        book = perform(lambda call: call.create("book"))
        assert perform(lambda call: call.find("book", str(book.pk))) == book
        assert perform(lambda call: call.find("author", str(book.author_id))) == book.author

    def test_a_real_row_is_not(self) -> None:
        real = models.Voucher.objects.create(code="REAL", note="x")
        with pytest.raises(NotInRun):
            perform(lambda call: call.find("voucher", real.pk))

    def test_another_runs_row_is_not(self) -> None:
        other = perform(lambda call: call.create("voucher"), "stagehand_test_other")
        with pytest.raises(NotInRun):
            perform(lambda call: call.find("voucher", other.pk))

    @pytest.mark.parametrize(
        "key", [None, True, "", "x", 0, -1, 2**70, "9" * 400, [], {}, 1.5, "\x00", "1 OR 1=1", b"1"], ids=repr
    )
    @pytest.mark.parametrize("type_name", ["book", "author", "voucher"])
    def test_nonsense_is_answered_alike(self, type_name: str, key: Any) -> None:
        with pytest.raises(NotInRun) as caught:
            perform(lambda call: call.find(type_name, key, "bookId"))
        assert caught.value.message == "'bookId' is no row of this run."

    def test_a_real_row_of_a_reference_model_may_be_pointed_at(self) -> None:
        models.Country.objects.create(code="NL", name="real")

        def make(call: entities.Creation) -> Any:
            return entities.create_entities(call, "author", {"country": "NL"}, 1)[0]

        with pytest.raises(NotInRun):
            perform(make)
        with changed(REFERENCE_MODELS=["host.Country"]):
            assert perform(make).country_id == "NL"
        assert owned() == ["host.author"]


# --- what may be made and set ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [TestRun, TestEntity, User.groups.through, models.Book.labels.through._meta.get_field("label").model],
)
def test_what_cannot_be_told_or_trusted_cannot_be_owned(model: Any) -> None:
    expected = model._meta.app_label in ("stagehand_testdata", "auth")
    assert bool(entities.unownable(model)) == expected


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [IntegrityError("a"), OperationalError("b"), ValueError("c")], ids=repr)
def test_what_fails_after_the_commit_is_told_in_the_log_and_makes_nothing_twice(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def work(call: entities.Creation) -> None:
        def later() -> None:
            raise error

        call.create("voucher")
        transaction.on_commit(later)

    perform(work)
    assert models.Voucher.objects.count() == len(owned()) == 1
    assert f"after a commit has failed: {type(error).__name__}" in caplog.text


@pytest.mark.django_db
def test_a_row_on_the_way_that_nothing_tells_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entities, "can_tell_rows", lambda model: model is not models.Country)
    with pytest.raises(ConfigurationError, match=r"a row of host\.Country on the way"):
        perform(lambda call: call.create("author"))
    assert not models.Author.objects.exists()
    assert not models.Country.objects.exists()
    assert owned() == []


@pytest.mark.parametrize("name", ["author_id", "owner_id"])
def test_the_column_behind_a_pointer_is_no_way_around_it(name: str) -> None:
    """Under its own name the pointer's row must be of the run; under the column's it would not be asked."""
    settable = entities.settable_fields(EntityType("book", BookFactory, fields=["title", name]))
    assert name not in settable


def test_the_halves_of_a_generic_pointer_are_not_settable() -> None:
    settable = entities.settable_fields(EntityType("note", "tests.host.factories.NoteFactory"))
    assert set(settable) == {"text"}


# --- side by side ----------------------------------------------------------------------------------------


def side_by_side(work: Any, times: int) -> list[Any]:
    """`work(n)` in that many threads at once; what each returned, or the exception it raised."""
    start = threading.Barrier(times)

    def one(n: int) -> Any:
        try:
            start.wait(30)
            return work(n)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


@pytest.mark.django_db(transaction=True)
class TestSideBySide:
    def check(self, found: list[Any], calls: int) -> None:
        assert [each for each in found if isinstance(each, Exception)] == []
        entries = TestEntity.objects.filter(run__test_id=TEST_ID)
        numbers = list(entries.values_list("ordinal", flat=True))
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(set(entries.values_list("model", "key_text"))) == len(numbers)
        addresses = list(User.objects.values_list("email", flat=True))
        assert len(set(addresses)) == len(addresses) == 2 * calls
        assert TestRun.objects.count() == 1

    def test_eight_threads_make_ten_scenarios_each_in_one_run(self) -> None:
        booking = scenarios.scenario_named("booking")

        def work(n: int) -> None:
            for _ in range(10):
                perform(lambda call: scenarios.run_scenario(call, booking, {}))

        self.check(side_by_side(work, 8), 80)

    def test_eight_threads_make_five_scenarios_each_in_one_run_over_the_wire(self) -> None:
        def work(n: int) -> None:
            wire = Wire(TEST_ID)
            for _ in range(5):
                wire.make("booking-scenarios")

        self.check(side_by_side(work, 8), 40)

    def test_the_first_calls_of_a_run_open_it_once(self) -> None:
        found = side_by_side(lambda n: perform(lambda call: call.create("voucher")).code, 8)
        assert len(set(found)) == 8
        assert TestRun.objects.count() == 1

    def test_runs_of_their_own_do_not_meet(self) -> None:
        # A row that all of them would find or make is the host's own meeting place, so there is one already.
        models.Country.objects.create(code="NL", name="real")
        found = side_by_side(
            lambda n: [perform(lambda call: call.create("book"), f"{TEST_ID}_{n}").pk for _ in range(3)], 8
        )
        assert [each for each in found if isinstance(each, Exception)] == []
        assert len({pk for each in found for pk in each}) == 24
        for n in range(8):
            assert len(owned(f"{TEST_ID}_{n}")) == 3 * 7

    def test_a_creator_after_closing_is_refused(self) -> None:
        perform(lambda call: call.create("book"))
        run = runs.find(TEST_ID, "")
        assert purge.purge_run(run).success
        with pytest.raises(RunClosed):
            perform(lambda call: call.create("book"))
        assert not models.Book.objects.exists()

    def test_a_creator_past_the_end_is_refused(self) -> None:
        perform(lambda call: call.create("book"))
        past = {"opened_at": Now() - dt.timedelta(hours=2), "expires_at": Now() - dt.timedelta(seconds=1)}
        TestRun.objects.update(**past)
        with pytest.raises(TooOld):
            perform(lambda call: call.create("book"))

    def test_creators_and_closers_in_any_order_leave_nothing_behind(self) -> None:
        def work(n: int) -> str:
            try:
                if n == 3:
                    purge.purge_run(runs.find(TEST_ID, ""))
                    return "closed"
                for _ in range(5):
                    perform(lambda call: call.create("book"))
            except RunClosed:
                return "refused"
            return "made"

        perform(lambda call: call.create("book"))
        found = side_by_side(work, 6)
        assert all(isinstance(each, str) for each in found), found
        # Whoever came before the closer was seen by it; whoever came after made nothing.
        outcome = purge.clean_up(TEST_ID, "")
        assert outcome.success
        assert not models.Book.objects.exists()
        assert not models.Label.objects.exists()
        assert not TestEntity.objects.standing().exists()


@pytest.mark.django_db
def test_every_error_is_one_of_ours() -> None:
    """So that the API can say what happened."""
    for error in (Conflict, FactoryFailed, InvalidInput, NotInRun, RunClosed, TooOld):
        assert issubclass(error, TestDataError)
