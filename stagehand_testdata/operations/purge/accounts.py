"""The accounts among a run's rows: signed out before they go, and let in no more where they stay.

An account that something real points at stays, and so may whatever lets it in besides a session: a token, a
password. Those may hang on rows that are not ours to remove; the account is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import transaction

from ...access import sessions
from ...models import TestRun
from ..runs import ledger_alias, lock_for_removal
from .graph import Model, all_rows
from .plan import Proofs, examine, in_batches, standing

_BATCH = 500


def sign_out(run: TestRun, entity_ids: Collection[int]) -> None:
    """End the sessions of those of the run's accounts that these entries are of."""
    keys = standing(run, entity_ids).of_model(get_user_model()).values_list("key_text", flat=True)
    with transaction.atomic(using=ledger_alias()):
        lock_for_removal(run)
        sessions.revoke(run, list(keys))


def disarm(run: TestRun, proven: Proofs) -> None:
    """Let nobody sign in any more as an account of the run that stands; each is proven to be the run's own.

    Needs a transaction. What signs in past Django's `is_active` and password hash, this does not stop.
    """
    model = get_user_model()
    changes = _without_entrance(model)
    since = proven.since.get(model._meta.label_lower)
    for entries in in_batches(standing(run).of_model(model), _BATCH):
        found = examine(model, list(entries), lock=True, proven_since=since)
        if found.ours and changes:
            all_rows(model, ledger_alias()).filter(pk__in=list(found.ours)).update(**changes)


def _without_entrance(model: Model) -> dict[str, Any]:
    names = {field.name for field in model._meta.concrete_fields}
    # The hash is part of what every session is checked against.
    entrances: dict[str, Any] = {"is_active": False, "password": make_password(None)}
    return {name: value for name, value in entrances.items() if name in names}
