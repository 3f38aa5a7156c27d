"""A test's own copy of a real row, for it to change: made like any other row of the run, and gone with it.

# Note [What a copy takes over]
Numbers, flags, moments and choices, and the columns that the host lists under `keep`. Every other column may
hold what is somebody's: it gets a value that nobody has, or none. A list of what is personal would miss the
column that nobody thought of. Nothing that the copy points at is real but for catalogue rows: what it points
at is left out where it may be null, and copied too where the host allows that.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.contrib.auth.hashers import make_password
from django.core.exceptions import ValidationError
from django.db import DataError, models, transaction
from django.db.models import Exists

from .. import seeding
from ..access import privileges
from ..access.callers import current_caller
from ..conf import settings
from ..exceptions import InvalidInput, NotAllowed, NotFound, PrivilegedAccount
from ..isolation.visibility import TestDataModel
from ..models import MARK, TestRun, all_entries_of_outer_row
from ..registry import EntityType, get_registry
from . import runs
from .entities import Creation, unownable

OPTIONS = frozenset({"keep", "replace"})
_AS_IT_IS = (
    models.IntegerField,
    models.DecimalField,
    models.FloatField,
    models.BooleanField,
    models.DateField,
    models.TimeField,
    models.DurationField,
)
_BIRTH = re.compile(r"birth|dob", re.IGNORECASE)
_PHONE = re.compile(r"phone|mobile|fax", re.IGNORECASE)
_SECRET = re.compile(r"secret|token|api_?key|otp|private", re.IGNORECASE)
#: A 32-bit column holds it.
_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What the host says of copies of one model."""

    model: type[models.Model]
    keep: frozenset[str] = frozenset()
    replace: Mapping[str, Any] = field(default_factory=dict)


def allowed() -> dict[str, Rules]:
    """The models of SHADOW_COPIES by their label in lower case, without what `manage.py check` refuses."""
    found = {}
    for label, options in settings.SHADOW_COPIES.items():
        if not faults(label, options):
            model = apps.get_model(label)
            rules = Rules(model, frozenset(options.get("keep", ())), options.get("replace", {}))
            found[model._meta.label_lower] = rules
    return found


def refuse_unless_allowed(label: str) -> Rules:
    """The rules for that model; raises NotAllowed where it has none, and under FORCE_SHADOW."""
    if settings.FORCE_SHADOW:
        raise NotAllowed("A copy is a row, and no call makes one on this server (FORCE_SHADOW).")
    rules = allowed().get(label.lower())
    if rules is None:
        raise NotAllowed("Rows of this model may not be copied here: SHADOW_COPIES does not list it.")
    reason = unownable(rules.model)
    if reason is not None:
        raise NotAllowed(f"Rows of this model may not be copied: {reason}")
    return rules


def copy_row(call: Creation, label: str, key: Any) -> tuple[str, models.Model]:
    """A copy of the row under that key, as a row of the run; its type's name, and the copy.

    Raises NotAllowed, NotFound (alike for another run's row and for none), InvalidInput, Conflict.
    """
    rules = refuse_unless_allowed(label)
    copy = _Copying(call).copy(rules, _source(rules.model, key, call.run))
    return get_registry().name_of(rules.model), copy


def _source(model: type[models.Model], key: Any, run: TestRun) -> models.Model:
    unknown = NotFound(f"There is no row of {model._meta.label} under this key.")
    foreign = all_entries_of_outer_row(model).exclude(run=run)
    alias = runs.ledger_alias()
    try:
        value = model._meta.pk.to_python(key)
        with transaction.atomic(using=alias):
            row = model._base_manager.using(alias).filter(~Exists(foreign), pk=value).first()
    except (ValidationError, ValueError, TypeError, OverflowError, DataError) as error:
        raise unknown from error
    if row is None or value is None:
        raise unknown
    return row


