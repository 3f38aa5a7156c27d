"""Who points at whom: every way in which one row can hold another, as far as Django's models know it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q, QuerySet

from ...conf import settings
from ...databases import database
from ...models import TestRun
from ..runs import ledger_alias

Model = type[models.Model]


def concrete(model: Model) -> Model:
    return model._meta.concrete_model or model


def all_rows(model: Model, alias: str) -> QuerySet[models.Model]:
    """Every row of the model's table, whatever its managers hide."""
    return QuerySet(model, using=alias)


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

    def holding(
        self, alias: str, target: Model, rows: Sequence[dict[str, Any]], which: Q | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """(pk of the held row, pk of the row that holds it) for these rows of `target`.

        `which` narrows down the rows that hold.
        """
        by_value = {row[self.target]: row["pk"] for row in rows}
        yield from self._read(alias, by_value, which or Q())

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
        from django.contrib.contenttypes.models import ContentType

        column: Any = self.model._meta.get_field(self.column)
        by_value = {}
        for row in rows:
            with suppress(ValidationError, ValueError):  # a key of this type cannot stand in that column
                by_value[column.to_python(row["pk"] if _same_kind(column, target) else str(row["pk"]))] = row[
                    "pk"
                ]
        if not by_value:
            return
        kinds = ContentType.objects.db_manager(alias).filter(
            app_label=target._meta.app_label,
            model__in=[each._meta.model_name for each in apps.get_models() if concrete(each) is target],
        )
        yield from self._read(alias, by_value, which or Q(), **{f"{self.content_type}__in": list(kinds)})


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


def pointers_to(model: Model) -> list[Pointer]:
    """Every column that can hold a row of `model`, but for tables that the product derives itself."""
    direct, generic = _pointers()
    found: list[Pointer] = [*direct.get(concrete(model), ()), *generic]
    return [each for each in found if not is_derived(each.model)]


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


def holds_itself(group: Sequence[Model]) -> bool:
    """Whether rows of the group can hold each other."""
    return len(group) > 1 or any(
        each.model is group[0] and not isinstance(each, GenericPointer) for each in pointers_to(group[0])
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
