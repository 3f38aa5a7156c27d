"""Take a marked row that has no entry into a run: a person has seen it, and nothing else may do so.

What was shown to that person must still be there, as it was, when the entry is written: see Note [What a mark
proves] in `audit`.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, models, transaction

from .. import fingerprints
from ..access import privileges, trail
from ..conf import settings
from ..exceptions import Conflict, InvalidInput, NotFound, PrivilegedAccount, TooOld
from ..isolation.statements import seeing_all_rows
from ..models import Key, TestEntity, TestRun
from ..registry import get_registry
from . import runs
from .audit import UNREADABLE, installed_model, marks_on, runs_named
from .entities import unownable
from .purge.graph import Model, all_rows

logger = logging.getLogger(__name__)

_LONGEST_SHOWN = 60
_SECRET = re.compile(r"passw|secret|token|api_?key|otp|private", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A marked row without an entry, as it was shown to whoever decides."""

    model: Model
    identity: Key
    marks: tuple[str, ...]
    columns: Mapping[str, str]
    fingerprint: fingerprints.Fingerprint

    @property
    def key(self) -> str:
        return self.identity.text

    @property
    def name(self) -> str:
        return f"{self.model._meta.label} {self.key}"


@seeing_all_rows()
def candidates(label: str, keys: Sequence[str]) -> list[Candidate]:
    """The rows under these keys, each of which may be adopted; changes nothing.

    Keys are written as the audit writes them. Raises InvalidInput, NotFound, Conflict, PrivilegedAccount.
    """
    model = installed_model(label)
    if model is None:
        raise InvalidInput(f"No model is called {label!r}; write it as app.Model.")
    reason = unownable(model)
    if reason is not None:
        raise InvalidInput(f"Rows of {model._meta.label} cannot be adopted: {reason}")
    found = []
    for key in dict.fromkeys(keys):
        row = _row(model, key)
        if row is None:
            raise NotFound(f"There is no row of {model._meta.label} under the key {key!r}.")
        found.append(_candidate(model, key, row))
    return found


@seeing_all_rows()
def adopt(test_id: str, chosen: Sequence[Candidate]) -> list[TestEntity]:
    """Enter these rows into the run, all or none; the run is opened if it never was.

    Everything that was true when the rows were shown must be true still, under locks. Raises what
    `candidates` raises, RunClosed, TooOld.
    """
    alias = runs.ledger_alias()
    try:
        with transaction.atomic(using=alias):
            run = _held(test_id)
            last: int = run.last_ordinal  # type: ignore[attr-defined]
            rows = sorted(chosen, key=lambda each: each.name)
            entries = [
                _entry(run, last + number, _as_shown(each)) for number, each in enumerate(rows, start=1)
            ]
            TestEntity.objects.using(alias).bulk_create(entries)
            trail.record("rows.adopt", run, counts=Counter(entry.type for entry in entries))
    except IntegrityError as error:
        raise Conflict("Somebody else entered one of these rows meanwhile; nothing was adopted.") from error
    logger.info(
        "adopted into %s: %s", test_id, ", ".join(f"{each.model} {each.key_text!r}" for each in entries)
    )
    return entries


def _held(test_id: str) -> TestRun:
    """The run, locked against everybody. See Note [Why the run is locked]."""
    owners = list(runs_named(test_id).values_list("owner", flat=True)[:2])
    if len(owners) > 1:
        raise InvalidInput(f"Several owners have a run {test_id!r}; choose another, or a new name.")
    prefix = settings.TEST_ID_PREFIX
    if not owners and not (runs.TEST_ID.fullmatch(test_id) and test_id.startswith(prefix)):
        raise InvalidInput(f"There is no run {test_id!r}, and a new one would have to begin with {prefix!r}.")
    try:
        return runs.hold(test_id, owners[0] if owners else "", exclusive=True)
    except TooOld as error:
        raise TooOld(f"The run {test_id} is past its end; choose another, or a new name.") from error


def _as_shown(shown: Candidate) -> Candidate:
    row = _row(shown.model, shown.key, lock=True)
    if row is None:
        raise Conflict(f"{shown.name} went away meanwhile; nothing was adopted.")
    now = _candidate(shown.model, shown.key, row)
    if now.fingerprint != shown.fingerprint:
        raise Conflict(f"{shown.name} is not as it was shown; nothing was adopted. Look again.")
    return now


def _entry(run: TestRun, ordinal: int, candidate: Candidate) -> TestEntity:
    model, key = candidate.model, candidate.identity
    return TestEntity(
        run=run,
        ordinal=ordinal,
        type=get_registry().name_of(model),
        origin=TestEntity.Origin.CAPTURED,
        model=model._meta.label_lower,
        database=runs.ledger_alias(),
        key_text=key.text,
        key_bigint=key.bigint,
        key_uuid=key.uuid,
        fingerprint=candidate.fingerprint,
    )


def _parsed(model: Model, key: str) -> Any:
    """The key in Python, from the ledger's text; raises one of UNREADABLE."""
    pk: Any = model._meta.pk
    if not isinstance(pk, models.CompositePrimaryKey):
        return pk.to_python(key)
    parts = json.loads(key)
    if not isinstance(parts, list):
        raise TypeError("a composite key is a list")
    fields: tuple[Any, ...] = pk.fields
    return tuple(field.to_python(part) for field, part in zip(fields, parts, strict=True))


def _row(model: Model, key: str, *, lock: bool = False) -> models.Model | None:
    """The row under exactly this key; a database that folds case gives others too."""
    alias = runs.ledger_alias()
    try:
        wanted = _parsed(model, key)
        rows = all_rows(model, alias).filter(pk=wanted)
        with transaction.atomic(using=alias):
            found = list(rows.select_for_update() if lock else rows)
    except UNREADABLE as error:
        shape = " Write it as the audit does." if isinstance(error, TypeError | json.JSONDecodeError) else ""
        raise InvalidInput(f"{key!r} is no key of {model._meta.label}.{shape}") from error
    return next((row for row in found if row.pk == wanted), None)


def _candidate(model: Model, key: str, row: models.Model) -> Candidate:
    """The row as something to adopt; raises where it must not be."""
    name = f"{model._meta.label} {key}"
    entries = TestEntity.objects.using(runs.ledger_alias()).standing().for_keys(model, [row.pk])
    entry = entries.select_related("run").first()
    if entry is not None:
        raise Conflict(f"{name} has an entry already, in the run {entry.run.test_id}.")
    try:
        privileges.refuse_privileged(row)
    except PrivilegedAccount as error:
        raise PrivilegedAccount(f"{name} is an account with staff or superuser rights: never.") from error
    marks = marks_on(row)
    if not marks:
        raise InvalidInput(f"{name} carries no mark: nothing says that it is a test row.")
    taken = fingerprints.take(
        model, {each.attname: getattr(row, each.attname) for each in fingerprints.columns(model)}
    )
    if not any(taken.values()):
        raise InvalidInput(f"{name} holds nothing that tells it from another row under its key.")
    return Candidate(model, Key.of(model, row.pk), tuple(marks), _shown(row), taken)


def _shown(row: models.Model) -> dict[str, str]:
    """The row's columns for a person's eyes: no secrets, nothing long, nothing that steers a terminal."""
    return {
        field.name: "(not shown)" if _SECRET.search(field.name) else _cut(field.value_from_object(row))
        for field in row._meta.concrete_fields
    }


def _cut(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return f"({len(value)} bytes)"
    text = repr(value) if isinstance(value, str) else repr(str(value))[1:-1]
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"
