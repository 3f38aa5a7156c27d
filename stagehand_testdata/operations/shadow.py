"""Creating calls that make no row: the same answers, with entries in the ledger and nothing else.

# Note [Shadow rows]
A factory builds its row and does not save it. The row gets a `ShadowKey`, so whatever points at it has that
key, and its columns go into its entry: a later call of the run finds it there. The database is not asked
(see `isolation.shadow`), so it refuses nothing either: a column is held against its model's field, while
what only the database knows (unique values, constraints, triggers) is for `deep`.
"""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, TypeVar

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import OperationalError, models, transaction
from django.db.models.expressions import DatabaseDefault, Value

from ..access import privileges, quotas, trail
from ..access.idempotency import Once
from ..conf import settings
from ..context import CurrentRun, use_run
from ..databases import database
from ..exceptions import Conflict, InvalidInput, NeedsDeep, NotAllowed, NotShadow
from ..isolation import mail
from ..isolation.hooks import without_commit_hooks
from ..isolation.shadow import Watch, watching_statements
from ..models import ShadowKey, TestEntity, TestRun
from ..registry import get_registry
from . import entities, externals, runs
from .addresses import AddressBook, named_in
from .entities import Attempt, Creation

R = TypeVar("R")
M = TypeVar("M", bound=models.Model)
Work = Callable[[Creation], R]

#: SQLite may not take more than 999 values.
_ENTERED_AT_ONCE = 100
#: Of an entry's columns, what is another in each, and what is the same in all of a shadow's.
_DIFFERING = ("run_id", "fingerprint", "ordinal", "type", "model", "key_text", "shadow_row")
_CONSTANT = (
    ("origin", TestEntity.Origin.SHADOW.value),
    ("state", TestEntity.State.LIVE.value),
    ("reason", ""),
    ("blocked_by", "{}"),
    ("database", ""),
    ("reference", ""),
    ("tombstone", "0"),
)


class Mode(enum.Enum):
    """How a creating call is done; its value is what the answer says of that."""

    LIVE = ()
    SHADOW = ("shadow",)
    DEEP = ("shadow", "deep")

    def marked(self, answer: Any) -> Any:
        """The answer, each object in it marked as what it is."""
        marks = dict.fromkeys(self.value, True)
        if isinstance(answer, list):
            return [{**each, **marks} for each in answer]
        return {**answer, **marks}


def mode_of(*, shadow: bool, deep: bool) -> Mode:
    """What the client asks for, as far as FORCE_SHADOW leaves it a choice.

    Raises InvalidInput, and NotAllowed for `deep` under FORCE_SHADOW: it would reach the host's tables.
    """
    if settings.FORCE_SHADOW and deep:
        raise NotAllowed(
            "'deep' reaches the product's tables, and this server's calls do not (FORCE_SHADOW)."
        )
    if settings.FORCE_SHADOW or (shadow and not deep):
        return Mode.SHADOW
    if deep and not shadow:
        raise InvalidInput("'deep' is a kind of shadow call.", details={"deep": ["Send 'shadow' with it."]})
    return Mode.DEEP if deep else Mode.LIVE


def perform(
    mode: Mode,
    test_id: str,
    owner: str,
    work: Work[R],
    *,
    data: Any = None,
    max_age_minutes: float | None = None,
    once: Once | None = None,
) -> R:
    """Run `work` in the name of the run, in this mode; raises as `entities.perform`, and NeedsDeep."""
    how: Callable[..., R] = {
        Mode.LIVE: entities.perform,
        Mode.SHADOW: _perform_shadow,
        Mode.DEEP: _perform_deep,
    }[mode]
    return how(test_id, owner, work, data=data, max_age_minutes=max_age_minutes, once=once or Once())


