"""Things outside the database, files in storage among them: entered first, made once that is committed.

# Note [Things outside]
No transaction reaches them, so the order is the proof. The entry commits with the rows of its call, and the
outside is called only then: a kill in between leaves an entry, and removing what never was is no error.
No call is made within a transaction of ours: one that hangs keeps nobody else waiting.

An entry is marked from its first moment until its making was answered. While the mark is younger than all
attempts together may take, a purge leaves it alone: what is removed before it is made would stay for ever.
Who comes back later than that finds the entry closed, opens it again, and removes what it has made.
Where every attempt has failed and one of them was `Unanswered`, the mark stays: it may be carried out yet.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db import Error as DatabaseFault
from django.db import models, router, transaction
from django.db.models import Count, QuerySet
from django.db.models.functions import Now
from django.utils.functional import Promise

from ..exceptions import ConfigurationError, ExternalFailed, RunClosed, TestDataError
from ..isolation.capture import WrittenFile
from ..logs import log_error
from ..models import TestEntity, TestEntityQuerySet, TestRun
from ..registry import (
    FILE,
    ExternalHandler,
    ExternalType,
    TryLater,
    Unanswered,
    get_registry,
    load_registry,
)
from . import runs

if TYPE_CHECKING:
    from .purge.plan import Held

logger = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")
Sleep = Callable[[float], None]

#: What the ledger has in place of a model's label.
_PREFIX = TestEntity.EXTERNAL_PREFIX
#: The mark of an entry whose making has not been answered yet, and why a purge leaves it.
BEING_MADE = "external_being_made"
_FAILED, _MISSING, _REFERENCED = "external_failed", "external_missing", "referenced"
#: How many entries are read, and files looked for, at a time.
_BATCH = 100


class External(Promise):
    """Something outside the database that a call asked for.

    A lazy text: it renders as the reference, which it has once the call's rows are committed and it is made.
    """

    def __init__(self, external_type: ExternalType, key: str, fields: Mapping[str, Any]) -> None:
        self.type = external_type
        self.handler = external_type.load_handler()
        self.key = key
        self.fields = fields
        self.reference = ""

    def __str__(self) -> str:
        return self.reference

    def __repr__(self) -> str:
        return f"<External {self.type.name} {self.key}>"

    def settled(self) -> None:
        """It is made, and its entry has its reference."""


def ask_for(run: TestRun, type_name: str, fields: Mapping[str, Any]) -> External:
    """A thing of that external type, under a key that nobody else has; raises ConfigurationError."""
    found = get_registry().external_types.get(type_name)
    if found is None:
        raise ConfigurationError(f"No external type is called '{type_name}'; list it in a `testdata` module.")
    return External(found, new_key(run), fields)


def new_key(run: TestRun, about: str = "") -> str:
    """A key that nobody else has: the test ID, what it is about, and 128 random bits."""
    return f"{key_beginning(run, about)}{secrets.token_hex(16)}"


def key_beginning(run: TestRun, about: str = "") -> str:
    return f"{run.test_id}-{about}"


def entries(
    run: TestRun, things: Iterable[External], files: Iterable[WrittenFile], *, after: int
) -> list[TestEntity]:
    """The entries of what one call makes outside, numbered from the one after `after`.

    Raises UntrackedWrite for a file whose name is too long to be kept.
    """
    found = [_entry(run, each.type.name, each.key, reason=BEING_MADE) for each in things]
    names = {each.key: each.name for each in files}
    found += [_entry(run, FILE, key, reference=name) for key, name in names.items()]
    for ordinal, entry in enumerate(found, after + 1):
        entry.ordinal = ordinal
    return found


def _entry(run: TestRun, name: str, key: str, **values: str) -> TestEntity:
    return TestEntity(
        run=run,
        type=name,
        origin=TestEntity.Origin.EXTERNAL,
        model=f"{_PREFIX}{name}",
        database="",
        key_text=key,
        **values,
    )


# --- making ----------------------------------------------------------------------------------------------


def make_once_committed(run: TestRun, things: Sequence[External]) -> None:
    """Make these, in order: now, or when the transaction around us commits (what fails then is logged).

    Raises ExternalFailed, and RunClosed where the run was closed meanwhile.
    """
    if not things:
        return
    if transaction.get_connection(runs.ledger_alias()).in_atomic_block:
        transaction.on_commit(lambda: _make_or_log(run, things), using=runs.ledger_alias(), robust=True)
    else:
        make(run, things)


def _make_or_log(run: TestRun, things: Sequence[External]) -> None:
    try:
        make(run, things)
    except TestDataError as error:
        log_error(logger, "what was to be made after a commit was not", error)


def make(run: TestRun, things: Sequence[External], *, sleep: Sleep = time.sleep) -> None:
    """Make these, in order, up to the first that fails; raises as `make_once_committed`."""
    for position, thing in enumerate(things, 1):
        try:
            _make(run, thing, sleep)
        except DatabaseFault as fault:
            # Its entry is committed all the same, so a purge will find it.
            log_error(logger, f"what became of {thing!r} could not be written down", fault)
            raise _failure(thing) from fault
        except TestDataError:
            for other in things[position:]:
                _answered(other)  # nobody will ask for it now, so no purge need wait
            raise


def _make(run: TestRun, thing: External, sleep: Sleep) -> None:
    # The time that a purge allows for the making begins now.
    if not _standing(thing).filter(run__state=TestRun.State.OPEN).update(created_at=Now()):
        _answered(thing)
        raise RunClosed
    unanswered = False

    def create() -> str:
        nonlocal unanswered
        try:
            return thing.handler.create(thing.key, thing.fields)
        except Unanswered:
            unanswered = True
            raise

    try:
        reference = _kept(repeatedly(thing.handler, create, sleep) or thing.key)
    except Exception as error:
        log_error(logger, f"{thing!r} could not be made", error)
        if not unanswered:
            _answered(thing)
        raise _failure(thing) from error
    thing.reference = reference
    if not _answered(thing):
        _take_back(run, thing, sleep)
        raise RunClosed
    thing.settled()


def _failure(thing: External) -> ExternalFailed:
    return ExternalFailed(
        f"'{thing.type.name}' could not be made outside the database. What this call made is in the run,"
        " and the purge removes it. The server's log has the reason."
    )


def _kept(reference: Any) -> str:
    """The reference as the ledger can keep it; raises ValueError."""
    if not isinstance(reference, str) or len(reference) > TestEntity.KEY_LENGTH or "\0" in reference:
        raise ValueError(f"a reference is a text of at most {TestEntity.KEY_LENGTH} characters")
    return reference


def _standing(thing: External) -> TestEntityQuerySet:
    entries = TestEntity.objects.using(runs.ledger_alias()).standing()
    return entries.filter(model=f"{_PREFIX}{thing.type.name}", key_text=thing.key, database="")


def _answered(thing: External) -> bool:
    """Take the mark off its entry; False where the entry does not stand any more."""
    # The outside may have told of it by another way, while no answer came.
    known = {"reference": thing.reference} if thing.reference else {}
    return bool(_standing(thing).update(state=TestEntity.State.LIVE, reason="", **known))


def _take_back(run: TestRun, thing: External, sleep: Sleep) -> None:
    """Remove what was made after a purge had closed its entry. The books first: a kill leaves it in them."""
    alias = runs.ledger_alias()
    mine = TestEntity.objects.using(alias).filter(
        run=run, model=f"{_PREFIX}{thing.type.name}", key_text=thing.key
    )
    with transaction.atomic(using=alias):
        closed = reopen(runs.lock_exclusively(run), mine, thing.reference)
    remove_externals(run, list(mine.values_list("pk", flat=True)), sleep=sleep)
    if not closed:
        return
    row = TestRun.objects.using(alias).filter(pk=run.pk)
    with transaction.atomic(using=alias):
        runs.lock_exclusively(run)
        if not TestEntity.objects.using(alias).standing().filter(run=run).exists():
            row.filter(state=TestRun.State.CLOSING).update(state=TestRun.State.CLOSED, closed_at=Now())


def reopen(held: TestRun, entry: TestEntityQuerySet, reference: str) -> bool:
    """Let a closed entry stand again, for what it was of is there after all; whether its run was closed.

    The run must be held exclusively, and is one that purges find.
    """
    closed = held.state == TestRun.State.CLOSED
    if closed:
        runs_of = TestRun.objects.using(runs.ledger_alias()).filter(pk=held.pk)
        runs_of.update(state=TestRun.State.CLOSING, closed_at=None)
    entry.update(state=TestEntity.State.LIVE, tombstone=0, removed_at=None, reference=reference)
    return closed


# --- removing --------------------------------------------------------------------------------------------


def remove_externals(
    run: TestRun, entity_ids: Collection[int] | None = None, *, sleep: Sleep = time.sleep
) -> tuple[Counter[str], list[Held]]:
    """Remove what the run has outside the database, or those listed of it: the last that was made first.

    Returns what was removed, by type, and what stays. Belongs after the rows, and outside any transaction.
    """
    from .purge.plan import Held  # which imports the modules that import this one

    removal = _Removal(run, sleep)
    alias = runs.ledger_alias()
    outside = TestEntity.objects.using(alias).standing().filter(run=run, origin=TestEntity.Origin.EXTERNAL)
    wanted = None if entity_ids is None else set(entity_ids)
    # Sorted here: to have them sorted, a database reads all that the run ever made.
    found = sorted(outside.order_by().values_list("ordinal", "pk"), reverse=True)
    ids = [pk for _, pk in found if wanted is None or pk in wanted]
    held: list[Held] = []
    for some in _in_batches(ids):
        batch = list(outside.filter(pk__in=some).order_by("-ordinal"))
        holders = _holders([each for each in batch if each.model == _PREFIX + FILE])
        for entry in batch:
            reason = removal.reason_to_keep(entry, holders.get(entry.pk))
            if reason is None:
                removal.close(entry)
            else:
                removal.keep(entry, reason, holders.get(entry.pk, {}))
                held.append(Held.entry(entry, reason, holders.get(entry.pk)))
    return removal.removed, held


class _Removal:
    """One pass over what a run has outside; remembers the handlers, and which types have failed."""

    def __init__(self, run: TestRun, sleep: Sleep) -> None:
        self.run = run
        self.removed: Counter[str] = Counter()
        self._sleep = sleep
        self._handlers: dict[str, ExternalHandler | None] = {}
        self._failing: set[str] = set()

    def reason_to_keep(self, entry: TestEntity, holders: Mapping[str, int] | None) -> str | None:
        """Why it stays; None once it is gone."""
        if entry.model not in self._handlers:
            self._handlers[entry.model] = _handler_of(entry)
        handler = self._handlers[entry.model]
        if handler is None or (isinstance(handler, FileHandler) and _column(entry.key_text) is None):
            return _MISSING
        if _is_being_made(entry, handler):
            return BEING_MADE
        if holders:
            return _REFERENCED
        # An outside that is down is asked once for each of the others, not four times.
        attempts = 1 if entry.model in self._failing else handler.attempts
        try:
            repeatedly(
                handler, lambda: handler.remove(entry.key_text, entry.reference), self._sleep, attempts
            )
        except Exception as error:  # noqa: BLE001 - whatever the host's handler raises; it is logged
            log_error(logger, f"{entry.type!r} {entry.key_text!r} could not be removed", error)
            self._failing.add(entry.model)
            return _FAILED
        return None

    def close(self, entry: TestEntity) -> None:
        with transaction.atomic(using=runs.ledger_alias()):
            runs.lock_for_removal(self.run)
            closed = self._entry(entry).close(TestEntity.State.REMOVED)
        if closed:  # and not by another purge at the same time
            self.removed[entry.type] += 1

    def keep(self, entry: TestEntity, reason: str, holders: Mapping[str, int]) -> None:
        with transaction.atomic(using=runs.ledger_alias()):
            runs.lock_for_removal(self.run)
            self._entry(entry).update(
                state=TestEntity.State.QUARANTINED, reason=reason, blocked_by=dict(holders)
            )

    def _entry(self, entry: TestEntity) -> TestEntityQuerySet:
        return TestEntity.objects.using(runs.ledger_alias()).standing().filter(pk=entry.pk)


def _handler_of(entry: TestEntity) -> ExternalHandler | None:
    """None where no handler of its type is registered any more, or it cannot be loaded."""
    name = entry.model.removeprefix(_PREFIX)
    if name == FILE:
        return FileHandler()
    # A wrong registration elsewhere must not stop a purge.
    found = load_registry().external_types.get(name)
    try:
        return None if found is None else found.load_handler()
    except ConfigurationError as error:
        log_error(logger, f"no handler of {name!r}", error)
        return None


def _is_being_made(entry: TestEntity, handler: ExternalHandler) -> bool:
    """Whether its making may still be under way, by the database's clock."""
    if entry.reason != BEING_MADE:
        return False
    allowed = dt.timedelta(seconds=_allowed(handler))
    entries = TestEntity.objects.using(runs.ledger_alias())
    return entries.filter(pk=entry.pk, created_at__gt=Now() - allowed).exists()


