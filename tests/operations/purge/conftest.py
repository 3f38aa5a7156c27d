"""Purges by hand, without the wire: what they decide and what they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import entities, guards, runs
from stagehand_testdata.operations.purge.purge import Outcome, purge_run
from tests.conftest import Wire


class Run:
    """A run and shortcuts to make rows in it, purge it and look at its ledger."""

    def __init__(self, test_id: str) -> None:
        self.test_id = test_id

    def make(self, type_name: str, **fields: Any) -> Any:
        return entities.perform(self.test_id, "", lambda call: call.create(type_name, **fields))

    @property
    def run(self) -> TestRun:
        return runs.find(self.test_id, "", deleted=True)

    def purge(self, **kwargs: Any) -> Outcome:
        return purge_run(self.run, **kwargs)

    def entry(self, instance: Any) -> TestEntity:
        return TestEntity.objects.for_keys(type(instance), [instance.pk]).get(run=self.run)

    def states(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for state in TestEntity.objects.filter(run=self.run).values_list("state", flat=True):
            found[state] = found.get(state, 0) + 1
        return found


@pytest.fixture(params=["without guards", "with guards"])
def guarded(request: pytest.FixtureRequest, db: None) -> Iterator[bool]:
    """Whether the database's guards are up: each test of a purge must hold either way."""
    if request.param == "without guards":
        yield False
        return
    if not connection.features.can_rollback_ddl:
        pytest.skip("a trigger cannot be rolled back here with the test")
    guards.install(connection.alias)
    yield True
    if not connection.in_atomic_block:  # a test on real transactions rolls nothing back
        guards.remove(connection.alias)


@pytest.fixture
def run(guarded: bool, new_wire: Callable[[], Wire]) -> Run:
    return Run(new_wire().test_id)
