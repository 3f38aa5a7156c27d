"""Any sequence of what may happen to test rows, against a witness of its own (`tests/oracle.py`).

The machine knows from its own books what a purge has to remove and what has to stay: rows that real ones
hold, rows that nobody can tell any more, strangers under a key of ours. After every step nothing real was
touched, the ledger agrees with the tables, and a purge has removed what it should: no row more, no row less.
"""

from __future__ import annotations

import datetime as dt
import inspect
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from django.db import DataError, IntegrityError, connection, models, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.db.models.signals import post_delete
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from project.shop.models import Tag
from stagehand_testdata.exceptions import Conflict, PlanChanged, RunClosed, TooOld
from stagehand_testdata.marketplace.models import Booking, Builder, Client, SessionType
from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import entities, runs
from stagehand_testdata.operations.purge.plan import make_plan
from stagehand_testdata.operations.purge.purge import clean_up, due_runs, purge_run
from stagehand_testdata.registry import get_registry
from tests.conftest import Wire
from tests.host.models import (
    Archived,
    Author,
    Book,
    Chapter,
    Country,
    Journal,
    Label,
    Loan,
    Note,
    Person,
    Place,
    Player,
    Restaurant,
    Review,
    Team,
    Voucher,
    Watched,
)
from tests.oracle import REAL, Oracle, Row, Touched
from tests.oracle import Place as Spot

try:
    from stagehand_testdata.operations import guards
except ImportError:
    guards = None  # type: ignore[assignment]

TYPES = (
    "voucher",
    "book",
    "person",
    "chapter",
    "author",
    "restaurant",
    "team",
    "note",
    "archived",
    "watched",
    "user",
    "bulk",
    "product",
    "builder",
    "client",
    "sessionType",
    "booking",
)
OPERATIONS = ("builders", "clients", "booking-scenarios", "entities/voucher", "entities/book")
#: The columns by which a row can be told, where nothing about it is fixed at its creation.
TEXTS: dict[type[models.Model], tuple[str, ...]] = {
    Voucher: ("note",),
    Person: ("name",),
    Author: ("name",),
    Label: ("text",),
    Book: ("title",),
    Team: ("name",),
    Player: ("name",),
    Place: ("name",),
    Restaurant: ("serves",),
    Archived: ("name",),
    Watched: ("name",),
    Country: ("name",),
    Tag: ("name",),
}
#: What may be written into a row without making it another one.
EDITS: dict[type[models.Model], dict[str, Any]] = {
    Book: {"blurb": "edited", "price": 5},
    Chapter: {"title": "edited", "position": F("position")},
    Builder: {"display_name": "edited", "headline": "edited", "bio": "edited", "hourly_rate": 1},
    Client: {"display_name": "edited", "company_name": "edited"},
    SessionType: {"title": "edited", "price": 1, "display_order": 1},
    Booking: {"title": "edited", "status": "CANCELLED", "amount": 1},
    Note: {"text": "edited"},
    Person: {"boss": None},
}
LEAVES = (Voucher, Chapter, Note, Watched, Archived, Loan, Review, Person)
DAY = dt.timedelta(days=1)

pick = st.integers(0, 10_000)


def _hold_book(row: Row, n: int) -> Any:
    book = row.pk
    match n % 5:
        case 0:
            return Review.objects.create(book_id=book, text=f"real {n}")
        case 1:
            return Loan.objects.create(book_id=book, by=f"real {n}")
        case 2:
            return Chapter.objects.create(book_id=book, position=20_000 + n % 10_000, title="real")
        case 3:
            return Book.labels.through.objects.create(
                book_id=book, label=Label.objects.create(text=f"real {n}")
            )
    return _note(row, n)


def _note(row: Row, n: int) -> Any:
    return Note.objects.create(text=f"real {n}", subject=row.model._base_manager.get(pk=row.pk))


