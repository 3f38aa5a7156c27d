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
    is 0 for a standing entry and its own id for any other. An entry that has nothing in the first column is
    not in the index either: each entry has one of two typed keys, and writes to the index of that one.
    """

    def __init__(self, *, unique: bool = False, **kwargs: Any) -> None:
        self.unique = unique
        super().__init__(**kwargs)

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "unique": True} if self.unique else kwargs

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
        first: Any = model._meta.get_field(self.fields[0])
        condition = f"{editor.quote_name('tombstone')} = 0"
        if first.null:
            condition += f" AND {editor.quote_name(first.column)} IS NOT NULL"
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
