"""The triggers that SQLite gets: what they say, and which of them belong to the database or to a connection.

Those of the database (stored) are what every connection opens with: each has to read their texts first. So
they are few and short, and do what has to be done whoever writes: close entries, and hold a purge back. What
is to be done for a run's statements alone, each connection that serves one puts up for itself (TEMP): see
Note [Triggers of the connection's own] in `databases.sqlite_runs`.
"""

# ruff: noqa: S608 - what is put into statements are names out of the models, never input

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .guards import (
    LEDGER,
    RUN_HAS_ENDED,
    RUNS,
    STATEMENT,
    UNDER_WAY,
    GuardedTable,
    key_of,
    literal,
)

Quote = Callable[[str], str]

#: The stored triggers of each table.
STORED = ("delete", "update", "key", "insert")
#: Those of tables whose foreign keys are looked at.
POINTING = ("holding", "pointing")
#: Those that earlier releases had besides.
FORMER = ("crossing", "removing", "capture")

#: The functions of a connection, for its own triggers to ask and to tell; None or 0 without a run.
RUN = "stagehand_run"
CAPTURING = "stagehand_capturing"
FENCE_MODE = "stagehand_fence"
MADE = "stagehand_made"
IS_MADE = "stagehand_is_made"
DOUBT = "stagehand_doubt"
TOUCHED = "stagehand_touched"
FOREIGN = "stagehand_foreign"

NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
_CLOSING = f"tombstone = id, removed_at = {NOW}, reason = '', blocked_by = '{{}}'"
_AWAKE = f"EXISTS (SELECT 1 FROM {UNDER_WAY})"
_PURGED = f"(SELECT run_id FROM {UNDER_WAY})"


#: Around what the stored trigger for inserts carries: the database keeps its text to the letter.
CARRIES, _CARRIED = "  /* A connection that serves a run puts up for itself: ", " */\n"
#: As JSON may write a slash; the comment would be over.
_SLASH = "\\/"


class OwnTriggers(NamedTuple):
    """What a connection puts up for one table, and how the ledger calls the rows that it sees made there."""

    table: str
    model: str
    type: str
    pk: Sequence[str]
    key: str
    statements: Sequence[str]

    def as_comment(self) -> str:
        return f"{CARRIES}{json.dumps(self._asdict()).replace('/', _SLASH)}{_CARRIED}"

    @classmethod
    def carried_by(cls, trigger: str) -> OwnTriggers:
        """What the text of the stored trigger for inserts carries with it."""
        held: dict[str, Any] = json.loads(trigger.partition(CARRIES)[2].partition(_CARRIED)[0])
        return cls(**held)


def stored(table: GuardedTable, quote: Quote) -> dict[str, str]:
    """The statements that make the table's stored triggers, by their suffix."""
    on = quote(table.table)
    key_changed = _key_changed(table, quote)
    entry = _entry_of(table, "OLD", quote)
    # The plus keeps SQLite from the index over the run, which would read all of its entries at each row.
    of_the_run = f"SELECT 1 FROM {LEDGER} WHERE {entry} AND +run_id = {_PURGED}"
    # Not a join: SQLite would read all entries into a filter for it, at each row.
    standing = f"SELECT id FROM {LEDGER} WHERE {entry} AND +run_id = p.run_id"
    of_the_set = (
        f"SELECT 1 FROM {UNDER_WAY} p WHERE p.model = {literal(table.model)}"
        f" AND ({standing}) BETWEEN p.first AND p.last"
    )
    bodies = {
        "delete": f"AFTER DELETE ON {on} FOR EACH ROW"
        f" WHEN ({_AWAKE} OR {_stands(table, 'OLD', quote)}) AND NOT EXISTS ({of_the_set}) BEGIN\n"
        f"  UPDATE {LEDGER} SET state = CASE WHEN {_AWAKE} THEN 'removed' ELSE 'gone' END, {_CLOSING}\n"
        f"    WHERE {entry} AND run_id = coalesce({_PURGED}, run_id);\n"
        f"  SELECT {_refuse(table, 'would have been deleted')} WHERE {_AWAKE} AND changes() <> 1;\nEND",
        # Before what closes its entry. Not "UPDATE OF": a key goes by the name of rowid too.
        "update": f"BEFORE UPDATE ON {on} FOR EACH ROW"
        f" WHEN {_AWAKE} AND ({_differ(table.watched, quote)} OR {key_changed}) BEGIN\n"
        f"  SELECT {_refuse(table, 'would have got another key')} WHERE {key_changed};\n"
        f"  SELECT {_refuse(table, 'would have been changed')} WHERE NOT EXISTS ({of_the_run});\nEND",
        "key": f"AFTER UPDATE ON {on} FOR EACH ROW WHEN {key_changed} BEGIN\n"
        f"{_gone(table, 'OLD', quote)}{_gone(table, 'NEW', quote)}END",
        "insert": f"AFTER INSERT ON {on} FOR EACH ROW WHEN {_stands(table, 'NEW', quote)} BEGIN\n"
        f"{_gone(table, 'NEW', quote)}{own(table, quote).as_comment()}END",
    }
    if table.pointing == "block" and table.pointers:
        bodies |= _pointing(table, quote)
    return {suffix: f"CREATE TRIGGER {table.name}_{suffix} {body}" for suffix, body in bodies.items()}


