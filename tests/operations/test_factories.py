"""Any factory works as it is, and its values are the run's."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import factory
import factory.fuzzy
import faker
import pytest
from django.db.models.signals import post_save

from stagehand_testdata.exceptions import FactoryFailed, TestDataError
from stagehand_testdata.operations import factories
from tests.host import models
from tests.host.factories import AuthorFactory, BookFactory, LabelFactory, RestaurantFactory, UserFactory
from tests.making import create, owned, perform, registered, replay, written

fake = faker.Faker()


class VoucherFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Voucher

    code = factory.Sequence(lambda n: f"{n}")
    note = "a note"


class OfFaker(VoucherFactory):
    note = factory.Faker("sentence")


class OfAnotherLocale(VoucherFactory):
    note = factory.Faker("name", locale="nl_NL")


class OfTheHostsOwnFaker(VoucherFactory):
    note = factory.LazyFunction(fake.sentence)


class OfLazyAttribute(VoucherFactory):
    note = factory.LazyAttribute(lambda voucher: f"{voucher.code} {fake.name()}")


class OfLazyAttributeSequence(VoucherFactory):
    note = factory.LazyAttributeSequence(lambda voucher, n: f"{voucher.code} {n}")


class OfSelfAttribute(VoucherFactory):
    class Params:
        person = factory.Faker("name")

    note = factory.SelfAttribute("person")


class OfFuzzyText(VoucherFactory):
    note = factory.fuzzy.FuzzyText(length=20)


class OfFuzzyChoice(VoucherFactory):
    note = factory.fuzzy.FuzzyChoice([f"choice {n}" for n in range(1000)])


class OfFuzzyNumbers(VoucherFactory):
    class Params:
        whole = factory.fuzzy.FuzzyInteger(10**9)
        part = factory.fuzzy.FuzzyFloat(1)
        money = factory.fuzzy.FuzzyDecimal(100)

    note = factory.LazyAttribute(lambda voucher: f"{voucher.whole} {voucher.part} {voucher.money}")


class OfFuzzyAttribute(VoucherFactory):
    note = factory.fuzzy.FuzzyAttribute(fake.name)


class OfMaybe(VoucherFactory):
    class Params:
        long = factory.fuzzy.FuzzyChoice([True, False])

    note = factory.Maybe("long", factory.Faker("paragraph", nb_sentences=1), factory.Faker("word"))


class OfMaybeIterator(VoucherFactory):
    class Params:
        turns = True

    note = factory.Maybe("turns", factory.Iterator(["one", "two", "three", "four"]), "none")


class OfTransformer(VoucherFactory):
    note = factory.Transformer(factory.Faker("name"), transform=str.upper)


class OfDict(VoucherFactory):
    class Params:
        data = factory.Dict({"name": factory.Faker("name"), "n": factory.Sequence(lambda n: n)})

    note = factory.LazyAttribute(lambda voucher: json.dumps(voucher.data))


class OfList(VoucherFactory):
    class Params:
        data = factory.List([factory.Faker("word"), factory.Iterator("abcdef")])

    note = factory.LazyAttribute(lambda voucher: json.dumps(voucher.data))


class OfIterator(VoucherFactory):
    note = factory.Iterator([f"item {n}" for n in range(100)])


class OfGeneratorFunction(VoucherFactory):
    @factory.iterator
    def note():
        yield from (f"item {n}" for n in itertools.count())


class OfShortIterator(VoucherFactory):
    note = factory.Iterator([f"item {n}" for n in range(4)], cycle=False)


class OfInlineArguments(VoucherFactory):
    class Meta:
        inline_args = ("code", "note")

    note = factory.Faker("name")

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
        row = model_class(*args, **kwargs)
        row.save(force_insert=True)
        return row


class OfRename(VoucherFactory):
    class Meta:
        rename = {"text": "note"}
        exclude = ("note",)

    text = factory.Faker("name")


class OfAdjustedArguments(VoucherFactory):
    note = factory.Faker("name")

    @classmethod
    def _adjust_kwargs(cls, **kwargs: Any) -> dict[str, Any]:
        return {**kwargs, "note": f"{kwargs['note']} {fake.word()}"}


class OfOwnCreate(VoucherFactory):
    note = factory.Faker("name")

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
        row = model_class(*args, **kwargs)
        row.note += f" {fake.word()}"
        row.save()
        return row


class OfOwnGenerate(VoucherFactory):
    note = factory.Faker("name")

    @classmethod
    def _generate(cls, strategy: str, params: dict[str, Any]) -> Any:
        return super()._generate(strategy, params)


@factory.django.mute_signals(post_save)
class OfMutedSignals(VoucherFactory):
    note = factory.Faker("name")


class AbstractFactory(factory.django.DjangoModelFactory):
    class Meta:
        abstract = True

    note = factory.Faker("name")
    code = factory.Sequence(str)


class OfAnAbstractBase(AbstractFactory):
    class Meta:
        model = models.Voucher


class OfOverridesForItsSubFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Book

    title = factory.Faker("sentence")
    author = factory.SubFactory(AuthorFactory, name=factory.Faker("company"), country=None)


class OfRelatedList(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Author

    name = factory.Faker("name")
    books = factory.RelatedFactoryList(
        OfOverridesForItsSubFactory, "author", size=2, title=factory.Faker("company")
    )


class OfOtherFactories(factory.django.DjangoModelFactory):
    """Calls other factories in its hook, as the documentation of factory_boy shows it."""

    class Meta:
        model = models.Book
        skip_postgeneration_save = True

    title = factory.Faker("sentence")
    author = factory.SubFactory(AuthorFactory, country=None)

    @factory.post_generation
    def labels(self, create: bool, extracted: Any, **kwargs: Any) -> None:
        self.labels.add(LabelFactory(), *LabelFactory.create_batch(2))
        OfFaker()


ALL = [
    OfFaker,
    OfAnotherLocale,
    OfTheHostsOwnFaker,
    OfLazyAttribute,
    OfLazyAttributeSequence,
    OfSelfAttribute,
    OfFuzzyText,
    OfFuzzyChoice,
    OfFuzzyNumbers,
    OfFuzzyAttribute,
    OfMaybe,
    OfMaybeIterator,
    OfTransformer,
    OfDict,
    OfList,
    OfIterator,
    OfGeneratorFunction,
    OfInlineArguments,
    OfRename,
    OfAdjustedArguments,
    OfOwnCreate,
    OfOwnGenerate,
    OfMutedSignals,
    OfAnAbstractBase,
    OfOverridesForItsSubFactory,
    OfRelatedList,
    OfOtherFactories,
    AuthorFactory,
    BookFactory,
    RestaurantFactory,
    UserFactory,
]


@pytest.fixture(autouse=True)
def _host_uses_factories_too() -> Any:
    """The host's own tests or demo have drawn from everything global, differently each time."""
    state = factory.random.get_random_state()
    _disturb()
    yield
    factory.random.set_random_state(state)
    factory.random.randgen.state_set = False


