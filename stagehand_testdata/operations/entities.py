"""Make rows in the name of a run, and enter every one of them in the ledger in the same transaction."""

from __future__ import annotations

import base64
import datetime as dt
import logging
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import DataError, IntegrityError, OperationalError, models, router
from django.db import Error as DatabaseFault
from django.db.models import Exists
from django.utils.duration import duration_string

from ..access import privileges, quotas, trail
from ..access.callers import current_caller
from ..access.idempotency import Once
from ..conf import settings
from ..context import CurrentRun
from ..databases import database
from ..exceptions import (
    ConfigurationError,
    Conflict,
    FactoryFailed,
    InvalidInput,
    NotInRun,
    ShadowId,
    TestDataError,
    UnknownEntityType,
    UntrackedWrite,
)
from ..fingerprints import can_tell_rows
from ..isolation.capture import MadeRow, Recorder, WrittenFile, recording_inserts
from ..isolation.hooks import until_commit
from ..isolation.visibility import TestDataModel
from ..logs import log_error, without_sent
from ..models import MARK, Key, ShadowKey, TestEntity, TestRun, entries_of_outer_row
from ..registry import EntityType, get_registry, resolve
from . import externals, identities, runs
from .addresses import AddressBook, identifying_columns, is_address, named_in
from .purge.graph import TREE_COLUMNS

logger = logging.getLogger(__name__)

R = TypeVar("R")
M = TypeVar("M", bound=models.Model)