#: How a real row comes to hold a row of that model.
HOLDS: dict[type[models.Model], Callable[[Row, int], Any]] = {
    Book: _hold_book,
    Author: lambda row, n: Book.objects.create(title=f"real {n}", author_id=row.pk),
    Country: lambda row, n: Author.objects.create(name=f"real {n}", country_id=row.pk),
    Person: lambda row, n: Person.objects.create(name=f"real {n}", boss_id=row.pk),
    Team: lambda row, n: Player.objects.create(name=f"real {n}", team_id=row.pk),
    Player: lambda row, n: Team.objects.create(name=f"real {n}", captain_id=row.pk),
    Place: lambda row, n: Restaurant(place_ptr_id=row.pk, serves=f"real {n}").save_base(
        raw=True, force_insert=True
    ),
    Voucher: _note,
    Builder: lambda row, n: SessionType.objects.create(builder_id=row.pk, title=f"real {n}", price=1),
    SessionType: lambda row, n: Booking.objects.create(
        builder_id=SessionType.all_rows.get(pk=row.pk).builder_id,
        session_type_id=row.pk,
        title=f"real {n}",
        start_time=dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
        end_time=dt.datetime(2030, 1, 2, tzinfo=dt.UTC),
    ),
    Tag: lambda row, n: Tag._base_manager.get(pk=row.pk).products.through.objects.create(
        tag_id=row.pk, product_id=_product(n)
    ),
}

#: A real row under a key that a test row had; the other columns are another's.
TAKES: dict[type[models.Model], Callable[[Any, int], models.Model]] = {
    Voucher: lambda pk, n: Voucher(pk=pk, note=f"a real note {n}"),
    Person: lambda pk, n: Person(pk=pk, name=f"a real name {n}"),
    Author: lambda pk, n: Author(pk=pk, name=f"a real name {n}"),
    Label: lambda pk, n: Label(pk=pk, text=f"a real text {n}"),
    Watched: lambda pk, n: Watched(pk=pk, name=f"a real name {n}"),
    Archived: lambda pk, n: Archived(pk=pk, name=f"a real name {n}"),
    Note: lambda pk, n: Note(pk=pk, text=f"a real note {n}", subject=_real_country()),
    Chapter: lambda pk, n: Chapter(pk=pk, book=_real_book(n), position=n, title=f"a real title {n}"),
    Book: lambda pk, n: Book(pk=pk, title=f"a real title {n}", author=_real_author(n)),
}


def _real_country() -> Country:
    return Country.objects.get_or_create(code="XX", defaults={"name": "real"})[0]


def _real_author(n: int) -> Author:
    return Author.objects.create(name=f"a real author {n}")


def _real_book(n: int) -> Book:
    return Book.objects.create(title=f"a real book {n}", author=_real_author(n))


def _product(n: int) -> str:
    from project.shop.models import Category, Product

    category = Category.objects.get_or_create(name="real")[0]
    return str(Product.objects.create(sku=f"REAL-{n}", title="real", price=1, category=category).pk)


@dataclass
class Statistics:
    """What all examples together have done."""

    oracle: Oracle | None = None
    steps: int = 0
    examples: int = 0
    purges: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    made: int = 0
    removed: int = 0
    guards_on: bool = False
    failed_at: int = 0
    started: float = field(default_factory=time.monotonic)