def _perform_shadow(
    test_id: str, owner: str, work: Work[R], *, data: Any, max_age_minutes: float | None, once: Once
) -> R:
    def attempt_it(attempt: Attempt) -> R:
        with watching_statements() as watch:
            run = runs.hold(test_id, owner, exclusive=attempt.collisions > 0)
            book = AddressBook(test_id, named_in(data))
            if run.last_ordinal:  # type: ignore[attr-defined]
                book.read_shadows(run)
            runs.extend_session(run, max_age_minutes)
            call = ShadowCreation(run, book, attempt, watch)
            with use_run(CurrentRun(run.pk, run.test_id)), without_commit_hooks(), watch.host_runs():
                result = entities.guarded(work, call, data)
            entered = call.enter()
            quotas.settle_rows(run.last_ordinal + entered.total())  # type: ignore[attr-defined]
        trail.record("shadow.create", run, counts=entered)
        once.keep(result, run)
        return result

    return entities.attempting(attempt_it, once)


class ShadowCreation(Creation):
    """A creating call whose rows are built, given a shadow's id, and entered. See Note [Shadow rows]."""

    def __init__(self, run: TestRun, addresses: AddressBook, attempt: Attempt, watch: Watch) -> None:
        super().__init__(run, addresses, attempt)
        self._watch = watch
        self._held: list[models.Model | externals.External] = []
        self.take_up = self._take_up

    def external(self, type_name: str, /, **fields: Any) -> externals.External:
        thing = externals.ask_for(self.run, type_name, fields)
        thing.key = thing.reference = self._next_key()
        self._held.append(thing)
        return thing

    def find_row(self, model: type[M], key: Any, field: str = "id", *, reference: bool = False) -> M:
        """The run's own shadow row of that model; raises NotInRun, and NotShadow for any other id."""
        shadow = ShadowKey.read(key)
        if shadow is None:
            raise NotShadow(details={field: ["Not the id of a shadow row."]})
        for each in self._held:
            if isinstance(each, model) and each.pk == shadow:
                return each
        with self._watch.ours():
            found = _read(self.run, [shadow]).get(shadow)
        if not isinstance(found, model):
            raise entities.not_in_run(field)
        return found

    def refuse_taken(self, value: str, *columns: models.Field[Any, Any]) -> None:
        """What only the database knows is for `deep`."""

    def stored(self, made: list[models.Model]) -> list[models.Model]:
        return made

    def enter(self) -> Counter[str]:
        """Write an entry for each row and each thing outside, in the order in which they came; how many."""
        entries = list(self._entries())
        # No row to tell from others: what there is to prove is that the host was not asked.
        proof = json.dumps({"hostStatements": self._watch.on_host})
        for start in range(0, len(entries), _ENTERED_AT_ONCE):
            some = entries[start : start + _ENTERED_AT_ONCE]
            params = [value for each in some for value in (self.run.pk, proof, *each)]
            database(runs.ledger_alias()).insert(TestEntity, _DIFFERING, params, constant=_CONSTANT)
        return Counter(type_name for _, type_name, *_ in entries)

    def _entries(self) -> Iterator[tuple[int, str, str, str, str]]:
        """What differs between them, but for the run and the proof."""
        last: int = self.run.last_ordinal  # type: ignore[attr-defined]
        requested = {id(instance): entity_type.name for entity_type, instance in self.made}
        for ordinal, each in enumerate(self._held, last + 1):
            if isinstance(each, externals.External):
                name, model, key, values = each.type.name, f"external.{each.type.name}", each.key, {}
            else:
                concrete = type(each)._meta.concrete_model or type(each)
                model, key, values = concrete._meta.label_lower, str(each.pk), _values(each)
                name = requested.get(id(each)) or get_registry().name_of(concrete)
            row = {"values": values, "requested": id(each) in requested}
            yield ordinal, name, TestEntity.SHADOW_PREFIX + model, str(key), json.dumps(row)

    def _next_key(self) -> ShadowKey:
        last: int = self.run.last_ordinal  # type: ignore[attr-defined]
        return ShadowKey.of(self.run.pk, last + len(self._held) + 1)

    def _take_up(self, instance: Any) -> None:
        """A factory has built this; what is no row is its own affair."""
        if not isinstance(instance, models.Model):
            return
        privileges.refuse_privileged(instance)
        _fill_in(instance)
        _require_valid(instance, compact=self.attempt.compact)
        _give_key(instance, self._next_key())
        self._held.append(instance)