def _disturb() -> None:
    # `reseed_random` also makes FuzzyDate warn from then on, which is the host's affair.
    factory.random.set_random_state(random.Random().getstate())
    factory.random.randgen.state_set = False
    for each in ALL:
        if each._meta.model is models.Voucher:
            each.build_batch(random.randrange(1, 4))
    LabelFactory.build_batch(random.randrange(1, 4))


@pytest.mark.django_db
@pytest.mark.parametrize("factory_class", ALL, ids=lambda each: each.__name__)
class TestAnyFactory:
    def test_gives_equal_values_for_equal_seeds(self, factory_class: Any) -> None:
        first = replay(factory_class)
        _disturb()
        assert replay(factory_class) == first

    def test_leaves_the_global_generators_as_they_were(self, factory_class: Any) -> None:
        before = factory.random.randgen.getstate(), faker.generator.random.getstate()
        create(factory_class)
        assert (factory.random.randgen.getstate(), faker.generator.random.getstate()) == before


@pytest.mark.django_db
@pytest.mark.parametrize("factory_class", [OfFaker, OfOwnCreate, OfOwnGenerate, OfMutedSignals, UserFactory])
def test_the_hosts_own_sequence_numbers_are_left_alone(factory_class: Any) -> None:
    def number() -> int:
        row = factory_class.build()
        return int(getattr(row, "code", None) or row.username.removeprefix("user"))

    before = number()
    create(factory_class)
    assert number() == before + 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "factory_class", [OfFaker, OfFuzzyText, OfMutedSignals, OfOtherFactories, BookFactory]
)
def test_another_seed_gives_other_values(factory_class: Any) -> None:
    assert replay(factory_class, seed=1) != replay(factory_class, seed=2)


