"""What a purge would do, and why: a pure read that gives a frozen value.

The dry run, the admin's confirmation page and the executor all work from the same `Plan`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import CompositePrimaryKey, Count, Exists, Q

from ... import fingerprints
from ...conf import settings
from ...databases import database
from ...isolation.statements import seeing_all_rows
from ...models import Receipt, TestEntity, TestEntityQuerySet, TestRun, entries_of_outer_row
from .. import guards
from ..runs import ledger_alias
from . import shadows
from .graph import Model, all_rows, concrete, deletion_order, holds_itself, look_at_tables, pointers_to

T = TypeVar("T")

#: Why an entry is quarantined.
REFERENCED = "referenced"
NOT_THE_ROW = "not_the_row_we_made"
REFUSED = "refused_by_the_database"
DELETE_FAILED = "delete_failed"
MODEL_MISSING = "model_missing"
IN_USE = "in_use"
EXTERNAL_FAILED = "external_failed"
EXTERNAL_MISSING = "external_missing"
EXTERNAL_BEING_MADE = "external_being_made"

EXPLANATIONS = {
    REFERENCED: "rows that this purge may not remove point at it",
    NOT_THE_ROW: "the row under its key is not the row we made",
    REFUSED: "the database refused to delete it",
    DELETE_FAILED: "the model's own delete() failed",
    MODEL_MISSING: "its model is not installed any more",
    IN_USE: "another transaction holds its row",
    EXTERNAL_FAILED: "the outside system did not remove it",
    EXTERNAL_BEING_MADE: "its making outside has not been answered yet",
    EXTERNAL_MISSING: "no handler of its type is registered any more",
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
    """Models to be emptied together: one model, or a circle of several. `count` is of their entries."""

    models: tuple[str, ...]
    circular: bool
    count: int

    @property
    def members(self) -> list[Model]:
        return [concrete(apps.get_model(label)) for label in self.models]


@dataclass(frozen=True, slots=True)
class Outline:
    """What a run has standing: in groups, those that hold others first. A look at the ledger alone."""

    run_id: int
    groups: tuple[Group, ...]
    counts: Mapping[str, int]
    #: Entries whose model is not installed.
    lost: tuple[Held, ...]
    externals: int
    #: Shadow entries: there is nothing to remove, so they are closed and no more.
    shadows: int

    @property
    def total(self) -> int:
        return sum(self.counts.values()) + self.externals


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be removed from one run, in this order, and what stays. Counts are by entity type."""

    run_id: int
    test_id: str
    groups: tuple[Group, ...]
    removable: Mapping[str, int]
    gone: Mapping[str, int]
    held: tuple[Held, ...]
    shadows: Mapping[str, int]
    digest: str

    def as_wire(self) -> dict[str, Any]:
        return {
            "testId": self.test_id,
            "remove": dict(self.removable),
            "alreadyGone": dict(self.gone),
            "quarantined": [held.as_wire() for held in self.held],
            "shadow": dict(self.shadows),
            "digest": self.digest,
        }


class Ended(NamedTuple):
    """Rows that we removed, rows that others had removed, and shadows that are closed."""

    removed: Counter[str]
    gone: Counter[str]
    shadows: Counter[str]


@dataclass(slots=True)
class Findings:
    """What a look at some entries of one model found."""

    model: Model
    rows: dict[Any, dict[str, Any]]
    ours: dict[Any, TestEntity] = field(default_factory=dict)
    strangers: list[TestEntity] = field(default_factory=list)
    gone: list[TestEntity] = field(default_factory=list)
    #: Their rows are locked by somebody else just now.
    busy: list[TestEntity] = field(default_factory=list)


def standing(run: TestRun, entity_ids: Collection[int] | None = None) -> TestEntityQuerySet:
    """The run's entries whose row is still there for all we know, or those of them that are listed."""
    # The ledger's own order would join the run, and a lock would take it along.
    entries = TestEntity.objects.using(ledger_alias()).standing().filter(run=run).order_by("pk")
    return entries if entity_ids is None else entries.filter(pk__in=entity_ids)


