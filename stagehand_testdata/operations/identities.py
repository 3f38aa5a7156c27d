"""Users at an outside identity provider: asked for with their accounts, linked to them, found and let go.

# Note [Whose identity it is]
The ledger decides, and nothing else. A user at the provider is a run's where it carries a key that an entry
of the run has; an address proves nothing. The key begins with the test ID and a digest of the account's key,
so that an account's entry is found by the ledger's index, and ends with 128 random bits.

Events of the provider change entries under such keys, and the one column that IDENTITY_FIELD names, of
accounts that the same run owns. A real row is never written: the statement itself looks for the entry.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.db.models import Exists

from ..access import trail
from ..conf import settings
from ..context import CurrentRun, use_run
from ..exceptions import ConfigurationError
from ..identity import is_production, load_provider
from ..isolation.capture import MadeRow
from ..logs import log_error
from ..models import Key, TestEntity, TestEntityQuerySet, TestRun, entries_of_outer_row
from ..registry import IDENTITY, ExternalType, get_registry, identity_type
from . import externals, runs

logger = logging.getLogger(__name__)

_PREFIX = TestEntity.EXTERNAL_PREFIX


class Identity(externals.External):
    """A user at the provider, of one account of the run."""

    def __init__(
        self, external_type: ExternalType, key: str, fields: Mapping[str, Any], run: TestRun, account: Any
    ) -> None:
        super().__init__(external_type, key, fields)
        self.run = run
        self.account = account

    def settled(self) -> None:
        _link_account(self.run, self.account, self.reference)


def ask_for_accounts(run: TestRun, rows: Iterable[MadeRow]) -> list[Identity]:
    """An identity for each account among these rows, where the host's provider is an outside one.

    Raises ConfigurationError, and whatever the provider raises over an account that it does not take.
    """
    name = identity_type()
    if name is None:
        return []
    model = _account_model()
    accounts = {row.key.text: row for row in rows if row.model is model}
    if not accounts:
        return []
    provider = load_provider()
    if is_production():
        for fault, advice in provider.faults_in_production():
            raise ConfigurationError(f"{fault} {advice}")
    found = get_registry().external_types.get(name)
    if found is None:
        raise ConfigurationError(f"No external type is called '{name}'.")
    asked = []
    for row in accounts.values():
        fields = provider.describe(row.instance)
        if fields is not None:
            key = externals.new_key(run, _mark(row.key))
            asked.append(Identity(found, key, fields, run, row.pk))
    return asked


def entry_of(run: TestRun, user: models.Model) -> TestEntity | None:
    """The entry of the account's identity at today's provider; None where it has none."""
    name = identity_type()
    if name is None:
        return None
    return _entries(run, name).filter(key_text__startswith=_beginning(run, user.pk)).order_by("-pk").first()


def of_accounts(run: TestRun, entity_ids: Collection[int]) -> set[int]:
    """The entries of the identities, at whatever provider, of the accounts among these entries."""
    standing = TestEntity.objects.using(runs.ledger_alias()).standing().filter(run=run).order_by()
    accounts = (
        standing.of_model(_account_model()).filter(pk__in=entity_ids).values_list("key_text", flat=True)
    )
    beginnings = {_beginning_of(run, text) for text in accounts}
    if not beginnings:
        return set()
    length = len(next(iter(beginnings)))
    identities = standing.filter(model__startswith=f"{_PREFIX}{IDENTITY}").values_list("pk", "key_text")
    return {pk for pk, key in identities if key[:length] in beginnings}


def owned_keys(name: str, keys: Collection[str], *, since: Any) -> set[str]:
    """Which of these keys have an entry that stands, or stood at that time by the database's clock."""
    entries = TestEntity.objects.using(runs.ledger_alias()).filter(
        model=_PREFIX + name, key_text__in=keys, database=""
    )
    standing = entries.standing() | entries.filter(removed_at__gte=since)
    return set(standing.order_by().values_list("key_text", flat=True))


# --- what the provider tells -----------------------------------------------------------------------------


