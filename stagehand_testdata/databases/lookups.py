"""A condition that the ORM has, in the form that suits thousands of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import F, Lookup, Q
from django.db.models.sql.compiler import SQLCompiler


def one_of(column: str, values: Sequence[Any]) -> Q:
    """The condition `column__in=values`: on PostgreSQL one array, not a mark for each value."""
    return Q(OneOf(F(column), values)) if values else Q(pk__in=())


class OneOf(Lookup):
    lookup_name = "one_of"
    prepare_rhs = False

    def as_sql(self, compiler: SQLCompiler, connection: Any) -> tuple[str, tuple[Any, ...]]:
        left, params = self.process_lhs(compiler, connection)
        marks = ", ".join(["%s"] * len(self.rhs))
        return f"{left} IN ({marks})", (*params, *self._values(connection))

    def as_postgresql(self, compiler: SQLCompiler, connection: Any) -> tuple[str, tuple[Any, ...]]:
        left, params = self.process_lhs(compiler, connection)
        return f"{left} = ANY(%s)", (*params, self._values(connection))

    def _values(self, connection: Any) -> list[Any]:
        field: Any = self.lhs.output_field
        while field.is_relation:
            field = field.target_field
        return [field.get_db_prep_value(value, connection) for value in self.rhs]
