"""Worlds by seed: real rows, a run's rows of the same models, and real rows that hold some of the run's.

Everything but the numbers that the database gives follows from the seed.
"""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import cache
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection, models
from django.db.models.signals import pre_delete

from project.shop.models import Category, Product, Tag
from stagehand_testdata.marketplace.models import Booking, Builder, Client, SessionType
from stagehand_testdata.models import Key, TestEntity, TestRun
from stagehand_testdata.operations import entities, runs
from tests.host import models as host

Model = type[models.Model]
#: A row's place: its model and its key as text.
Place = tuple[str, str]
Rows = dict[Place, tuple[Any, ...]]

_NOON = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)


class Maker:
    """Makes rows of one kind of world with the ORM; what it made so far may be pointed at by what comes."""

    def __init__(self, rng: random.Random, flavour: str) -> None:
        self.rng = rng
        self.flavour = flavour
        self.made: list[models.Model] = []
        self._number = 0

    def anew(self, shape: Callable[[Maker], None]) -> Callable[[Any], None]:
        """The shape as a call's work: an attempt that starts over makes the same rows as the one before."""
        began: list[Any] = []

        def work(call: Any) -> None:
            if not began:
                began.extend((self.rng.getstate(), len(self.made), self._number))
            state, made, self._number = began
            self.rng.setstate(state)
            del self.made[made:]
            shape(self)

        return work

    def word(self) -> str:
        self._number += 1
        return f"{self.flavour} {self._number} {self.rng.randrange(10**6)}"

    def slug(self) -> str:
        return self.word().replace(" ", "-")

    def row(self, model: Any, **fields: Any) -> Any:
        made = model(**fields)
        made.save(force_insert=True)
        self.made.append(made)
        return made

    def count(self, most: int = 3) -> int:
        return self.rng.randint(1, most)

    def one_of(self, model: Model) -> Any:
        """A row of that model made before, or None."""
        found = [row for row in self.made if type(row) is model]
        return self.rng.choice(found) if found else None


def library(make: Maker) -> None:
    """A chain with uuid and number keys, and many-to-many rows."""
    author = make.row(host.Author, id=uuid.UUID(int=make.rng.getrandbits(128), version=4), name=make.word())
    labels = [make.row(host.Label, text=make.word()) for _ in range(make.count(2))]
    for _ in range(make.count(2)):
        book = make.row(host.Book, title=make.word(), author=author)
        book.labels.add(*labels)
        for position in range(make.count()):
            make.row(host.Chapter, book=book, position=position, title=make.word())
        if make.rng.random() < 0.4:
            make.row(host.Review, book=book, text=make.word())
        if make.rng.random() < 0.4:
            make.row(host.Loan, book=book, by=make.word())


def tree(make: Maker) -> None:
    people = [make.row(host.Person, name=make.word())]
    for _ in range(make.count(4)):
        people.append(make.row(host.Person, name=make.word(), boss=make.rng.choice([*people, None])))


def circle(make: Maker) -> None:
    team = make.row(host.Team, name=make.word())
    players = [make.row(host.Player, name=make.word(), team=team) for _ in range(make.count(2))]
    team.captain = players[0]
    team.save()


def vouchers(make: Maker) -> None:
    """Text keys, and rows that point at anything."""
    for _ in range(make.count()):
        voucher = make.row(host.Voucher, code=make.slug(), note=make.word())
        if make.rng.random() < 0.5:
            note(make, voucher)


def note(make: Maker, subject: models.Model) -> None:
    # Not through the generic relation: a cache of content types would make the first world another one.
    kind = ContentType.objects.get_by_natural_key(subject._meta.app_label, subject._meta.model_name or "")
    make.row(host.Note, text=make.word(), content_type_id=kind.pk, object_id=str(subject.pk))


def restaurants(make: Maker) -> None:
    """Two tables a row."""
    for _ in range(make.count(2)):
        restaurant = host.Restaurant.objects.create(name=make.word(), serves=make.word())
        make.made.append(restaurant)