def outline(run: TestRun, entity_ids: Collection[int] | None = None) -> Outline:
    """Count the run's standing entries (or those listed) by model, in the order of their removal."""
    selected = standing(run, entity_ids)
    # By model alone it is read from the index; only what may be outside is looked at more closely.
    counts = dict(selected.order_by().values_list("model").annotate(count=Count("pk")))
    outside = selected.filter(
        origin=TestEntity.Origin.EXTERNAL,
        model__in=[label for label in counts if label.startswith(TestEntity.EXTERNAL_PREFIX)],
    )
    externals = 0
    for label, count in outside.order_by().values_list("model").annotate(count=Count("pk")):
        counts[label] -= count
        externals += count
    shadow_entries = sum(count for label, count in counts.items() if TestEntity.is_shadow(label))
    counts = {label: count for label, count in counts.items() if count and not TestEntity.is_shadow(label)}
    installed, lost = installed_models(counts)
    groups = []
    for members in deletion_order(installed):
        labels = tuple(model._meta.label_lower for model in members)
        groups.append(Group(labels, holds_itself(members, selected), sum(counts[label] for label in labels)))
    rows = selected.exclude(origin=TestEntity.Origin.EXTERNAL)
    missing = rows.filter(model__in=lost) if lost else ()
    return Outline(
        run_id=run.pk,
        groups=tuple(groups),
        counts=counts,
        lost=tuple(Held.entry(entry, MODEL_MISSING) for entry in missing),
        externals=externals,
        shadows=shadow_entries,
    )


@seeing_all_rows()
def make_plan(run: TestRun, entity_ids: Collection[int] | None = None) -> Plan:
    """Look at every standing entry (or those listed), at its row and at all that points there.

    Writes nothing and locks nothing: the executor looks again, under locks.
    Raises GuardsDisabled.
    """
    look_at_tables()
    seen = outline(run, entity_ids)
    selected = standing(run, entity_ids)
    kept: dict[Model, set[Any]] = {model: set() for group in seen.groups for model in group.members}
    look = _Look(run, selected, kept, proofs())
    held = list(seen.lost)
    removable = Counter[str]()
    gone = ended(run).gone if entity_ids is None else Counter[str]()
    digest = hashlib.sha256(f"{run.pk}".encode())
    for group in seen.groups:
        passed = look.over(group.members)
        while group.circular and passed.kept_more:
            # A row that stays may hold other rows of its circle: look again with that in mind.
            passed = look.over(group.members)
        held += passed.held
        removable += passed.removable
        gone += passed.gone
        digest.update(passed.digest)
    externals = selected.filter(origin=TestEntity.Origin.EXTERNAL)
    for pk, name in externals.order_by("pk").values_list("pk", "type").iterator():
        removable[name] += 1
        digest.update(b" %d-" % pk)
    for each in sorted(held, key=lambda each: each.entity_id):
        digest.update(f" {each.entity_id}={each.reason}{sorted(each.blocked_by.items())}".encode())
    return Plan(
        run_id=run.pk,
        test_id=run.test_id,
        groups=seen.groups,
        removable=dict(sorted(removable.items())),
        gone=dict(sorted(gone.items())),
        held=tuple(held),
        shadows=shadows.by_type(selected) if seen.shadows else {},
        digest=digest.hexdigest(),
    )


def ended(run: TestRun) -> Ended:
    """What has ended of the run and no receipt has told of yet.

    By entity type, and by the ledger alone, so that purges that share a run tell of each row once.
    """
    alias = ledger_alias()
    entries = TestEntity.objects.using(alias).filter(run=run).exclude(tombstone=0).order_by()
    found = Ended(Counter(), Counter(), Counter())
    by_us = Count("pk", filter=Q(state=TestEntity.State.REMOVED))
    counted = entries.values_list("type", "origin").annotate(count=Count("pk"), ours=by_us)
    for name, origin, count, ours in counted:
        if origin == TestEntity.Origin.SHADOW:
            found.shadows[name] += count
        else:
            found.removed[name] += ours
            found.gone[name] += count - ours
    for earlier in Receipt.objects.using(alias).filter(run=run).values_list("body", flat=True):
        found.removed.subtract(earlier["removed"])
        found.gone.subtract(earlier["alreadyGone"])
        found.shadows.subtract(earlier.get("shadow", {}).get("entries", {}))
    return Ended(+found.removed, +found.gone, +found.shadows)


