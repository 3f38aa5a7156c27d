"""Who points at whom: every way in which one row can hold another, that models or the database know of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from django.apps import apps
from django.apps.registry import Apps
from django.core.exceptions import ValidationError
from django.db import connections, models
from django.db.models import Q, QuerySet

from ...conf import settings
from ...databases import database
from ...databases.references import Reference, references
from ...models import TestEntityQuerySet, TestRun, key_column
from ..runs import ledger_alias

Model = type[models.Model]

#: Where a row stands in its tree is the tree's to say (django-treebeard).
TREE_COLUMNS = ({"path", "depth", "numchild"}, {"tree_id", "lft", "rgt", "depth"})


def concrete(model: Model) -> Model:
    return model._meta.concrete_model or model


def all_rows(model: Model, alias: str) -> QuerySet[models.Model]:
    """Every row of the model's table, whatever its managers hide, and without joining any other."""
    return QuerySet(model, using=alias).order_by()


def rows_of(model: Model, entries: TestEntityQuerySet, alias: str) -> QuerySet[models.Model]:
    """The rows of the model that these entries are of, found by the database itself."""
    return all_rows(model, alias).filter(pk__in=entries.order_by().values(key_column(model)))


@dataclass(frozen=True, slots=True)
class Pointer:
    """A column of `model` that holds rows of another model: a foreign key, of whatever delete rule.

    Many-to-many relations are the two foreign keys of their through model, multi-table inheritance is the
    foreign key of the child's table.
    """

    model: Model
    column: str
    target: str
    nullable: bool

    @property
    def place(self) -> tuple[str, str]:
        """The table and the column."""
        field: Any = self.model._meta.get_field(self.column)
        return self.model._meta.db_table, field.column

    def holding(
        self, alias: str, target: Model, rows: Sequence[dict[str, Any]], which: Q | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """(pk of the held row, pk of the row that holds it) for these rows of `target`.

        `which` narrows down the rows that hold.
        """
        by_value = {row[self.target]: row["pk"] for row in rows}
        yield from self._read(alias, by_value, which or Q())

    def anyone_holding(self, alias: str, target: Model, entries: TestEntityQuerySet, which: Q) -> bool:
        """Whether any row at all holds one of the rows of `target` that these entries are of."""
        values: Any = entries.order_by().values(key_column(target))
        if self.target != "pk":
            values = rows_of(target, entries, alias).values(self.target)
        return all_rows(self.model, alias).filter(which, **{f"{self.column}__in": values}).exists()

    def _read(
        self, alias: str, by_value: dict[Any, Any], *which: Q, **more: Any
    ) -> Iterator[tuple[Any, Any]]:
        matching = all_rows(self.model, alias).filter(
            *which, **{f"{self.column}__in": list(by_value)}, **more
        )
        for value, pk in matching.values_list(self.column, "pk"):
            yield by_value[value], pk


@dataclass(frozen=True, slots=True)
class GenericPointer(Pointer):
    """A content type and an object id that together hold a row of any model."""

    content_type: str = ""

    def holding(
        self, alias: str, target: Model, rows: Sequence[dict[str, Any]], which: Q | None = None
    ) -> Iterator[tuple[Any, Any]]:
        by_value = self._values(target, [row["pk"] for row in rows])
        if by_value:
            yield from self._read(alias, by_value, which or Q(), self._about(target, alias))

    def anyone_holding(self, alias: str, target: Model, entries: TestEntityQuerySet, which: Q) -> bool:
        column: Any = self.model._meta.get_field(self.column)
        for kinds, name in _KEY_FORMS:
            if isinstance(column, kinds):
                # A key that has no such form cannot stand in that column.
                values = entries.order_by().exclude(**{name: None}).values(name)
                about = Q(which, self._about(target, alias))
                return all_rows(self.model, alias).filter(about, **{f"{self.column}__in": values}).exists()
        rows = [{"pk": entry.row_key(target)} for entry in entries]
        return any(True for _ in self.holding(alias, target, rows, which))

    def _values(self, target: Model, keys: Sequence[Any]) -> dict[Any, Any]:
        """The keys by what stands for them in this column."""
        column: Any = self.model._meta.get_field(self.column)
        by_value = {}
        for key in keys:
            with suppress(ValidationError, ValueError):  # a key of this type cannot stand in that column
                by_value[column.to_python(key if _same_kind(column, target) else str(key))] = key
        return by_value

    def _about(self, target: Model, alias: str) -> Q:
        from django.contrib.contenttypes.models import ContentType

        kinds = ContentType.objects.db_manager(alias).filter(
            app_label=target._meta.app_label,
            model__in=[each._meta.model_name for each in apps.get_models() if concrete(each) is target],
        )
        return Q(**{f"{self.content_type}__in": list(kinds)})


#: In which form the ledger has the keys that stand in a column of this kind.
_KEY_FORMS: tuple[tuple[tuple[type[models.Field[Any, Any]], ...], str], ...] = (
    ((models.CharField, models.TextField), "key_text"),
    ((models.UUIDField,), "key_uuid"),
)


def _same_kind(column: Any, target: Model) -> bool:
    return isinstance(column, models.IntegerField) and isinstance(target._meta.pk, models.IntegerField)


@lru_cache(maxsize=1)
def _pointers() -> tuple[dict[Model, list[Pointer]], list[GenericPointer]]:
    direct: dict[Model, list[Pointer]] = {}
    generic: list[GenericPointer] = []
    for model in apps.get_models(include_auto_created=True):
        if model._meta.proxy or model._meta.app_label == TestRun._meta.app_label:
            continue
        columns: list[Any] = list(model._meta.local_concrete_fields)
        for field in columns:
            if field.is_relation and isinstance(field.related_model, type):
                target = field.target_field
                name = "pk" if target.primary_key else target.attname
                direct.setdefault(concrete(field.related_model), []).append(
                    Pointer(model, field.attname, name, field.null)
                )
        for private in model._meta.private_fields:
            content_type = getattr(private, "ct_field", None)
            if content_type and getattr(private, "fk_field", None):
                generic.append(GenericPointer(model, private.fk_field, "pk", False, content_type))
    return direct, generic


class _Tables(NamedTuple):
    """What the database says of itself: pointers that no model knows of, by target table, and which columns
    it guards itself by refusing to delete what they point at."""

    unmodelled: dict[str, list[Pointer]]
    refusing: frozenset[tuple[str, str]]


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    direct, _ = _pointers()
    known = {each.place for pointers in direct.values() for each in pointers}
    found: dict[str, list[Pointer]] = {}
    by_table = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
    own = {model._meta.db_table for model in apps.get_app_config(TestRun._meta.app_label).get_models()}
    there = [each for each in references(ledger_alias()) if each.table not in own]
    for each in there:
        target = by_table.get(each.target)
        if target is not None and (each.table, each.column) not in known:
            found.setdefault(each.target, []).append(_unmodelled(each, by_table.get(each.table), target))
    return _Tables(found, frozenset((each.table, each.column) for each in there if each.refuses))


def _unmodelled(reference: Reference, holder: Model | None, target: Model) -> Pointer:
    """A pointer that only the database knows: its table has no model, or its column no relation."""
    aimed = next(
        (each for each in target._meta.concrete_fields if each.column == reference.target_column),
        target._meta.pk,
    )
    name = "pk" if aimed.primary_key else aimed.attname
    for column in holder._meta.local_concrete_fields if holder else ():
        if column.column == reference.column:
            return Pointer(concrete(column.model), column.attname, name, column.null)
    return Pointer(_model_of_table(reference, aimed), "holds", name, True)


def _model_of_table(reference: Reference, aimed: models.Field[Any, Any]) -> Model:
    """A model by which to count a table's rows; its one column stands for the key too."""
    while aimed.is_relation:
        aimed = aimed.target_field  # type: ignore[attr-defined]
    kind: type[models.Field[Any, Any]] = models.TextField
    if isinstance(aimed, models.IntegerField):
        kind = models.BigIntegerField
    elif isinstance(aimed, models.UUIDField):
        kind = models.UUIDField
    meta = type(
        "Meta",
        (),
        {"apps": Apps(), "app_label": "table", "managed": False, "db_table": reference.table},
    )
    namespace = {
        "__module__": __name__,
        "Meta": meta,
        "holds": kind(primary_key=True, db_column=reference.column),
    }
    return type(reference.table, (models.Model,), namespace)


def database_refuses(pointer: Pointer) -> bool:
    """Whether the database itself, within the transaction, refuses to delete a row that this one holds."""
    return database(ledger_alias()).says_broken_references and pointer.place in _tables().refusing


def look_at_tables() -> None:
    """Ask the database anew which tables point where: each plan and each purge begins with it."""
    _tables.cache_clear()
    _elsewhere.cache_clear()


@lru_cache(maxsize=1)
def _elsewhere() -> frozenset[str]:
    """The models' tables that hold no row of the ledger's database: those it has not, and its views, which
    show the rows of others.
    """
    connection = connections[ledger_alias()]
    converted = connection.introspection.identifier_converter
    with connection.cursor() as cursor:
        kinds = {each.name: each.type for each in connection.introspection.get_table_list(cursor)}
    found = set()
    for model in apps.get_models(include_auto_created=True):
        kind = kinds.get(converted(model._meta.db_table))
        if kind == "v" or (kind is None and not database(ledger_alias()).has_table(model)):
            found.add(model._meta.db_table)
    return frozenset(found)


def pointers_to(model: Model) -> list[Pointer]:
    """Every column that can hold a row of `model`, but for tables that the product derives itself, views, and
    what is in another database.
    """
    direct, generic = _pointers()
    target = concrete(model)
    found: list[Pointer] = [
        *direct.get(target, ()),
        *_tables().unmodelled.get(target._meta.db_table, ()),
        *generic,
    ]
    elsewhere = _elsewhere()
    return [
        each for each in found if each.model._meta.db_table not in elsewhere and not is_derived(each.model)
    ]


def is_derived(model: Model) -> bool:
    """Whether the model's rows only follow others: they neither hold a row nor need an entry of their own."""
    return model._meta.db_table in settings.DERIVED_TABLES or database(ledger_alias()).is_index(model)


def deletion_order(found: Iterable[Model]) -> list[list[Model]]:
    """The models in groups, those that hold others first; a group with several is a circle."""
    remaining = sorted(set(found), key=lambda model: model._meta.label)
    holders = {
        model: {
            each.model for each in pointers_to(model) if each.model in remaining and each.model is not model
        }
        for model in remaining
    }
    return _strongly_connected(remaining, holders)


def holds_itself(group: Sequence[Model], entries: TestEntityQuerySet) -> bool:
    """Whether rows of the group can hold each other; by a generic pointer, whether any holds one of these
    entries' rows: it could hold a row of any model.
    """
    first = group[0]
    of_first = entries.of_model(first)
    return len(group) > 1 or any(
        not isinstance(each, GenericPointer) or each.anyone_holding(ledger_alias(), first, of_first, Q())
        for each in pointers_to(first)
        if each.model is first
    )


def _strongly_connected(nodes: Sequence[Model], edges: dict[Model, set[Model]]) -> list[list[Model]]:
    """Tarjan's algorithm: components in the order in which everything that a node leads to comes first."""
    index: dict[Model, int] = {}
    low: dict[Model, int] = {}
    stack: list[Model] = []
    groups: list[list[Model]] = []

    def visit(node: Model) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for each in sorted(edges[node], key=lambda model: model._meta.label):
            if each not in index:
                visit(each)
                low[node] = min(low[node], low[each])
            elif each in stack:
                low[node] = min(low[node], index[each])
        if low[node] == index[node]:
            position = stack.index(node)
            groups.append(stack[position:])
            del stack[position:]

    for node in nodes:
        if node not in index:
            visit(node)
    return groups
