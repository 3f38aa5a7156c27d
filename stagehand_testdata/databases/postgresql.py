from __future__ import annotations

from .base import Database


class PostgreSQL(Database):
    share_suffix = "FOR SHARE OF {table}"

    def surface_broken_references(self) -> None:
        # Django's foreign keys are deferred: without this the commit would be the first to complain.
        with self.connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
