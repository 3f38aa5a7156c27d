"""What guards and policies share: each table is changed by itself, and waited for briefly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import OperationalError

from ..databases.base import Database
from ..exceptions import Conflict


@dataclass(frozen=True, slots=True)
class Change:
    """What `install` or `remove` did to one table."""

    table: str
    done: str


@contextmanager
def naming(engine: Database, table: str, unchanged: str) -> Iterator[None]:
    """Raise Conflict, with the table and what was not changed, where a lock could not be had in time."""
    try:
        yield
    except OperationalError as error:
        if not engine.is_lock_timeout(error):
            raise
        raise Conflict(
            f"Somebody else has been at work on {table} for five seconds; {unchanged}. Try again."
        ) from error