class Life(RuleBasedStateMachine):
    """One database, several runs, real rows, and people who do as they like."""

    total: ClassVar[Statistics] = Statistics()

    def __init__(self) -> None:
        super().__init__()
        assert self.total.oracle is not None
        self.oracle = self.total.oracle
        self.oracle.clear()
        self.total.examples += 1
        self.number = 0
        self.test_ids: list[str] = []
        self.oracle.guarded = self.guards_on
        #: The runs' entries, by place, that may still name a row that somebody took away.
        self.lost: set[tuple[str, Spot]] = set()
        self._open()

    @initialize(
        kinds=st.lists(st.sampled_from(TYPES), min_size=2, max_size=6, unique=True),
        guarded=st.sampled_from([False, False, True]),
    )
    def begin(self, kinds: list[str], guarded: bool) -> None:
        """A life without rows has little to tell."""
        self._set_guards(guarded)
        self._make(self.test_ids[0], lambda call: [call.create(kind) for kind in kinds])

    # --- helpers ---

    @property
    def guards_on(self) -> bool:
        return self.total.guards_on

    def _step(self, name: str) -> None:
        self.total.steps += 1
        self.total.operations[name] += 1
        self.number += 1

    def _open(self) -> None:
        test_id = f"stagehand_test_p{len(self.test_ids)}"
        self.test_ids.append(test_id)

    def _test_id(self, n: int) -> str:
        """One of the youngest: older ones are closed most of the time."""
        young = self.test_ids[-4:]
        return young[n % len(young)]

    def _to_make_in(self, n: int) -> str:
        """Mostly one that takes rows; a new one where none does."""
        if n % 10 == 0:
            return self._test_id(n // 10)
        usable = TestRun.objects.filter(state="open").exclude(expires_at__lte=Now())
        young = sorted(set(self.test_ids[-4:]) & set(usable.values_list("test_id", flat=True)))
        if not young:
            self._open()
            return self.test_ids[-1]
        return young[n % len(young)]

    def _run(self, test_id: str) -> TestRun | None:
        return TestRun.objects.filter(test_id=test_id, owner="").first()

    def _ours(self, n: int, *models_: type[models.Model]) -> Row | None:
        rows = [row for row in self.oracle.ours() if not models_ or row.model in models_]
        return rows[n % len(rows)] if rows else None

    @contextmanager
    def _by(self, who: str) -> Iterator[None]:
        with self.oracle.acting(who):
            yield

    def _as_test(self, work: Callable[[], Any]) -> bool:
        """What somebody does with the tables, where the database lets him; whether it did."""
        try:
            with transaction.atomic():
                work()
        except (IntegrityError, DataError):
            return False
        finally:
            self.oracle.read()
        return True

    def _make(self, test_id: str, work: Callable[[entities.Creation], Any]) -> None:
        before = self._run(test_id)
        usable = self._usable(test_id)
        with self._by(f"make:{test_id}"):
            try:
                entities.perform(test_id, "", work)
            except (RunClosed, TooOld):
                assert before is not None
                assert not usable
                return
            except Conflict:
                return
        assert usable or before is None

    def _usable(self, test_id: str) -> bool:
        return (
            TestRun.objects.filter(test_id=test_id, owner="", state="open")
            .exclude(expires_at__lte=Now())
            .exists()
        )

    # --- making ---

    @rule(n=pick, kinds=st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
    def make(self, n: int, kinds: list[str]) -> None:
        self._step("make")
        self._make(self._to_make_in(n), lambda call: [call.create(kind) for kind in kinds])

    @rule(n=pick, kind=st.sampled_from(TYPES[:8]))
    def make_one(self, n: int, kind: str) -> None:
        self._step("make one")
        self._make(self._to_make_in(n), lambda call: call.create(kind))

    @rule(n=pick, depth=st.integers(1, 4))
    def make_tree(self, n: int, depth: int) -> None:
        self._step("make a tree")

        def grow(call: entities.Creation) -> None:
            boss = None
            for _ in range(depth):
                boss = call.create("person", boss=boss)

        self._make(self._to_make_in(n), grow)

    @rule(n=pick, path=st.sampled_from(OPERATIONS), skew=st.integers(-25 * 60, 25 * 60))
    def make_by_wire(self, n: int, path: str, skew: int) -> None:
        """A client whose clock is wrong by up to a day: its word can only make the answer stricter."""
        self._step("make, clock skewed")
        test_id = self._to_make_in(n)
        ends = TestRun.objects.filter(test_id=test_id).values_list("expires_at", flat=True).first()
        created = round(time.time() * 1000) + skew * 60_000
        with self._by(f"make:{test_id}"):
            answer = Wire(test_id).post(path, {"testCreationTime": created})
        assert answer.status_code in (201, 400, 409), answer.content
        if skew < -61:
            assert answer.json()["code"] in ("test_too_old", "run_closed"), answer.content
        if ends is not None:
            assert TestRun.objects.get(test_id=test_id).expires_at == ends

    # --- runs ---

    @precondition(lambda self: len(self.test_ids) < 3)
    @rule()
    def open(self) -> None:
        self._step("open")
        self._open()
        with transaction.atomic():
            runs.open_or_join(self.test_ids[-1], scope=TestRun.Scope.values[len(self.test_ids) % 3])

    @rule(n=pick, minutes=st.sampled_from([None, 1, 60, 1440, 100_000]))
    def join_or_renew(self, n: int, minutes: float | None) -> None:
        self._step("join or renew")
        test_id = self._test_id(n)
        usable, run = self._usable(test_id), self._run(test_id)
        try:
            with transaction.atomic():
                if run is None or n % 2:
                    runs.open_or_join(test_id, max_age_minutes=minutes)
                else:
                    runs.renew(run, max_age_minutes=minutes)
        except (RunClosed, TooOld):
            assert not usable

    @rule(n=pick)
    def expire(self, n: int) -> None:
        self._step("expire")
        TestRun.objects.filter(test_id=self._test_id(n)).update(
            opened_at=F("opened_at") - 3 * DAY, expires_at=Now() - DAY, latest_end=F("latest_end")
        )

    @rule(n=pick)
    def close(self, n: int) -> None:
        """As a purge that was killed once it had closed the run."""
        self._step("close")
        TestRun.objects.filter(test_id=self._test_id(n), state="open").update(
            state="closing", closing_at=Now()
        )

    # --- what people do with test rows ---

    @rule(n=pick)
    def edit(self, n: int) -> None:
        self._step("edit")
        row = self._ours(n, *EDITS)
        if row is None:
            return
        if n % 2:
            self._as_test(lambda: row.model._base_manager.filter(pk=row.pk).update(**EDITS[row.model]))
        else:
            instance = row.model._base_manager.get(pk=row.pk)
            for name, value in EDITS[row.model].items():
                setattr(instance, name, value if not hasattr(value, "resolve_expression") else n % 30_000)
            self._as_test(instance.save)

    @rule(n=pick, m=pick)
    def move_in_the_tree(self, n: int, m: int) -> None:
        self._step("move in the tree")
        row = self._ours(n, Person)
        bosses = [each for each in self.oracle.rows.values() if each.model is Person]
        if row is not None:
            boss = bosses[m % len(bosses)]
            self._as_test(lambda: Person.objects.filter(pk=row.pk).update(boss_id=boss.pk))

    @rule(n=pick)
    def overwrite_all_texts(self, n: int) -> None:
        self._step("overwrite all texts")
        row = self._ours(n, *TEXTS)
        if row is not None:
            texts = dict.fromkeys(TEXTS[row.model], f"overwritten {self.number}")
            if self._as_test(lambda: row.model._base_manager.filter(pk=row.pk).update(**texts)):
                row.edited = True

    @rule(n=pick)
    def delete_by_raw_sql(self, n: int) -> None:
        self._step("delete by raw SQL")
        row = self._ours(n)
        if row is not None:
            entry = row.by, row.place
            if self._as_test(lambda: self._raw_delete(row)) and not self.guards_on:
                self.lost.add(entry)

    @rule(n=pick)
    def delete_a_leaf_by_raw_sql(self, n: int) -> None:
        self._step("delete by raw SQL")
        row = self._ours(n, *LEAVES)
        if row is not None:
            entry = row.by, row.place
            if self._as_test(lambda: self._raw_delete(row)) and not self.guards_on:
                self.lost.add(entry)

    @rule(n=pick)
    def take_a_key(self, n: int) -> None:
        """A test row goes, a real one comes under its key."""
        self._step("take a key")
        row = self._ours(n, *TAKES)
        if row is None:
            return

        def replace() -> None:
            self._raw_delete(row)
            TAKES[row.model](row.pk, self.number).save(force_insert=True)

        entry = row.by, row.place
        if self._as_test(replace) and not self.guards_on:
            self.lost.add(entry)

    @rule(n=pick)
    def change_a_key(self, n: int) -> None:
        self._step("change a key")
        row = self._ours(n, Voucher, Person, Watched, Archived, Chapter, Note, Label)
        if row is None:
            return
        entry, text = (row.by, row.place), isinstance(row.model._meta.pk, models.CharField)
        new = f"moved{self.number}" if text else 1_000_000 + self.number
        if self._as_test(
            lambda: row.model._base_manager.filter(pk=row.pk).update(**{row.model._meta.pk.name: new})
        ):
            self.lost.add(entry)

    @precondition(lambda self: connection.vendor == "postgresql")
    @rule(n=pick)
    def truncate_a_leaf(self, n: int) -> None:
        """A table is emptied, its numbers start over, and real rows take them."""
        self._step("truncate, keys start over")
        model = (Watched, Archived, Chapter, Note, Loan, Review)[n % 6]
        entries_ = [(row.by, row.place) for row in self.oracle.ours() if row.model is model]

        def truncate() -> None:
            with connection.cursor() as cursor:
                cursor.execute(f'TRUNCATE "{model._meta.db_table}" RESTART IDENTITY')

        if self._as_test(truncate):
            self.lost.update(entries_)
            for _ in range(n % 4):
                self._as_test(lambda: self._real(model).save())

    def _real(self, model: type[models.Model]) -> models.Model:
        if model in TAKES:
            return TAKES[model](f"REAL{self.number}" if model is Voucher else None, self.number)
        book = _real_book(self.number)
        return Loan(book=book, by="real") if model is Loan else Review(book=book, text="real")

    def _raw_delete(self, row: Row) -> None:
        quote = connection.ops.quote_name
        column = row.model._meta.pk.column or ""
        with connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {quote(row.model._meta.db_table)} WHERE {quote(column)} = %s",
                [row.key if not row.key.isdecimal() or isinstance(row.pk, str) else int(row.key)],
            )

    # --- real rows ---

    @rule(n=pick)
    def hold(self, n: int) -> None:
        """A real row points at a test row."""
        self._step("hold by a real row")
        row = self._ours(n, *HOLDS)
        if row is not None:
            self._as_test(lambda: HOLDS[row.model](row, self.number * 5 + n % 5))

    @rule(n=pick)
    def make_real(self, n: int) -> None:
        self._step("make a real row")
        models_ = list(TAKES)
        self._as_test(lambda: self._real(models_[n % len(models_)]).save())

    @rule(n=pick)
    def let_go(self, n: int) -> None:
        """The real rows that hold test rows go, half of the time all of them."""
        self._step("let go")
        self._let_go(every=bool(n % 2))

    def _let_go(self, *, every: bool) -> None:
        holders = {row for row, place in self.oracle.pointers() if row.by == REAL and self._is_ours(place)}
        for row in [row for row in self.oracle.reals() if row in holders][: None if every else 1]:
            self._as_test(lambda row=row: self._raw_delete(row))  # type: ignore[misc]

    def _is_ours(self, place: tuple[str, str]) -> bool:
        row = self.oracle.rows.get(place)
        return row is not None and row.by != REAL

    # --- purging ---

    @rule(n=pick, twice=st.booleans())
    def purge(self, n: int, twice: bool) -> None:
        self._step("purge twice" if twice else "purge")
        test_id = self._test_id(n)
        self._purge(test_id)
        if twice:
            before = self.oracle.purged[test_id]
            self._purge(test_id)
            assert self.oracle.purged[test_id] == before

    @rule(n=pick, stale=st.booleans())
    def look_then_purge(self, n: int, stale: bool) -> None:
        """A plan changes nothing and tells what will be done; with another's digest nothing is done."""
        self._step("dry run, then purge")
        test_id = self._test_id(n)
        run = self._run(test_id)
        if run is None:
            return
        with self._by("look:nobody"):
            plan = make_plan(run)
        if not TAKES_EXPECT:
            self._purge(test_id)
        elif stale:
            with self._by("look:nobody"), suppress(PlanChanged):
                outcome = purge_run(run, expect="0" * 64)
                # A closed run has no plan to compare with.
                assert outcome is not None
                assert run.state == "closed"
        else:
            self._purge(test_id, expect=plan.digest, removes=plan.removable)

    @rule()
    def reap(self) -> None:
        self._step("reap")
        for run in due_runs(expired=True):
            self._purge(run.test_id)

    @rule(n=pick)
    def reap_one_in_use(self, n: int) -> None:
        """A run that was renewed meanwhile is left alone."""
        self._step("reap one in use")
        test_id = self._test_id(n)
        run = self._run(test_id)
        if run is None or not TAKES_ONLY_EXPIRED or not self._usable(test_id):
            return
        with self._by("look:nobody"):
            assert purge_run(run, only_expired=True) is None

    @rule(n=pick, by_wire=st.booleans(), listed=st.lists(pick, max_size=6))
    def clean_up_list(self, n: int, by_wire: bool, listed: list[int]) -> None:
        """A list of rows: the run's own, other runs', real ones, and some that are none at all."""
        self._step("clean up a list")
        test_id = self._test_id(n)
        rows = list(self.oracle.rows.values())
        chosen = [rows[each * 7919 % len(rows)] for each in listed]
        if own := self.oracle.ours(test_id):
            chosen.append(own[n % len(own)])
        names = [(get_registry().name_of(row.model), str(row.pk)) for row in chosen]
        names.append(("voucher", "nowhere"))
        with self._by(f"purge:{test_id}"):
            if by_wire:
                skewed = round(time.time() * 1000) + (n % 49 - 24) * 3_600_000
                data = [{"type": name, "id": key} for name, key in names]
                answer = Wire(test_id).post("cleanup", {"createdData": data, "testCreationTime": skewed})
                assert answer.status_code in (200, 409), answer.content
                not_owned = [(each["type"], each["id"]) for each in answer.json()["notOwned"]]
            else:
                not_owned = [(a["type"], a["id"]) for a in clean_up(test_id, "", names).receipt["notOwned"]]
        for row, name in zip(chosen, names, strict=False):
            if row.by != test_id:
                assert name in not_owned or self._was_mine(test_id, row), name
        self.total.purges += 1

    def _was_mine(self, test_id: str, row: Row) -> bool:
        """Whether the run ever had a row under this key."""
        return TestEntity.objects.for_keys(row.model, [row.pk]).filter(run__test_id=test_id).exists()

    def _purge(self, test_id: str, *, removes: Any = None, **kwargs: Any) -> None:
        run = self._run(test_id)
        if run is None:
            return
        must, may = self._expected_to_stay(test_id)
        before = self.oracle.purged[test_id]
        with self._by(f"purge:{test_id}"):
            outcome = purge_run(run, **kwargs)
        assert outcome is not None
        self.total.purges += 1
        stays = {row.place for row in self.oracle.ours(test_id)}
        assert must <= stays, f"removed though held: {sorted(must - stays)}"
        assert stays <= may, f"left: {sorted(stays - may)}; {outcome.receipt['quarantined']}"
        left = list(TestEntity.objects.standing().filter(run=run).values_list("model", "key_text"))
        assert outcome.success == (not left), outcome.receipt
        for label, key in left:
            assert self.oracle.place_of(label, key) in self.oracle.rows
        assert not TestEntity.objects.standing().filter(run=run).exclude(state="quarantined").exists()
        if not run_was_closed(outcome):
            removed = sum(outcome.receipt["removed"].values())
            assert removed == self.oracle.purged[test_id] - before
        if removes is not None:
            assert dict(removes) == outcome.receipt["removed"]

    def _purge_all(self) -> None:
        for test_id in TestRun.objects.unfinished().order_by("pk").values_list("test_id", flat=True):
            self._purge(test_id)

    def _expected_to_stay(self, test_id: str) -> tuple[set[Any], set[Any]]:
        """The rows of the run that must outlive a purge, and those that may; the product is not asked.

        They differ where the guards saw to it that an overwritten row is still known.
        """
        pointers = list(self.oracle.pointers())
        mine = self.oracle.ours(test_id)
        unknown = {row for row in mine if row.moved or (row.edited and not row.guarded)}
        doubtful = {row for row in mine if row.edited}
        return tuple(self._held(set(mine) - kept, pointers, mine) for kept in (unknown, unknown | doubtful))  # type: ignore[return-value]

    def _held(self, going: set[Row], pointers: list[Any], mine: list[Row]) -> set[Any]:
        changed = True
        while changed:
            held = {place for row, place in pointers if row not in going}
            staying = {row for row in going if row.place in held}
            going, changed = going - staying, bool(staying)
        return {row.place for row in mine if row not in going}

    # --- guards ---

    @precondition(lambda self: guards is not None and self.number % 20 == 19)
    @rule()
    def guard(self) -> None:
        self._step("guards on or off")
        self._set_guards(not self.guards_on)

    def _set_guards(self, on: bool) -> None:
        if guards is None or on == self.guards_on:
            return
        (guards.install if on else guards.remove)(connection.alias)
        self.total.guards_on = self.oracle.guarded = on
        for row in self.oracle.rows.values():
            row.guarded = False

    # --- what always holds ---

    @invariant()
    def books_and_tables_agree(self) -> None:
        self.oracle.read()
        self._check_books()
        standing = set()
        for run, label, key in TestEntity.objects.standing().values_list("run__test_id", "model", "key_text"):
            standing.add((run, self.oracle.place_of(label, key)))
        self.lost &= standing
        for run, place in standing - self.lost:
            row = self.oracle.rows.get(place)
            assert row is not None, f"an entry of {run} stands without its row: {place}"
            assert row.by == run, f"an entry of {run} stands for {row}"
        for row in self.oracle.ours():
            assert row.moved or (row.by, row.place) in standing, f"a row without an entry: {row}"

    def _check_books(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT r.test_id, r.state, count(e.id), coalesce(max(e.ordinal), 0),"
                " coalesce(sum(CASE WHEN e.state = 'removed' THEN 1 ELSE 0 END), 0),"
                " coalesce(sum(CASE WHEN e.tombstone = 0 THEN 1 ELSE 0 END), 0)"
                " FROM stagehand_testdata_testrun r LEFT JOIN stagehand_testdata_testentity e"
                " ON e.run_id = r.id GROUP BY r.test_id, r.state"
            )
            for test_id, state, created, last, removed, standing in cursor.fetchall():
                assert created == last == self.oracle.made[test_id], (test_id, created, last)
                assert removed == self.oracle.purged[test_id], (test_id, removed)
                assert state != "closed" or standing == 0, test_id

    def teardown(self) -> None:
        """Real holders go, every run is purged: nothing of ours stands but what nobody can know."""
        self.total.made += self.oracle.made.total()
        try:
            if sys.exc_info()[0] is None:
                self._finish()
        finally:
            if isinstance(sys.exc_info()[1], Exception):
                self.total.failed_at = self.total.failed_at or self.total.steps
        self.total.removed += self.oracle.purged.total()

    def _finish(self) -> None:
        self._purge_all()
        self._let_go(every=True)
        for _ in self.test_ids:  # runs may hold one another
            before = self.oracle.purged.total()
            self._purge_all()
            if self.oracle.purged.total() == before:
                break
        self.books_and_tables_agree()
        held = {place for row, place in self.oracle.pointers() if row.place != place}
        for row in self.oracle.ours():
            assert row.moved or row.edited or row.place in held, row


def run_was_closed(outcome: Any) -> bool:
    return bool(outcome.receipt["state"] == "closed") and not outcome.receipt["removed"]


TAKES_EXPECT = "expect" in inspect.signature(purge_run).parameters
TAKES_ONLY_EXPIRED = "only_expired" in inspect.signature(purge_run).parameters


def listen(instance: Any, **kwargs: Any) -> None:
    Journal.objects.create(line=f"{instance.name} went")


@contextmanager
def living() -> Iterator[Statistics]:
    """Within the block the machine can run: the witness looks on, somebody listens to deletions."""
    Life.total = Statistics()
    post_delete.connect(listen, sender=Watched)
    try:
        with Oracle.watching() as oracle:
            Life.total.oracle = oracle
            try:
                yield Life.total
            finally:
                oracle.clear()
                if Life.total.guards_on:
                    guards.remove(connection.alias)
    finally:
        post_delete.disconnect(listen, sender=Watched)


def live(examples: int, steps: int, number: int | None = None, *, shrink: bool = True) -> None:
    """So many lives of so many steps; raises what the first that goes wrong raises, made small."""
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        print_blob=False,
    )
    machine: Any = type("Life", (Life,), {})
    if number is not None:
        machine = seed(number)(machine)
    run_state_machine_as_test(machine, settings=options)


@pytest.mark.skipif(connection.vendor == "mysql", reason="the witness speaks PostgreSQL's SQL and SQLite's")
def test_no_real_row_is_touched_whatever_happens(transactional_db: None) -> None:
    with living() as total:
        live(examples=6, steps=40)
    assert total.purges
    assert total.oracle is not None
    assert total.oracle.real


@pytest.mark.skipif(connection.vendor == "mysql", reason="the witness speaks PostgreSQL's SQL and SQLite's")
def test_the_witness_sees_a_purge_that_touches_a_real_row(transactional_db: None) -> None:
    with Oracle.watching() as oracle:
        Voucher.objects.create(code="real", note="real")
        with pytest.raises(Touched, match="purge:run deleted host_voucher real"), oracle.acting("purge:run"):
            Voucher.objects.filter(code="real").delete()
        oracle.clear()