def longest_making(things: Iterable[External]) -> float:
    """How many seconds may go by until it is known what became of all of these."""
    return sum(_allowed(thing.handler) for thing in things)


def _allowed(handler: ExternalHandler) -> float:
    """How many seconds all attempts together may take."""
    waits = sum(max(_wait(handler, number), handler.patience) for number in range(1, handler.attempts))
    return float(handler.attempts * handler.timeout + waits)


def repeatedly(
    handler: ExternalHandler, call: Callable[[], R], sleep: Sleep = time.sleep, attempts: int | None = None
) -> R:
    """What `call` returns, at the latest attempt; raises what the last one raised."""
    attempts = max(attempts or handler.attempts, 1)
    for number in range(1, attempts):
        wait = _wait(handler, number)
        try:
            return call()
        except TryLater as later:
            if later.seconds > handler.patience:
                raise
            wait = max(wait, later.seconds)
        except Exception as error:  # noqa: BLE001 - whatever the host's handler raises
            logger.info("attempt %d of %d failed: %s", number, attempts, type(error).__name__)
        sleep(wait)
    return call()


def _wait(handler: ExternalHandler, number: int) -> float:
    """Seconds between attempt `number` and the next."""
    return float(handler.backoff * 2 ** (number - 1))


def _in_batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