def own(table: GuardedTable, quote: Quote) -> OwnTriggers:
    """What a connection puts up for itself to capture, and to fence, what a run's statements do here."""
    on = f"main.{quote(table.table)}"
    name = literal(table.table.lower())
    old, new = (", ".join(f"{row}.{quote(column)}" for column in table.pk) for row in ("OLD", "NEW"))
    key_changed = _key_changed(table, quote)
    crossed = _differ(table.fenced, quote)
    run_is_open = f"SELECT 1 FROM main.{RUNS} WHERE id = {RUN}() AND state = 'open'"
    of_the_test = (
        f"EXISTS (SELECT 1 FROM main.{LEDGER} WHERE {_entry_of(table, 'OLD', quote)} AND +run_id = {RUN}())"
        f" OR {IS_MADE}({name}, {old})"
    )

    def fence(crossed: str) -> str:
        return (
            f"  SELECT CASE {FENCE_MODE}() WHEN 'block' THEN RAISE(ABORT, {literal(table.touched)})"
            f" ELSE {TOUCHED}({literal(table.table)}) END\n"
            f"    WHERE {FENCE_MODE}() <> 'off' AND {crossed} AND NOT {_AWAKE} AND NOT ({of_the_test});\n"
        )

    bodies = {
        "capture": f"AFTER INSERT ON {on} FOR EACH ROW WHEN {CAPTURING}() BEGIN\n"
        f"  SELECT RAISE(ABORT, {literal(RUN_HAS_ENDED)}) WHERE NOT EXISTS ({run_is_open});\n"
        f"  SELECT {MADE}({name}, {new});\n"
        f"{_marking(table, quote) if table.mark else ''}END",
        "change": f"BEFORE UPDATE ON {on} FOR EACH ROW WHEN {RUN}() AND ({crossed} OR {key_changed}) BEGIN\n"
        f"{fence(crossed)}"
        # Whatever comes under its key may be this very row again, where the statement fails.
        f"  SELECT {FOREIGN}({name}, {old}) WHERE ({key_changed}) AND NOT ({of_the_test});\n"
        f"  SELECT {DOUBT}({name}, {old}), {FOREIGN}({name}, {new}) WHERE {key_changed};\nEND",
        # Before, because what is stored closes the entry right after.
        "removal": f"BEFORE DELETE ON {on} FOR EACH ROW WHEN {RUN}() BEGIN\n"
        f"{fence('1')}"
        f"  SELECT {FOREIGN}({name}, {old}) WHERE {FENCE_MODE}() <> 'block' AND NOT ({of_the_test});\n"
        f"  SELECT {DOUBT}({name}, {old});\nEND",
    }
    statements = (f"CREATE TEMP TRIGGER {table.name}_{suffix} {body}" for suffix, body in bodies.items())
    return OwnTriggers(table.table, table.model, table.type, table.pk, table.key, tuple(statements))


def _entry_of(table: GuardedTable, row: str, quote: Quote) -> str:
    key = key_of(table, row, quote)
    return f"model = {literal(table.model)} AND {table.key} = {key} AND tombstone = 0"


def _stands(table: GuardedTable, row: str, quote: Quote) -> str:
    return f"EXISTS (SELECT 1 FROM {LEDGER} WHERE {_entry_of(table, row, quote)})"


def _gone(table: GuardedTable, row: str, quote: Quote) -> str:
    return f"  UPDATE {LEDGER} SET state = 'gone', {_CLOSING} WHERE {_entry_of(table, row, quote)};\n"


def _key_changed(table: GuardedTable, quote: Quote) -> str:
    return " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in map(quote, table.pk))


def _differ(columns: tuple[str, ...], quote: Quote) -> str:
    if not columns:
        return "0"
    old, new = (", ".join(f"{row}.{quote(column)}" for column in columns) for row in ("OLD", "NEW"))
    return f"({old}) IS NOT ({new})"


def _pointing(table: GuardedTable, quote: Quote) -> dict[str, str]:
    """A trigger for each way in which a row comes to hold another."""
    held = " OR ".join(
        f"EXISTS (SELECT 1 FROM {LEDGER} WHERE model = {literal(model)}"
        f" AND {key} = NEW.{quote(column)} AND tombstone = 0)"
        for column, model, key in table.pointers
    )
    body = (
        f"ON {quote(table.table)} FOR EACH ROW"
        f" WHEN NOT EXISTS (SELECT 1 FROM {STATEMENT}) AND NOT {_AWAKE} AND ({held})"
        f" AND NOT {_stands(table, 'NEW', quote)}"
        f" BEGIN\n  SELECT RAISE(ABORT, {literal(table.pointed)});\nEND"
    )
    columns = ", ".join(quote(column) for column, *_ in table.pointers)
    return {"holding": f"AFTER INSERT {body}", "pointing": f"AFTER UPDATE OF {columns} {body}"}


def _marking(table: GuardedTable, quote: Quote) -> str:
    """Raw SQL does not know the column; the ORM has filled it in."""
    mark = quote(table.mark)
    same = " AND ".join(f"{column} = NEW.{column}" for column in map(quote, table.pk))
    return f"  UPDATE {quote(table.table)} SET {mark} = {RUN}() WHERE {same} AND {mark} IS NULL;\n"


def _refuse(table: GuardedTable, what: str) -> str:
    return (
        f"RAISE(ABORT, {literal(f'stagehand guard: a row of {table.table} that is not of the run {what}')})"
    )
