from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, QuerySet

from .base import Database

M = TypeVar("M", bound=Model)


class SQLite(Database):
    """One writer at a time holds the whole file: whoever writes first has every lock there is."""

    def read_exclusive(self, rows: QuerySet[M]) -> list[M]:
        # A transaction that reads first and writes later fails at once where somebody wrote in between.
        # A write that changes nothing takes the file's lock first, and waits for it in line.
        table = self.connection.ops.quote_name(rows.model._meta.db_table)
        column = self.connection.ops.quote_name(rows.model._meta.pk.column or "")
        with self.connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {column} = {column} WHERE 0")  # noqa: S608 - no input in it
        return list(rows.using(self.alias))

    def is_index(self, model: type[Model]) -> bool:
        # A virtual table (full text search) has no foreign keys, and no key but the rowid: its rows follow
        # those that they index.
        if model._meta.pk.column != "rowid":
            return False
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM sqlite_master WHERE name = %s AND sql LIKE 'CREATE VIRTUAL TABLE%%'",
                [model._meta.db_table],
            )
            return cursor.fetchone() is not None
