"""Let the database itself hide test rows: from raw SQL, from base managers, from whoever else asks.

Only tables whose rows say themselves whose they are (`TestDataModel`), and only where the database has such
policies. Nothing is on record but in the database's own catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from django.apps import apps
from django.db import connections, router, transaction

from ..access import trail
from ..databases import database
from ..databases.base import Database
from ..databases.guards import HeldPolicy
from ..isolation.visibility import TestDataModel
from ..models import MARK
from .installing import Change, naming


class State(Enum):
    IN_FORCE = "in force"
    PASSED_BY = "passed by"
    CHANGED = "changed"
    NOT_INSTALLED = "not installed"
    NOT_POSSIBLE = "not possible"


@dataclass(frozen=True, slots=True)
class TableStatus:
    table: str
    state: State
    reason: str = ""

    @property
    def broken(self) -> bool:
        """Whether policies that were installed hide nothing, or not all."""
        return self.state in (State.PASSED_BY, State.CHANGED)


def is_possible(alias: str) -> bool:
    """Whether this database has policies at all."""
    return database(alias).can_hide_rows


def status(alias: str) -> list[TableStatus]:
    """Every table that could hide its test rows, and how it stands for this connection's role."""
    engine = database(alias)
    held, wanted, role = engine.held_policies(), _wanted(alias), engine.passing_role()
    found = [_status(engine, table, held.get(table), role) for table in wanted]
    found += [TableStatus(table, State.CHANGED, "no longer wanted") for table in _unwanted(held, wanted)]
    return found


def install(alias: str) -> list[Change]:
    """Put up what is missing, changed or outdated, and take down what is no longer wanted; what was done.

    Raises Conflict where a table could not be had within five seconds; the tables before it have theirs.
    """
    engine = database(alias)
    held, wanted = engine.held_policies(), _wanted(alias)
    changes = []
    for table in wanted:
        was = _status(engine, table, held.get(table), role="").state
        if was in (State.CHANGED, State.NOT_INSTALLED):
            _run(engine, table, _hiding(engine, table), "policies.install")
            changes.append(
                Change(table, "installed" if was is State.NOT_INSTALLED else "was changed: renewed")
            )
    for table in _unwanted(held, wanted):
        _run(engine, table, engine.showing_sql(table), "policies.remove")
        changes.append(Change(table, "no longer wanted: removed"))
    return changes


def remove(alias: str) -> list[Change]:
    """Take down every policy of ours. Raises Conflict as `install` does."""
    engine = database(alias)
    tables = _ours(engine.held_policies())
    for table in tables:
        _run(engine, table, engine.showing_sql(table), "policies.remove")
    _run(engine, "a table", engine.forgetting_sql(), "policies.forget")
    return [Change(table, "removed") for table in tables]


def install_sql(alias: str) -> list[str]:
    """What a full installation comes to, as the database's own command line reads it; executes nothing."""
    engine = database(alias)
    held = engine.held_policies()
    tables = [each for each in _wanted(alias) if each not in held or held[each].ours]
    return engine.as_script([statement for table in tables for statement in _hiding(engine, table)])


def remove_sql(alias: str) -> list[str]:
    """What `remove` comes to, as the database's own command line reads it; executes nothing."""
    engine = database(alias)
    statements = [each for table in _ours(engine.held_policies()) for each in engine.showing_sql(table)]
    return engine.as_script([*statements, *engine.forgetting_sql()])


def _wanted(alias: str) -> list[str]:
    there = set(connections[alias].introspection.table_names())
    return sorted(
        model._meta.db_table
        for model in apps.get_models()
        if issubclass(model, TestDataModel)
        and not model._meta.proxy
        and model._meta.managed
        and router.db_for_write(model) == alias
        and model._meta.db_table in there
        # A multi-table child's rows are marked in its parent's table.
        and any(field.name == MARK for field in model._meta.local_concrete_fields)
    )


def _ours(held: dict[str, HeldPolicy]) -> list[str]:
    return sorted(table for table, policy in held.items() if policy.ours)


def _unwanted(held: dict[str, HeldPolicy], wanted: list[str]) -> list[str]:
    return [table for table in _ours(held) if table not in wanted]


def _status(engine: Database, table: str, held: HeldPolicy | None, role: str) -> TableStatus:
    if held is None:
        return TableStatus(table, State.NOT_INSTALLED)
    if not held.ours:
        return TableStatus(table, State.NOT_POSSIBLE, "it has row-level security of the product's own")
    if not (held.complete and held.unchanged):
        return TableStatus(table, State.CHANGED, "somebody has changed or removed a policy")
    if held.wanted != engine.wanted_policy(table, MARK):
        return TableStatus(table, State.CHANGED, "of another release")
    if role:
        return TableStatus(table, State.PASSED_BY, f"no policy holds the role {role} back")
    return TableStatus(table, State.IN_FORCE)


def _hiding(engine: Database, table: str) -> list[str]:
    return [*engine.hiding_sql(table, MARK), *engine.recording_sql(table, MARK)]


def _run(engine: Database, table: str, statements: Iterable[str], operation: str) -> None:
    """One table at a time, in a transaction of its own."""
    with (
        transaction.atomic(using=engine.alias),
        engine.locking_briefly(),
        naming(engine, table, "it was not changed"),
    ):
        for statement in statements:
            engine.execute(statement)
        trail.record(operation, subject=table)
