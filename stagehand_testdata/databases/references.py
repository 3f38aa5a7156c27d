"""Foreign keys as the database has them, whatever Django's models say."""

from __future__ import annotations

from typing import NamedTuple

from django.db import connections

_POSTGRESQL = """
    SELECT child.relname, mine.attname, parent.relname, theirs.attname,
           c.confdeltype IN ('a', 'r') AND c.convalidated AND cardinality(c.conkey) = 1
             AND current_setting('session_replication_role') <> 'replica'
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
                             WHERE t.tgconstraint = c.oid AND t.tgenabled NOT IN ('O', 'A'))
    FROM pg_catalog.pg_constraint c
    JOIN pg_catalog.pg_class child ON child.oid = c.conrelid
    JOIN pg_catalog.pg_class parent ON parent.oid = c.confrelid
    JOIN pg_catalog.pg_attribute mine ON mine.attrelid = c.conrelid AND mine.attnum = c.conkey[1]
    JOIN pg_catalog.pg_attribute theirs ON theirs.attrelid = c.confrelid AND theirs.attnum = c.confkey[1]
    WHERE c.contype = 'f' AND c.conparentid = 0 AND pg_catalog.pg_table_is_visible(c.conrelid)
"""
_SQLITE = """
    SELECT child.name, mine."from", mine."table", coalesce(mine."to", ''),
           mine.on_delete IN ('NO ACTION', 'RESTRICT')
           AND (SELECT foreign_keys FROM pragma_foreign_keys)
           AND NOT EXISTS (SELECT 1 FROM pragma_foreign_key_list(child.name) more
                           WHERE more.id = mine.id AND more.seq > 0)
    FROM sqlite_master child JOIN pragma_foreign_key_list(child.name) mine
    WHERE child.type = 'table' AND mine.seq = 0
"""
_MYSQL = """
    SELECT c.table_name, c.column_name, c.referenced_table_name, c.referenced_column_name,
           r.delete_rule IN ('NO ACTION', 'RESTRICT')
    FROM information_schema.key_column_usage c
    JOIN information_schema.referential_constraints r
      ON r.constraint_schema = c.constraint_schema AND r.constraint_name = c.constraint_name
     AND r.table_name = c.table_name
    WHERE c.table_schema = database() AND c.referenced_table_schema = database() AND c.ordinal_position = 1
"""
_QUERIES = {"postgresql": _POSTGRESQL, "sqlite": _SQLITE, "mysql": _MYSQL}


class Reference(NamedTuple):
    """A foreign key: `table.column` points at `target.target_column`.

    `refuses` says that the database refuses the deletion of what is pointed at, and does nothing else: not
    for a key of several columns, of which one may be null, and not while nobody checks (on PostgreSQL the
    constraint's triggers are disabled, or asleep as in the session of a replica; on SQLite by a PRAGMA).
    `target_column` is empty where it is the primary key without being named. Of a key of several columns
    there is the first: that many rows at least point there.
    """

    table: str
    column: str
    target: str
    target_column: str
    refuses: bool


def references(alias: str) -> list[Reference]:
    """Every foreign key of the database; none where it cannot be asked."""
    connection = connections[alias]
    query = _QUERIES.get(connection.vendor)
    if query is None:
        return []
    with connection.cursor() as cursor:
        cursor.execute(query.strip())
        return [Reference._make((*names, bool(refuses))) for *names, refuses in cursor.fetchall()]
