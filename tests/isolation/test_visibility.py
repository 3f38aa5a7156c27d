"""Who sees a test row: its own run and nobody else, by whatever way a queryset is asked."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django import forms
from django.contrib.admin import ModelAdmin, site
from django.core.exceptions import FieldDoesNotExist
from django.db import IntegrityError, NotSupportedError, connection, models, transaction
from django.db.models import Count, Exists, OuterRef, Prefetch, QuerySet
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.views.generic import ListView

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.exceptions import ConfigurationError
from stagehand_testdata.isolation.capture import recording_inserts
from stagehand_testdata.isolation.visibility import TestDataManager, hide_test_data, unhidable
from stagehand_testdata.models import MARK, TestEntity
from stagehand_testdata.operations import runs
from stagehand_testdata.operations.purge.purge import purge_run
from tests.conftest import Wire
from tests.host import factories
from tests.host.models import (
    Author,
    Billboard,
    Flyer,
    Label,
    Place,
    Poster,
    PosterQuerySet,
    Restaurant,
    Sheet,
    Stall,
    Ticket,
    Voucher,
)
from tests.making import create, perform, registered

pytestmark = pytest.mark.django_db

RUNS = {"a": "stagehand_test_visibility_a", "b": "stagehand_test_visibility_b"}
#: Who is asking, and the rows that they may see.
SEEN = {"nobody": {"real"}, "a": {"real", "a"}, "b": {"real", "b"}}
TITLES = {"real", "a", "b"}
FACTORIES: dict[type[Sheet], Any] = {Flyer: factories.FlyerFactory, Poster: factories.PosterFactory}


def current(who: str) -> CurrentRun | None:
    if who == "nobody":
        return None
    run = runs.find(RUNS[who], "")
    return CurrentRun(run.pk, run.test_id)


@contextmanager
def asking(who: str) -> Iterator[None]:
    with use_run(current(who)):
        yield


def make_in(who: str, work: Callable[[], Any]) -> Any:
    """What `work` makes, in the name of that run."""
    return perform(lambda call: work(), RUNS[who])


def everything(model: type[models.Model]) -> QuerySet[Any]:
    return QuerySet(model)


def titles(rows: Any) -> set[str]:
    return {row.title for row in rows}


@pytest.fixture(params=FACTORIES, ids=["marked", "by the ledger"])
def model(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def rows(model: Any) -> dict[str, Any]:
    """One real row and one of each of two runs, of a real author and with a real label."""
    author, label = Author.objects.create(name="real"), Label.objects.create(text="real")
    made = {
        "real": model.objects.create(title="real", author=author, printed=date(2030, 1, 1)),
        **{
            who: make_in(
                who,
                lambda title=who, day=day: FACTORIES[model](
                    title=title, author=author, printed=date(2030, 1, 1) + timedelta(day)
                ),
            )
            for day, who in enumerate(RUNS, 1)
        },
    }
    through = model.labels.through
    name = model._meta.model_name
    through.objects.bulk_create(through(**{name: row, "label": label}) for row in made.values())
    return made


# --- every way to ask ------------------------------------------------------------------------------------


def related(model: Any, holder: Any) -> Any:
    """The manager of the holder's rows of that model."""
    return getattr(holder, f"{model._meta.model_name}s")


def answers(question: Callable[[str], Any], *none: type[Exception]) -> set[str]:
    """The titles for which the question is answered with something."""
    found = set()
    for title in TITLES:
        try:
            if question(title):
                found.add(title)
        except none:
            pass
    return found


def days(dates: Any) -> set[str]:
    return {["real", "a", "b"][day.day - 1] for day in dates}


def fetched_asynchronously(model: Any) -> set[str]:
    async def fetch() -> set[str]:
        return {row.title async for row in model.objects.all() if await model.objects.acontains(row)}

    return async_to_sync(fetch)()


def updated(model: Any) -> set[str]:
    model.objects.update(printed=date(2040, 1, 1))
    return titles(everything(model).filter(printed__year=2040))


def deleted(model: Any) -> set[str]:
    model.objects.all().delete()
    return TITLES - titles(everything(model))


def updated_in_bulk(model: Any) -> set[str]:
    found = list(everything(model))
    for row in found:
        row.printed = date(2040, 1, 1)
    model.objects.bulk_update(found, ["printed"])
    return titles(everything(model).filter(printed__year=2040))


def cleared(model: Any) -> set[str]:
    related(model, Label.objects.get()).clear()
    return TITLES - titles(everything(model).filter(labels__isnull=False))


