"""Every statement of a purge and of a creating call fails once: all or nothing, and a purge ends it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from .failing import Trials
from .graphs import a_receiver

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # A driver whose connection was closed under it raises what Django does not translate.
    pytest.mark.skipif(connection.vendor == "mysql", reason="the faults are PostgreSQL's and SQLite's"),
]


@pytest.fixture
def trials(transactional_db: None) -> Iterator[Trials]:
    trials = Trials(every_kind=False)
    with trials.prepared(), a_receiver():
        yield trials


@pytest.mark.parametrize("seed", [2, 14])
def test_a_purge_that_fails_at_any_statement_is_ended_by_the_next(trials: Trials, seed: int) -> None:
    trials.of_purging(seed)

    assert trials.tried
    assert trials.failures == []


@pytest.mark.parametrize("seed", [1, 21])
def test_a_call_that_fails_at_any_statement_leaves_all_of_its_rows_or_none(trials: Trials, seed: int) -> None:
    trials.of_creating(seed)

    assert trials.tried
    assert trials.failures == []
