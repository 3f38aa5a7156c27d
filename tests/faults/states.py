"""Put the whole database back to where it was, quicker than by making everything again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.db import connection, transaction

from stagehand_testdata.marketplace.models import Builder
from stagehand_testdata.models import AuditEntry, TestRun


class SavedState:
    """A copy of every table that the run and the worlds write to, in tables beside them."""

    def __init__(self, name: str = "saved") -> None:
        self._prefix = f"fault_{name}_"
        self._made = False
        # But for the audit, which nobody empties.
        ledger = [
            model._meta.db_table for model in _models(TestRun._meta.app_label) if model is not AuditEntry
        ]
        others = [model._meta.db_table for model in _models("host", "shop", "auth", Builder._meta.app_label)]
        # The ledger goes first: a guard would take the deletion of a row for somebody's.
        self._tables = [*reversed(ledger), *others]

    def save(self) -> None:
        if not self._made:
            if TestRun.objects.exists():
                raise RuntimeError("the database holds runs already; give the harness one of its own")
            self.drop()
            _run(f"CREATE TABLE {self._prefix}{table} AS SELECT * FROM {table}" for table in self._tables)
            self._made = True
            return
        statements = [f"DELETE FROM {self._prefix}{table}" for table in self._tables]
        statements += [f"INSERT INTO {self._prefix}{table} SELECT * FROM {table}" for table in self._tables]
        with transaction.atomic():
            _run(statements)

    def restore(self) -> None:
        statements = [f"DELETE FROM {table}" for table in self._tables]
        statements += [f"INSERT INTO {table} SELECT * FROM {self._prefix}{table}" for table in self._tables]
        # Off outside the transaction, where SQLite wants it: a table at a time, pointers may point nowhere.
        with connection.constraint_checks_disabled(), transaction.atomic():
            _run(statements)

    def drop(self) -> None:
        _run(f"DROP TABLE IF EXISTS {self._prefix}{table}" for table in self._tables)


def _models(*labels: str) -> list[Any]:
    return [
        model
        for label in labels
        for model in apps.get_app_config(label).get_models(include_auto_created=True)
        if model._meta.managed and not model._meta.proxy
    ]


def _run(statements: Iterable[str]) -> None:
    with connection.cursor() as cursor:
        # PostgreSQL takes them all at once, which is quicker by far.
        for sql in ["; ".join(statements)] if connection.vendor == "postgresql" else statements:
            cursor.execute(sql)
