"""The strategy that any database with row locks can follow; the others refine it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import OperationalError, connections
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Aggregate, CharField, Model, QuerySet
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler

M = TypeVar("M", bound=Model)


class Database:
    """One database by its alias."""

    #: What a SELECT ends with to lock its rows against writers but not against other readers of this kind.
    share_suffix: str | None = None

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.connection = connections[alias]

    def read_shared(self, rows: QuerySet[M]) -> list[M]:
        """The rows, locked until the transaction ends against `read_exclusive`, not against one another."""
        if self.share_suffix is None:
            return self.read_exclusive(rows)
        locked = rows.using(self.alias).all()
        query: Any = locked.query.chain(klass=ShareLockQuery)
        query.share_suffix = self.share_suffix.format(
            table=self.connection.ops.quote_name(rows.model._meta.db_table)
        )
        locked.query = query
        return list(locked)

    def read_exclusive(self, rows: QuerySet[M]) -> list[M]:
        """The rows, locked until the transaction ends against everybody, as they are once they are locked."""
        of = ("self",) if self.connection.features.has_select_for_update_of else ()
        # A statement sees what was committed when it began. One that had to wait for its lock would count
        # without the entries that it waited for: so the lock comes first, and the look after it.
        if not rows.using(self.alias).select_for_update(of=of).values_list("pk"):
            return []
        return list(rows.using(self.alias))

    def chose_a_victim(self, error: OperationalError) -> bool:
        """Whether the database broke off a healthy transaction, to be done again: a deadlock and the like."""
        return False

    def is_index(self, model: type[Model]) -> bool:
        """Whether the model's table only mirrors others, kept in step by the database itself."""
        return False

    @contextmanager
    def purging(self, run_id: int) -> Iterator[None]:
        """Within the block the guards are awake: they refuse whatever is done to a row not of this run.

        Belongs into the transaction that removes the rows, and says so to its connection alone.
        """
        yield

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """A pause within `purging`, for rows that this very transaction has made."""
        yield

    def surface_broken_references(self) -> None:
        """Raise IntegrityError now where the commit would, if the database can say so cheaply."""

    def compare_exactly(
        self, editor: BaseDatabaseSchemaEditor, model: type[Model], fields: tuple[str, ...]
    ) -> None:
        """Make these text columns compare byte by byte where the database would fold case."""


class ShareLockQuery(Query):
    """A SELECT that ends with the database's own words for a shared row lock.

    Django's `select_for_update` knows exclusive locks only.
    """

    share_suffix = ""

    def get_compiler(self, *args: Any, **kwargs: Any) -> SQLCompiler:
        compiler: SQLCompiler = super().get_compiler(*args, **kwargs)
        plain = compiler.as_sql

        def as_sql(*args: Any, **kwargs: Any) -> Any:
            sql, params = plain(*args, **kwargs)
            return f"{sql} {self.share_suffix}", params

        compiler.as_sql = as_sql  # type: ignore[method-assign]
        return compiler


class JoinedText(Aggregate):
    """All values of a group in one text, joined by commas; NULL where there is none."""

    function = "GROUP_CONCAT"
    output_field = CharField()

    def as_postgresql(self, compiler: SQLCompiler, connection: Any, **extra: Any) -> Any:
        return self.as_sql(
            compiler,
            connection,
            function="STRING_AGG",
            template="%(function)s(%(expressions)s, ',')",
            **extra,
        )