class _Copying:
    """One call's copies: each row is copied once, whatever points at it."""

    def __init__(self, call: Creation) -> None:
        self.call = call
        self._copies: dict[tuple[str, Any], models.Model | None] = {}
        self._rules = allowed()
        self._catalogues = {label.lower() for label in settings.REFERENCE_MODELS}

    def copy(self, rules: Rules, row: models.Model) -> models.Model:
        model = rules.model
        current_caller().require(entity_types=[get_registry().name_of(model)])
        self.call.require_room(1)
        try:
            privileges.refuse_privileged(row)
        except PrivilegedAccount as error:
            raise NotAllowed("An account with staff or superuser rights is never copied.") from error
        self._copies[model._meta.label_lower, row.pk] = None  # a circle comes back to here
        values = {
            column.attname: self._value(rules, row, column)
            for column in model._meta.concrete_fields
            if not _makes_itself(column)
        }
        made = model(**values)
        made.save(force_insert=True, using=runs.ledger_alias())
        self._copies[model._meta.label_lower, row.pk] = made
        self.call.made.append((EntityType(get_registry().name_of(model), ""), made))
        return made

    def _value(self, rules: Rules, row: models.Model, column: Any) -> Any:
        value = column.value_from_object(row)
        if column.name in rules.replace:
            return rules.replace[column.name]
        if column.is_relation:
            return self._pointer(row, column, value)
        kept = column.name in rules.keep
        if column.name != "password" and (
            privileges.is_right(column) or (privileges.sounds_like_right(column) and not kept)
        ):
            return column.get_default()
        if column.unique:
            return self._unique(column, value)
        if kept or column.choices or (isinstance(column, _AS_IT_IS) and not _BIRTH.search(column.name)):
            return value
        return self._made_up(column, value)

    def _pointer(self, row: models.Model, column: Any, value: Any) -> Any:
        target = column.related_model._meta.concrete_model
        label = target._meta.label_lower
        if privileges.is_right(column):
            value = None
        if value is None or label in self._catalogues:
            return value
        rules = self._rules.get(label)
        if rules is not None:
            real = getattr(row, column.name)
            known = (label, real.pk) in self._copies
            copy = self._copies[label, real.pk] if known else self.copy(rules, real)
            if copy is not None:
                return getattr(copy, column.target_field.attname)
        if column.null:
            return None
        raise NotAllowed(
            f"A copy would point at a real row by {column.name!r}: list {target._meta.label} in"
            " SHADOW_COPIES, or in REFERENCE_MODELS where it is a catalogue."
        )

    # A value that nobody has. `number` is another for each copy of the run, and the same in a replay.

    def _unique(self, column: Any, value: Any) -> Any:
        number, run = self.call.number, self.call.run
        match column:
            case models.UUIDField():
                return uuid.uuid4()
            case models.EmailField():
                return self._address()
            case models.CharField() | models.TextField():
                end = f"-{run.pk}-{number}"
                longest = column.max_length or 200
                if len(end) < longest:
                    return run.test_id[: longest - len(end)] + end
            case models.IntegerField():
                tries = self.call.attempt.collisions
                return seeding.number(run.seed, "copy", column.name, number, tries, limit=_LARGEST)
        if column.null:
            return None
        raise InvalidInput(f"{column.name!r} must be unique, and no value for it can be made up.")

    def _made_up(self, column: Any, value: Any) -> Any:
        match column:
            case models.FileField():
                return ""
            case models.CharField() | models.TextField() if column.name == "password":
                return make_password(None)
            case models.JSONField() if column.has_default():
                return column.get_default()
            case _ if not value:
                return value
        return self._instead_of(column, value)

    def _instead_of(self, column: Any, value: Any) -> Any:
        match column:
            case models.EmailField():
                return self._address()
            case models.CharField() | models.TextField():
                return self._text(column)
            case models.DateField():
                return value.replace(year=2000, month=1, day=1)
            case models.GenericIPAddressField():
                return "192.0.2.1"
            case models.JSONField():
                return type(value)()
        if column.null or column.has_default():
            return column.get_default()
        raise InvalidInput(f"{column.name!r} has no value that is nobody's: name one in SHADOW_COPIES.")

    def _text(self, column: Any) -> str:
        if _PHONE.search(column.name):
            text = f"+1555{self.call.number % 10_000_000:07}"
        elif _SECRET.search(column.name):
            text = secrets.token_hex(16)
        elif isinstance(column, models.URLField):
            text = "https://example.com/"
        else:
            text = self.call.name(f"Copy {self.call.number}")
        return text[: column.max_length]

    def _address(self) -> str:
        return self.call.addresses.claim(f"{self.call.addresses.base}_copy{self.call.number}@example.com")


def _makes_itself(column: Any) -> bool:
    """Columns that the row gets as any new row does: its key, its mark, what is worked out."""
    if column.name == MARK and issubclass(column.model, TestDataModel):
        return True
    link = column.is_relation and getattr(column.remote_field, "parent_link", False)
    own_key = column.primary_key and (isinstance(column, models.AutoField) or column.has_default())
    return link or own_key or isinstance(column, models.GeneratedField)


def faults(label: Any, options: Any) -> list[str]:
    """What is wrong with one entry of SHADOW_COPIES, for `manage.py check`."""
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError, AttributeError, TypeError):
        return [f"no model {label!r} is installed"]
    if not isinstance(options, Mapping):
        return [f"what it says of {label} is not a dict"]
    found = [f"{label} has an unknown option {name!r}" for name in options if name not in OPTIONS]
    keep, replaced = options.get("keep", ()), options.get("replace", {})
    if isinstance(keep, str) or not isinstance(keep, Sequence) or not isinstance(replaced, Mapping):
        return [*found, f"'keep' of {label} is a list of columns, and 'replace' a dict by column"]
    columns = {column.name: column for column in model._meta.concrete_fields}
    for name in (*keep, *replaced):
        if name not in columns:
            found.append(f"{label} has no column {name!r}")
        elif privileges.is_right(columns[name]) or columns[name].primary_key:
            found.append(f"{name!r} of {label} is a key, a password or a privilege, which no copy takes over")
        elif name in keep and columns[name].unique:
            found.append(f"{name!r} of {label} must be unique, so no copy can keep it")
    return found