def _fill_in(instance: models.Model) -> None:
    """What saving the row would have put into it, as far as that takes no database."""
    for column in _filled_columns(type(instance)):
        if isinstance(column, models.GeneratedField):
            vars(instance).setdefault(column.attname, None)
            continue
        value = getattr(instance, column.attname)
        if isinstance(value, DatabaseDefault):
            [default] = value.get_source_expressions()
            setattr(instance, column.attname, default.value if isinstance(default, Value) else None)
        elif _is_automatic(column):
            column.pre_save(instance, add=True)


@cache
def _filled_columns(model: type[models.Model]) -> list[Any]:
    columns: list[Any] = list(model._meta.concrete_fields)
    return [
        each
        for each in columns
        if isinstance(each, models.GeneratedField) or _has_db_default(each) or _is_automatic(each)
    ]


def _is_automatic(column: Any) -> bool:
    return getattr(column, "auto_now", False) or getattr(column, "auto_now_add", False)


def _require_valid(instance: models.Model, *, compact: bool) -> None:
    """Raise what the live call would: Conflict where a value is missing, InvalidInput where one is wrong.

    And OverflowError for too large a number, as long as smaller ones can be tried.
    """
    label = instance._meta.label
    unasked, needed = _asked_of(type(instance))
    missing = [each.name for each in needed if getattr(instance, each.attname) is None]
    wrong: dict[str, list[str]] = {}
    try:
        instance.clean_fields(exclude=set(unasked))
    except ValidationError as error:
        for name, found in error.error_dict.items():
            codes = {each.code for each in found}
            missing += [name] if "null" in codes else []
            if "max_value" in codes and not compact:
                raise OverflowError(f"{label}.{name} is too large") from error
            # That a text must not be empty is a rule of forms: the database takes it.
            texts = [text for each in found if each.code not in ("null", "blank") for text in each.messages]
            if texts:
                wrong[name] = texts
    if missing:
        raise Conflict(f"{entities.REFUSED} ({label}: {', '.join(missing)})")
    if wrong:
        raise InvalidInput(f"The model {label} refuses: {', '.join(wrong)}.", details=wrong)


@cache
def _asked_of(model: type[models.Model]) -> tuple[frozenset[str], list[Any]]:
    """The columns that no field is asked about, and the foreign keys that must not be empty."""
    columns: list[Any] = list(model._meta.concrete_fields)
    unasked = frozenset(each.name for each in columns if each.is_relation or _has_db_default(each))
    return unasked, [each for each in columns if each.is_relation and not each.null and not each.primary_key]


def _has_db_default(column: Any) -> bool:
    return getattr(column, "db_default", models.NOT_PROVIDED) is not models.NOT_PROVIDED


def _give_key(instance: models.Model, key: ShadowKey) -> None:
    if isinstance(instance._meta.pk, models.CompositePrimaryKey):
        raise NeedsDeep(f"A key of several columns ({instance._meta.label}) is none that a shadow can have.")
    for column in instance._meta.concrete_fields:
        # A multi-table child has its parents' keys too.
        if column.primary_key:
            setattr(instance, column.attname, key)
    instance._state.adding = False
    instance._state.db = runs.ledger_alias()
    for relation in instance._meta.related_objects:
        # Nothing points at it but what says so later.
        if relation.one_to_one and not relation.is_cached(instance):
            relation.set_cached_value(instance, None)


# --- what an entry has in the place of a row -------------------------------------------------------------