def minds_of_their_own(make: Maker) -> None:
    """An overridden delete(), and a model that a receiver listens to."""
    for _ in range(make.count(2)):
        make.row(host.Archived, name=make.word())
        make.row(host.Watched, name=make.word())


def shop(make: Maker) -> None:
    category = make.row(Category, name=make.slug())
    tags = [make.row(Tag, name=make.word()) for _ in range(make.count(2))]
    for _ in range(make.count(2)):
        product = make.row(Product, sku=make.slug(), title=make.word(), price=Decimal(5), category=category)
        product.tags.add(*tags)


def marketplace(make: Maker) -> None:
    user = _user(make)
    builder = make.row(Builder, user=user, display_name=make.word(), slug=make.slug())
    kind = make.row(SessionType, builder=builder, title=make.word(), price=Decimal(9))
    customer = _user(make)
    make.row(Client, user=customer, display_name=make.word())
    for _ in range(make.count(2)):
        _booking(make, builder, customer, kind)


def _user(make: Maker) -> Any:
    name = make.slug()
    return make.row(get_user_model(), username=name, email=f"{name}@example.com", password="!")


def _booking(make: Maker, builder: Any, customer: Any, kind: Any = None) -> None:
    make.row(
        Booking,
        builder=builder,
        client=customer,
        session_type=kind,
        title=make.word(),
        start_time=_NOON,
        end_time=_NOON + dt.timedelta(hours=1),
    )


SHAPES: Sequence[Callable[[Maker], None]] = (
    library,
    tree,
    circle,
    vouchers,
    restaurants,
    minds_of_their_own,
    shop,
    marketplace,
)
#: Types that the run's factories make; each brings others on the way.
_BY_FACTORY = ("book", "team", "note", "restaurant", "person", "watched", "product", "user")


class World:
    """What a seed stands for: `make_real` and `make_run` write it, `spoil` does what happens to runs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.test_id = f"stagehand_test_fault{seed}"
        rng = random.Random(seed)
        self._shapes = rng.sample(SHAPES, rng.choice((1, 1, 1, 2, 2, 3)))
        self._types = rng.sample(_BY_FACTORY, rng.choice((0, 1, 1)))
        self.batch_size = rng.choice((1, 2, 3, 5, 100))

    def __str__(self) -> str:
        shapes = ", ".join([shape.__name__ for shape in self._shapes] + self._types)
        return f"seed {self.seed} ({shapes}; batches of {self.batch_size})"

    def _maker(self, flavour: str) -> Maker:
        return Maker(random.Random(f"{self.seed} {flavour}"), f"{flavour} {self.seed}")

    def make_real(self) -> None:
        maker = self._maker("real")
        for shape in self._shapes:
            shape(maker)

    def calls(self) -> list[Callable[[], Any]]:
        """The calls that make the run's rows: one for each shape, and one for what factories make."""
        maker = self._maker("run")
        works: list[Callable[[entities.Creation], Any]] = [maker.anew(shape) for shape in self._shapes]
        if self._types:
            works.append(lambda call: [call.create(each) for each in self._types])
        return [lambda work=work: entities.perform(self.test_id, "", work) for work in works]

    def make_run(self) -> None:
        for call in self.calls():
            call()

    @property
    def run(self) -> TestRun:
        return runs.find(self.test_id, "", deleted=True)

    def spoil(self) -> frozenset[Place]:
        """Real rows hold some of the run's, real rows take some of its keys, some rows go; the keys taken."""
        make = self._maker("holder")
        rows = _rows_of(self.run)
        taken = set()
        make.rng.shuffle(rows)
        for row in rows[: make.rng.randint(0, 3)]:
            _hold(make, row)
        for row in rows:
            if isinstance(row, host.Voucher) and make.rng.random() < 0.5:
                _delete_raw(row)
                make.row(host.Voucher, code=row.pk, note="a real voucher under the same code")
                taken.add((row._meta.label_lower, row.pk))
            elif isinstance(row, host.Chapter | host.Label) and make.rng.random() < 0.2 and _is_free(row):
                _delete_raw(row)
        return frozenset(taken)