def listed(model: Any) -> set[str]:
    view = type("View", (ListView,), {"model": model})()
    return titles(view.get_queryset())


def choices(model: Any) -> set[str]:
    return titles(forms.ModelChoiceField(queryset=model.objects.all()).queryset)


def in_admin(model: Any) -> set[str]:
    return titles(ModelAdmin(model, site).get_queryset(RequestFactory().get("/")))


WAYS: dict[str, Callable[[Any], set[str] | int]] = {
    "all": lambda model: titles(model.objects.all()),
    "filter": lambda model: titles(model.objects.filter(title__in=TITLES)),
    "exclude": lambda model: titles(model.objects.exclude(title="another")),
    "get": lambda model: answers(lambda title: model.objects.get(title=title), model.DoesNotExist),
    "exists": lambda model: answers(lambda title: model.objects.filter(title=title).exists()),
    "contains": lambda model: answers(
        lambda title: model.objects.contains(everything(model).get(title=title))
    ),
    "in": lambda model: answers(lambda title: everything(model).get(title=title) in model.objects.all()),
    "count": lambda model: model.objects.count(),
    "len": lambda model: len(model.objects.all()),
    "aggregate": lambda model: model.objects.aggregate(n=Count("pk"))["n"],
    "aggregate over annotations": lambda model: model.objects.annotate(n=Count("labels")).aggregate(
        most=Count("n")
    )["most"],
    "group": lambda model: model.objects.values("author").annotate(n=Count("pk")).get()["n"],
    "in_bulk": lambda model: titles(model.objects.in_bulk().values()),
    "in_bulk of keys": lambda model: titles(
        model.objects.in_bulk([row.pk for row in everything(model)]).values()
    ),
    "iterator": lambda model: titles(model.objects.iterator()),
    "values": lambda model: {row["title"] for row in model.objects.values("title")},
    "values_list": lambda model: set(model.objects.values_list("title", flat=True)),
    "distinct": lambda model: set(model.objects.values_list("title", flat=True).distinct()),
    "only": lambda model: titles(model.objects.only("title")),
    "slice": lambda model: titles(model.objects.order_by("title")[:3]),
    "first": lambda model: answers(lambda title: model.objects.filter(title=title).first()),
    "last": lambda model: answers(lambda title: model.objects.filter(title=title).last()),
    "latest": lambda model: answers(
        lambda title: model.objects.filter(title=title).latest("printed"), model.DoesNotExist
    ),
    "earliest": lambda model: answers(
        lambda title: model.objects.filter(title=title).earliest("printed"), model.DoesNotExist
    ),
    "dates": lambda model: days(model.objects.dates("printed", "day")),
    "or": lambda model: titles(model.objects.filter(title="a") | model.objects.all()),
    "and": lambda model: titles(model.objects.filter(title__in=TITLES) & model.objects.all()),
    "union": lambda model: titles(
        model.objects.filter(title="real").union(model.objects.exclude(title="real"))
    ),
    "intersection": lambda model: titles(model.objects.all().intersection(everything(model))),
    "difference": lambda model: TITLES - titles(everything(model).difference(model.objects.all())),
    "subquery": lambda model: titles(everything(model).filter(pk__in=model.objects.all())),
    "subquery that is excluded": lambda model: (
        TITLES - titles(everything(model).exclude(pk__in=model.objects.values("pk")))
    ),
    "exists in a subquery": lambda model: titles(
        everything(model).filter(Exists(model.objects.filter(pk=OuterRef("pk"))))
    ),
    "subquery of a subquery": lambda model: (
        Author.objects.filter(
            pk__in=model.objects.filter(author__in=Author.objects.filter(name="real")).values("author")
        )
        .annotate(n=models.Subquery(model.objects.values("author").annotate(n=Count("pk")).values("n")))
        .get()
        .n
    ),
    "select_related": lambda model: titles(model.objects.select_related("author")),
    "foreign key backwards": lambda model: titles(related(model, Author.objects.get(name="real")).all()),
    "foreign key backwards, counted": lambda model: related(model, Author.objects.get(name="real")).count(),
    "many to many backwards": lambda model: titles(related(model, Label.objects.get()).all()),
    "prefetch_related": lambda model: titles(
        related(model, Author.objects.prefetch_related(f"{model._meta.model_name}s").get(name="real")).all()
    ),
    "prefetch_related of many to many": lambda model: titles(
        related(model, Label.objects.prefetch_related(f"{model._meta.model_name}s").get()).all()
    ),
    "prefetch of a queryset": lambda model: titles(
        Label.objects.prefetch_related(
            Prefetch(f"{model._meta.model_name}s", model.objects.order_by("title"), to_attr="found")
        )
        .get()
        .found
    ),
    "default manager": lambda model: titles(model._default_manager.all()),
    "using": lambda model: titles(model.objects.using(connection.alias)),
    "hide_test_data": lambda model: titles(hide_test_data(everything(model))),
    "pickled query": lambda model: titles(_unpickled(model)),
    "generic view": listed,
    "form field": choices,
    "admin": in_admin,
    "asynchronously": fetched_asynchronously,
    "update": updated,
    "bulk_update": updated_in_bulk,
    "delete": deleted,
    "clear of many to many": cleared,
}


