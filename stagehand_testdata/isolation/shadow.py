"""Does a shadow call touch the host's tables? Every statement of its thread is looked at, and counted.

# Note [Nothing but the ledger]
A shadow call sends a few statements of our own, on the ledger. Each is read: one that names any other table
is refused, and so is one that names none. While the host's code runs (factories, scenarios) nothing is let
through at all, on any database, but savepoints, which do nothing by themselves. The count goes into the
entries of the call, and from there into the purge's receipt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from django.apps import apps
from django.db import connections, router

from ..exceptions import NeedsDeep
from ..models import TestEntity

_TEXT = re.compile(r"'(?:[^']|'')*'")
_LOCK = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE)
_TABLE = re.compile(r"""\b(?:FROM|JOIN|INTO|UPDATE)\s+((?:["`]?\w+["`]?\.)?["`]?\w+)""", re.IGNORECASE)
_SAVEPOINT = re.compile(r"\s*(?:RELEASE |ROLLBACK TO )?SAVEPOINT [\w\"`]+\s*", re.IGNORECASE)


class Watch:
    """An execute wrapper that lets statements on the ledger through, as long as they are ours."""

    def __init__(self) -> None:
        #: Statements that were let through, and of all that were tried those that were not on the ledger.
        self.on_ledger = 0
        self.on_host = 0
        self._refused: NeedsDeep | None = None
        self._host_runs = False
        self._alias = router.db_for_write(TestEntity)
        self._ledger = _ledger_tables()

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if not (isinstance(sql, str) and _SAVEPOINT.fullmatch(sql)):
            tables = _tables(sql)
            on_ledger = bool(tables) and tables <= self._ledger and context["connection"].alias == self._alias
            if self._host_runs or not on_ledger:
                self.on_host += not on_ledger
                self._refused = NeedsDeep(
                    "A shadow call asks the host's database nothing, and this one would have:"
                    f" a statement on {', '.join(sorted(tables - self._ledger)) or 'the ledger'}."
                )
                raise self._refused
            self.on_ledger += 1
        return execute(sql, params, many, context)

    @contextmanager
    def host_runs(self) -> Iterator[None]:
        """A block of the host's code. Raises NeedsDeep at its end, whatever the host made of a refusal."""
        try:
            with self._let(host_run=True):
                yield
        finally:
            if self._refused is not None:
                raise self._refused

    @contextmanager
    def ours(self) -> Iterator[None]:
        """A pause within `host_runs`, for the ledger's own statements."""
        with self._let(host_run=False):
            yield

    @contextmanager
    def _let(self, *, host_run: bool) -> Iterator[None]:
        before, self._host_runs = self._host_runs, host_run
        try:
            yield
        finally:
            self._host_runs = before


@contextmanager
def watching_statements() -> Iterator[Watch]:
    """Watch every statement of this thread, on any database. See Note [Nothing but the ledger]."""
    watch = Watch()
    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(watch))
        yield watch


@cache
def _ledger_tables() -> set[str]:
    config = apps.get_app_config(TestEntity._meta.app_label)
    return {model._meta.db_table for model in config.get_models()}


def _tables(sql: Any) -> set[str]:
    """The tables that the statement names; none where it cannot be read."""
    text = _LOCK.sub(" ", _TEXT.sub(" ", sql)) if isinstance(sql, str) else ""
    return {re.sub(r"""["`]""", "", found).rpartition(".")[2] for found in _TABLE.findall(text)}