#: How often a call starts over: with other numbers, with small ones, after a deadlock.
_ATTEMPTS = 5
_COLLISIONS = 2
#: What a factory raises over a value that it cannot use.
_BAD_VALUES = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
REFUSED = "The database refused a row: one of its values is taken already, missing, or points nowhere."
_FIT = "The database refused a value: it is too long or too large for its column."


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a creating call, of several."""

    #: How often its numbers collided with another call's.
    collisions: int = 0
    #: Whether the usual numbers were too large for a column.
    compact: bool = False
    #: The files that it writes: deleted where it fails.
    files: list[WrittenFile] = field(default_factory=list)


class Creation:
    """One creating call: what a scenario or a host's own operation makes its rows through."""

    #: What is done with each row that a factory built, where none is saved.
    take_up: Callable[[Any], None] | None = None

    def __init__(self, run: TestRun, addresses: AddressBook, attempt: Attempt) -> None:
        self.run = run
        self.addresses = addresses
        self.attempt = attempt
        self.made: list[tuple[EntityType, models.Model]] = []
        self.outside: list[externals.External] = []
        #: The tables that it has written to, once it is done.
        self.tables: list[str] = []
        #: How many entries it has made, by type, then too.
        self.counts: Counter[str] = Counter()
        self._values: Any = None
        self._room = quotas.room(run)

    @property
    def test_id(self) -> str:
        return self.run.test_id

    @property
    def number(self) -> int:
        """A number that no other row of the run has: for default names, the same in a replay."""
        last: int = self.run.last_ordinal  # type: ignore[attr-defined]
        return last + len(self.made) + 1

    def require_room(self, count: int) -> None:
        """Raise QuotaExceeded where the call may not make so many rows more: ask before the first of many."""
        if self._room is not None:
            self._room.require(len(self.made) + count)

    def name(self, given: str) -> str:
        """The name with the test prefix, which it gets where it lacks it."""
        prefix = settings.TEST_ID_PREFIX
        return given if given.startswith(prefix) else f"{prefix}{given}"

    def create(self, type_name: str, /, **fields: Any) -> Any:
        """One row by the factory of that entity type, with these of its parameters; the instance.

        Raises NotAllowed, QuotaExceeded, UnknownEntityType, FactoryFailed, Conflict, InvalidInput.
        """
        current_caller().require(entity_types=[type_name])
        self.require_room(1)
        entity_type = entity_type_named(type_name)
        factory_class = entity_type.load_factory()
        from . import factories  # after the line that says what is missing where factory_boy is

        reason = unownable(entity_type.model)
        if reason is not None:
            raise ConfigurationError(f"Entity type '{type_name}' cannot be owned safely: {reason}")
        if self._values is None:
            last: int = self.run.last_ordinal  # type: ignore[attr-defined]
            attempt = self.attempt
            self._values = factories.Values(
                self.run.seed, last, attempt.collisions, attempt.compact, self.take_up
            )
        instance = factories.create(factory_class, self._values, fields)
        if not isinstance(instance, models.Model) or instance._state.adding or instance.pk is None:
            raise FactoryFailed(f"The factory of '{type_name}' gave no saved row.")
        self.made.append((entity_type, instance))
        return instance

    def external(self, type_name: str, /, **fields: Any) -> externals.External:
        """Something outside the database, made by its handler once this call's rows are committed.

        It has its `reference` then; put it into the answer as it is. Raises ConfigurationError.
        See Note [Things outside].
        """
        thing = externals.ask_for(self.run, type_name, fields)
        self.outside.append(thing)
        return thing

    def find(self, type_name: str, key: Any, field: str = "id") -> Any:
        """The run's own row of that entity type under that key.

        Raises NotInRun, alike for a real row, another run's and none at all.
        """
        return self.find_row(entity_type_named(type_name).model, key, field)

    def find_row(self, model: type[M], key: Any, field: str = "id", *, reference: bool = False) -> M:
        """The run's own row of that model; with `reference`, a real row of a catalogue model will do."""
        return find_own_row(self.run, model, key, field, reference=reference)

    def refuse_taken(self, value: str, *columns: models.Field[Any, Any]) -> None:
        """Raise Conflict where a row that is not the run's has this value there, in whatever case."""
        for column in dict.fromkeys(columns):
            model = column.model
            rows = model._base_manager.using(runs.ledger_alias()).filter(**{f"{column.name}__iexact": value})
            if rows.filter(~Exists(entries_of_outer_row(model, self.run))).exists():
                raise Conflict(f"'{column.name}': {value} is taken by a row that is not of this run.")

    def stored(self, made: list[models.Model]) -> list[models.Model]:
        """These rows as the database holds them; they are all of one model."""
        rows = type(made[0])._base_manager.using(runs.ledger_alias())
        found = rows.in_bulk([each.pk for each in made])
        return [found.get(each.pk, each) for each in made]

    def instances(self, type_name: str) -> list[Any]:
        """What this call has made of that entity type, in order."""
        return [instance for entity_type, instance in self.made if entity_type.name == type_name]


def perform(
    test_id: str,
    owner: str,
    work: Callable[[Creation], R],
    *,
    data: Any = None,
    max_age_minutes: float | None = None,
    once: Once | None = None,
) -> R:
    """Run `work` in the name of the run: all of its rows and their entries, or none; and `once` if need be.

    A collision with another call's numbers starts it over with other ones, alone in the run at last. What it
    asked for outside the database is made once all of that is committed.
    Raises RunClosed, TooOld, and what `work` raises; a value that the database refuses is a Conflict or
    InvalidInput, anything else that a factory raises is FactoryFailed. Raises ExternalFailed once the rows
    are committed.
    """
    once = once or Once()

    def attempt_it(attempt: Attempt) -> tuple[Creation, R]:
        call, result = perform_once(attempt, test_id, owner, work, data=data, max_age_minutes=max_age_minutes)
        trail.record("rows.create", call.run, counts=call.counts)
        if call.outside:
            once.keep_for_now(externals.longest_making(call.outside))
        else:
            once.keep(result, call.run)
        return call, result

    call, result = attempting(attempt_it, once)
    if call.outside:
        with once.settling(result):
            externals.make_once_committed(call.run, call.outside)
    return result


