"""Shadow entries in a purge: nothing is removed for them, so they are counted and closed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.db import transaction
from django.db.models import Count, IntegerField, Q, Sum
from django.db.models.fields.json import KT
from django.db.models.functions import Cast

from ...models import TestEntity, TestEntityQuerySet, TestRun
from ..runs import ledger_alias, lock_for_removal

#: Those that a client asked for, while they stand.
REQUESTED = Q(origin=TestEntity.Origin.SHADOW, shadow_row__requested=True)

#: What a receipt says of none.
NOTHING: dict[str, Any] = {"entries": {}, "hostStatements": 0}


def by_type(entries: TestEntityQuerySet) -> dict[str, int]:
    """How many of these are shadow entries, by entity type."""
    found = entries.filter(origin=TestEntity.Origin.SHADOW).order_by().values_list("type")
    return dict(sorted(found.annotate(count=Count("pk"))))


def close(run: TestRun, entity_ids: Collection[int] | None = None, *, wait: bool = True) -> bool:
    """Enter the end of the run's shadows, or of those listed, and forget what they held.

    Without `wait`, False where somebody else holds the run just now.
    """
    with transaction.atomic(using=ledger_alias()):
        if lock_for_removal(run, wait=wait) is None:
            return False
        entries = TestEntity.objects.using(ledger_alias()).standing()
        entries = entries.filter(run=run, origin=TestEntity.Origin.SHADOW).order_by()
        if entity_ids is not None:
            entries = entries.filter(pk__in=entity_ids)
        entries.update(shadow_row=None)
        entries.close(TestEntity.State.REMOVED)
    return True


def told(run: TestRun, closed: Mapping[str, int]) -> dict[str, Any]:
    """What a receipt says of these shadows.

    `hostStatements` are those on the host's tables that the run's shadow calls sent, as was counted then.
    """
    if not closed:
        return NOTHING
    entries = TestEntity.objects.using(ledger_alias()).filter(run=run, origin=TestEntity.Origin.SHADOW)
    sent = Cast(KT("fingerprint__hostStatements"), IntegerField())
    statements = entries.order_by().aggregate(sum=Sum(sent))["sum"]
    return {"entries": dict(sorted(closed.items())), "hostStatements": statements}