def _rows_of(run: TestRun) -> list[models.Model]:
    rows = []
    for entry in TestEntity.objects.standing().filter(run=run).order_by("ordinal"):
        model: Any = apps.get_model(entry.model)
        rows.append(model._base_manager.get(pk=entry.row_key(model)))
    return rows


def _hold(make: Maker, row: models.Model) -> None:
    """A real row that points at this one, where its model knows any."""
    match row:
        case host.Book():
            make.row(make.rng.choice([host.Review, host.Loan]), book=row)
        case host.Author():
            make.row(host.Book, title=make.word(), author=row)
        case host.Person():
            make.row(host.Person, name=make.word(), boss=row)
        case host.Team():
            make.row(host.Player, name=make.word(), team=row)
        case host.Label():
            author = make.row(host.Author, id=uuid.UUID(int=make.rng.getrandbits(128)), name=make.word())
            make.row(host.Book, title=make.word(), author=author).labels.add(row)
        case Category():
            make.row(Product, sku=make.slug(), title=make.word(), price=Decimal(5), category=row)
        case Builder():
            _booking(make, row, None)
        case _ if row._meta.auto_created or isinstance(row, host.Place):
            pass
        case _:
            note(make, row)


def _is_free(row: models.Model) -> bool:
    return not (isinstance(row, host.Label) and row.book_set.exists())


def _delete_raw(row: models.Model) -> None:
    pk: Any = row._meta.pk
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM {row._meta.db_table} WHERE {pk.column} = %s",
            [pk.get_db_prep_value(row.pk, connection)],
        )


@contextmanager
def a_receiver() -> Iterator[None]:
    """Somebody listens when a watched row goes, and writes a line."""

    def write_a_line(sender: Model, instance: Any, **kwargs: Any) -> None:
        host.Journal.objects.create(line=f"{instance.name} goes")

    pre_delete.connect(write_a_line, sender=host.Watched, weak=False)
    try:
        yield
    finally:
        pre_delete.disconnect(write_a_line, sender=host.Watched)


# --- what is in the database -----------------------------------------------------------------------------


@cache
def host_models() -> tuple[Model, ...]:
    """Every model with a table of its own that is not the ledger's."""
    return tuple(
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.app_label != TestRun._meta.app_label and model._meta.managed and not model._meta.proxy
    )


def all_rows() -> Rows:
    """Every column of every row of the host's tables."""
    if connection.vendor == "postgresql":
        return _all_rows_at_once()
    found: Rows = {}
    for model in host_models():
        columns = [field.attname for field in model._meta.local_concrete_fields]
        for pk, *values in models.QuerySet(model).order_by().values_list("pk", *columns):
            found[model._meta.label_lower, Key.of(model, pk).text] = tuple(values)
    return found


def _key_of(model: type[models.Model]) -> str:
    pk: Any = model._meta.pk
    if isinstance(pk, models.CompositePrimaryKey):
        return "json_build_array(" + ", ".join(f"{field.column}::text" for field in pk.fields) + ")::text"
    return f"{pk.column}::text"


def _all_rows_at_once() -> Rows:
    selects = [
        f"SELECT '{model._meta.label_lower}', {_key_of(model)}, t::text FROM {model._meta.db_table} t"
        for model in host_models()
    ]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(selects))
        return {(label, key): (row,) for label, key, row in cursor.fetchall()}


def standing() -> dict[Place, int]:
    """Where the rows of the standing entries are, with the entries' ids."""
    entries = TestEntity.objects.standing().order_by().values_list("model", "key_text", "pk")
    return {(model, key): pk for model, key, pk in entries}


def snapshot_of_real_rows() -> Rows:
    """Every column of every row of the host's tables that has no standing entry."""
    owned = standing()
    return {place: values for place, values in all_rows().items() if place not in owned}