def attempting(perform_it: Callable[[Attempt], R], once: Once) -> R:
    """Run it in a transaction, and again where it collided, overflowed or was chosen for a victim."""
    alias = runs.ledger_alias()
    attempt = Attempt()
    for number in range(_ATTEMPTS):
        last = number == _ATTEMPTS - 1
        attempt = replace(attempt, files=[])
        try:
            with (
                externals.discarding_on_failure(attempt.files),
                once.transaction(),
                runs.in_limited_time(),
            ):
                return perform_it(attempt)
        except IntegrityError as error:
            if last or attempt.collisions == _COLLISIONS:
                raise Conflict(REFUSED) from error
            attempt = replace(attempt, collisions=attempt.collisions + 1)
        except OperationalError as error:
            if last or not database(alias).chose_a_victim(error):
                raise
        except (DataError, OverflowError) as error:
            if last or attempt.compact:
                raise InvalidInput(_FIT) from error
            attempt = replace(attempt, compact=True)
    raise AssertionError("unreachable")  # pragma: no cover


def perform_once(
    attempt: Attempt,
    test_id: str,
    owner: str,
    work: Callable[[Creation], R],
    *,
    data: Any,
    max_age_minutes: float | None,
) -> tuple[Creation, R]:
    """One attempt, in a transaction that is open already; its call, and what `work` returns."""
    book = AddressBook(test_id, named_in(data))
    run = runs.hold(test_id, owner, exclusive=attempt.collisions > 0, annotations=book.annotation())
    book.read(getattr(run, "held_addresses", None))
    runs.extend_session(run, max_age_minutes)
    call = Creation(run, book, attempt)
    its = CurrentRun(run.pk, run.test_id, fenced=True)
    watching = privileges.refusing_promotions(runs.ledger_alias())
    with until_commit(its), watching, recording_inserts() as recorder:
        entering = _Entering(run, call, recorder)
        try:
            result = guarded(work, call, data)
        finally:
            attempt.files.extend(recorder.files)
    entering.finish()
    call.counts = entering.counts()
    call.tables = sorted({row.model._meta.db_table for row in recorder.rows})
    return call, result


def guarded(work: Callable[[Creation], R], call: Creation, data: Any) -> R:
    """Run `work`; what is no fault of the database's becomes an error of ours."""
    try:
        return work(call)
    except (TestDataError, DatabaseFault, OverflowError):
        raise
    except Exception as error:
        if isinstance(error, ValidationError) or (data and isinstance(error, _BAD_VALUES)):
            logger.info("a factory refused its values: %r", without_sent(str(error)))
            raise InvalidInput(f"The factory refused these values: {_first_line(error)}") from error
        log_error(logger, "a factory failed", error)
        raise FactoryFailed from error