def _unpickled(model: Any) -> Any:
    found = model.objects.all()
    found.query = pickle.loads(pickle.dumps(found.query))
    return found


@pytest.mark.parametrize("who", SEEN)
@pytest.mark.parametrize("way", WAYS)
def test_shows_real_rows_and_those_of_the_run_that_asks(
    model: Any, rows: dict[str, Any], way: str, who: str
) -> None:
    with asking(who):
        found = WAYS[way](model)
    assert found == (len(SEEN[who]) if isinstance(found, int) else SEEN[who])


@pytest.mark.parametrize("who", SEEN)
def test_get_or_create_finds_what_is_seen_and_cannot_make_what_is_hidden(
    model: Any, rows: dict[str, Any], who: str
) -> None:
    author = Author.objects.get(name="real")
    for title in TITLES:
        with asking(who):
            if title in SEEN[who]:
                assert model.objects.get_or_create(title=title, author=author) == (rows[title], False)
            else:
                with pytest.raises(IntegrityError), transaction.atomic():
                    model.objects.get_or_create(title=title, author=author)


def test_a_query_can_be_explained(model: Any) -> None:
    assert model.objects.explain()


def test_nobody_is_asked_beforehand(model: Any, rows: dict[str, Any]) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert titles(model.objects.all()) == {"real"}
    assert len(queries) == 1


# --- when it is decided ----------------------------------------------------------------------------------


@pytest.mark.parametrize("built", SEEN)
@pytest.mark.parametrize("who", SEEN)
def test_who_asks_is_decided_when_the_query_is_executed(
    model: Any, rows: dict[str, Any], built: str, who: str
) -> None:
    name = f"{model._meta.model_name}s"
    with asking(built):
        queryset = model.objects.filter(title__in=TITLES)
        inner = everything(model).filter(pk__in=queryset)
        prefetch = Label.objects.prefetch_related(Prefetch(name, queryset), f"{name}__author__{name}")
        field = forms.ModelMultipleChoiceField(queryset=queryset)
        view = type("View", (ListView,), {"queryset": queryset})()
    with asking(who):
        assert titles(queryset.all()) == SEEN[who]
        assert titles(inner.all()) == SEEN[who]
        assert titles(related(model, prefetch.all().get()).all()) == SEEN[who]
        assert titles(field.queryset) == SEEN[who]
        assert titles(view.get_queryset()) == SEEN[who]


def test_one_queryset_answers_each_of_them(model: Any, rows: dict[str, Any]) -> None:
    queryset = model.objects.all()
    for who in [*SEEN, *reversed(SEEN)]:
        with asking(who):
            assert titles(queryset.all()) == SEEN[who]
            assert queryset.count() == len(SEEN[who])


def test_what_cannot_be_filtered_any_more_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match="slice"):
        hide_test_data(everything(model)[:1])
    with pytest.raises(NotSupportedError, match="union"):
        hide_test_data(everything(model).union(everything(model)))


def test_what_was_fetched_stays_with_whoever_holds_it(model: Any, rows: dict[str, Any]) -> None:
    with asking("a"):
        label = Label.objects.prefetch_related(f"{model._meta.model_name}s").get()
    assert titles(related(model, label).all()) == {"real", "a"}
    assert titles(related(model, Label.objects.get()).all()) == {"real"}


# --- what passes by it -----------------------------------------------------------------------------------


