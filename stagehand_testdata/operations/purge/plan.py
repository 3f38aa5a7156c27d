"""What a purge would do, and why: a pure read that gives a frozen value.

The dry run, the admin's confirmation page and the executor all work from the same `Plan`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import Exists, Q

from ... import fingerprints
from ...conf import settings
from ...models import TestEntity, TestEntityQuerySet, TestRun, entries_of_outer_row
from ..runs import ledger_alias
from .graph import Model, all_rows, concrete, deletion_order, holds_itself, pointers_to

T = TypeVar("T")

#: Why an entry is quarantined.
REFERENCED = "referenced"
NOT_THE_ROW = "not_the_row_we_made"
REFUSED = "refused_by_the_database"
DELETE_FAILED = "delete_failed"
MODEL_MISSING = "model_missing"

EXPLANATIONS = {
    REFERENCED: "rows that this purge may not remove point at it",
    NOT_THE_ROW: "the row under its key is not the row we made",
    REFUSED: "the database refused to delete it",
    DELETE_FAILED: "the model's own delete() failed",
    MODEL_MISSING: "its model is not installed any more",
}


@dataclass(frozen=True, slots=True)
class Held:
    """An entry that stays, and why."""

    entity_id: int
    type: str
    key: str
    reason: str
    blocked_by: Mapping[str, int]

    @classmethod
    def entry(cls, entry: TestEntity, reason: str, blocked_by: Mapping[str, int] | None = None) -> Held:
        return cls(entry.pk, entry.type, entry.key_text, reason, dict(sorted((blocked_by or {}).items())))

    @property
    def explanation(self) -> str:
        return EXPLANATIONS[self.reason]

    def as_wire(self) -> dict[str, Any]:
        return {"type": self.type, "id": self.key, "reason": self.reason, "blockedBy": dict(self.blocked_by)}


@dataclass(frozen=True, slots=True)
class Group:
    """Models to be emptied together, with their entries: one model, or a circle of several."""

    models: tuple[str, ...]
    circular: bool
    entity_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be removed from one run, in this order, and what stays. Counts are by entity type."""

    run_id: int
    test_id: str
    groups: tuple[Group, ...]
    removable: Mapping[str, int]
    gone: Mapping[str, int]
    held: tuple[Held, ...]
    digest: str

    @property
    def total(self) -> int:
        return sum(len(group.entity_ids) for group in self.groups)

    def as_wire(self) -> dict[str, Any]:
        return {
            "testId": self.test_id,
            "remove": dict(self.removable),
            "alreadyGone": dict(self.gone),
            "quarantined": [held.as_wire() for held in self.held],
            "digest": self.digest,
        }


@dataclass(slots=True)
class Findings:
    """What a look at some entries of one model found."""

    model: Model
    rows: dict[Any, dict[str, Any]]
    ours: dict[Any, TestEntity] = field(default_factory=dict)
    strangers: list[TestEntity] = field(default_factory=list)
    gone: list[TestEntity] = field(default_factory=list)


def standing(run: TestRun, entity_ids: Collection[int] | None = None) -> TestEntityQuerySet:
    """The run's entries whose row is still there for all we know, or those of them that are listed."""
    entries = TestEntity.objects.using(ledger_alias()).standing().filter(run=run)
    return entries if entity_ids is None else entries.filter(pk__in=entity_ids)


def make_plan(run: TestRun, entity_ids: Collection[int] | None = None) -> Plan:
    """Look at every standing entry (or those listed), at its row and at all that points there.

    Writes nothing and locks nothing: the executor looks again, under locks.
    """
    selected = standing(run, entity_ids)
    models, lost = installed_models(selected)
    held = [Held.entry(entry, MODEL_MISSING) for entry in lost]
    look = _Look(run, selected, {model: set() for model in models})
    groups, removable, gone = [], Counter[str](), Counter[str]()
    gone_ids: set[int] = set()
    for members in deletion_order(models):
        circular = holds_itself(members)
        passed = look.over(members)
        while circular and passed.kept_more:
            # A row that stays may hold other rows of its circle: look again with that in mind.
            passed = look.over(members)
        labels = tuple(model._meta.label_lower for model in members)
        groups.append(Group(labels, circular, tuple(passed.ids)))
        held += passed.held
        removable += passed.removable
        gone += Counter(entry.type for entry in passed.gone)
        gone_ids |= {entry.pk for entry in passed.gone}
    return Plan(
        run_id=run.pk,
        test_id=run.test_id,
        groups=tuple(groups),
        removable=dict(sorted(removable.items())),
        gone=dict(sorted(gone.items())),
        held=tuple(held),
        digest=_digest(run, groups, gone_ids, held),
    )