class _Entering:
    """Writes the entries of a call: at its end in one statement, or before something changes rows."""

    def __init__(self, run: TestRun, call: Creation, recorder: Recorder) -> None:
        self._run = run
        self._call = call
        self._recorder = recorder
        self._alias = runs.ledger_alias()
        #: Where each entry's row is among the recorder's.
        self._written: list[tuple[int, TestEntity]] = []
        if database(self._alias).can_capture:
            recorder.enter = self.enter

    @property
    def _last(self) -> int:
        last: int = self._run.last_ordinal  # type: ignore[attr-defined]
        return last + len(self._written)

    def enter(self) -> None:
        """Enter the rows that have no entry yet."""
        self._enter(self._fresh(self._requested()))

    def finish(self) -> None:
        """Enter the rest, and what is outside the database."""
        for row in self._recorder.rows:
            privileges.refuse_privileged(row.instance)
        requested = self._requested()
        fresh = self._fresh(requested)
        early = self._written[: len(self._written) - len(fresh)]
        written = {_place(entry): entry for _, entry in self._written}
        for entity_type, instance in self._call.made:
            if _identity(instance) not in written:
                _refuse_found(self._run, entity_type, instance)
        self._call.outside += identities.ask_for_accounts(self._run, self._recorder.rows)
        things = externals.entries(self._run, self._call.outside, self._recorder.files, after=self._last)
        self._enter(fresh, things)
        self._call.addresses.refuse_real([row.instance for row in self._recorder.rows])
        for _, entry in early:
            name = requested.get(_place(entry))
            if name and entry.origin != TestEntity.Origin.REQUESTED:
                known = TestEntity.objects.using(self._alias).filter(pk=entry.pk)
                known.update(type=name, origin=TestEntity.Origin.REQUESTED)
        quotas.settle_rows(self._last + len(things))

    def counts(self) -> Counter[str]:
        """What was entered, by type."""
        outside = Counter(each.type.name for each in self._call.outside)
        return Counter(entry.type for _, entry in self._written) + outside

    def _fresh(self, requested: Mapping[tuple[str, str], str]) -> list[TestEntity]:
        """Entries for the rows that have none. A row that was removed and made anew counts once."""
        recorder = self._recorder
        # What was rolled back since was not entered.
        self._written = [(place, entry) for place, entry in self._written if place < recorder.entered]
        rows = {(row.model._meta.label_lower, row.key.text): at for at, row in enumerate(recorder.rows)}
        fresh = []
        for at in sorted(rows.values()):
            if at >= recorder.entered:
                entry = self._entry(recorder.rows[at], requested)
                self._written.append((at, entry))
                fresh.append(entry)
        return fresh

    def _requested(self) -> dict[tuple[str, str], str]:
        return {_identity(instance): entity_type.name for entity_type, instance in self._call.made}

    def _entry(self, row: MadeRow, requested: Mapping[tuple[str, str], str]) -> TestEntity:
        if row.database != self._alias:
            raise UntrackedWrite(f"The factory wrote to the database '{row.database}', which has no ledger.")
        label = row.model._meta.label_lower
        if not can_tell_rows(row.model):
            raise ConfigurationError(
                f"The factory makes a row of {row.model._meta.label} on the way. {_only_a_key(row.model)}"
            )
        name = requested.get((label, row.key.text))
        return TestEntity(
            run=self._run,
            ordinal=self._last + 1,
            type=name or get_registry().name_of(row.model),
            origin=TestEntity.Origin.REQUESTED if name else TestEntity.Origin.ON_THE_WAY,
            model=label,
            database=row.database,
            key_text=row.key.text,
            key_bigint=row.key.bigint,
            key_uuid=row.key.uuid,
            fingerprint=row.fingerprint,
        )

    def _enter(self, entries: Sequence[TestEntity], outside: Sequence[TestEntity] = ()) -> None:
        ledger = TestEntity.objects.using(self._alias)
        anew = {_place(entry) for entry in entries}
        for at, entry in self._written:
            if at < self._recorder.entered and _place(entry) in anew:
                ledger.filter(pk=entry.pk).close(TestEntity.State.GONE)
        ledger.bulk_create([*entries, *outside])
        self._recorder.entered = len(self._recorder.rows)


def _place(entry: TestEntity) -> tuple[str, str]:
    return entry.model, entry.key_text


def _refuse_found(run: TestRun, entity_type: EntityType, instance: models.Model) -> None:
    """A row that the factory found is nobody's here: answering with it would show a real row."""
    model = type(instance)
    if model._meta.label_lower in _reference_models():
        return
    entries = TestEntity.objects.using(runs.ledger_alias()).standing().for_keys(model, [instance.pk])
    if not entries.filter(run=run).exists():
        raise Conflict(
            f"The factory of '{entity_type.name}' found a row that is not of this run, and made none."
        )


