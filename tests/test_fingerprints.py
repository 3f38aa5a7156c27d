"""Note [Fingerprints]: an edit is not another row, and another row under the same key is not ours."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.db import models
from django.db.models.functions import Now
from django.test import override_settings
from django.test.utils import isolate_apps
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from stagehand_testdata.fingerprints import columns, matches, take
from tests.host.models import Author, Book, Chapter, Label, Person, Restaurant, Voucher

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)


def names(fields: Any) -> list[str]:
    return [field.attname for field in fields]


class TestColumns:
    def test_a_creation_time_is_fixed(self) -> None:
        assert names(columns(Chapter).fixed) == ["created_at"]
        assert names(columns(get_user_model()).fixed) == ["date_joined"]

    def test_texts_tell(self) -> None:
        assert names(columns(Book).telling) == ["title", "blurb"]
        assert names(columns(Book).pointers) == ["author_id", "owner_id"]
        assert names(columns(Book).numbers) == ["price", "published"]

    def test_the_key_proves_nothing(self) -> None:
        assert names(columns(Voucher)) == ["note"]
        assert names(columns(Author)) == ["name", "country_id"]

    def test_a_child_table_has_its_own_columns_only(self) -> None:
        assert names(columns(Restaurant)) == ["serves"]

    @isolate_apps("tests.host")
    def test_what_changes_by_itself_or_by_a_click_takes_no_part(self) -> None:
        class Ticket(models.Model):
            token = models.UUIDField(default=uuid.uuid4)
            state = models.CharField(max_length=10, choices=[("a", "A")])
            changed = models.DateTimeField(auto_now=True)
            number = models.IntegerField(unique=True)
            made = models.DateTimeField(default=timezone.now)
            due = models.DateTimeField()
            flag = models.BooleanField(default=False)
            data = models.JSONField(default=dict)

            class Meta:
                app_label = "host"

        assert names(columns(Ticket).fixed) == ["token", "made"]
        assert names(columns(Ticket).telling) == ["number"]
        assert names(columns(Ticket)) == ["token", "made", "number"]


class TestFixed:
    taken = staticmethod(lambda **values: take(Chapter, {"created_at": NOW, "title": "One", **values}))

    def test_every_other_column_may_change(self) -> None:
        now = {"created_at": NOW, "title": "Two", "position": 5, "book_id": 9}
        assert matches(self.taken(), Chapter, now)

    @pytest.mark.parametrize(
        "by", [dt.timedelta(microseconds=1), dt.timedelta(seconds=-1), dt.timedelta(days=1)]
    )
    def test_another_creation_time_is_another_row(self, by: dt.timedelta) -> None:
        assert not matches(self.taken(), Chapter, {"created_at": NOW + by, "title": "One"})

    def test_the_same_moment_in_another_zone_is_the_same(self) -> None:
        there = NOW.astimezone(ZoneInfo("Asia/Tokyo"))
        assert matches(self.taken(), Chapter, {"created_at": there})

    def test_a_form_that_drops_the_fraction_is_an_edit(self) -> None:
        user = get_user_model()
        found = take(user, {"date_joined": NOW})
        assert matches(found, user, {"date_joined": NOW.replace(microsecond=0)})
        assert not matches(found, user, {"date_joined": NOW.replace(microsecond=1)})

    def test_a_column_that_no_form_shows_keeps_its_fraction(self) -> None:
        assert not matches(self.taken(), Chapter, {"created_at": NOW.replace(microsecond=0)})

    @override_settings(USE_TZ=True, TIME_ZONE="America/New_York")
    def test_a_naive_time_means_the_hosts_own_zone_as_it_does_to_the_database(self) -> None:
        user = get_user_model()
        found = take(user, {"date_joined": dt.datetime(2026, 1, 2, 12, 0)})
        assert matches(found, user, {"date_joined": dt.datetime(2026, 1, 2, 17, 0, tzinfo=dt.UTC)})
        assert not matches(found, user, {"date_joined": dt.datetime(2026, 1, 2, 12, 0, tzinfo=dt.UTC)})

    @override_settings(USE_TZ=False)
    def test_without_zones_a_naive_time_is_itself(self) -> None:
        user = get_user_model()
        naive = dt.datetime(2026, 1, 2, 12, 0)
        assert matches(take(user, {"date_joined": naive}), user, {"date_joined": naive})

    def test_a_value_that_the_database_computes_and_does_not_return_takes_no_part(self) -> None:
        found = take(Chapter, {"created_at": Now(), "title": "One"})
        assert found == {"half": {"title": found["half"]["title"]}}


class TestTelling:
    def test_half_of_the_texts_may_be_edited(self) -> None:
        found = take(Book, {"title": "Title", "blurb": "A long blurb", "author_id": uuid.uuid4()})
        assert matches(found, Book, {"title": "Edited", "blurb": "A long blurb"})
        assert matches(found, Book, {"title": "Title", "blurb": ""})
        assert not matches(found, Book, {"title": "Edited", "blurb": "too"})

    @isolate_apps("tests.host")
    def test_less_than_half_is_not_enough(self) -> None:
        class Contact(models.Model):
            first = models.CharField(max_length=10)
            last = models.CharField(max_length=10)
            town = models.CharField(max_length=10)

            class Meta:
                app_label = "host"

        found = take(Contact, {"first": "Ann", "last": "Other", "town": "Hull"})
        assert matches(found, Contact, {"first": "Ann", "last": "Other", "town": "York"})
        assert not matches(found, Contact, {"first": "Ann", "last": "Stranger", "town": "York"})

    def test_a_stranger_under_the_same_key_does_not_match(self) -> None:
        assert not matches(take(Voucher, {"note": "ours"}), Voucher, {"note": "a customer's"})

    def test_text_that_says_too_little_is_no_proof(self) -> None:
        assert set(take(Book, {"title": "ab", "blurb": "told"})["half"]) == {"blurb"}

    def test_a_unique_text_says_enough_however_short(self) -> None:
        assert set(take(Label, {"text": "a"})["half"]) == {"text"}

    def test_where_no_text_tells_pointers_do(self) -> None:
        author = uuid.uuid4()
        found = take(Book, {"title": "ab", "author_id": author, "price": 3})
        assert set(found["all"]) == {"author_id"}
        assert matches(found, Book, {"author_id": str(author), "price": 9})
        assert not matches(found, Book, {"author_id": uuid.uuid4(), "price": 3})

    def test_where_nothing_points_numbers_do(self) -> None:
        found = take(Book, {"title": "ab", "price": decimal.Decimal(3)})
        assert matches(found, Book, {"price": decimal.Decimal("3.00")})
        assert not matches(found, Book, {"price": decimal.Decimal("3.01")})

    def test_where_every_text_says_too_little_all_of_them_must_match(self) -> None:
        """A natural key with an empty note beside it: a customer's note is not ours."""
        found = take(Voucher, {"note": ""})
        assert matches(found, Voucher, {"note": ""})
        assert not matches(found, Voucher, {"note": "a customer's"})

    def test_a_short_text_is_no_proof_for_a_longer_one(self) -> None:
        found = take(Voucher, {"note": "ab"})
        assert matches(found, Voucher, {"note": "ab"})
        assert not matches(found, Voucher, {"note": "abc"})