def created(name: str, key: str, reference: str) -> bool:
    """The provider tells of a user under this key: link it to its entry. False where it is none of ours.

    An entry that was closed by now stands again, and so does its run: the next purge removes the user.
    """
    alias = runs.ledger_alias()
    entries = TestEntity.objects.using(alias).filter(model=_PREFIX + name, key_text=key, database="")
    known = entries.select_related("run").order_by("-pk").first()
    if known is None or not reference or known.key_text != key:
        return False
    if not known.tombstone and known.reference == reference:
        return True  # whoever made it has had the answer
    with transaction.atomic(using=alias):
        run = runs.lock_exclusively(known.run)
        entry = entries.get(pk=known.pk)
        if entry.reference not in ("", key, reference):
            logger.warning("the provider tells of a second user under the key of %r", entry)
            return False
        stood = not entry.tombstone
        if stood:
            entries.filter(pk=entry.pk).update(reference=reference)
        else:
            externals.reopen(run, entries.filter(pk=entry.pk), reference)
        trail.record("identity.link", run, subject=f"entry {entry.pk}")
    if stood:
        for account in _account_of(known.run, key):
            _link_account(known.run, account, reference)
    return True


def deleted(name: str, reference: str) -> bool:
    """The provider tells that a user is gone: close its entry. False where it is none of ours."""
    alias = runs.ledger_alias()
    entries = TestEntity.objects.using(alias).standing().filter(model=_PREFIX + name, database="")
    known = entries.filter(reference=reference).select_related("run").first() if reference else None
    if known is None:
        return False
    with transaction.atomic(using=alias):
        run = runs.lock_exclusively(known.run)
        if entries.filter(pk=known.pk).close(TestEntity.State.GONE):
            trail.record("identity.unlink", run, subject=f"entry {known.pk}")
    for account in _account_of(known.run, known.key_text):
        _link_account(known.run, account, "", instead_of=reference)
    return True


# --- the account's own column ----------------------------------------------------------------------------


def _account_of(run: TestRun, key: str) -> Iterator[Any]:
    """The key of the account whose identity has this key, where there is a column to link it by."""
    if not settings.IDENTITY_FIELD:
        return
    model = _account_model()
    accounts = TestEntity.objects.using(runs.ledger_alias()).standing().filter(run=run).of_model(model)
    for entry in accounts.order_by("-pk"):
        if key.startswith(_beginning_of(run, entry.key_text)):
            yield entry.row_key(model)
            return


def _link_account(run: TestRun, account: Any, reference: str, *, instead_of: str | None = None) -> None:
    """Let IDENTITY_FIELD of the run's own account hold what the provider calls it; empty takes it back."""
    name = settings.IDENTITY_FIELD
    if not name:
        return
    alias, model = runs.ledger_alias(), _account_model()
    column: Any = model._meta.get_field(name)
    rows: models.QuerySet[Any] = models.QuerySet(model, using=alias).filter(pk=account)
    if instead_of is not None:
        rows = rows.filter(**{name: instead_of})
    its = CurrentRun(run.pk, run.test_id, fenced=True)
    try:
        with transaction.atomic(using=alias), use_run(its):
            # See Note [Whose identity it is]: who gave the key to a real row since keeps it as it is.
            rows.filter(Exists(entries_of_outer_row(model, run))).update(
                **{name: reference or (None if column.null else "")}
            )
    except Exception as error:  # noqa: BLE001 - the user is there and in the ledger: only a link is missing
        log_error(logger, f"{name!r} of an account could not be written", error)


def _account_model() -> type[models.Model]:
    model = get_user_model()
    return model._meta.concrete_model or model


def _entries(run: TestRun, name: str) -> TestEntityQuerySet:
    standing = TestEntity.objects.using(runs.ledger_alias()).standing()
    return standing.filter(run=run, model=_PREFIX + name, database="")


def _beginning(run: TestRun, pk: Any) -> str:
    return externals.key_beginning(run, _mark(Key.of(_account_model(), pk)))


def _beginning_of(run: TestRun, key_text: str) -> str:
    return externals.key_beginning(run, _mark(Key(key_text, None, None)))


def _mark(key: Key) -> str:
    return hashlib.blake2b(key.text.encode(), digest_size=8).hexdigest()