def test_what_does_not_ask_the_manager_sees_every_row(model: Any, rows: dict[str, Any]) -> None:
    table = model._meta.db_table
    assert len(list(model.objects.raw(f"SELECT * FROM {table}"))) == 3
    assert titles(model._base_manager.all()) == TITLES
    real = Author.objects.get(name="real")
    assert Author.objects.annotate(n=Count(f"{model._meta.model_name}s")).get(pk=real.pk).n == 3
    assert Author.objects.filter(**{f"{model._meta.model_name}s__title": "a"}).exists()


def test_a_join_counts_what_is_seen_where_it_is_told_so(model: Any, rows: dict[str, Any]) -> None:
    name = f"{model._meta.model_name}s"
    counted = Author.objects.filter(name="real").annotate(
        n=Count(name, filter=models.Q(**{f"{name}__in": model.objects.all()}))
    )
    assert counted.get().n == 1
    with asking("a"):
        assert counted.all().get().n == 2


def test_a_row_that_points_at_a_hidden_one_shows_it(rows: dict[str, Any], model: Any) -> None:
    through = model.labels.through
    link = through.objects.get(**{f"{model._meta.model_name}__title": "a"})
    assert getattr(link, model._meta.model_name).title == "a"
    assert through.objects.select_related(model._meta.model_name).filter(pk=link.pk).exists()


def test_a_marked_table_has_a_manager_for_every_row() -> None:
    author = Author.objects.create(name="real")
    make_in("a", lambda: factories.FlyerFactory(title="a", author=author))
    assert not Flyer.objects.exists()
    assert titles(Flyer.all_rows.all()) == {"a"}
    assert titles(author.flyers(manager="all_rows").all()) == {"a"}


def test_a_hidden_row_can_be_saved_read_again_and_deleted_by_whoever_holds_it(
    model: Any, rows: dict[str, Any]
) -> None:
    row = rows["a"]
    row.title = "changed"
    row.save()
    row.refresh_from_db()
    assert row.title == "changed"
    row.delete()
    assert titles(everything(model)) == {"real", "b"}


def test_a_real_row_that_goes_takes_hidden_ones_along(model: Any, rows: dict[str, Any]) -> None:
    Author.objects.get(name="real").delete()
    assert not everything(model).exists()


# --- the ledger's keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory_class", "model"),
    [
        (factories.AuthorFactory, Author),
        (factories.VoucherFactory, Voucher),
        (factories.TicketFactory, Ticket),
        (factories.RestaurantFactory, Restaurant),
        (factories.RestaurantFactory, Place),
        (factories.StallFactory, Stall),
    ],
    ids=["uuid", "text", "text, by a manager", "multi-table child", "multi-table parent", "composite"],
)
def test_the_ledger_hides_rows_of_whatever_key(factory_class: Any, model: Any) -> None:
    for who in RUNS:
        make_in(who, factory_class)
    factory_class()
    hidden = hide_test_data(everything(model))
    assert hidden.count() == 1
    assert hidden.filter(pk__in=[row.pk for row in hidden]).count() == 1
    with asking("a"):
        assert hidden.all().count() == 2
    assert everything(model).count() == 3


def test_a_text_key_is_compared_as_it_is() -> None:
    sql = str(hide_test_data(everything(Voucher)).query).upper()
    assert "CAST" not in sql
    assert "::" not in sql


@isolate_apps("tests.host")
@pytest.mark.parametrize("field", [models.DecimalField, models.DateTimeField, models.GenericIPAddressField])
def test_a_key_that_the_ledger_cannot_compare_is_refused_rather_than_shown(field: Any) -> None:
    class Odd(models.Model):
        key = field(primary_key=True)
        objects = TestDataManager()

        class Meta:
            app_label = "host"

    assert "TestDataModel" in str(unhidable(Odd))
    with pytest.raises(ConfigurationError, match=r"host\.Odd"):
        Odd.objects.all()


@isolate_apps("tests.host")
def test_a_composite_key_of_texts_is_refused_rather_than_shown() -> None:
    class Pair(models.Model):
        pk = models.CompositePrimaryKey("left", "right")
        left = models.CharField(max_length=5)
        right = models.IntegerField()

        class Meta:
            app_label = "host"

    assert unhidable(Pair) is not None
    assert unhidable(Stall) is None


def test_a_quarantined_row_stays_hidden(rows: dict[str, Any], model: Any) -> None:
    TestEntity.objects.for_keys(model, [rows["a"].pk]).update(state=TestEntity.State.QUARANTINED)
    assert titles(model.objects.all()) == {"real"}


def test_a_real_row_with_the_key_of_another_models_test_row_is_seen() -> None:
    other = create(factories.WatchedFactory)
    author = Author.objects.create(name="real")
    poster = Poster.objects.create(pk=other.pk, title="real", author=author)
    assert list(Poster.objects.all()) == [poster]


