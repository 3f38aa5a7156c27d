"""A query that each call asks is compiled once: that takes the ORM longer than the database its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler

M = TypeVar("M", bound=Model)

#: What a compiler is given for each query that it compiles; all else it has found out.
_GIVEN = frozenset({"query", "connection", "using", "as_sql"})


class Mark(str):
    """Stands in a query for a text that is another one each time."""

    __slots__ = ()


def compile_once(rows: QuerySet[M]) -> QuerySet[M]:
    """The query compiled, for `filled_in` to put texts in the place of its marks."""
    compiler = rows.query.get_compiler(using=rows.db)
    sql, params = compiler.as_sql()
    compiled = rows.all()
    query: Any = rows.query.chain(klass=CompiledQuery)
    query.sql, query.params = sql, params
    query.found_out = {name: value for name, value in vars(compiler).items() if name not in _GIVEN}
    compiled.query = query
    return compiled


def filled_in(compiled: QuerySet[M], values: Mapping[str, str]) -> QuerySet[M]:
    rows = compiled.all()
    query: Any = rows.query
    query.params = [values[each] if isinstance(each, Mark) else each for each in query.params]
    return rows


class CompiledQuery(Query):
    """Answers with what was compiled before, on whatever connection."""

    sql = ""
    params: Any = ()
    found_out: Mapping[str, Any] = {}

    def get_compiler(self, *args: Any, **kwargs: Any) -> SQLCompiler:
        compiler: SQLCompiler = super().get_compiler(*args, **kwargs)
        vars(compiler).update(self.found_out)
        compiler.as_sql = lambda *_args, **_kwargs: (self.sql, self.params)  # type: ignore[method-assign]
        return compiler
