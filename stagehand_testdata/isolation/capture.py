"""Which rows does this code make? Every INSERT that Django compiles within a block, with its keys.

# Note [Watching the insert compiler]
`post_save` misses `bulk_create`, many-to-many rows and the parents of multi-table models, and it reports a
parent that was found as if it had been made. Django compiles each of its INSERTs, one per table, with
`SQLInsertCompiler`; there the rows and the keys that the database gave them are both at hand. So within the
block each connection answers with a compiler that also takes notes: on this thread's connections alone, and
until the block ends.

An execute wrapper (Django's documented hook) sees every statement. An INSERT that did not pass by the
compiler is raw SQL: nobody can tell its rows, so the block fails and the transaction takes them back. It
sees savepoints too: what is rolled back to one was not made. `COPY` goes through methods of the driver's own,
past all wrappers: the block's cursors watch those as well.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from django.db.models.constants import OnConflict
from django.db.models.signals import pre_save
from django.db.models.sql.compiler import SQLInsertCompiler

from ..conf import settings
from ..context import use_run
from ..exceptions import UntrackedWrite
from ..fingerprints import Fingerprint, columns, take
from ..models import Key, TestEntity
from .statements import seeing_all_rows

_NOISE = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_RAW_INSERT = re.compile(
    r"""
    (?: \b(?:INSERT|REPLACE|MERGE)\s+(?:\w+\s+){0,3}?INTO
      | \A(?:INSERT|REPLACE)(?:\s+(?:LOW_PRIORITY|HIGH_PRIORITY|DELAYED|IGNORE))*
      | \ALOAD\s+DATA\b.*\bINTO\s+TABLE
      | \ACOPY(?=\s+["\w.]+\s*(?:\([^)]*\)\s*)?FROM\b)
    )
    \s+ ((?:["`]?\w+["`]?\.)? ["`]?\w+)
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_CHANGE = re.compile(r"\s*(?!SELECT\b|INSERT\b|SAVEPOINT\b|RELEASE\b|ROLLBACK\b)", re.IGNORECASE)
_SAVEPOINT = re.compile(r"(?:/\*.*?\*/ )?(SAVEPOINT|ROLLBACK TO SAVEPOINT) (.+)")
#: How many objects one question about conflicts is about; SQLite limits how deep it may go.
_ASKED_AT_ONCE = 100
#: What makes rows past Django's cursor, in psycopg 3 and 2, and the statement that it comes to.
_DRIVER_METHODS: dict[str, Callable[..., Any]] = {
    "copy": lambda statement, *_args, **_kwargs: statement,
    "copy_expert": lambda sql, *_args, **_kwargs: sql,
    "copy_from": lambda _file, table, *_args, **_kwargs: f"COPY {table} FROM STDIN",
}


@dataclass(frozen=True, slots=True)
class MadeRow:
    """One row of one table, as it was inserted."""

    model: type[models.Model]
    database: str
    pk: Any
    key: Key
    fingerprint: Fingerprint
    instance: models.Model


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file that saving a row has put into the storage of one of its columns."""

    field: models.FileField
    name: str

    @property
    def key(self) -> str:
        """What finds the file and its storage again; raises UntrackedWrite where it is too long to keep."""
        key = f"{self.field.model._meta.label_lower}.{self.field.name}:{self.name}"
        if len(key) > TestEntity.KEY_LENGTH:
            raise UntrackedWrite(
                f"The file {self.name[:60]!r}… of {self.field} cannot be entered: its name is too long."
            )
        return key


@dataclass
class Recorder:
    """The rows made so far, in the order in which they were, and the files that came with them."""

    rows: list[MadeRow] = field(default_factory=list)
    #: Files that a row was about to put into storage, of rows that were rolled back too.
    _unsaved: list[Any] = field(default_factory=list)
    _compiling: bool = False
    #: Enters the rows so far, where something is about to change rows: the fence knows ours by their entries.
    enter: Callable[[], None] | None = None
    #: How many of the rows have been entered.
    entered: int = 0
    #: How many rows there were at each savepoint, and how many of them entered, by database and name.
    _savepoints: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def keys_of(self, model: type[models.Model]) -> list[Any]:
        """The keys of the rows of this concrete model that were made so far."""
        return [row.pk for row in self.rows if row.model is model]

    @property
    def files(self) -> list[WrittenFile]:
        """The files that were put into storage. One is written before its row: it is there in any case."""
        return [WrittenFile(each.field, each.name) for each in self._unsaved if each.name and each._committed]

    def expect_files(self, obj: Any) -> None:
        """Take down the files that a save of `obj` will put into storage; one that it only names is none."""
        for column in type(obj)._meta.concrete_fields:
            if isinstance(column, models.FileField):
                file = vars(obj).get(column.attname) and getattr(obj, column.attname)
                fresh = file and not getattr(file, "_committed", True)
                if fresh and not any(file is each for each in self._unsaved):
                    self._unsaved.append(file)

    def insert(
        self,
        compiler: SQLInsertCompiler,
        execute: Callable[[Sequence[models.Field[Any, Any]] | None], list[tuple[Any, ...]]],
        returning: Sequence[models.Field[Any, Any]] | None,
    ) -> list[tuple[Any, ...]]:
        query: Any = compiler.query
        alias = compiler.connection.alias
        model: type[models.Model] = query.get_meta().concrete_model
        if model._meta.app_label == TestEntity._meta.app_label:
            # The ledger and the run's inbox are no rows of the test's.
            return self._compile(lambda: execute(returning))
        if query.on_conflict is OnConflict.UPDATE:
            raise UntrackedWrite(f"An upsert on {model._meta.label} may change rows that are not the test's.")
        ignoring = query.on_conflict is OnConflict.IGNORE
        if ignoring:
            query.objs = _without_existing(model, alias, query.objs)
            query.on_conflict = None
            if not query.objs:
                return []
        pk = model._meta.pk
        wanted = list(returning or ())
        if pk not in wanted and any(_unknown(obj, pk) for obj in query.objs):
            wanted.append(pk)
        if not query.raw:
            for obj in query.objs:
                self.expect_files(obj)
        returned = self._compile(lambda: _execute(compiler, execute, wanted))
        for position, obj in enumerate(query.objs):
            row = returned[position] if position < len(returned) else ()
            self._note(model, alias, obj, dict(zip(wanted, row, strict=False)))
        if ignoring or not returning:
            return []
        return [row[: len(returning)] for row in returned]

    def _compile(self, insert: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        self._compiling = True
        try:
            return insert()
        finally:
            self._compiling = False

    def _note(self, model: type[models.Model], alias: str, obj: Any, returned: dict[Any, Any]) -> None:
        value = _key_value(model, obj, returned)
        try:
            key = Key.of(model, value)
        except ValueError as error:
            raise UntrackedWrite(f"{error}.") from error
        values = {each.attname: getattr(obj, each.attname, None) for each in columns(model)}
        values.update({each.attname: got for each, got in returned.items()})
        self.rows.append(MadeRow(model, alias, value, key, take(model, values), obj))

    def watch_statement(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if not self._compiling:
            refuse_raw_inserts(sql, context["connection"])
            if self.enter is not None and self.entered < len(self.rows) and _changes_rows(sql):
                with use_run(None):
                    self.enter()
        result = execute(sql, params, many, context)
        if isinstance(sql, str) and (savepoint := _SAVEPOINT.fullmatch(sql)):
            self._mind(context["connection"].alias, *savepoint.groups())
        return result

    def _mind(self, alias: str, what: str, name: str) -> None:
        if what == "SAVEPOINT":
            self._savepoints[alias, name] = len(self.rows), self.entered
            return
        since, entered = self._savepoints.get((alias, name), (0, 0))
        self.rows[since:] = [row for row in self.rows[since:] if row.database != alias]
        self.entered = min(self.entered, entered)


def _changes_rows(sql: Any) -> bool:
    """Whether the statement may; one that is no text is taken to."""
    return not isinstance(sql, str) or bool(_CHANGE.match(_NOISE.sub(" ", sql)))


def refuse_raw_inserts(sql: Any, connection: BaseDatabaseWrapper) -> None:
    """Raise UntrackedWrite where the statement makes rows; those of DERIVED_TABLES are let through."""
    if isinstance(sql, bytes):
        sql = sql.decode(errors="replace")
    elif not isinstance(sql, str):  # composed with the driver's own tools
        sql = sql.as_string(connection.connection)
    for match in _RAW_INSERT.findall(_NOISE.sub(" ", sql).strip()):
        table = re.sub(r"""["`]""", "", match).rpartition(".")[2]
        if table not in settings.DERIVED_TABLES:
            raise UntrackedWrite(
                f"Raw SQL inserts into the table '{table}', so its rows cannot be told from real ones."
                " Make them through the ORM, or list the table in DERIVED_TABLES where the product"
                " itself removes them with the row they derive from."
            )


@contextmanager
def recording_inserts() -> Iterator[Recorder]:
    """Take down every row that this thread inserts within the block, on any database.

    Under a current run, rows of a `TestDataModel` carry its mark from the start.
    Raises UntrackedWrite from the statement that makes a row which could not be told from a real one.
    """
    recorder = Recorder()
    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(_noting_compiler(connection, recorder))
            stack.enter_context(_watching_cursors(connection))
            stack.enter_context(connection.execute_wrapper(recorder.watch_statement))
        stack.enter_context(_expecting_files(recorder))
        yield recorder


@contextmanager
def _expecting_files(recorder: Recorder) -> Iterator[None]:
    """Django 6.1 puts a row's files into storage before it compiles the INSERT; this signal comes first."""
    here = threading.get_ident()

    def expect(instance: models.Model, raw: bool, **kwargs: Any) -> None:
        # A receiver is called on every thread.
        if not raw and threading.get_ident() == here:
            recorder.expect_files(instance)

    pre_save.connect(expect, weak=False)
    try:
        yield
    finally:
        pre_save.disconnect(expect)


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

    with in_place_of(connection.ops, "compiler", compiler):
        yield


@contextmanager
def _watching_cursors(connection: BaseDatabaseWrapper) -> Iterator[None]:
    def watching(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def made(cursor: Any) -> Any:
            wrapper = make(cursor)
            for name, statement in _DRIVER_METHODS.items():
                if hasattr(cursor, name):
                    setattr(wrapper, name, _refusing(getattr(wrapper, name), statement, connection))
            return wrapper

        return made

    with (
        in_place_of(connection, "make_cursor", watching(connection.make_cursor)),
        in_place_of(connection, "make_debug_cursor", watching(connection.make_debug_cursor)),
    ):
        yield


def _refusing(
    method: Callable[..., Any], statement: Callable[..., Any], connection: BaseDatabaseWrapper
) -> Callable[..., Any]:
    def refusing(*args: Any, **kwargs: Any) -> Any:
        refuse_raw_inserts(statement(*args, **kwargs), connection)
        return method(*args, **kwargs)

    return refusing


@contextmanager
def in_place_of(owner: Any, name: str, stand_in: Any) -> Iterator[None]:
    """Within the block the object, not its class, answers with `stand_in` under that name."""
    nested = name in vars(owner)
    plain = getattr(owner, name)
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        if nested:
            setattr(owner, name, plain)
        else:
            delattr(owner, name)


def _execute(
    compiler: SQLInsertCompiler,
    execute: Callable[[Sequence[models.Field[Any, Any]] | None], list[tuple[Any, ...]]],
    wanted: list[models.Field[Any, Any]],
) -> list[tuple[Any, ...]]:
    """Run the INSERT; one by one where the database cannot return the columns of several rows."""
    query = compiler.query
    together = list(query.objs)
    if not wanted or len(together) == 1 or compiler.connection.features.can_return_rows_from_bulk_insert:
        return execute(wanted or None)
    returned = []
    for obj in together:
        query.objs = [obj]
        returned += execute(wanted)
    query.objs = together
    return returned


def _unknown(obj: Any, pk: models.Field[Any, Any]) -> bool:
    value = getattr(obj, pk.attname, None)
    return value is None or hasattr(value, "resolve_expression")


def _key_value(model: type[models.Model], obj: Any, returned: dict[Any, Any]) -> Any:
    """The key that the row has now; raises UntrackedWrite where the database did not say."""
    pk = model._meta.pk
    parts: tuple[Any, ...] = pk.fields if isinstance(pk, models.CompositePrimaryKey) else (pk,)
    values = tuple(returned.get(part, getattr(obj, part.attname, None)) for part in parts)
    if any(value is None or hasattr(value, "resolve_expression") for value in values):
        raise UntrackedWrite(
            f"The database does not say under which key it put a row of {model._meta.label}."
        )
    return values if isinstance(pk, models.CompositePrimaryKey) else values[0]


@seeing_all_rows()
def _without_existing(model: type[models.Model], alias: str, objs: Sequence[Any]) -> list[Any]:
    """The objects that no row stands in the way of.

    An INSERT that ignores conflicts does not say which rows it made. Asking first does; whoever gets in
    between makes the insert fail, and that is safe.
    """
    groups = [tuple(one.fields) for one in model._meta.total_unique_constraints]
    groups += [tuple(group) for group in model._meta.unique_together]
    groups += [(one.name,) for one in model._meta.local_concrete_fields if one.unique]
    if isinstance(model._meta.pk, models.CompositePrimaryKey):
        groups.append(tuple(field.name for field in model._meta.pk.fields))
    attnames = [tuple(model._meta.get_field(name).attname for name in group) for group in groups]  # type: ignore[union-attr]
    rows = model._base_manager.using(alias)
    fresh: list[Any] = []
    seen: set[tuple[Any, ...]] = set()
    for start in range(0, len(objs), _ASKED_AT_ONCE):
        some = objs[start : start + _ASKED_AT_ONCE]
        conflicts = [_conflicts(obj, attnames) for obj in some]
        any_at_all = reduce(or_, conflicts)
        crowded = bool(any_at_all) and rows.filter(any_at_all).exists()
        for obj, conflict in zip(some, conflicts, strict=True):
            marks = _marks(obj, attnames)
            if marks & seen or (crowded and conflict and rows.filter(conflict).exists()):
                continue
            seen |= marks
            fresh.append(obj)
    return fresh


def _conflicts(obj: Any, groups: Sequence[tuple[str, ...]]) -> Q:
    """The rows that have the same values as `obj` in any group of columns that must be unique together."""
    found = Q()
    for group in groups:
        values = {name: getattr(obj, name, None) for name in group}
        if None not in values.values():
            found |= Q(**values)
    return found


def _marks(obj: Any, groups: Sequence[tuple[str, ...]]) -> set[tuple[Any, ...]]:
    values = [(group, [getattr(obj, name, None) for name in group]) for group in groups]
    return {(*group, *map(str, found)) for group, found in values if None not in found}
