"""What differs per database. Nothing outside this package asks which database it is."""

from __future__ import annotations

from django.db import connections

from .base import Database


def database(alias: str) -> Database:
    """The strategy for the database behind `alias`."""
    return strategy(connections[alias].vendor)(alias)


def strategy(vendor: str) -> type[Database]:
    """The strategy for databases of this kind, as Django calls it."""
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
