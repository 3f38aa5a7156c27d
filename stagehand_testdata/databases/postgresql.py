from __future__ import annotations

from django.db import OperationalError

from .base import Database

_DEADLOCK, _SERIALIZATION = "40P01", "40001"


class PostgreSQL(Database):
    share_suffix = "FOR SHARE OF {table}"

    def chose_a_victim(self, error: OperationalError) -> bool:
        return getattr(error.__cause__, "sqlstate", None) in (_DEADLOCK, _SERIALIZATION)

    def surface_broken_references(self) -> None:
        # Django's foreign keys are deferred: without this the commit would be the first to complain.
        with self.connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