@dataclass(frozen=True, slots=True)
class Proofs:
    """Which entries are proof by themselves that their row is the one we made.

    `since` has the models whose entries the database itself closes when a row goes, and the moment from
    which on it did. An entry made later that still stands is proof: no other row can be under its key.
    """

    awake: bool
    since: Mapping[str, dt.datetime]

    def cover(self, models: Iterable[Model]) -> bool:
        return all(
            model._meta.label_lower in self.since and not isinstance(model._meta.pk, CompositePrimaryKey)
            for model in models
        )

    def hold(self, model: Model, oldest: dt.datetime) -> bool:
        """Whether entries of `model`, the oldest of them made then, are proof."""
        since = self.since.get(model._meta.label_lower)
        return since is not None and oldest >= since


def proofs() -> Proofs:
    """Raises GuardsDisabled."""
    alias = ledger_alias()
    awake = guards.require_awake(alias)
    return Proofs(bool(awake), awake if database(alias).closes_entries else {})


def examine(
    model: Model,
    entries: Sequence[TestEntity],
    *,
    lock: bool = False,
    using: str | None = None,
    proven_since: dt.datetime | None = None,
) -> Findings:
    """Hold each entry against the row under its key.

    With `lock`, the rows stay so till the commit, and those that somebody else has locked are `busy`.
    """
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
    alias = using or ledger_alias()
    rows = all_rows(model, alias).filter(pk__in=list(by_key)).values("pk", *needed)
    if lock:
        rows = database(alias).skipping_locked(rows)
    found = Findings(model, {row["pk"]: row for row in rows}, strangers=unreadable)
    missing = [key for key in by_key if key not in found.rows]
    unseen = (
        all_rows(model, alias).filter(pk__in=missing) if lock and missing else all_rows(model, alias).none()
    )
    busy = set(unseen.values_list("pk", flat=True))
    for key, entry in by_key.items():
        row = found.rows.get(key)
        if key in busy:
            found.busy.append(entry)
        elif row is None:
            found.gone.append(entry)
        elif (proven_since is not None and entry.created_at >= proven_since) or fingerprints.matches(
            entry.fingerprint, model, row
        ):
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


def installed_models(labels: Iterable[str]) -> tuple[list[Model], list[str]]:
    """The models of these labels, and the labels of which no model is installed."""
    found: list[Model] = []
    lost: list[str] = []
    for label in labels:
        try:
            found.append(concrete(apps.get_model(label)))
        except (LookupError, ValueError):
            lost.append(label)
    return found, lost


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@dataclass(slots=True)
class _Pass:
    held: list[Held] = field(default_factory=list)
    removable: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    kept_more: bool = False
    #: Equal for passes that remove and miss the same entries.
    digest: bytes = b""


@dataclass(slots=True)
class _Look:
    """Goes over the groups, those that hold others first, and remembers which of our rows stay."""

    run: TestRun
    selected: TestEntityQuerySet
    kept: dict[Model, set[Any]]
    proofs: Proofs

    def over(self, members: Sequence[Model]) -> _Pass:
        passed = _Pass()
        digest = hashlib.sha256()
        before = sum(len(self.kept[model]) for model in members)
        for model in members:
            entries = self.selected.of_model(model).order_by("pk").iterator(settings.PURGE_BATCH_SIZE)
            for batch in in_batches(entries, settings.PURGE_BATCH_SIZE):
                self._batch(model, batch, passed, digest)
        passed.kept_more = sum(len(self.kept[model]) for model in members) > before
        passed.digest = digest.digest()
        return passed

    def _batch(self, model: Model, batch: Sequence[TestEntity], passed: _Pass, digest: Any) -> None:
        found = examine(model, batch, proven_since=self.proofs.since.get(model._meta.label_lower))
        blocked = holders(found, ledger_alias(), self._stays)
        gone = {entry.pk for entry in found.gone}
        for entry in batch:
            digest.update(b" %d%s" % (entry.pk, b"?" if entry.pk in gone else b"-"))
        passed.gone.update(entry.type for entry in found.gone)
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