class TestCanonical:
    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            ("12.345", decimal.Decimal("12.35")),
            (12, decimal.Decimal("12.00")),
            (decimal.Decimal("1E+1"), decimal.Decimal("10.00")),
        ],
    )
    def test_a_decimal_is_what_its_column_holds(self, given: Any, stored: decimal.Decimal) -> None:
        from django.db import connection

        column = Book._meta.get_field("price")
        written = column.get_db_prep_save(column.to_python(given), connection)
        found = take(Book, {"price": given})
        assert matches(found, Book, {"price": decimal.Decimal(str(written))})

    def test_a_date_given_as_text_is_a_date(self) -> None:
        found = take(Book, {"published": "2026-01-02", "price": 0})
        assert matches(found, Book, {"published": dt.date(2026, 1, 2), "price": decimal.Decimal("0.00")})

    def test_a_key_given_as_text_is_a_key(self) -> None:
        key = uuid.uuid4()
        found = take(Book, {"author_id": str(key)})
        assert matches(found, Book, {"author_id": key})

    @pytest.mark.parametrize("value", ["not a date", object(), [1], decimal.Decimal("Infinity")])
    def test_a_value_that_no_column_can_hold_takes_no_part(self, value: Any) -> None:
        found = take(Book, {"title": "Title", "price": value, "published": value})
        assert set(found["half"]) == {"title"}
        take(Book, {"price": value, "published": value})

    def test_no_value_is_kept_in_the_open(self) -> None:
        assert "secret" not in str(take(Voucher, {"note": "secret"}))

    def test_a_column_that_is_gone_does_not_match(self) -> None:
        assert not matches({"all": {"dropped": ["00"]}}, Voucher, {"note": "x"})

    def test_text_that_cannot_be_encoded_is_digested_all_the_same(self) -> None:
        found = take(Voucher, {"note": "\ud800 lone"})
        assert matches(found, Voucher, {"note": "\ud800 lone"})