def find_own_row(run: TestRun, model: type[M], key: Any, field: str, *, reference: bool = False) -> M:
    """As `Creation.find_row`, which says what it raises."""
    if ShadowKey.read(key):
        raise ShadowId(details={field: [f"{key} is the id of a shadow row."]})
    missing = not_in_run(field)
    try:
        value = model._meta.pk.to_python(key)
        if isinstance(key, bool) or value is None:
            raise missing
        rows = model._base_manager.using(runs.ledger_alias()).filter(pk=value)
        if not (reference and model._meta.label_lower in _reference_models()):
            rows = rows.filter(Exists(entries_of_outer_row(model, run)))
        return rows.get()
    except (
        ObjectDoesNotExist,
        ValidationError,
        ValueError,
        TypeError,
        OverflowError,
        DataError,
    ) as error:
        raise missing from error


def not_in_run(field: str) -> NotInRun:
    """The refusal of an id that is no row of the run, alike for a real row and for none."""
    return NotInRun(f"'{field}' is no row of this run.", details={field: ["Not a row of this run."]})


def _identity(instance: models.Model) -> tuple[str, str]:
    model = _concrete(type(instance))
    return model._meta.label_lower, Key.of(model, instance.pk).text


def _concrete(model: type[models.Model]) -> type[models.Model]:
    return model._meta.concrete_model or model


def _reference_models() -> set[str]:
    return {label.lower() for label in settings.REFERENCE_MODELS}


def _first_line(error: Exception) -> str:
    text = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
    return text.strip().split("\n", 1)[0][:300]


# --- what can be made ------------------------------------------------------------------------------------


def entity_type_named(name: str) -> EntityType:
    """Raises UnknownEntityType."""
    found = get_registry().entity_types.get(name)
    if found is None:
        raise UnknownEntityType(f"No entity type is called '{name}'; GET entity-types lists them.")
    return found


@cache
def unownable(model: type[models.Model]) -> str | None:
    """Why rows of `model` cannot be owned safely; None where they can."""
    model = _concrete(model)
    label = model._meta.label
    if model._meta.app_label == TestRun._meta.app_label:
        return f"{label} is the ledger itself."
    if privileges.grants_privileges(model):
        return f"a row of {label} is a privilege."
    if router.db_for_write(model) != runs.ledger_alias():
        return f"{label} is written to another database than the ledger, so they cannot commit together."
    if model._meta.swapped:
        return f"{label} is swapped out."
    pk: Any = model._meta.pk
    while pk.is_relation:
        pk = pk.target_field
    if isinstance(pk, models.BinaryField | models.FloatField | models.JSONField):
        return f"the primary key of {label} is a {type(pk).__name__}, which cannot be compared reliably."
    if isinstance(pk, models.CharField) and (pk.max_length or 0) > TestEntity.KEY_LENGTH:
        return f"the primary key of {label} may be longer than {TestEntity.KEY_LENGTH} characters."
    return None if can_tell_rows(model) else _only_a_key(model)


def _only_a_key(model: type[models.Model]) -> str:
    return f"{model._meta.label} has no column but its key, so a key that is used again could not be told."


def settable_fields(entity_type: EntityType) -> dict[str, models.Field[Any, Any] | None]:
    """What a client may set on this type, by name: the model's column, or None for a factory parameter."""
    model = entity_type.model
    by_name = {field.name: field for field in model._meta.concrete_fields}
    if entity_type.fields is not None:
        names: Sequence[str] = entity_type.fields
    else:
        names = [name for name, field in by_name.items() if _is_plain_column(field)]
    never = {name for name, field in by_name.items() if field.primary_key or privileges.is_right(field)}
    if issubclass(model, get_user_model()):
        never.add(settings.IDENTITY_FIELD)  # who may write it says whom of the provider's the account is
    # The column behind a pointer, and the halves of a generic one, would let a client point at any real row.
    never |= {field.attname for field in by_name.values() if field.is_relation}
    never |= {
        name
        for private in model._meta.private_fields
        for name in (getattr(private, "ct_field", ""), getattr(private, "fk_field", ""))
    }
    never |= {name for tree in TREE_COLUMNS if tree <= set(by_name) for name in tree}
    return {
        name: by_name.get(name)
        for name in names
        if privileges.may_set(name) and name not in never and name not in entity_type.exclude
    }


