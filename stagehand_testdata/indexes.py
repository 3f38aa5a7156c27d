"""Indexes over the few rows that matter: the ledger's standing entries, a host's test rows."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement
from django.db.models import Q


class StandingIndex(models.Index):
    """An index over standing entries alone; over all of them on databases without partial indexes.

    Closing an entry then writes to no such index, which is most of the price of closing it. With `unique`, no
    two standing entries have the same values. Without partial indexes the column `tombstone` is added, which
    is 0 for a standing entry and its own id for any other.

    It serves only whoever asks for a value of the column `asked`, the first one where it is not named, and
    has no entry that has none. Until PostgreSQL has statistics, any index that could serve looks as good to
    it as any other, and it would look a key up by reading all entries of its model. Of a column that is never
    null SQLite takes `IS NOT NULL` for true, and finds no query that implies it: there it is left out.
    """

    def __init__(self, *, unique: bool = False, asked: str = "", **kwargs: Any) -> None:
        self.unique = unique
        self.asked = asked
        super().__init__(**kwargs)

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        given = {"unique": self.unique, "asked": self.asked}
        return path, args, {**kwargs, **{name: value for name, value in given.items() if value}}

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Statement:
        editor: Any = schema_editor
        partial = editor.connection.features.supports_partial_indexes
        names = list(self.fields) if partial else [*self.fields, "tombstone"]
        asked: Any = model._meta.get_field(self.asked or self.fields[0])
        quote = editor.quote_name
        condition = f"{quote('tombstone')} = 0"
        if asked.null or editor.connection.vendor != "sqlite":
            condition += f" AND {quote(asked.column)} IS NOT NULL"
        sql = editor.sql_create_index
        statement: Statement = editor._create_index_sql(
            model,
            fields=[model._meta.get_field(name) for name in names],
            name=self.name,
            using=using,
            condition=condition if partial else None,
            sql=sql.replace("CREATE INDEX", "CREATE UNIQUE INDEX") if self.unique else sql,
            **kwargs,
        )
        return statement


class MarkedRowsIndex(models.Index):
    """An index over a table's test rows alone; over all of its rows on databases without partial indexes.

    Unlike `Index`, it need not be named: an abstract model cannot give a name that is short enough for every
    table, and Django makes one where there is none.
    """

    def __init__(self, *, condition: Q | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.condition = condition or Q(**{f"{self.fields[0]}__isnull": False})
