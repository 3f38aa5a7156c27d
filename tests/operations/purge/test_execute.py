"""What a purge removes, and above all what it does not."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import F, Model
from django.db.models.signals import post_delete

from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations.purge.plan import make_plan
from tests.conftest import host_counts
from tests.host import models

from .conftest import Run


def values(model: type[Model]) -> list[dict[str, Any]]:
    return list(model._base_manager.order_by("pk").values())


class TestEverythingThatTheLedgerProvesGoes:
    @pytest.mark.parametrize(
        "type_name",
        [
            "author",
            "book",
            "chapter",
            "voucher",
            "restaurant",
            "person",
            "team",
            "note",
            "archived",
            "watched",
            "stall",
            "user",
            "bulk",
            "product",
            "builder",
            "client",
            "sessionType",
            "booking",
        ],
    )
    def test_of_every_kind_of_model(self, run: Run, type_name: str) -> None:
        models.Country.objects.create(code="NL", name="Netherlands")
        before = host_counts()
        run.make(type_name)
        run.make(type_name)
        assert host_counts() != before
        outcome = run.purge()
        left = {name: count for name, count in host_counts().items() if count != before[name]}
        # A category that the product's factory makes is the run's; nothing else may differ.
        assert left == {}
        assert outcome.success
        assert outcome.message == ""
        assert run.run.state == "closed"
        assert set(run.states()) == {"removed"}

    def test_and_the_receipt_counts_it_by_type(self, run: Run) -> None:
        run.make("book")
        receipt = run.purge().receipt
        assert receipt["removed"] == {
            "author": 1,
            "book": 1,
            "chapter": 1,
            "country": 1,
            "host.book_labels": 2,
            "host.label": 2,
        }
        assert receipt["remaining"] == 0

    def test_a_second_purge_removes_nothing_and_writes_no_receipt(self, run: Run) -> None:
        run.make("voucher")
        run.purge()
        outcome = run.purge()
        assert outcome.success
        assert outcome.receipt["removed"] == {}
        assert run.run.receipts.count() == 1

    def test_rows_found_by_a_factory_stay(self, run: Run) -> None:
        models.Country.objects.create(code="NL", name="the real one")
        run.make("author")
        run.purge()
        assert values(models.Country) == [{"code": "NL", "name": "the real one"}]

    def test_edited_rows_go(self, run: Run) -> None:
        builder = run.make("builder")
        type(builder).objects.update(display_name="edited", headline="edited", hourly_rate=1, bio="edited")
        User.objects.update(email="edited@example.com", username="edited", first_name="e")
        chapter = run.make("chapter")
        models.Chapter.objects.filter(pk=chapter.pk).update(title="edited", position=7)
        assert run.purge().success

    def test_a_user_saved_through_a_form_that_drops_microseconds_goes(self, run: Run) -> None:
        user = run.make("user")
        user.date_joined = user.date_joined.replace(microsecond=0)
        user.save()
        assert run.purge().success

    def test_people_who_point_at_each_other_go(self, run: Run) -> None:
        boss = run.make("person")
        middle = run.make("person", boss=boss)
        run.make("person", boss=middle)
        models.Person.objects.filter(pk=boss.pk).update(boss=boss)
        assert run.purge().success
        assert not models.Person.objects.exists()

    def test_rows_of_another_run_stay(self, run: Run, new_wire: Any) -> None:
        other = Run(new_wire().test_id)
        other.make("book")
        before = host_counts()
        run.make("book")
        run.purge()
        assert host_counts() == before
        assert other.states().keys() == {"live"}


class TestRowsRemovedBySomebodyElse:
    def test_are_noticed_and_are_no_error(self, run: Run) -> None:
        voucher = run.make("voucher")
        run.make("voucher")
        models.Voucher.objects.filter(pk=voucher.pk).delete()
        outcome = run.purge()
        assert outcome.success
        assert outcome.receipt["removed"] == {"voucher": 1}
        assert outcome.receipt["alreadyGone"] == {"voucher": 1}
        assert run.entry(voucher).state == TestEntity.State.GONE


class TestARecycledKey:
    @pytest.mark.parametrize("type_name", ["voucher", "author", "chapter", "person", "user", "restaurant"])
    def test_is_not_deleted(self, run: Run, type_name: str, guarded: bool) -> None:
        instance = run.make(type_name)
        model = type(instance)
        pk = instance.pk
        kept = {
            field.attname: getattr(instance, field.attname)
            for field in model._meta.concrete_fields
            if field.is_relation
        }
        model._base_manager.filter(pk=pk).delete()
        texts = {"voucher": "note", "user": "username"}
        name = texts.get(type_name, "title" if type_name == "chapter" else "name")
        extra = {"position": 3} if type_name == "chapter" else {}
        real = model(**kept, **{name: "a real row's"}, **extra)
        real.pk = pk
        if type_name == "restaurant":
            real.serves, real.place_ptr_id, real.id = "fish", pk, pk
        real.save(force_insert=True)
        before = values(model)
        outcome = run.purge()
        assert values(model) == before
        if guarded:
            # The database closed the entry when its row went: nothing is left to doubt.
            assert run.entry(instance).state == TestEntity.State.GONE
            assert "not_the_row_we_made" not in {each["reason"] for each in outcome.receipt["quarantined"]}
            return
        assert not outcome.success
        assert {each["reason"] for each in outcome.receipt["quarantined"]} >= {"not_the_row_we_made"}
        assert "not the row we made" in outcome.message


REAL_HOLDERS = {
    "set null": lambda book: models.Review.objects.create(book=book, text="real"),
    "protect": lambda book: models.Loan.objects.create(book=book, by="real"),
    "cascade": lambda book: models.Chapter.objects.create(book=book, position=99, title="real"),
    "many-to-many": lambda book: book.labels.add(models.Label.objects.create(text="real")),
    "generic": lambda book: models.Note.objects.create(subject=book, text="real"),
}


class TestARealRowThatPointsAtATestRow:
    @pytest.mark.parametrize("kind", REAL_HOLDERS)
    def test_stops_the_removal_of_that_part_and_is_not_changed(self, run: Run, kind: str) -> None:
        book = run.make("book")
        other = run.make("voucher")
        REAL_HOLDERS[kind](book)
        real = [values(model) for model in (models.Review, models.Loan, models.Note)]
        outcome = run.purge()
        assert [values(model) for model in (models.Review, models.Loan, models.Note)] == real
        book.refresh_from_db()
        book.author.refresh_from_db()
        if kind == "cascade":
            assert models.Chapter.objects.filter(title="real").exists()
        if kind == "many-to-many":
            assert book.labels.filter(text="real").exists()
        assert run.entry(book).state == TestEntity.State.QUARANTINED
        assert run.entry(book.author).state == TestEntity.State.QUARANTINED
        assert run.entry(other).state == TestEntity.State.REMOVED
        assert run.run.state == "closing"
        held = {each["type"]: each for each in outcome.receipt["quarantined"]}
        assert held["book"]["reason"] == "referenced"
        assert sum(held["book"]["blockedBy"].values()) == 1
        assert not outcome.success

    @pytest.mark.parametrize("kind", REAL_HOLDERS)
    def test_is_counted_by_model_in_the_message(self, run: Run, kind: str) -> None:
        book = run.make("book")
        REAL_HOLDERS[kind](book)
        names = {
            "set null": "host.Review",
            "protect": "host.Loan",
            "cascade": "host.Chapter",
            "many-to-many": "host.Book_labels",
            "generic": "host.Note",
        }
        outcome = run.purge()
        assert f"{names[kind]} (1)" in outcome.message

    def test_lets_the_part_go_once_it_is_away(self, run: Run) -> None:
        book = run.make("book")
        loan = models.Loan.objects.create(book=book, by="real")
        assert not run.purge().success
        loan.delete()
        outcome = run.purge()
        assert outcome.success
        assert run.run.state == "closed"
        assert set(run.states()) == {"removed"}

    def test_holds_a_whole_circle(self, run: Run) -> None:
        team = run.make("team")
        real = models.Player.objects.create(name="real", team=team)
        outcome = run.purge()
        assert models.Team.objects.get().captain_id == team.captain_id
        assert set(models.Player.objects.values_list("pk", flat=True)) == {team.captain_id, real.pk}
        assert outcome.receipt["remaining"] == 2

    def test_holds_a_chain_of_its_own_kind(self, run: Run) -> None:
        boss = run.make("person")
        middle = run.make("person", boss=boss)
        free = run.make("person", boss=middle)
        models.Person.objects.create(name="real", boss=middle)
        run.purge()
        assert set(models.Person.objects.values_list("name", flat=True)) == {boss.name, middle.name, "real"}
        assert run.entry(free).state == TestEntity.State.REMOVED
        assert run.entry(boss).reason == run.entry(middle).reason == "referenced"

    def test_holds_the_parent_of_a_multi_table_child(self, run: Run, guarded: bool) -> None:
        place = run.make("restaurant").place_ptr
        models.Restaurant.objects.all()._raw_delete("default")
        models.Restaurant(place_ptr=place, serves="real food").save_base(raw=True)
        outcome = run.purge()
        assert models.Restaurant.objects.get().serves == "real food"
        assert models.Place.objects.get().pk == place.pk
        assert outcome.receipt["remaining"] == (1 if guarded else 2)


class TestModelsWithAMindOfTheirOwn:
    def test_a_delete_that_only_marks_is_finished(self, run: Run) -> None:
        run.make("archived")
        real = models.Archived.objects.create(name="real")
        assert run.purge().success
        assert values(models.Archived) == [{"id": real.pk, "name": "real", "is_deleted": False}]

    def test_listeners_hear_and_what_they_write_goes_too(self, run: Run) -> None:
        heard = []

        def listen(sender: Any, instance: Any, **kwargs: Any) -> None:
            heard.append(instance.name)
            models.Journal.objects.create(line=f"{instance.name} went")

        post_delete.connect(listen, sender=models.Watched)
        try:
            first, second = run.make("watched"), run.make("watched")
            assert run.purge().success
        finally:
            post_delete.disconnect(listen, sender=models.Watched)
        assert sorted(heard) == sorted([first.name, second.name])
        assert not models.Journal.objects.exists()

    def test_a_delete_that_fails_keeps_that_row_and_no_other(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = run.make("archived"), run.make("archived")

        def fail(self: Any, *args: Any, **kwargs: Any) -> None:
            if self.pk == first.pk:
                models.Voucher.objects.create(code="half", note="done")
                raise RuntimeError("no")

        monkeypatch.setattr(models.Archived, "delete", fail)
        outcome = run.purge()
        assert list(models.Archived.objects.values_list("pk", flat=True)) == [first.pk]
        assert not models.Voucher.objects.exists()
        assert outcome.receipt["quarantined"][0]["reason"] == "delete_failed"
        assert run.entry(second).state == TestEntity.State.REMOVED

    def test_a_delete_that_reaches_for_a_real_row_is_undone(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = models.Voucher.objects.create(code="real", note="real")
        run.make("archived")
        monkeypatch.setattr(
            models.Archived, "delete", lambda self, *args, **kwargs: models.Voucher.objects.all().delete()
        )
        outcome = run.purge()
        assert values(models.Voucher) == [{"code": real.code, "note": "real"}]
        assert outcome.receipt["quarantined"][0]["reason"] == "referenced"
        assert outcome.receipt["quarantined"][0]["blockedBy"] == {"host.Voucher": 1}


class TestTheLedger:
    def test_accounts_for_every_row_after_each_step(self, run: Run) -> None:
        for _ in range(3):
            run.make("book")
        created = sum(run.states().values())
        models.Chapter.objects.order_by("pk")[:1].get().delete()
        models.Loan.objects.create(book=models.Book.objects.order_by("pk").first(), by="real")
        run.purge()
        states = run.states()
        assert sum(states.values()) == created
        assert states.keys() == {"removed", "gone", "quarantined"}

    @pytest.mark.parametrize("batch_size", [1, 2, 1000])
    def test_gives_the_same_end_for_every_batch_size(self, run: Run, batch_size: int) -> None:
        for type_name in ("book", "booking", "team", "note", "restaurant"):
            run.make(type_name)
        before = sum(run.states().values())
        assert run.purge(batch_size=batch_size).success
        assert run.states() == {"removed": before}

    def test_progress_is_told_up_to_the_total(self, run: Run) -> None:
        run.make("book")
        told: list[tuple[int, int]] = []
        run.purge(batch_size=1, progress=lambda done, total: told.append((done, total)))
        assert told[-1][0] == told[-1][1] == sum(run.states().values())
        assert told == sorted(told)

    def test_an_entry_whose_model_is_gone_is_quarantined(self, run: Run) -> None:
        run.make("voucher")
        TestEntity.objects.update(model="host.nosuchmodel")
        outcome = run.purge()
        assert outcome.receipt["quarantined"][0]["reason"] == "model_missing"
        assert outcome.receipt["remaining"] == 1


class TestAKeyOfTwoColumns:
    def test_goes_where_it_is_ours_and_stays_where_it_is_not(self, run: Run) -> None:
        stall = run.make("stall")
        hall = models.Hall.objects.create(name="real")
        models.Stall.objects.create(hall=hall, number=1, plate="real")
        assert run.purge().success
        assert list(models.Stall.objects.values_list("plate", flat=True)) == ["real"]
        assert not models.Hall.objects.filter(pk=stall.hall_id).exists()
        assert list(models.Hall.objects.values_list("pk", flat=True)) == [hall.pk]

    def test_a_real_one_holds_what_it_points_at(self, run: Run) -> None:
        stall = run.make("stall")
        models.Stall.objects.create(hall=stall.hall, number=stall.number + 1, plate="real")
        plan = make_plan(run.run)
        outcome = run.purge()
        assert list(models.Stall.objects.values_list("plate", flat=True)) == ["real"]
        assert [each["blockedBy"] for each in outcome.receipt["quarantined"]] == [{"host.Stall": 1}]
        assert [dict(held.blocked_by) for held in plan.held] == [{"host.Stall": 1}]

    def test_that_is_used_again_is_not_deleted(self, run: Run, guarded: bool) -> None:
        stall = run.make("stall")
        models.Stall.objects.filter(hall=stall.hall_id, number=stall.number)._raw_delete("default")
        models.Stall.objects.create(hall=stall.hall, number=stall.number, plate="a real row's")
        assert not run.purge().success
        assert models.Stall.objects.get().plate == "a real row's"


def test_no_real_row_is_written_by_a_purge(run: Run) -> None:
    """The whole database but for the test's rows is the same, value by value."""
    author = models.Author.objects.create(name="real")
    book = models.Book.objects.create(title="real", author=author)
    models.Review.objects.create(book=book, text="real")
    real = {model: values(model) for model in (models.Author, models.Book, models.Review, models.Country)}
    made = run.make("book")
    models.Review.objects.create(book=made, text="held")
    real[models.Review] = values(models.Review)
    run.purge()
    assert values(models.Review) == real[models.Review]
    assert [row for row in values(models.Book) if row["id"] == book.pk] == real[models.Book]
    assert [row for row in values(models.Author) if row["id"] == author.pk] == real[models.Author]


def test_ledger_rows_are_never_updated_for_other_runs(run: Run, new_wire: Any) -> None:
    other = Run(new_wire().test_id)
    other.make("voucher")
    before = list(TestEntity.objects.filter(run=other.run).values())
    run.make("voucher")
    run.purge()
    assert list(TestEntity.objects.filter(run=other.run).values()) == before
    assert TestEntity.objects.exclude(tombstone=0).exclude(tombstone=F("pk")).count() == 0
    assert connection.alias == "default"


def test_an_entry_whose_key_is_of_another_kind_than_the_models_stays(run: Run) -> None:
    first, second = run.make("author"), run.make("author")
    TestEntity.objects.of_model(models.Author).update(key_uuid=None)
    outcome = run.purge()
    assert {each["reason"] for each in outcome.receipt["quarantined"]} >= {"not_the_row_we_made"}
    assert set(models.Author.objects.values_list("pk", flat=True)) == {first.pk, second.pk}
    assert outcome.receipt["alreadyGone"] == {}
