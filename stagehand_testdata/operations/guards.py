"""Put up the guards in the database, look whether they stand, and take them down.

# Note [What is guarded]
Every table of the product's models: the product may write to any of them under a run. Tables that LEFT_ALONE
names pay for nothing, but for those whose rows a purge may reach: those of registered types and of standing
entries, the tables that make one row with them (parents, children, many-to-many), whatever points at one of
these, through however many tables, and what registered rows point at.

# Note [What a record says]
A `Guard` row holds two digests: of the statements that made the guards, and of what the catalogue held once
they were made. The first tells that a newer release wants other guards, the second that somebody has changed
or disabled what is there. Its time is renewed where they are put up after a while without: what was made
before it may have gone unseen. Guards that are replaced while they watch prove what they have proven.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any

from django.apps import apps
from django.db import connections, models, router, transaction

from .. import fingerprints
from ..access import trail
from ..conf import settings
from ..databases import database
from ..databases.base import Database, take_fingerprints
from ..databases.guards import GuardedTable, HeldGuard, guard_name
from ..exceptions import ConfigurationError, GuardsDisabled
from ..logs import log_error
from ..models import (
    MARK,
    AuditEntry,
    Guard,
    PurgeUnderWay,
    StatementUnderWay,
    TestEntity,
    TestRun,
    key_column,
)
from ..registry import get_registry
from .installing import Change, naming
from .purge.graph import TREE_COLUMNS, Model, concrete, is_derived, look_at_tables, pointers_to
from .runs import ledger_alias

logger = logging.getLogger(__name__)

#: Tables of the framework's own that belong to no test: Django makes their rows as it needs them.
_NEVER = frozenset({"contenttypes", "migrations", TestRun._meta.app_label})
_FIX = "Type 'manage.py testdata guards install'."
#: SQLite takes no more parameters than that in one statement, by default.
_FINGERPRINTS_AT_ONCE = 500


class State(Enum):
    AWAKE = "awake"
    MISSING = "missing"
    DISABLED = "disabled"
    CHANGED = "changed"
    NOT_INSTALLED = "not installed"
    NOT_GUARDABLE = "not guardable"


@dataclass(frozen=True, slots=True)
class TableStatus:
    table: str
    model: str
    state: State
    reason: str = ""
    installed_at: dt.datetime | None = None

    @property
    def recorded(self) -> bool:
        return self.installed_at is not None

    @property
    def broken(self) -> bool:
        """Whether the guards that are on record cannot be relied on."""
        return self.recorded and self.state is not State.AWAKE


@dataclass(frozen=True, slots=True)
class Unguardable:
    """A table of which the database cannot tell which of its rows are in the ledger."""

    table: str
    model: str
    reason: str


# --- which tables -----------------------------------------------------------------------------------------


def guardable() -> list[GuardedTable]:
    """The tables that get guards, by name. See Note [What is guarded]."""
    return [each for each in _tables(ledger_alias()) if isinstance(each, GuardedTable)]


def _tables(alias: str) -> list[GuardedTable | Unguardable]:
    look_at_tables()
    there = set(connections[alias].introspection.table_names())
    found: dict[str, GuardedTable | Unguardable] = {}
    everybody = {concrete(each) for each in apps.get_models(include_auto_created=True)}
    for model in _within_reach() | {each for each in everybody if not _is_left_alone(each)}:
        if model._meta.db_table in there and _is_touched(model, alias):
            found[model._meta.db_table] = _table_of(model, alias)
    return [found[name] for name in sorted(found)]


def _within_reach() -> set[Model]:
    registered = _registered()
    reached: set[Model] = set()
    pending = registered | _entered()
    while pending:
        model = pending.pop()
        reached.add(model)
        around = {concrete(each.model) for each in pointers_to(model)}
        around |= {concrete(parent) for parent in model._meta.get_parent_list()}
        pending |= around - reached
    return reached | {target for model in registered for target in _targets(model)}


def _registered() -> set[Model]:
    found = set()
    for entity_type in get_registry().entity_types:
        try:
            found.add(concrete(entity_type.model))
        except ConfigurationError:
            continue  # `manage.py check` tells
    return found


def _entered() -> set[Model]:
    labels = TestEntity.objects.using(ledger_alias()).standing().order_by().values_list("model", flat=True)
    found = set()
    for label in labels.distinct():
        try:
            found.add(concrete(apps.get_model(label)))
        except (LookupError, ValueError):
            continue
    return found


def _targets(model: Model) -> Iterator[Model]:
    columns: list[Any] = [*model._meta.concrete_fields, *model._meta.many_to_many]
    for field in columns:
        if field.is_relation and isinstance(field.related_model, type):
            yield concrete(field.related_model)


def _is_touched(model: Model, alias: str) -> bool:
    if not _is_modelled(model):
        return True
    return not (
        model._meta.app_label in _NEVER
        or model._meta.swapped
        or router.db_for_write(model) != alias
        or is_derived(model)
    )


def _is_left_alone(model: Model) -> bool:
    names = {name.lower() for name in settings.LEFT_ALONE}
    return bool(names & {model._meta.app_label, model._meta.label_lower})


def _is_modelled(model: Model) -> bool:
    """Not so where the graph found the table by its foreign key alone: none of its rows can be ours."""
    return model._meta.apps is apps


def _table_of(model: Model, alias: str) -> GuardedTable | Unguardable:
    table = model._meta.db_table
    label = model._meta.label_lower
    if not database(alias).can_guard:
        return Unguardable(table, label, "there are no guards for this database")
    pk: Any = model._meta.pk
    parts: Sequence[Any] = pk.fields if isinstance(pk, models.CompositePrimaryKey) else (pk,)
    kinds = [_kind(part) for part in parts]
    if not model._meta.managed and (reason := database(alias).refuses_triggers(table)):
        return Unguardable(table, label, reason)
    if len(parts) > 1 and not all(issubclass(kind, models.IntegerField) for kind in kinds):
        return Unguardable(table, label, "its key has several columns that are not all integers")
    if not issubclass(kinds[0], models.IntegerField | models.UUIDField | models.CharField | models.TextField):
        return Unguardable(table, label, f"its key is a {kinds[0].__name__}")
    return GuardedTable(
        table=table,
        model=label,
        pk=tuple(part.column for part in parts),
        key=key_column(model) if len(parts) == 1 else "key_text",
        columns=tuple(_columns(model, alias)),
        exempt=_tree_columns(model),
        free=tuple(_free_columns(model)),
        type=get_registry().name_of(model) if _is_modelled(model) else "",
        pointing=settings.FENCE_POINTERS,
        pointers=tuple(_pointers(model)) if settings.FENCE_POINTERS != "off" else (),
        mark=MARK if MARK in _columns(model, alias) else "",
    )


def _kind(field: Any) -> type[Any]:
    while field.is_relation:
        field = field.target_field
    return type(field)


def _columns(model: Model, alias: str) -> Iterable[str]:
    if _is_modelled(model):
        fields: list[Any] = list(model._meta.local_concrete_fields)
        return [field.column for field in fields if field.column and not getattr(field, "generated", False)]
    return _columns_there(alias, model._meta.db_table)


def _tree_columns(model: Model) -> tuple[str, ...]:
    """A tree keeps its counts in the real rows around the one that goes, and must go on doing so."""
    fields: list[Any] = list(model._meta.local_concrete_fields)
    by_name = {field.name: field.column for field in fields}
    kept = {name for tree in TREE_COLUMNS if tree <= set(by_name) for name in tree}
    return tuple(sorted(by_name[name] for name in kept))


def _free_columns(model: Model) -> Iterator[str]:
    """Those that FENCE_EXEMPT names, by "app.Model" or "app.Model.field"."""
    label = model._meta.label_lower
    named = {name.lower() for name in settings.FENCE_EXEMPT}
    for field in model._meta.local_concrete_fields:
        if field.column and named & {label, f"{label}.{field.name}"}:
            yield field.column


def _pointers(model: Model) -> Iterator[tuple[str, str, str]]:
    """The foreign keys of the model's own table to keys that the ledger can look up."""
    columns: list[Any] = list(model._meta.local_concrete_fields)
    for field in columns:
        if not field.is_relation or not isinstance(field.related_model, type):
            continue
        target = concrete(field.related_model)
        if field.target_field.primary_key and target._meta.app_label not in _NEVER:
            yield field.column, target._meta.label_lower, key_column(target)