def examine(
    model: Model, entries: Sequence[TestEntity], *, lock: bool = False, using: str | None = None
) -> Findings:
    """Hold each entry against the row under its key; with `lock`, the rows stay so till the commit."""
    by_key: dict[Any, TestEntity] = {}
    unreadable = []
    for entry in entries:
        key = _key_or_none(model, entry)
        if key is None:
            unreadable.append(entry)
        else:
            by_key[key] = entry
    needed = {each.attname for each in fingerprints.columns(model)}
    needed |= {pointer.target for pointer in pointers_to(model)} - {"pk"}
    rows = all_rows(model, using or ledger_alias()).filter(pk__in=list(by_key)).values("pk", *needed)
    if lock:
        rows = rows.select_for_update()
    found = Findings(model, {row["pk"]: row for row in rows}, strangers=unreadable)
    for key, entry in by_key.items():
        row = found.rows.get(key)
        if row is None:
            found.gone.append(entry)
        elif fingerprints.matches(entry.fingerprint, model, row):
            found.ours[key] = entry
        else:
            found.strangers.append(entry)
    return found


def _key_or_none(model: Model, entry: TestEntity) -> Any:
    """The key of the entry's row; None where the model has had keys of another kind since."""
    try:
        return entry.row_key(model)
    except (ValueError, TypeError, ValidationError):
        return None


def holders(found: Findings, using: str, which: Any) -> dict[Any, Counter[str]]:
    """Rows that hold ours, counted by model, for each key of ours that any holds.

    `which(model)` is the condition on rows of `model` that count as holders.
    """
    rows = [found.rows[key] for key in found.ours]
    counted: dict[Any, Counter[str]] = {}
    for pointer in pointers_to(found.model) if rows else ():
        for key, _ in pointer.holding(using, found.model, rows, which(pointer.model)):
            counted.setdefault(key, Counter())[pointer.model._meta.label] += 1
    return counted


def installed_models(selected: TestEntityQuerySet) -> tuple[list[Model], list[TestEntity]]:
    """The models of the entries, and the entries whose model is not installed."""
    models: list[Model] = []
    lost: list[TestEntity] = []
    for label in selected.order_by("model").values_list("model", flat=True).distinct():
        try:
            models.append(concrete(apps.get_model(label)))
        except LookupError:
            lost += selected.filter(model=label)
    return models, lost


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@dataclass(slots=True)
class _Pass:
    ids: list[int] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    removable: Counter[str] = field(default_factory=Counter)
    gone: list[TestEntity] = field(default_factory=list)
    kept_more: bool = False


@dataclass(slots=True)
class _Look:
    """Goes over the groups, those that hold others first, and remembers which of our rows stay."""

    run: TestRun
    selected: TestEntityQuerySet
    kept: dict[Model, set[Any]]

    def over(self, members: Sequence[Model]) -> _Pass:
        passed = _Pass()
        before = sum(len(self.kept[model]) for model in members)
        for model in members:
            entries = self.selected.of_model(model).order_by("pk").iterator(settings.PURGE_BATCH_SIZE)
            for batch in in_batches(entries, settings.PURGE_BATCH_SIZE):
                self._batch(model, batch, passed)
        passed.kept_more = sum(len(self.kept[model]) for model in members) > before
        return passed

    def _batch(self, model: Model, batch: Sequence[TestEntity], passed: _Pass) -> None:
        found = examine(model, batch)
        blocked = holders(found, ledger_alias(), self._stays)
        passed.ids += [entry.pk for entry in batch]
        passed.gone += found.gone
        passed.held += [Held.entry(entry, NOT_THE_ROW) for entry in found.strangers]
        self.kept[model].update({_key_or_none(model, entry) for entry in found.strangers} - {None})
        for key, entry in found.ours.items():
            if key in blocked:
                passed.held.append(Held.entry(entry, REFERENCED, blocked[key]))
                self.kept[model].add(key)
            else:
                passed.removable[entry.type] += 1

    def _stays(self, model: Model) -> Q:
        """Rows that will still be there: those that are not the run's, and the run's own that are held."""
        foreign = Q(~Exists(entries_of_outer_row(model, self.run)))
        kept = self.kept.get(concrete(model))
        return foreign | Q(pk__in=kept) if kept else foreign


def _digest(run: TestRun, groups: Sequence[Group], gone: Collection[int], held: Sequence[Held]) -> str:
    """The plan in one word: equal for plans that remove and keep the same for the same reasons."""
    digest = hashlib.sha256(f"{run.pk}".encode())
    for group in groups:
        for entity_id in group.entity_ids:
            digest.update(b" %d%s" % (entity_id, b"?" if entity_id in gone else b"-"))
    for each in sorted(held, key=lambda each: each.entity_id):
        digest.update(f" {each.entity_id}={each.reason}{sorted(each.blocked_by.items())}".encode())
    return digest.hexdigest()