# --- files in storage ------------------------------------------------------------------------------------


class FileHandler(ExternalHandler):
    """Removes files that saving a row has put into the storage of one of its columns."""

    def remove(self, key: str, reference: str) -> None:
        column = _column(key)
        if column is not None:
            _delete(column, reference)


@contextmanager
def discarding_on_failure(files: Sequence[WrittenFile]) -> Iterator[None]:
    """Delete the files that the block has written where it fails: its transaction takes only rows back."""
    try:
        yield
    except BaseException:
        for each in files:
            try:
                if not _rows_naming(each.field, [each.name]):
                    _delete(each.field, each.name)
            except Exception as error:  # noqa: BLE001 - the failure that is under way is the one to report
                log_error(logger, f"the file {each.name!r} of {each.field} was left behind", error)
        raise


def _delete(column: models.FileField, name: str) -> None:
    try:
        column.storage.delete(name)
    except FileNotFoundError:
        return  # not every storage takes that for success


def _column(key: str) -> models.FileField | None:
    """The column whose storage holds the file; None where it is not installed any more."""
    label, _, name = key.partition(":")[0].rpartition(".")
    try:
        column = apps.get_model(label)._meta.get_field(name)
    except (LookupError, ValueError, FieldDoesNotExist):
        return None
    return column if isinstance(column, models.FileField) else None


