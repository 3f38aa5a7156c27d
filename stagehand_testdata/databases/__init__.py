"""What differs per database. Nothing outside this package asks which database it is."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .base import Database


def database(alias: str) -> Database:
    """The strategy for the database behind `alias`."""
    return database_of(connections[alias])


def database_of(connection: BaseDatabaseWrapper) -> Database:
    """The strategy for the database that the connection is to."""
    return _strategy(connection.vendor)(connection)


def driver_faults() -> tuple[type[Exception], ...]:
    """What the drivers raise where a database is away, in their own names.

    Django gives them its own, but for what they say as a cursor on the server is closed.
    """
    found: list[Any] = list(connections.all(initialized_only=True))
    drivers = [each.Database for each in found]
    return tuple(fault for each in drivers for fault in (each.OperationalError, each.InterfaceError))


@cache
def _strategy(vendor: str) -> type[Database]:
    match vendor:
        case "postgresql":
            from .postgresql import PostgreSQL

            return PostgreSQL
        case "mysql":
            from .mysql import MySQL

            return MySQL
        case "sqlite":
            from .sqlite import SQLite

            return SQLite
    return Database