def _values(instance: models.Model) -> dict[str, Any]:
    """The columns as JSON has them; the key is the entry's, and a password nobody's."""
    return {
        column.attname: entities.plain(column.value_from_object(instance))
        for column in instance._meta.concrete_fields
        if not column.primary_key and column.name != "password"
    }


def _read(run: TestRun, keys: Iterable[ShadowKey]) -> dict[ShadowKey, models.Model]:
    """The shadow rows of the run under these keys, and all that they point at."""
    found: dict[ShadowKey, models.Model] = {}
    wanted = set(keys)
    while wanted:
        entries = TestEntity.objects.using(runs.ledger_alias()).standing()
        entries = entries.filter(
            run=run, origin=TestEntity.Origin.SHADOW, ordinal__in=[key.ordinal for key in wanted]
        )
        fresh = [_instance(entry) for entry in entries if entry.key_text in wanted]
        found |= {each.pk: each for each in fresh if each is not None}
        wanted = {key for each in fresh if each is not None for _, key in _pointers(each)} - set(found)
        if not fresh:
            break
    for each in found.values():
        for column, key in _pointers(each):
            if key in found:
                setattr(each, column.name, found[key])
    return found


def _pointers(instance: models.Model) -> list[tuple[Any, ShadowKey]]:
    values = [(column, getattr(instance, column.attname)) for column in instance._meta.concrete_fields]
    return [
        (column, value)
        for column, value in values
        if column.is_relation and not column.primary_key and isinstance(value, ShadowKey)
    ]


def _instance(entry: TestEntity) -> models.Model | None:
    """The row that the entry stands for; None where it is outside, or its model is not installed."""
    try:
        model = apps.get_model(entry.model.removeprefix(TestEntity.SHADOW_PREFIX))
    except (LookupError, ValueError):
        return None
    values: dict[str, Any] = (entry.shadow_row or {})["values"]
    columns = model._meta.concrete_fields
    instance: models.Model = model.from_db(
        runs.ledger_alias(),
        [column.attname for column in columns],
        [_python(column, values.get(column.attname, column.get_default())) for column in columns],
    )
    key = ShadowKey.read(entry.key_text)
    if key is not None:
        _give_key(instance, key)
    return instance


def _python(column: Any, value: Any) -> Any:
    if value is None or isinstance(column, models.JSONField):
        return value
    if column.is_relation:
        return ShadowKey.read(value) or column.target_field.to_python(value)
    return value if column.primary_key else column.to_python(value)


# --- deep ------------------------------------------------------------------------------------------------


class _Undone(Exception):
    """Takes the transaction back, and the files with it, and carries the answer out."""

    def __init__(self, result: Any) -> None:
        self.result = result


def _perform_deep(
    test_id: str, owner: str, work: Work[R], *, data: Any, max_age_minutes: float | None, once: Once
) -> R:
    """The real creation, in a transaction that is rolled back once its constraints are checked.

    Hooks that wait for the commit never run; nothing outside the database is made. The ids of its answer are
    nobody's afterwards. Raises Conflict where a lock cannot be had soon, ConfigurationError where an e-mail
    that the product sends on the way would leave.
    """
    mail.require_held_back()
    engine = database(runs.ledger_alias())

    def attempt_it(attempt: Attempt) -> None:
        with engine.locking_briefly():
            call, result = entities.perform_once(
                attempt, test_id, owner, work, data=data, max_age_minutes=max_age_minutes
            )
            transaction.get_connection(runs.ledger_alias()).check_constraints(call.tables)
        for thing in call.outside:
            thing.reference = thing.key
        raise _Undone(result)

    try:
        entities.attempting(attempt_it, once)
    except _Undone as undone:
        result: R = undone.result
        once.keep_apart(result)
        return result
    except OperationalError as error:
        if not engine.is_lock_timeout(error):
            raise
        raise Conflict(
            "Somebody else has locked what this call needs; nothing was done. Try again."
        ) from error
    raise AssertionError("unreachable")  # pragma: no cover