@pytest.mark.django_db
def test_rows_of_one_run_differ_from_one_another() -> None:
    names = [values["note"] for _, values in replay(OfFaker, times=10)]
    assert len(set(names)) == len(names)


# --- fields do not disturb one another -------------------------------------------------------------------


class ManyFieldsFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Book

    title = factory.Faker("sentence")
    blurb = factory.LazyAttribute(lambda book: f"{book.title.lower()} {fake.word()}")
    price = factory.fuzzy.FuzzyDecimal(100, precision=2)
    author = factory.SubFactory(
        AuthorFactory,
        name=factory.Faker("company"),
        country__name=factory.Faker("country"),
        country__code=factory.fuzzy.FuzzyText(length=2),
    )


def _single(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for label, values in replay(ManyFieldsFactory, times=1, **fields):
        found.update({f"{label}.{name}": value for name, value in values.items()})
    return found


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("overridden", "follows"),
    [
        ({"title": "mine"}, {"host.book.title", "host.book.blurb"}),
        ({"price": 1}, {"host.book.price"}),
        ({"blurb": "mine"}, {"host.book.blurb"}),
        ({"author__name": "mine"}, {"host.author.name"}),
        ({"author__country__name": "mine"}, {"host.country.name"}),
    ],
    ids=lambda names: "-".join(sorted(names)),
)
def test_overriding_one_field_does_not_shift_the_others(overridden: Any, follows: set[str]) -> None:
    plain, other = _single(), _single(**overridden)
    assert {name for name in plain if plain[name] != other[name]} <= follows
    assert plain.keys() == other.keys()


def test_the_order_of_reading_fields_does_not_matter() -> None:
    """`blurb` reads `title`, which draws from its own generator all the same."""
    values = factories.Values(seed=1, start=0)

    class Unsaved(ManyFieldsFactory):
        author = None

        @classmethod
        def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
            return model_class(*args, **kwargs)

    whole = factories.create(Unsaved, values, {})
    without_blurb = factories.create(Unsaved, factories.Values(seed=1, start=0), {"blurb": ""})
    assert whole.title == without_blurb.title


@pytest.mark.django_db
def test_two_dicts_of_one_row_differ() -> None:
    class TwoDicts(VoucherFactory):
        class Params:
            left = factory.Dict({"name": factory.Faker("name")})
            right = factory.Dict({"name": factory.Faker("name")})

        note = factory.LazyAttribute(
            lambda voucher: json.dumps([voucher.left["name"], voucher.right["name"]])
        )

    left, right = json.loads(create(TwoDicts).note)
    assert left != right


# --- what a declaration means stays what it means --------------------------------------------------------


class TraitsFactory(VoucherFactory):
    class Params:
        loud = factory.Trait(note=factory.Faker("name"), code="LOUD")

    note = "quiet"


@pytest.mark.django_db
def test_a_trait_is_on_only_where_it_is_asked_for() -> None:
    assert create(TraitsFactory).note == "quiet"
    loud = create(TraitsFactory, loud=True)
    assert loud.code == "LOUD"
    assert loud.note != "quiet"