def test_a_real_row_under_the_key_of_a_closed_entry_is_seen() -> None:
    make_in("a", lambda: factories.TicketFactory(code="again"))
    Ticket.objects.all().delete()
    QuerySet(Ticket).delete()
    TestEntity.objects.close(TestEntity.State.GONE)
    Ticket.objects.create(code="again", name="real")
    assert Ticket.objects.get().name == "real"


# --- managers of the host's own --------------------------------------------------------------------------


def test_a_queryset_of_the_hosts_own_can_be_made_a_hiding_manager() -> None:
    author = Author.objects.create(name="real")
    make_in("a", lambda: factories.PosterFactory(title="a", author=author))
    assert isinstance(Poster.objects.all(), PosterQuerySet)
    assert not Poster.objects.titled("a").exists()
    assert not author.posters.titled("a").exists()
    with asking("a"):
        assert author.posters.titled("a").exists()


def test_a_manager_of_the_hosts_own_keeps_what_it_does() -> None:
    make_in("a", lambda: factories.TicketFactory(name="ada"))
    Ticket.objects.create(code="used", name="ada", used=True)
    assert not Ticket.objects.named("ada").exists()
    with asking("a"):
        assert [ticket.used for ticket in Ticket.objects.named("ada")] == [False]


# --- the mark --------------------------------------------------------------------------------------------


def run_pk(who: str = "a") -> int:
    return runs.find(RUNS[who], "").pk


def marks() -> dict[str, int | None]:
    return dict(Flyer.all_rows.values_list("title", MARK))


def test_a_row_made_in_a_run_carries_its_mark() -> None:
    flyer = make_in("a", lambda: factories.FlyerFactory(title="a"))
    assert flyer.test_run_id == run_pk()
    assert marks() == {"a": run_pk()}


def test_rows_made_in_bulk_and_on_the_way_carry_it() -> None:
    def work() -> None:
        author = factories.AuthorFactory()
        Flyer.objects.bulk_create([Flyer(title=title, author=author) for title in "xy"])
        author.flyers.create(title="z")
        Flyer(title="saved", author=author).save(force_insert=True)

    make_in("a", work)
    assert set(marks()) == {"x", "y", "z", "saved"}
    assert set(marks().values()) == {run_pk()}


def test_the_parents_table_carries_the_mark_of_a_multi_table_child() -> None:
    make_in("a", lambda: factories.BillboardFactory(title="a"))
    assert marks() == {"a": run_pk()}
    assert not Billboard.objects.exists()
    Billboard.objects.update(height=5)
    with asking("a"):
        assert Billboard.objects.get().height == 1
        Billboard.objects.update(height=5)
        assert Billboard.objects.get().height == 5
        Billboard.objects.all().delete()
    assert not Billboard.all_rows.exists()


def test_without_a_run_no_row_carries_it() -> None:
    author = Author.objects.create(name="real")
    Flyer.objects.create(title="one", author=author)
    Flyer.objects.bulk_create([Flyer(title="two", author=author)])
    with recording_inserts():
        Flyer.objects.create(title="three", author=author)
    assert set(marks().values()) == {None}


def test_a_row_that_no_ledger_knows_of_does_not_carry_it() -> None:
    author = Author.objects.create(name="real")
    runs.open_or_join(RUNS["a"])
    with asking("a"):
        Flyer.objects.create(title="a", author=author)
    assert marks() == {"a": None}


def test_code_that_says_whose_row_it_is_makes_its_own_runs_all_the_same() -> None:
    make_in("a", lambda: factories.FlyerFactory(title="a", test_run_id=4711))
    assert marks() == {"a": run_pk()}


def test_a_change_leaves_the_mark_as_it_is() -> None:
    flyer = make_in("a", lambda: factories.FlyerFactory(title="a"))
    with asking("a"):
        flyer.save()
        Flyer.objects.update(printed=date(2031, 1, 1))
    assert marks() == {"a": run_pk()}


def test_the_mark_and_the_row_go_back_together() -> None:
    def fail() -> None:
        factories.FlyerFactory(title="a")
        raise ValueError

    with pytest.raises(Exception, match="factory"):
        make_in("a", fail)
    assert marks() == {}


