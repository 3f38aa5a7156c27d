"""Do the books balance, does every entry have its row, and does every marked row have its entry?

`audit` is a pure read. What becomes of a marked row is for `adoption`.

# Note [What a mark proves]
Nothing. A mark is a reason for a person to look, never a reason to delete: a real row may carry the flag, and
anybody may sign up under a name that begins with the prefix. So the audit reports, and a person decides.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import or_
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import DataError, models, router
from django.db.models import Case, Count, Exists, F, Max, OuterRef, Q, When
from django.db.models.functions import Coalesce, Left, Lower, Now
from django.db.models.lookups import Exact
from django.utils import timezone

from .. import fingerprints
from ..conf import settings
from ..exceptions import ConfigurationError, ExternalFailed, NotFound
from ..identity import IdentityProvider, Marked, load_provider
from ..isolation.statements import seeing_all_rows
from ..logs import log_error
from ..models import Key, TestEntity, TestEntityQuerySet, TestRun, key_column
from ..registry import identity_type, load_registry
from . import identities, runs
from .purge.graph import Model, all_rows, concrete, is_derived

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]

#: Boolean columns by which hosts flag their test rows. Only what is True counts as a mark.
FLAG_COLUMNS = ("is_test", "is_test_data", "is_test_user", "is_test_account", "is_testdata")

#: Why a row counts as marked.
FLAG, PREFIX, ADDRESS = "flag", "prefix", "address"
#: What is wrong with an entry.
ROW_GONE, MODEL_MISSING, NOT_THE_ROW = "row_gone", "model_missing", "not_the_row_we_made"

#: How many keys of each finding are shown where nobody says.
EXAMPLES = 20
#: What a key raises that is not written as its model's keys are.
UNREADABLE = (ValueError, TypeError, ValidationError, OverflowError, DataError)

#: For how many users at a time the ledger is asked.
_ASKED_AT_ONCE = 500

State = TestEntity.State
#: Keys that the ledger and the host's table keep in the same form.
_ALIKE = (models.IntegerField, models.UUIDField, models.CharField, models.TextField)
_STANDING_STATES = (State.LIVE, State.QUARANTINED)


# --- what an audit finds ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Book:
    """The count of one run's entries, and what is wrong with it."""

    test_id: str
    created: int
    removed: int
    live: int
    gone: int
    quarantined: int
    problems: tuple[str, ...] = ()

    def as_wire(self) -> dict[str, Any]:
        return {
            "testId": self.test_id,
            "created": self.created,
            "removed": self.removed,
            "live": self.live,
            "alreadyGone": self.gone,
            "quarantined": self.quarantined,
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Doubled:
    """A key under which more than one entry stands."""

    model: str
    key: str
    count: int

    def as_wire(self) -> dict[str, Any]:
        return {"model": self.model, "key": self.key, "entries": self.count}


@dataclass(frozen=True, slots=True)
class Books:
    """All runs together; those that do not balance one by one, the first of them in full."""

    runs: int
    created: int
    removed: int
    live: int
    gone: int
    quarantined: int
    broken: int
    examples: tuple[Book, ...]
    doubled: tuple[Doubled, ...]

    @property
    def hold(self) -> bool:
        return not self.broken and not self.doubled

    def as_wire(self) -> dict[str, Any]:
        return {
            "hold": self.hold,
            "runs": self.runs,
            "created": self.created,
            "removed": self.removed,
            "live": self.live,
            "alreadyGone": self.gone,
            "quarantined": self.quarantined,
            "broken": {"count": self.broken, "examples": [each.as_wire() for each in self.examples]},
            "doubled": [each.as_wire() for each in self.doubled],
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """Entries or rows of one model with the same thing wrong, and the first of their keys.

    A key comes with the run that its entry belongs to, a row without an entry with none.
    """

    model: str
    reason: str
    count: int
    examples: tuple[tuple[str, str], ...]

    def as_wire(self) -> dict[str, Any]:
        keys = [{"key": key, **({"testId": run} if run else {})} for key, run in self.examples]
        return {"model": self.model, "reason": self.reason, "count": self.count, "examples": keys}


@dataclass(frozen=True, slots=True)
class Late:
    """A run past its end that is not closed, by the database's clock."""

    test_id: str
    state: str
    overdue: dt.timedelta
    failures: int
    error: str

    def as_wire(self) -> dict[str, Any]:
        return {
            "testId": self.test_id,
            "state": self.state,
            "overdueSeconds": int(self.overdue.total_seconds()),
            "failures": self.failures,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Overdue:
    """Runs past their end, the longest overdue first."""

    count: int
    examples: tuple[Late, ...]

    def as_wire(self) -> dict[str, Any]:
        return {"count": self.count, "examples": [each.as_wire() for each in self.examples]}


@dataclass(frozen=True, slots=True)
class Outside:
    """Users at the identity provider that carry a test's mark and that no run owns, with their keys."""

    provider: str
    count: int
    examples: tuple[tuple[str, str], ...]

    def as_wire(self) -> dict[str, Any]:
        users = [{"userId": user, **({"key": key} if key else {})} for user, key in self.examples]
        return {"provider": self.provider, "count": self.count, "examples": users}


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found; `strangers` and `outside` are None where nobody looked for them."""

    books: Books
    gone: tuple[Finding, ...]
    strangers: tuple[Finding, ...] | None
    leaks: tuple[Finding, ...]
    overdue: Overdue
    notes: tuple[str, ...]
    outside: Outside | None = None

    @property
    def clean(self) -> bool:
        left = self.outside is not None and self.outside.count
        return self.books.hold and not (
            self.gone or self.strangers or self.leaks or self.overdue.count or left
        )

    def as_wire(self) -> dict[str, Any]:
        strangers = self.strangers
        return {
            "clean": self.clean,
            "books": self.books.as_wire(),
            "gone": [each.as_wire() for each in self.gone],
            "strangers": None if strangers is None else [each.as_wire() for each in strangers],
            "leaks": [each.as_wire() for each in self.leaks],
            "overdue": self.overdue.as_wire(),
            "outside": None if self.outside is None else self.outside.as_wire(),
            "notes": list(self.notes),
        }


@seeing_all_rows()
def audit(
    test_id: str | None = None,
    *,
    deep: bool = False,
    external: bool = False,
    limit: int = EXAMPLES,
    progress: Tell | None = None,
) -> Report:
    """Look at the ledger and at the host's rows, or at one run alone; changes nothing.

    `deep` holds every standing entry against its row, which takes a look at each of them. `external` asks the
    identity provider for everybody there. `limit` is how many keys a finding shows. Raises NotFound where
    there is no such run, ConfigurationError, and ExternalFailed where the provider did not answer.
    """
    if test_id is not None and not runs_named(test_id).exists():
        raise NotFound(f"There is no run {test_id!r}; 'manage.py testdata runs --closed' lists them.")
    look = _Look(test_id, limit, progress or (lambda _what: None))
    return Report(
        books=look.books(),
        gone=tuple(look.gone()),
        strangers=tuple(look.strangers()) if deep else None,
        leaks=tuple(look.leaks()),
        overdue=look.overdue(),
        outside=look.outside() if external else None,
        notes=tuple(look.notes),
    )


# --- how it looks ----------------------------------------------------------------------------------------


class _Look:
    """One audit under way: each finding is a query or two per model, whatever the number of rows."""

    def __init__(self, test_id: str | None, limit: int, tell: Tell) -> None:
        self.test_id = test_id
        self.limit = limit
        self.tell = tell
        self.alias = runs.ledger_alias()
        self.notes: list[str] = []

    # Books

    def books(self) -> Books:
        self.tell("the books")
        totals = dict.fromkeys(("runs", "created", "removed", "live", "gone", "quarantined", "broken"), 0)
        examples: list[Book] = []
        for book in self._counted():
            totals["runs"] += 1
            for name in ("created", "removed", "live", "gone", "quarantined"):
                totals[name] += getattr(book, name)
            if book.problems:
                totals["broken"] += 1
                examples += [book] if len(examples) < self.limit else []
        return Books(**totals, examples=tuple(examples), doubled=tuple(self._doubled()))

    def _counted(self) -> Iterator[Book]:
        """Every run's book, by one query. An ordinal is given once and in order, so the last one says how
        many entries were asked for, also where one of them is not there any more. What the product made has
        none."""
        state = "entities__state"
        torn = Q(**{f"{state}__in": _STANDING_STATES}) & ~Q(entities__tombstone=0)
        torn |= Q(**{f"{state}__in": (State.REMOVED, State.GONE)}) & ~Q(entities__tombstone=F("entities__id"))
        outside = Q(entities__tombstone=0, entities__origin=TestEntity.Origin.EXTERNAL)
        captured = Q(entities__isnull=False, entities__ordinal__isnull=True)
        counted = (
            runs_named(self.test_id)
            .order_by()
            .values("pk", "test_id", "state")
            .annotate(
                created=Coalesce(Max("entities__ordinal"), 0) + Count("entities", filter=captured),
                **{each: Count("entities", filter=Q(**{state: each})) for each in State.values},
                torn=Count("entities", filter=torn),
                standing=Count("entities", filter=Q(entities__tombstone=0)),
                outside=Count("entities", filter=outside),
            )
        )
        for row in counted.iterator():
            figures = {name: row[name] for name in ("created", *State.values)}
            yield Book(row["test_id"], **figures, problems=tuple(_problems(row)))

    def _doubled(self) -> list[Doubled]:
        groups = (
            self._standing()
            .order_by()
            .values("model", "key_text", "database")
            .annotate(count=Count("pk"))
            .filter(count__gt=1)
        )
        return [Doubled(each["model"], each["key_text"], each["count"]) for each in groups[: self.limit or 1]]

    # Entries without their row

    def gone(self) -> Iterator[Finding]:
        for label, model in self._models_of_entries():
            entries = self._inside().filter(model=label)
            if model is None:
                yield from self._finding(label, MODEL_MISSING, entries)
                continue
            self.tell(f"entries of {model._meta.label}")
            if _compares_in_sql(model):
                key = {"pk": OuterRef(key_column(model))}
                there = Exists(all_rows(model, self.alias).filter(**key))
                yield from self._finding(model._meta.label, ROW_GONE, entries.filter(~there))
            else:
                yield from self._held_against_rows(model, entries, ROW_GONE)

    def _finding(self, label: str, reason: str, entries: TestEntityQuerySet) -> Iterator[Finding]:
        count = entries.count()
        if count:
            first = entries.order_by("pk").values_list("key_text", "run__test_id")[: self.limit]
            yield Finding(label, reason, count, tuple(first))

    def strangers(self) -> Iterator[Finding]:
        for label, model in self._models_of_entries():
            if model is not None:
                self.tell(f"fingerprints of {model._meta.label}")
                yield from self._held_against_rows(model, self._inside().filter(model=label), NOT_THE_ROW)

    def _held_against_rows(self, model: Model, entries: TestEntityQuerySet, reason: str) -> Iterator[Finding]:
        """Page by page, so that no database has to keep the whole answer at hand."""
        last, count = 0, 0
        examples: list[tuple[str, str]] = []
        while page := list(
            entries.filter(pk__gt=last).order_by("pk").select_related("run")[: settings.PURGE_BATCH_SIZE]
        ):
            last = page[-1].pk
            wrong = [entry for entry, found in _verdicts(model, page, self.alias) if found == reason]
            # The row was read after its entry: a purge may have closed the entry in between.
            still = set(entries.filter(pk__in=[each.pk for each in wrong]).values_list("pk", flat=True))
            for entry in wrong:
                if entry.pk in still:
                    count += 1
                    if len(examples) < self.limit:
                        examples.append((entry.key_text, entry.run.test_id))
        if count:
            yield Finding(model._meta.label, reason, count, tuple(examples))

    # Marked rows without an entry

    def leaks(self) -> Iterator[Finding]:
        if not settings.TEST_ID_PREFIX:
            self.notes.append("TEST_ID_PREFIX is empty: texts and addresses cannot tell test rows.")
        if self.test_id is not None:
            self.notes.append("A flag does not say of which run a row is: flagged rows were not looked for.")
        for model in self._models_to_search():
            marks = _marks(model, self.test_id)
            if marks:
                self.tell(f"rows of {model._meta.label}")
                yield from self._unentered(model, marks)

    def _unentered(self, model: Model, marks: Mapping[str, Q]) -> Iterator[Finding]:
        rows = all_rows(model, self.alias)
        if _compares_in_sql(model):
            entries = TestEntity.objects.standing().of_model(model)
            rows = rows.filter(~Exists(entries.filter(**{key_column(model): OuterRef("pk")})))
            counts = rows.filter(reduce(or_, marks.values())).aggregate(
                **{f"n_{reason}": Count(Case(When(mark, then=1))) for reason, mark in marks.items()}
            )
            for reason, mark in marks.items():
                if counts[f"n_{reason}"]:
                    keys = rows.filter(mark).order_by("pk").values_list("pk", flat=True)[: self.limit]
                    yield _leak(model, reason, counts[f"n_{reason}"], list(keys))
            return
        for reason, mark in marks.items():
            count, keys_found = 0, []
            for key in self._unentered_keys(model, rows.filter(mark)):
                count += 1
                keys_found += [key] if count <= self.limit else []
            if count:
                yield _leak(model, reason, count, keys_found)

    def _unentered_keys(self, model: Model, rows: models.QuerySet[models.Model]) -> Iterator[Any]:
        """For keys that the database cannot compare with the ledger's: Python does, by the batch."""
        batch: list[Any] = []
        for key in rows.order_by("pk").values_list("pk", flat=True).iterator():
            batch.append(key)
            if len(batch) >= settings.PURGE_BATCH_SIZE:
                yield from self._without_entry(model, rows, batch)
                batch = []
        yield from self._without_entry(model, rows, batch)

    def _without_entry(
        self, model: Model, rows: models.QuerySet[models.Model], keys: Sequence[Any]
    ) -> list[Any]:
        if not keys:
            return []
        entries = TestEntity.objects.using(self.alias).standing().for_keys(model, keys)
        entered = set(entries.values_list("key_text", flat=True))
        missing = [key for key in keys if Key.of(model, key).text not in entered]
        # The entries were read after the rows: a purge may have taken both in between.
        return (
            list(rows.filter(pk__in=missing).order_by("pk").values_list("pk", flat=True)) if missing else []
        )

    def _models_to_search(self) -> list[Model]:
        """Models whose rows may be marked: flagged ones wherever they are, texts where test rows are made."""
        making = {model for _, model in self._labels(TestEntity.objects.all()) if model is not None}
        making |= {concrete(model) for model in (get_user_model(), *self._registered())}
        making |= {concrete(parent) for model in making for parent in model._meta.all_parents}
        flagged = {model for model in apps.get_models() if model._meta.managed and _has_flag(model)}
        found = []
        for model in sorted(making | flagged, key=lambda each: each._meta.label):
            if model._meta.proxy or model._meta.swapped or model._meta.app_label == TestRun._meta.app_label:
                continue
            if router.db_for_write(model) != self.alias:
                self.notes.append(
                    f"{model._meta.label} is in another database than the ledger: not looked at."
                )
            elif not is_derived(model):
                found.append(model)
        return found

    def _registered(self) -> Iterator[Model]:
        registry = load_registry()
        self.notes += [problem.message for problem in registry.problems]
        for entity_type in registry.entity_types:
            try:
                yield entity_type.model
            except ConfigurationError as error:
                self.notes.append(f"The model of '{entity_type.name}' is not known: {error.message}")

    # Runs

    def overdue(self) -> Overdue:
        late = runs_named(self.test_id).expired().annotate(now=Now()).order_by("expires_at", "pk")
        return Overdue(
            late.count(),
            tuple(
                Late(run.test_id, run.state, run.now - run.expires_at, run.purge_failures, run.purge_error)
                for run in late[: self.limit]
            ),
        )

    # Users at the identity provider

    def outside(self) -> Outside | None:
        name = identity_type()
        if name is None:
            self.notes.append("Accounts are Django's own: there is no identity provider to ask.")
            return None
        provider = load_provider()
        self.tell("users at the identity provider")
        began = (
            TestRun.objects.using(self.alias).order_by("pk").annotate(now=Now()).values_list("now", flat=True)
        )
        since = began.first() or timezone.now()
        count, elsewhere, examples = 0, 0, list[tuple[str, str]]()
        for some in _in_batches(_marked_users(provider), _ASKED_AT_ONCE):
            ours = [each for each in some if each.environment == settings.ENVIRONMENT]
            elsewhere += len(some) - len(ours)
            # A purge that runs meanwhile removes a user, and then closes its entry.
            owned = identities.owned_keys(name, [each.key for each in ours if each.key], since=since)
            for each in ours:
                if each.key not in owned and self._is_of_run(each.key):
                    count += 1
                    examples += [(each.reference, each.key)] if count <= self.limit else []
        if elsewhere:
            self.notes.append(
                f"{elsewhere} test users at the identity provider are of another ENVIRONMENT: left out."
            )
        return Outside(name, count, tuple(examples))

    def _is_of_run(self, key: str) -> bool:
        # A key ends with what is no part of the test ID.
        return self.test_id is None or key.rpartition("-")[0] == self.test_id

    # What is looked at

    def _standing(self) -> TestEntityQuerySet:
        entries = TestEntity.objects.using(self.alias).standing()
        return entries if self.test_id is None else entries.filter(run__test_id=self.test_id)

    def _inside(self) -> TestEntityQuerySet:
        """Standing entries that have a row."""
        return self._standing().with_rows()

    def _models_of_entries(self) -> list[tuple[str, Model | None]]:
        return self._labels(self._inside())

    def _labels(self, entries: TestEntityQuerySet) -> list[tuple[str, Model | None]]:
        """The models that the entries name, each with None where it is not installed."""
        names = entries.using(self.alias).order_by("model").values_list("model", flat=True).distinct()
        return [(label, installed_model(label)) for label in names]


def _marked_users(provider: IdentityProvider) -> Iterator[Marked]:
    try:
        yield from provider.marked_users()
    except Exception as error:  # noqa: BLE001 - whatever the host's provider raises; it is logged
        log_error(logger, "the identity provider could not be asked for its users", error)
        raise ExternalFailed(
            f"The identity provider could not be asked for its users ({type(error).__name__}). Try again; the"
            " log has the reason."
        ) from None


def _in_batches(items: Iterator[Marked], size: int) -> Iterator[list[Marked]]:
    while batch := list(islice(items, size)):
        yield batch


def _problems(row: Mapping[str, Any]) -> Iterator[str]:
    accounted = sum(row[each] for each in State.values)
    if row["created"] != accounted:
        yield (
            f"created {row['created']}, but {row['removed']} removed + {row['live']} live"
            f" + {row['gone']} already gone + {row['quarantined']} quarantined = {accounted}"
        )
    if row["torn"]:
        yield f"{row['torn']} entries whose state and tombstone disagree"
    if row["state"] == TestRun.State.CLOSED and row["standing"]:
        outside = f" ({row['outside']} of them outside the database)" if row["outside"] else ""
        yield f"closed, and {row['standing']} entries stand{outside}"


def _verdicts(
    model: Model, entries: Sequence[TestEntity], alias: str
) -> Iterator[tuple[TestEntity, str | None]]:
    """What is wrong with each entry once it is held against the row under its key; None where nothing is."""
    by_key: dict[Any, list[TestEntity]] = {}
    for entry in entries:
        try:
            by_key.setdefault(entry.row_key(model), []).append(entry)
        except UNREADABLE:  # the model has had keys of another kind since
            yield entry, ROW_GONE
    columns = {each.attname for each in fingerprints.columns(model)}
    rows = all_rows(model, alias).filter(pk__in=[key for key in by_key if key is not None])
    found = {row["pk"]: row for row in rows.values("pk", *columns)}
    for key, same in by_key.items():
        row = found.get(key)
        for entry in same:
            if row is None:
                yield entry, ROW_GONE
            else:
                yield entry, None if fingerprints.matches(entry.fingerprint, model, row) else NOT_THE_ROW


def runs_named(test_id: str | None) -> Any:
    found = TestRun.objects.using(runs.ledger_alias())
    return found.all() if test_id is None else found.filter(test_id=test_id)


def installed_model(label: str) -> Model | None:
    try:
        return concrete(apps.get_model(label))
    except (LookupError, ValueError):
        return None


def _compares_in_sql(model: Model) -> bool:
    """Whether the ledger keeps the model's keys as its own column does: else text may differ from text."""
    field: Any = model._meta.pk
    while field.is_relation:
        field = field.target_field
    return isinstance(field, _ALIKE) and not isinstance(field, models.CompositePrimaryKey)


# --- marks -----------------------------------------------------------------------------------------------


def _is_flag(field: Any) -> bool:
    return isinstance(field, models.BooleanField) and field.name in FLAG_COLUMNS


def _has_flag(model: Model) -> bool:
    return any(_is_flag(field) for field in model._meta.concrete_fields)


def _is_text(field: Any) -> bool:
    return isinstance(field, models.CharField | models.TextField) and not field.choices


def _marks(model: Model, test_id: str | None) -> dict[str, Q]:
    """What marks a row of `model`, by reason; of one run alone where `test_id` names it."""
    marks: dict[str, list[Q]] = {FLAG: [], PREFIX: [], ADDRESS: []}
    beginning = test_id or settings.TEST_ID_PREFIX
    for field in model._meta.concrete_fields:
        if _is_flag(field) and test_id is None:
            marks[FLAG].append(Q(**{field.name: True}))
        elif _is_text(field) and beginning:
            if isinstance(field, models.EmailField):
                marks[ADDRESS].append(_begins_in_any_case(field.name, beginning))
            else:
                marks[PREFIX].append(_begins(field.name, beginning))
    return {reason: reduce(or_, conditions) for reason, conditions in marks.items() if conditions}


def _begins(name: str, text: str) -> Q:
    # SQLite's LIKE folds case, MariaDB's = does: a row must pass both.
    return Q(**{f"{name}__startswith": text}) & Q(Exact(Left(name, len(text)), text))


def _begins_in_any_case(name: str, text: str) -> Q:
    return Q(**{f"{name}__istartswith": text}) & Q(Exact(Lower(Left(name, len(text))), text.lower()))


def marks_on(row: models.Model) -> list[str]:
    """The marks that this row carries, in words."""
    prefix = settings.TEST_ID_PREFIX
    found = []
    for field in row._meta.concrete_fields:
        value = field.value_from_object(row)
        if _is_flag(field):
            found += [f"{field.name} is set"] if value is True else []
        elif _is_text(field) and prefix and isinstance(value, str):
            begins = value.lower().startswith(prefix.lower())
            if begins if isinstance(field, models.EmailField) else value.startswith(prefix):
                found.append(f"{field.name} begins with {prefix!r}")
    return found


def _leak(model: Model, reason: str, count: int, keys: Sequence[Any]) -> Finding:
    return Finding(model._meta.label, reason, count, tuple((Key.of(model, key).text, "") for key in keys))