@pytest.mark.django_db
def test_a_transformer_transforms_what_the_caller_gives() -> None:
    assert create(OfTransformer, note="mine").note == "MINE"
    assert create(OfTransformer, note=factory.Transformer.Force("mine")).note == "mine"
    assert create(OfTransformer, note=factory.LazyFunction(lambda: "lazy")).note == "LAZY"


@pytest.mark.django_db
def test_a_password_is_hashed() -> None:
    assert create(UserFactory).check_password("secret")
    assert create(UserFactory, password="other").check_password("other")


@pytest.mark.django_db
def test_hooks_run_in_the_order_of_their_declaration() -> None:
    class Hooks(VoucherFactory):
        class Meta:
            skip_postgeneration_save = True

        zulu = factory.PostGeneration(lambda row, create, extracted: seen.append("zulu"))
        alpha = factory.PostGeneration(lambda row, create, extracted: seen.append("alpha"))

    seen: list[str] = []
    create(Hooks)
    assert seen == ["zulu", "alpha"]


@pytest.mark.django_db
def test_a_hook_gets_what_the_caller_gives() -> None:
    class Hook(VoucherFactory):
        class Meta:
            skip_postgeneration_save = True

        @factory.post_generation
        def more(self, create: bool, extracted: Any, **kwargs: Any) -> None:
            seen.append((create, extracted, kwargs))

    seen: list[Any] = []
    create(Hook)
    create(Hook, more=5, more__deep="x")
    assert seen == [(True, None, {}), (True, 5, {"deep": "x"})]


@pytest.mark.django_db
def test_a_method_call_after_generation_is_made() -> None:
    class User(UserFactory):
        class Meta:
            skip_postgeneration_save = True

        later = factory.PostGenerationMethodCall("set_password", "later")

    assert create(User).check_password("later")


@pytest.mark.django_db
def test_an_iterator_stands_where_the_rows_of_the_run_are_and_not_where_others_left_it() -> None:
    class Turns(VoucherFactory):
        note = factory.Iterator(["one", "two", "three"], getter=str.upper)

    assert [values["note"] for _, values in replay(Turns)] == ["ONE", "TWO", "THREE", "ONE", "TWO", "THREE"]
    Turns.build_batch(2)
    assert [values["note"] for _, values in replay(Turns)] == ["ONE", "TWO", "THREE", "ONE", "TWO", "THREE"]


@pytest.mark.django_db
def test_an_iterator_of_rows_reads_them() -> None:
    class ByCountry(AuthorFactory):
        country = factory.Iterator(models.Country.objects.order_by("code"))

    models.Country.objects.create(code="AA", name="a")
    models.Country.objects.create(code="BB", name="b")
    with registered(author=ByCountry):
        made = perform(lambda call: [call.create("author") for _ in range(3)])
    assert [author.country_id for author in made] == ["AA", "BB", "AA"]


@pytest.mark.django_db
def test_an_iterator_that_does_not_cycle_ends_as_it_does_anywhere() -> None:
    assert len(replay(OfShortIterator, times=2)) == 4
    with pytest.raises(FactoryFailed):
        replay(OfShortIterator, times=3)


@pytest.mark.django_db
def test_a_fuzzy_date_works() -> None:
    factory.random.randgen.state_set = False  # else it warns that it depends on the clock

    class Book(factory.django.DjangoModelFactory):
        class Meta:
            model = models.Book

        title = "dated"
        author = factory.SubFactory(AuthorFactory)
        published = factory.fuzzy.FuzzyDate(dt.date(2020, 1, 1))
        blurb = factory.fuzzy.FuzzyDateTime(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))

    assert create(Book).published >= dt.date(2020, 1, 1)


@pytest.mark.django_db
def test_a_sequence_counts_on_within_a_run_and_never_repeats() -> None:
    codes = [values["code"] for _, values in replay(OfFaker, times=20)]
    assert len(set(codes)) == 40
    numbers = list(map(int, codes))
    assert numbers == list(range(numbers[0], numbers[0] + 40))


