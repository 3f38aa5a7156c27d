"""How much a purge may remove before somebody has looked at its plan."""

from __future__ import annotations

import math
from collections.abc import Collection

from django.apps import apps

from ...conf import settings
from ...exceptions import PlanChanged, PurgeHalted
from ...models import TestRun
from ..runs import ledger_alias
from .graph import all_rows
from .plan import Outline, make_plan, outline


def confirm(run: TestRun, seen: Outline, expect: str | None) -> None:
    """Raise PlanChanged where the run's plan is not the expected one.

    Where none is expected, raise PurgeHalted for more than may be removed unconfirmed.
    """
    if expect is None:
        reason = _too_much(seen)
        if reason:
            raise PurgeHalted(
                f"The purge of {run.test_id} {reason}. Look at it with 'manage.py purge_test_data --run"
                f" {run.test_id} --dry-run', and confirm it with --confirm {make_plan(run).digest}"
            )
    elif expect != (digest := make_plan(run).digest):
        raise PlanChanged(
            f"The plan of {run.test_id} is not the one that was confirmed; nothing was removed. Look at it"
            f" again with --dry-run; its digest is {digest}"
        )


def refuse_too_many(run: TestRun, entity_ids: Collection[int]) -> None:
    """Raise PurgeHalted where this part of the run alone is over the limits."""
    reason = _too_much(outline(run, entity_ids)) if entity_ids else ""
    if reason:
        raise PurgeHalted(
            f"This clean-up of {run.test_id} {reason}. Only a purge of the whole run can be confirmed:"
            f" 'manage.py purge_test_data --run {run.test_id} --dry-run' shows it."
        )


def _too_much(seen: Outline) -> str:
    most, share = settings.MAX_ROWS_PER_PURGE, settings.MAX_TABLE_SHARE
    if seen.total > most:
        return f"would remove {seen.total:,} rows, more than MAX_ROWS_PER_PURGE ({most:,})"
    if share >= 1:
        return ""
    for label in (label for group in seen.groups for label in group.models):
        count = seen.counts[label]
        # Counting a large table takes long: it is enough to know that it has as many rows as it must.
        enough = math.ceil(count / share) if share > 0 else count + 1
        model = apps.get_model(label)
        rows = all_rows(model, ledger_alias())[:enough].count()
        if rows < enough:
            return (
                f"would remove {count:,} of the {rows:,} rows of {model._meta.label},"
                f" more than MAX_TABLE_SHARE ({share:g})"
            )
    return ""