def _is_plain_column(field: models.Field[Any, Any]) -> bool:
    automatic = getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
    opaque = isinstance(field, models.BinaryField | models.FileField | models.GeneratedField)
    hidden = automatic or opaque or field.primary_key or privileges.sounds_like_right(field)
    return field.editable and not hidden


# --- the generic operation -------------------------------------------------------------------------------


def create_entities(
    call: Creation, type_name: str, fields: Mapping[str, Any], count: int
) -> list[models.Model]:
    """`count` rows of a registered type with these fields, as the database holds them then.

    A field that points at a row takes its id; the row must be of the run, or of a reference model.
    Raises NotInRun, UnknownEntityType, FactoryFailed, Conflict, InvalidInput.
    """
    entity_type = entity_type_named(type_name)
    settable = settable_fields(entity_type)
    values = dict(fields)
    for name, value in fields.items():
        column: Any = settable.get(name)
        if column is not None and column.is_relation and value is not None:
            values[name] = call.find_row(column.related_model, value, name, reference=True)
    call.require_room(count)
    made = []
    for _ in range(count):
        for name in fields:
            values[name] = _not_taken(call, settable.get(name), values[name])
        made.append(call.create(type_name, **values))
    return call.stored(made)


def _not_taken(call: Creation, column: Any, value: Any) -> Any:
    """The value for one more row: an address claimed, a name to sign in by that is nobody else's."""
    if column is None or not isinstance(value, str) or not value:
        return value
    if is_address(column):
        return call.addresses.claim(value, field=column.name)  # `finish` looks who has it
    if privileges.is_account(column.model) and column.name == column.model.USERNAME_FIELD:
        if unicodedata.normalize("NFKC", value) != value:
            message = "Written in a way that only looks like another name."
            raise InvalidInput(message, details={column.name: [message]})
        if "@" in value:
            call.addresses.refuse_foreign(value, field=column.name)
            call.refuse_taken(value, *identifying_columns())
        call.refuse_taken(value, column)
    return value


def represent(type_name: str, instance: models.Model, run: TestRun) -> dict[str, Any]:
    """The generic answer for one row: `{id, type, testId, isTest, fields}`, with the host's own names."""
    unshown = {"password", MARK} if isinstance(instance, TestDataModel) else {"password"}
    return {
        "id": Key.of(type(instance), instance.pk).text,
        "type": type_name,
        "testId": run.test_id,
        "isTest": True,
        "fields": {
            field.name: plain(field.value_from_object(instance))
            for field in instance._meta.concrete_fields
            if field.name not in unshown
        },
    }


def plain(value: Any) -> Any:
    """The value as JSON can carry it without loss: decimals, dates and uuids as text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat().replace("+00:00", "Z")
        case dt.timedelta():
            return duration_string(value)
        case bytes() | memoryview():
            return base64.b64encode(value).decode()
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case list() | tuple() | set():
            return [plain(each) for each in value]
    return None if hasattr(value, "resolve_expression") else str(value)


def entries_by_type(call: Creation) -> dict[str, list[dict[str, Any]]]:
    """Every row that the call was asked for, in full, by entity type."""
    answer: dict[str, list[dict[str, Any]]] = {}
    for entity_type, instance in call.made:
        answer.setdefault(entity_type.name, []).append(
            represent_as_registered(entity_type, instance, call.run)
        )
    return answer


def represent_as_registered(entity_type: EntityType, instance: models.Model, run: TestRun) -> dict[str, Any]:
    """The row as its registration shows it; generically where that says nothing."""
    if entity_type.represent is None:
        return represent(entity_type.name, instance, run)
    return dict(resolve(entity_type.represent)(instance, run))
