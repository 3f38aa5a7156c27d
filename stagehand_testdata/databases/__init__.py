"""What differs per database. Nothing outside this package asks which database it is."""

from __future__ import annotations

from django.db import connections

from .base import Database


def database(alias: str) -> Database:
    """The strategy for the database behind `alias`."""
    match connections[alias].vendor:
        case "postgresql":
            from .postgresql import PostgreSQL

            return PostgreSQL(alias)
        case "mysql":
            from .mysql import MySQL

            return MySQL(alias)
        case "sqlite":
            from .sqlite import SQLite

            return SQLite(alias)
    return Database(alias)