# --- up and down ------------------------------------------------------------------------------------------


def install(alias: str) -> list[Change]:
    """Put up what is missing, changed or outdated, and take down what is no longer wanted; what was done.

    Raises Conflict where a table could not be had within five seconds; the tables before it have theirs.
    """
    engine = database(alias)
    records = _records(alias)
    held = engine.held_guards()
    wanted = {table.table: table for table in guardable()}
    unwanted = sorted(set(records) - set(wanted))
    changes = [Change(name, "no longer wanted: removed") for name in unwanted]
    with _alone(engine, "a table that needs no guards any more"):
        _take_down(engine, set(held) - {table.name for table in wanted.values()}, unwanted)
    for table in wanted.values():
        status = _status(engine, table, records.get(table.table), held)
        if status.state is State.AWAKE and not status.reason:
            continue
        # One table at a time: who holds one and waits for the next would be in the way of the product.
        with _alone(engine, table.table):
            for statement in _put_up(engine, table):
                engine.execute(statement)
            if status.state is State.AWAKE and connections[alias].features.can_rollback_ddl:
                # The old ones watched until the new ones did: what they have proven stays so.
                Guard.objects.using(alias).filter(table=table.table).update(installed_at=status.installed_at)
            trail.record("guards.install", subject=table.table)
        was = status.reason or status.state.value
        changes.append(Change(table.table, "installed" if not status.recorded else f"was {was}: renewed"))
    return changes


