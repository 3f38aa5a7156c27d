"""What holds for each row of the ledger, as its database is told."""

from __future__ import annotations

from typing import Any

from django.db.models import BooleanField, Func
from django.db.models.sql.compiler import SQLCompiler

_STANDING = ("live", "quarantined")
_ENDED = ("removed", "gone")


class StateAgrees(Func):
    """`StateAgrees("state", "tombstone")`: an entry's state is one there is, and goes with its tombstone.

    PostgreSQL reads a check anew from its text for every statement, at microseconds each: it gets the
    shortest.
    """

    arity = 2
    output_field = BooleanField()

    def as_sql(self, compiler: SQLCompiler, connection: Any, **extra: Any) -> Any:  # type: ignore[override]
        state, tombstone = self._columns(compiler)
        return f"CASE WHEN {tombstone} = 0 THEN {state} IN {_STANDING} ELSE {state} IN {_ENDED} END", []

    def as_postgresql(self, compiler: SQLCompiler, connection: Any, **extra: Any) -> Any:
        state, tombstone = self._columns(compiler)
        standing, ended = (f"'{{{','.join(states)}}}'::text[]" for states in (_STANDING, _ENDED))
        return f"{state} = ANY (CASE WHEN {tombstone} = 0 THEN {standing} ELSE {ended} END)", []

    def _columns(self, compiler: SQLCompiler) -> list[str]:
        return [compiler.compile(each)[0] for each in self.get_source_expressions()]