def _holders(entries: Sequence[TestEntity]) -> dict[int, Counter[str]]:
    """Rows that name the files of these entries, counted by model: a file goes when its last row has gone."""
    by_column: dict[models.FileField, dict[str, int]] = {}
    for entry in entries:
        column = _column(entry.key_text)
        if column is not None:
            by_column.setdefault(column, {})[entry.reference] = entry.pk
    found: dict[int, Counter[str]] = {}
    for column, by_name in by_column.items():
        for label, name, count in _rows_naming(column, list(by_name)):
            found.setdefault(by_name[name], Counter())[label] += count
    return found


def _rows_naming(column: models.FileField, names: Sequence[str]) -> list[tuple[str, str, int]]:
    """(model, name, rows) for the rows that name any of these files, in every column with that storage."""
    found = []
    for model in apps.get_models(include_auto_created=True):
        if model._meta.proxy or model._meta.swapped or not model._meta.managed:
            continue
        rows: QuerySet[models.Model] = QuerySet(model, using=router.db_for_write(model))
        for each in model._meta.local_concrete_fields:
            if isinstance(each, models.FileField) and _same(each.storage, column.storage):
                counted = rows.filter(**{f"{each.name}__in": names}).order_by().values_list(each.name)
                found += [(model._meta.label, name, count) for name, count in counted.annotate(Count("pk"))]
    return found


def _same(one: Any, other: Any) -> bool:
    return one is other or bool(one == other)