def remove(alias: str) -> list[Change]:
    """Take down every guard, on record or not."""
    engine = database(alias)
    with _together(alias), engine.locking_briefly():
        records = _records(alias)
        with naming(engine, "one of the tables", "no guard was changed"):
            _take_down(engine, engine.held_guards(), records)
            trail.record("guards.remove", counts={"tables": len(records)})
    return [Change(name, "removed") for name in records]


def lift(alias: str, names: Iterable[str] | None = None) -> None:
    """Take down every guard, or those of these names, and keep the record: `install` puts them up again."""
    engine = database(alias)
    with _together(alias), engine.locking_briefly():
        _take_down(engine, engine.held_guards() if names is None else names, ())


def install_sql(alias: str) -> list[str]:
    """What a full installation comes to, as the database's own command line reads it; executes nothing."""
    engine = database(alias)
    return engine.as_script([statement for table in guardable() for statement in _put_up(engine, table)])


def remove_sql(alias: str) -> list[str]:
    """What `remove` comes to, as the database's own command line reads it; executes nothing."""
    engine = database(alias)
    statements = [
        statement for name in sorted(engine.held_guards()) for statement in engine.unguard_sql(name)
    ]
    return engine.as_script(
        statements + [each for name in _records(alias) for each in engine.forget_sql(name)]
    )


def _together(alias: str) -> AbstractContextManager[Any]:
    """All of it or nothing, where the database can take a trigger back."""
    can = connections[alias].features.can_rollback_ddl
    return transaction.atomic(using=alias) if can else nullcontext()


def _put_up(engine: Database, table: GuardedTable) -> list[str]:
    return [*engine.guard_sql(table), *engine.record_sql(table)]


def _take_down(engine: Database, names: Iterable[str], tables: Iterable[str]) -> None:
    statements = [statement for name in sorted(names) for statement in engine.unguard_sql(name)]
    statements += [statement for table in sorted(tables) for statement in engine.forget_sql(table)]
    engine.take_down_own()
    for statement in statements:
        engine.execute(statement)


@contextmanager
def _alone(engine: Database, table: str) -> Iterator[None]:
    """A transaction of its own for what is done to one table."""
    with _together(engine.alias), engine.locking_briefly(), naming(engine, table, "no guard was changed"):
        yield


# --- do they stand? ---------------------------------------------------------------------------------------


def status(alias: str) -> list[TableStatus]:
    """Every table that is guarded or should be, and how it stands with its guards."""
    engine = database(alias)
    records = _records(alias)
    held = engine.held_guards()
    tables = _tables(alias)
    found = []
    for table in tables:
        if isinstance(table, Unguardable):
            found.append(TableStatus(table.table, table.model, State.NOT_GUARDABLE, table.reason))
        else:
            found.append(_status(engine, table, records.get(table.table), held))
    for name in sorted(set(records) - {table.table for table in tables}):
        record = records[name]
        state = _state_of(record, held)
        found.append(TableStatus(name, record.model, state, "no longer wanted", record.installed_at))
    return found


def require_awake(alias: str) -> dict[str, dt.datetime]:
    """Since when each model's table is guarded, by label; empty where no guards were ever installed.

    Raises GuardsDisabled where guards that are on record are missing, disabled or changed.
    """
    records = _records(alias)
    if not records:
        return {}
    engine = database(alias)
    if not engine.triggers_fire():
        raise GuardsDisabled("Triggers are switched off on this connection; switch them on, or use another.")
    held = engine.held_guards()
    broken = {name: state for name in records if (state := _state_of(records[name], held)) != State.AWAKE}
    if broken:
        named = ", ".join(f"{name} ({state.value})" for name, state in broken.items())
        raise GuardsDisabled(f"Guards that were installed in the database are not awake: {named}. {_FIX}")
    return {record.model: record.installed_at for record in records.values()}