@pytest.mark.parametrize(
    "registration",
    ["tests.host.factories.FlyerFactory", {"factory": factories.FlyerFactory, "fields": ["title", MARK]}],
    ids=["every column", "listed"],
)
def test_a_client_neither_sets_the_mark_nor_sees_it(wire: Wire, registration: Any) -> None:
    with registered(flyer=registration):
        refused = wire.post("entities/flyer", {"fields": {"title": "a", MARK: 4711}})
        assert refused.status_code == 400
        assert MARK in refused.content.decode()
        assert MARK not in wire.entity("flyer", title="b")["fields"]
        described = wire.get("entity-types").content.decode()
    assert MARK not in described
    assert marks() == {"b": runs.find(wire.test_id, "").pk}


def test_no_form_sets_the_mark() -> None:
    form = forms.modelform_factory(Flyer, fields="__all__")()
    assert MARK not in form.fields


def test_the_mark_has_an_index_whose_name_fits_any_table() -> None:
    [index] = Flyer._meta.indexes
    assert index.fields == [MARK]
    assert len(index.name) <= 30
    with connection.cursor() as cursor:
        assert index.name in connection.introspection.get_constraints(cursor, Flyer._meta.db_table)
    with pytest.raises(FieldDoesNotExist):
        Poster._meta.get_field(MARK)


# --- what must see every row -----------------------------------------------------------------------------


def test_a_factory_finds_the_row_that_its_own_run_has_made(model: Any) -> None:
    factory_class = FACTORIES[model]
    first = make_in("a", lambda: factory_class(title="a"))
    assert make_in("a", lambda: factory_class(title="a")).pk == first.pk

    def twice() -> bool:
        return factory_class(title="twice").pk == factory_class(title="twice").pk

    assert make_in("a", twice)


def test_a_factory_does_not_find_another_runs_row(model: Any) -> None:
    from stagehand_testdata.exceptions import Conflict

    make_in("a", lambda: FACTORIES[model](title="a"))
    with pytest.raises(Conflict):
        make_in("b", lambda: FACTORIES[model](title="a"))


def test_a_run_finds_its_hidden_rows_by_key(model: Any) -> None:
    with registered(thing=FACTORIES[model]):
        made = perform(lambda call: call.create("thing"), RUNS["a"])
        assert perform(lambda call: call.find("thing", made.pk), RUNS["a"]) == made


def test_a_purge_removes_hidden_rows_while_no_run_is_current(model: Any) -> None:
    author = Author.objects.create(name="real")
    kept = model.objects.create(title="real", author=author)
    for who in RUNS:
        make_in(who, lambda title=who: FACTORIES[model](title=title, author=author))
    assert purge_run(runs.find(RUNS["a"], "")).success
    assert titles(everything(model)) == {"real", "b"}
    assert list(model.objects.all()) == [kept]


def test_a_purge_removes_a_multi_table_child() -> None:
    make_in("a", lambda: factories.BillboardFactory(title="a"))
    assert purge_run(runs.find(RUNS["a"], "")).success
    assert not Flyer.all_rows.exists()


def test_a_queryset_that_deletes_its_own_way_is_given_the_hidden_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[str] = []

    def delete(queryset: Any) -> Any:
        given.extend(row.title for row in queryset)
        return QuerySet.delete(queryset)

    monkeypatch.setattr(PosterQuerySet, "delete", delete)
    author = Author.objects.create(name="real")
    for who in RUNS:
        make_in(who, lambda title=who: factories.PosterFactory(title=title, author=author))
    assert purge_run(runs.find(RUNS["a"], "")).success
    assert given == ["a"]
    assert titles(everything(Poster)) == {"b"}


def test_a_model_that_deletes_its_own_way_sees_its_runs_rows(
    monkeypatch: pytest.MonkeyPatch, model: Any
) -> None:
    seen: list[set[str]] = []

    def delete(row: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(titles(related(model, row.author).all()))
        return models.Model.delete(row, *args, **kwargs)

    monkeypatch.setattr(model, "delete", delete)
    author = Author.objects.create(name="real")
    for who in RUNS:
        make_in(who, lambda title=who: FACTORIES[model](title=title, author=author))
    assert purge_run(runs.find(RUNS["a"], "")).success
    assert seen == [{"a"}]


def test_rows_from_before_the_mark_are_purged_too() -> None:
    create(factories.FlyerFactory, RUNS["a"])
    Flyer.all_rows.update(test_run_id=None)
    assert Flyer.objects.exists()
    assert purge_run(runs.find(RUNS["a"], "")).success
    assert not Flyer.all_rows.exists()
