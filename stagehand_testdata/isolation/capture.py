"""Which rows does this code make? Every INSERT that Django compiles within a block, with its keys.

# Note [Watching the insert compiler]
`post_save` misses `bulk_create`, many-to-many rows and the parents of multi-table models, and it reports a
parent that was found as if it had been made. Django compiles each of its INSERTs, one per table, with
`SQLInsertCompiler`; there the rows and the keys that the database gave them are both at hand. So within the
block each connection answers with a compiler that also takes notes: on this thread's connections alone, and
until the block ends.

An execute wrapper (Django's documented hook) sees every statement. An INSERT that did not pass by the
compiler is raw SQL: nobody can tell its rows, so the block fails and the transaction takes them back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from django.db.models.constants import OnConflict
from django.db.models.sql.compiler import SQLInsertCompiler

from ..conf import settings
from ..exceptions import UntrackedWrite
from ..fingerprints import Fingerprint, columns, take
from ..models import Key

_RAW_INSERT = re.compile(
    r"""(?:\b(?:INSERT\s+(?:OR\s+\w+\s+|IGNORE\s+)?INTO|REPLACE\s+INTO|MERGE\s+INTO)|^\s*COPY)\s+["`]?([\w.]+)""",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class MadeRow:
    """One row of one table, as it was inserted."""

    model: type[models.Model]
    database: str
    pk: Any
    key: Key
    fingerprint: Fingerprint
    instance: models.Model


@dataclass
class Recorder:
    """The rows made so far, in the order in which they were."""

    rows: list[MadeRow] = field(default_factory=list)
    _compiling: bool = False

    def insert(
        self,
        compiler: SQLInsertCompiler,
        execute: Callable[[Sequence[models.Field[Any, Any]] | None], list[tuple[Any, ...]]],
        returning: Sequence[models.Field[Any, Any]] | None,
    ) -> list[tuple[Any, ...]]:
        query = compiler.query
        model: type[models.Model] = query.get_meta().concrete_model  # type: ignore[assignment]
        if query.on_conflict is OnConflict.UPDATE:
            raise UntrackedWrite(f"An upsert on {model._meta.label} may change rows that are not the test's.")
        ignoring = query.on_conflict is OnConflict.IGNORE
        if ignoring:
            query.objs = _without_existing(model, compiler.using, query.objs)
            query.on_conflict = None
            if not query.objs:
                return []
        pk = model._meta.pk
        wanted = list(returning or ())
        if pk not in wanted and any(_unknown(obj, pk) for obj in query.objs):
            wanted.append(pk)
        self._compiling = True
        try:
            returned = execute(wanted or None)
        finally:
            self._compiling = False
        for position, obj in enumerate(query.objs):
            row = returned[position] if position < len(returned) else ()
            self._note(model, compiler.using, obj, dict(zip(wanted, row, strict=False)))
        if ignoring or not returning:
            return []
        return [row[: len(returning)] for row in returned]

    def _note(self, model: type[models.Model], alias: str, obj: Any, returned: dict[Any, Any]) -> None:
        pk = model._meta.pk
        value = returned.get(pk, getattr(obj, pk.attname, None))
        try:
            key = Key.of(model, value)
        except ValueError as error:
            raise UntrackedWrite(f"{error}.") from error
        values = {each.attname: getattr(obj, each.attname, None) for each in columns(model)}
        values.update({each.attname: got for each, got in returned.items()})
        self.rows.append(MadeRow(model, alias, value, key, take(model, values), obj))

    def watch_statement(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if not self._compiling:
            for table in _RAW_INSERT.findall(sql):
                if table.rpartition(".")[2] not in settings.DERIVED_TABLES:
                    raise UntrackedWrite(
                        f"Raw SQL inserts into the table '{table}', so its rows cannot be told from real ones."
                        " Make them through the ORM, or list the table in DERIVED_TABLES where the product"
                        " itself removes them with the row they derive from."
                    )
        return execute(sql, params, many, context)


@contextmanager
def recording_inserts() -> Iterator[Recorder]:
    """Take down every row that this thread inserts within the block, on any database.

    Raises UntrackedWrite from the statement that makes a row which could not be told from a real one.
    """
    recorder = Recorder()
    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(_noting_compiler(connection, recorder))
            stack.enter_context(connection.execute_wrapper(recorder.watch_statement))
        yield recorder


@contextmanager
def _noting_compiler(connection: BaseDatabaseWrapper, recorder: Recorder) -> Iterator[None]:
    plain = connection.ops.compiler

    def compiler(name: str) -> type[Any]:
        found: type[Any] = plain(name)
        if not issubclass(found, SQLInsertCompiler):
            return found

        class NotingInsertCompiler(found):  # type: ignore[misc]
            def execute_sql(self, returning_fields: Any = None) -> Any:
                return recorder.insert(self, super().execute_sql, returning_fields)

        return NotingInsertCompiler

    nested = "compiler" in vars(connection.ops)
    connection.ops.compiler = compiler  # type: ignore[method-assign]
    try:
        yield
    finally:
        if nested:
            connection.ops.compiler = plain  # type: ignore[method-assign]
        else:
            del connection.ops.compiler


def _unknown(obj: Any, pk: models.Field[Any, Any]) -> bool:
    value = getattr(obj, pk.attname, None)
    return value is None or hasattr(value, "resolve_expression")


def _without_existing(model: type[models.Model], alias: str, objs: Sequence[Any]) -> list[Any]:
    """The objects that no row stands in the way of.

    An INSERT that ignores conflicts does not say which rows it made. Asking first does; whoever gets in
    between makes the insert fail, and that is safe.
    """
    groups = [tuple(one.fields) for one in model._meta.total_unique_constraints]
    groups += [tuple(group) for group in model._meta.unique_together]
    groups += [(one.name,) for one in model._meta.local_concrete_fields if one.unique]
    attnames = [tuple(model._meta.get_field(name).attname for name in group) for group in groups]  # type: ignore[union-attr]
    fresh: list[Any] = []
    seen: set[tuple[Any, ...]] = set()
    for obj in objs:
        taken = Q()
        marks = set()
        for group in attnames:
            values = {name: getattr(obj, name, None) for name in group}
            if None not in values.values():
                taken |= Q(**values)
                marks.add((*group, *map(str, values.values())))
        if marks & seen or (taken and model._base_manager.using(alias).filter(taken).exists()):
            continue
        seen |= marks
        fresh.append(obj)
    return fresh