_NEEDED = (AuditEntry, Guard, PurgeUnderWay, StatementUnderWay, TestEntity)


def can_tell(alias: str) -> bool:
    """Whether the app's own tables are there yet."""
    there = set(connections[alias].introspection.table_names())
    return {model._meta.db_table for model in _NEEDED} <= there


def _records(alias: str) -> dict[str, Guard]:
    return {record.table: record for record in Guard.objects.using(alias).order_by("table")}


def _status(
    engine: Database, table: GuardedTable, record: Guard | None, held: dict[str, HeldGuard]
) -> TableStatus:
    if record is None:
        return TableStatus(table.table, table.model, State.NOT_INSTALLED)
    state = _state_of(record, held)
    outdated = state is State.AWAKE and not record.definition.startswith(engine.wanted_digest(table))
    reason = "of another release, or the model, its registration or a setting has changed" if outdated else ""
    return TableStatus(table.table, table.model, state, reason, record.installed_at)


def _state_of(record: Guard, held: dict[str, HeldGuard]) -> State:
    guard = held.get(guard_name(record.table))
    if guard is None or not guard.complete:
        return State.MISSING
    if guard.disabled:
        return State.DISABLED
    return State.AWAKE if record.definition.endswith(guard.digest) else State.CHANGED


# --- around `migrate` -------------------------------------------------------------------------------------


def before_migrate(alias: str, plan: Iterable[tuple[Any, bool]]) -> None:
    """Take down the guards that are in a migration's way.

    All of them where it is about to rebuild the ledger, or to take it away; and where the database does not
    take a column away that a trigger names, those of the tables of the apps that are migrated.
    """
    plan = list(plan)
    ours = [backwards for migration, backwards in plan if migration.app_label == TestRun._meta.app_label]
    # Tables that a newer release has besides are about to come.
    recording = {Guard._meta.db_table} <= set(connections[alias].introspection.table_names())
    if alias != ledger_alias() or not recording or not _records(alias):
        return
    hindering = database(alias).guards_hinder_rebuilds
    if ours or (plan and hindering):
        _take_fingerprints(alias)
    if any(ours) or (ours and hindering):
        lift(alias)
    elif plan and hindering:
        migrated = {migration.app_label for migration, _ in plan}
        records = _records(alias).values()
        lift(alias, [guard_name(each.table) for each in records if each.model.partition(".")[0] in migrated])


def _take_fingerprints(alias: str) -> None:
    """Of captured rows, which are proven only by guards that watch without a break: one is about to come.

    Never fails: what has no fingerprint then is not proven, and stays.
    """
    held = database(alias).held_guards()
    standing = TestEntity.objects.using(alias).standing().filter(origin=TestEntity.Origin.CAPTURED)
    for record in _records(alias).values():
        if _state_of(record, held) is not State.AWAKE:
            continue
        try:
            model: Any = apps.get_model(record.model)
            bare = standing.filter(model=record.model, fingerprint={}, created_at__gte=record.installed_at)
            # A column that is yet to come is not there to be asked for, in the ledger either.
            entries = list(bare.only("model", "key_text", "key_bigint", "key_uuid").order_by("pk"))
            there = set(_columns_there(alias, record.table))
            attnames = [each.attname for each in fingerprints.columns(model) if each.column in there]
            for at in range(0, len(entries), _FINGERPRINTS_AT_ONCE):
                take_fingerprints(alias, model, entries[at : at + _FINGERPRINTS_AT_ONCE], attnames)
        except Exception as error:  # noqa: BLE001 - migrate goes on whatever it is
            log_error(logger, f"captured rows of {record.table} have no fingerprints", error)


def _columns_there(alias: str, table: str) -> list[str]:
    connection = connections[alias]
    with connection.cursor() as cursor:
        return [each.name for each in connection.introspection.get_table_description(cursor, table)]


def after_migrate(alias: str) -> None:
    """Put the guards up again where they are on record: rebuilding a table may have dropped them.

    Never fails: the purge refuses to run where this did not work out.
    """
    try:
        if alias == ledger_alias() and can_tell(alias) and _records(alias):
            install(alias)
    except Exception as error:  # noqa: BLE001 - migrate goes on whatever it is
        log_error(logger, "the database's guards could not be renewed after migrate", error)