@pytest.mark.django_db
def test_factories_that_share_a_counter_never_give_one_number_twice() -> None:
    """factory_boy counts for a factory and those derived from it together."""

    class Admin(UserFactory):
        first_name = "admin"

    with registered(user=UserFactory, admin=Admin):
        made = perform(lambda call: [call.create("user"), call.create("admin"), call.create("user")])
    assert len({user.username for user in made}) == 3


@pytest.mark.django_db
def test_numbers_start_again_small_where_the_column_is_small() -> None:
    """`position` is a small integer: the usual numbers do not fit on databases that mind."""
    from tests.host.factories import ChapterFactory

    assert create(ChapterFactory).position >= 0


@pytest.mark.django_db
def test_a_forced_sequence_number_is_taken() -> None:
    assert create(OfFaker, __sequence=12).code == "12"


# --- beside other threads --------------------------------------------------------------------------------


class UnsavedFactory(OfFaker):
    """Everything that draws, and no database."""

    class Params:
        text = factory.fuzzy.FuzzyText()
        turn = factory.Iterator(range(100))
        inner = factory.Dict({"name": factory.Faker("name")})

    note = factory.LazyAttribute(
        lambda voucher: f"{voucher.text} {voucher.turn} {voucher.inner} {fake.company()}"
    )

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
        return model_class(*args, **kwargs)


def test_sixteen_threads_with_equal_seeds_give_equal_bytes_while_others_reseed() -> None:
    stop = threading.Event()
    start = threading.Barrier(16)

    def reseed() -> None:
        while not stop.is_set():
            factory.random.reseed_random(random.random())
            fake.name()
            OfIterator.build()

    def work(_: int) -> bytes:
        start.wait()
        values = factories.Values(seed=42, start=0)
        rows = [factories.create(UnsavedFactory, values, {}) for _ in range(100)]
        return "\n".join(f"{row.code} {row.note}" for row in rows).encode()

    others = [threading.Thread(target=reseed) for _ in range(3)]
    for each in others:
        each.start()
    try:
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(work, range(16)))
    finally:
        stop.set()
        for each in others:
            each.join()
    assert len(set(found)) == 1
    assert len(set(found[0].splitlines())) == 100


def test_what_the_host_seeds_for_itself_stays_seeded_beside_a_creating_call() -> None:
    factory.random.set_random_state(random.Random(1).getstate())
    expected = [fake.name(), factory.fuzzy.FuzzyText().fuzz()]
    factory.random.set_random_state(random.Random(1).getstate())
    name = fake.name()
    factories.create(UnsavedFactory, factories.Values(seed=3, start=0), {})
    assert [name, factory.fuzzy.FuzzyText().fuzz()] == expected


def test_a_factory_outside_a_creating_call_is_as_it_was() -> None:
    factories.create(UnsavedFactory, factories.Values(seed=3, start=0), {})
    factory.random.set_random_state(random.Random(1).getstate())
    UnsavedFactory.reset_sequence(0, force=True)
    first = UnsavedFactory.build()
    second = UnsavedFactory.build()
    assert (first.code, second.code) == ("0", "1")
    assert first.note != second.note


# --- the rows on the way ---------------------------------------------------------------------------------


@pytest.mark.django_db
def test_every_row_on_the_way_is_in_the_ledger() -> None:
    create(BookFactory)
    assert owned() == [
        "host.author",
        "host.book",
        "host.book_labels",
        "host.book_labels",
        "host.chapter",
        "host.country",
        "host.label",
        "host.label",
    ]


@pytest.mark.django_db
def test_related_rows_are_in_the_ledger() -> None:
    create(OfRelatedList)
    assert owned() == ["host.author", "host.book", "host.book"]
    assert len(written()) == 3


@pytest.mark.django_db
def test_a_row_that_was_found_is_not_in_the_ledger() -> None:
    models.Country.objects.create(code="NL", name="Netherlands")
    create(BookFactory)
    assert "host.country" not in owned()
    assert "host.author" in owned()


@pytest.mark.django_db
def test_a_factory_that_builds_only_is_refused() -> None:
    with pytest.raises(TestDataError):
        create(UnsavedFactory)
    assert owned() == []