# --- for all values --------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
moments = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))
prices = st.decimals(0, 99999, places=2)
books = st.fixed_dictionaries(
    {
        "title": texts,
        "blurb": texts,
        "price": prices,
        "author_id": st.uuids(),
        "owner_id": st.none() | st.integers(1, 10**9),
        "published": st.none() | st.dates(),
    }
)
chapters = st.fixed_dictionaries(
    {
        "title": texts,
        "position": st.integers(0, 30000),
        "book_id": st.integers(1, 10**9),
        "created_at": moments,
    }
)


class TestForAllValues:
    @given(books)
    def test_a_row_matches_its_own_fingerprint(self, row: dict[str, Any]) -> None:
        assert matches(take(Book, row), Book, row)

    @given(row=chapters, edited=chapters)
    def test_a_fixed_column_outlives_every_edit_of_the_others(self, row: Any, edited: Any) -> None:
        assert matches(take(Chapter, row), Chapter, {**edited, "created_at": row["created_at"]})

    @given(row=chapters, other=chapters)
    def test_a_fixed_column_refuses_every_other_row(self, row: Any, other: Any) -> None:
        same = row["created_at"] == other["created_at"]
        assert matches(take(Chapter, row), Chapter, other) == same

    @given(row=books, edited=books, column=st.sampled_from(["title", "blurb"]))
    def test_of_two_telling_texts_either_may_be_edited(self, row: Any, edited: Any, column: str) -> None:
        row = {**row, "title": f"title {row['title']}", "blurb": f"blurb {row['blurb']}"}
        now = {**edited, "title": row["title"], "blurb": row["blurb"], column: edited[column]}
        assert matches(take(Book, row), Book, now)

    @given(row=books, other=books)
    def test_a_row_that_shares_no_value_is_refused(self, row: Any, other: Any) -> None:
        shared = [name for name in row if row[name] == other[name]]
        if not shared:
            assert not matches(take(Book, row), Book, other)

    @given(name=texts, other=texts)
    def test_a_single_text_matches_itself_alone(self, name: str, other: str) -> None:
        assert matches(take(Person, {"name": name}), Person, {"name": other}) == (name == other)

    @given(row=books)
    def test_nothing_of_the_row_can_be_read_from_it(self, row: Any) -> None:
        for group in take(Book, row).values():
            for digests in group.values():
                assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests)


@pytest.mark.django_db
class TestAgainstTheDatabase:
    """What Python held when the row was written is what the database gives back."""

    @settings(deadline=None)  # the database's own pace
    @given(row=chapters)
    def test_times_and_texts(self, row: Any) -> None:
        from django.db import transaction

        with transaction.atomic():
            author = Author.objects.create(name=row["title"][:20])
            book = Book.objects.create(title=row["title"], author=author)
            chapter = Chapter.objects.create(book=book, position=row["position"], title=row["title"])
            for each in (author, book, chapter):
                model = type(each)
                held = {field.attname: getattr(each, field.attname) for field in model._meta.concrete_fields}
                stored = model._base_manager.filter(pk=each.pk).values().get()
                assert matches(take(model, held), model, stored)
            transaction.set_rollback(True)


def test_where_none_was_taken_no_row_is_told_by_it() -> None:
    assert not matches({}, Label, {"text": "any"})


class TestARowOfNulls:
    @isolate_apps("tests.host")
    def test_proves_nothing_where_its_key_may_be_given_again(self) -> None:
        class Switch(models.Model):
            key = models.CharField(max_length=50, primary_key=True)
            note = models.CharField(max_length=50, null=True)

            class Meta:
                app_label = "host"

        found = take(Switch, {"note": None})
        assert not matches(found, Switch, {"note": "a customer's"})
        assert not matches(found, Switch, {"note": None})
        assert not matches({"all": {}}, Switch, {"note": "a customer's"})  # as an earlier release took it
        assert matches(take(Switch, {"note": "ours"}), Switch, {"note": "ours"})

    @isolate_apps("tests.host")
    def test_is_told_from_a_row_that_has_values_where_its_key_is_counted_up(self) -> None:
        class Memo(models.Model):
            id = models.BigAutoField(primary_key=True)
            text = models.CharField(max_length=50, null=True)

            class Meta:
                app_label = "host"

        found = take(Memo, {"text": None})
        assert matches(found, Memo, {"text": None})
        assert not matches(found, Memo, {"text": "a customer's"})
