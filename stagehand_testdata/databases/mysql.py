"""MariaDB and MySQL."""

from __future__ import annotations

from typing import Any

from django.db import OperationalError
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model

from .base import Database

_DEADLOCK = 1213


class MySQL(Database):
    share_suffix = "LOCK IN SHARE MODE"

    def chose_a_victim(self, error: OperationalError) -> bool:
        return bool(error.args) and error.args[0] == _DEADLOCK

    def compare_exactly(
        self, editor: BaseDatabaseSchemaEditor, model: type[Model], fields: tuple[str, ...]
    ) -> None:
        quote = editor.connection.ops.quote_name
        for name in fields:
            column: Any = model._meta.get_field(name)
            kind = column.db_type(editor.connection)
            editor.execute(
                f"ALTER TABLE {quote(model._meta.db_table)} MODIFY {quote(column.column)} {kind}"
                " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
            )
