"""What tells the row we made from another row that was given the same key later.

# Note [Fingerprints]
A key alone proves nothing: a natural key can be taken again, `TRUNCATE … RESTART IDENTITY` hands ids out
a second time, SQLite reuses rowids. So each ledger entry keeps short digests of some columns as they were
written, and a row is ours only while enough of them still match:

``all``
    Columns that nobody edits: a creation time, a uuid given by default. Every one must match.
    Where a row has none of these but only pointers and numbers, its pointers (else its numbers, else its
    texts, however little they say). A row of NULLs proves nothing, unless its key is given but once.
``half``
    For models with no such column: the texts and unique columns. At least half must match, so that an edit
    of one of two survives and a stranger under the same key does not.

Only digests are stored, never values. When in doubt the row is not ours, and stays.
"""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from django.conf import settings
from django.db import models
from django.utils import timezone

Fingerprint = dict[str, dict[str, list[str]]]

_TEXT = ("CharField", "TextField", "SlugField", "EmailField", "URLField", "FilePathField")
_NUMBERS = (
    "IntegerField",
    "BigIntegerField",
    "SmallIntegerField",
    "PositiveIntegerField",
    "PositiveBigIntegerField",
    "PositiveSmallIntegerField",
    "DecimalField",
    "DateField",
    "TimeField",
)
#: What stands for the digest of a NULL.
_NULL = ""
#: Shorter texts say too little to recognise a row by.
_TELLING_LENGTH = 3


class Columns(NamedTuple):
    """A model's columns by what they can prove."""

    fixed: tuple[models.Field[Any, Any], ...]
    telling: tuple[models.Field[Any, Any], ...]
    pointers: tuple[models.Field[Any, Any], ...]
    numbers: tuple[models.Field[Any, Any], ...]

    def __iter__(self) -> Any:
        return iter((*self.fixed, *self.telling, *self.pointers, *self.numbers))


@cache
def columns(model: type[models.Model]) -> Columns:
    """The columns of `model`'s own table that a fingerprint may use."""
    fixed, telling, pointers, numbers = [], [], [], []
    for field in model._meta.local_concrete_fields:
        if field.primary_key:
            continue
        kind = field.get_internal_type()
        if _is_fixed(field, kind):
            fixed.append(field)
        elif field.is_relation:
            pointers.append(field)
        elif field.choices or getattr(field, "auto_now", False):
            continue
        elif kind in _TEXT or (field.unique and kind in (*_NUMBERS, "UUIDField")):
            telling.append(field)
        elif kind in _NUMBERS:
            numbers.append(field)
    return Columns(tuple(fixed), tuple(telling), tuple(pointers), tuple(numbers))


def take(model: type[models.Model], values: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint of a row of `model` whose columns (by attname) hold `values`."""
    kinds = columns(model)
    fixed = _digests(kinds.fixed, values)
    if fixed:
        return {"all": fixed}
    telling = _digests([field for field in kinds.telling if _tells(field, values.get(field.attname))], values)
    if telling:
        return {"half": telling}
    for group in (kinds.pointers, kinds.numbers, kinds.telling):
        if found := _digests(group, values):
            return {"all": found}
    return {"all": {field.attname: [_NULL] for field in kinds if values.get(field.attname) is None}}


def matches(fingerprint: Fingerprint, model: type[models.Model], values: Mapping[str, Any]) -> bool:
    """Whether the row that holds `values` now is still the row that `fingerprint` was taken of."""
    if not fingerprint:
        return False  # none was ever taken, as of a row that the database entered itself
    every, half = fingerprint.get("all", {}), fingerprint.get("half", {})
    has_values = any(accepted != [_NULL] for accepted in (*every.values(), *half.values()))
    if not (has_values or _is_counted_up(model)):
        return False
    by_name = {field.attname: field for field in columns(model)}

    def holds(attname: str, accepted: list[str]) -> bool:
        field, value = by_name.get(attname), values.get(attname)
        return field is not None and (_NULL if value is None else _digest(field, value)) in accepted

    everything = [holds(name, accepted) for name, accepted in every.items()]
    some = [holds(name, accepted) for name, accepted in half.items()]
    return all(everything) and sum(some) * 2 >= len(some)


def can_tell_rows(model: type[models.Model]) -> bool:
    """Whether a row of `model` has anything to be told by from a later one under its key."""
    return _is_counted_up(model) or any(columns(model))


def _is_counted_up(model: type[models.Model]) -> bool:
    """Whether the database or chance gives the keys of `model`, so that nobody comes by one a second time."""
    pk: Any = model._meta.pk
    while pk.is_relation:
        pk = pk.target_field
    return isinstance(pk, models.AutoField | models.UUIDField)


def _is_fixed(field: models.Field[Any, Any], kind: str) -> bool:
    if kind == "DateTimeField":
        return bool(getattr(field, "auto_now_add", False)) or field.default in (
            timezone.now,
            dt.datetime.now,
        )
    return kind == "UUIDField" and callable(field.default)


def _tells(field: models.Field[Any, Any], value: Any) -> bool:
    if value is None or value == "":
        return False
    if field.unique:
        return True
    return len(str(value)) >= _TELLING_LENGTH and not (field.has_default() and value == field.get_default())


def _digests(
    fields: tuple[models.Field[Any, Any], ...] | list[models.Field[Any, Any]], values: Mapping[str, Any]
) -> dict[str, list[str]]:
    found = {}
    for field in fields:
        value = values.get(field.attname)
        digest = _digest(field, value)
        if digest is None:
            continue
        accepted = [digest]
        # A form that shows whole seconds writes them back so: that is an edit, not another row.
        if field.editable and isinstance(value, dt.datetime) and value.microsecond:
            accepted.append(str(_digest(field, value.replace(microsecond=0))))
        found[field.attname] = accepted
    return found


def _digest(field: models.Field[Any, Any], value: Any) -> str | None:
    """A digest of the value as the database gives it back; None where it cannot be foretold."""
    if value is None or hasattr(value, "resolve_expression"):
        return None
    column: Any = field
    text = _canonical(column.target_field if column.is_relation else column, value)
    return None if text is None else hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()


def _aware(value: dt.datetime) -> dt.datetime:
    if timezone.is_aware(value):
        return value
    # Django saves a naive time as one of the host's own zone, where the host has zones at all.
    return value.replace(tzinfo=timezone.get_default_timezone() if settings.USE_TZ else dt.UTC)


def _canonical(field: Any, value: Any) -> str | None:
    try:
        value = field.to_python(value)
    except Exception:  # noqa: BLE001 - a host's own field: it takes no part
        return None
    match value:
        case dt.datetime():
            return _aware(value).astimezone(dt.UTC).isoformat(timespec="microseconds")
        case decimal.Decimal():
            places = getattr(field, "decimal_places", None)
            return str(value if places is None else value.quantize(decimal.Decimal(1).scaleb(-places)))
        case str() | int() | uuid.UUID() | dt.date() | dt.time():
            return str(value)
    return None
