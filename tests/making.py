"""How tests make rows without the wire: one call, what it left in the ledger, and the same call again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.apps import apps
from django.conf import settings as django_settings
from django.db import models, transaction
from django.test import override_settings

from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations import entities, runs

R = TypeVar("R")

TEST_ID = "stagehand_test_making"


def changed(**values: Any) -> override_settings:
    """The settings with these keys of ours changed: a decorator or a context manager."""
    return override_settings(STAGEHAND_TESTDATA={**django_settings.STAGEHAND_TESTDATA, **values})


@contextmanager
def registered(**factories: Any) -> Iterator[None]:
    """Within the block these entity types are the only ones of the settings."""
    with changed(ENTITY_TYPES=factories):
        yield


def perform(work: Callable[[entities.Creation], R], test_id: str = TEST_ID, **options: Any) -> R:
    return entities.perform(test_id, "", work, **options)


def create(factory_class: Any, test_id: str = TEST_ID, **fields: Any) -> Any:
    """One row by this factory, in a run."""
    with registered(thing=factory_class):
        return perform(lambda call: call.create("thing", **fields), test_id)


def owned(test_id: str = TEST_ID) -> list[str]:
    """The models of the run's entries, sorted."""
    return sorted(TestEntity.objects.filter(run__test_id=test_id).values_list("model", flat=True))


def owns(row: models.Model, test_id: str = TEST_ID) -> bool:
    return TestEntity.objects.for_keys(type(row), [row.pk]).filter(run__test_id=test_id).exists()


def written(test_id: str = TEST_ID) -> list[tuple[str, dict[str, Any]]]:
    """The run's rows in order, without what no seed decides: keys, pointers, clocks and salts."""
    found = []
    for entry in TestEntity.objects.filter(run__test_id=test_id):
        model = apps.get_model(entry.model)
        row = model._base_manager.get(pk=entry.row_key(model))
        values = {
            field.name: field.value_from_object(row)
            for field in model._meta.local_concrete_fields
            if not (field.primary_key and not isinstance(field, models.CharField))
            and not field.is_relation
            and not getattr(field, "auto_now_add", False)
            and field.name not in ("password", "date_joined")
        }
        found.append((entry.model, values))
    return found


def replay(
    factory_class: Any, *, seed: int = 7, times: int = 3, **fields: Any
) -> list[tuple[str, dict[str, Any]]]:
    """What a run with this seed makes by the factory, taken back afterwards: two calls, several rows each."""
    with registered(thing=factory_class), transaction.atomic():
        runs.open_or_join(TEST_ID, seed=seed)
        for _ in range(2):
            perform(lambda call: [call.create("thing", **fields) for _ in range(times)])
        found = written()
        transaction.set_rollback(True)
    return found
