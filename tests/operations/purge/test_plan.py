"""The plan is a pure read, and says what the purge then does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations.purge.plan import make_plan
from tests.guarding import verb
from tests.host import models

from .conftest import Run


def everything(run: Run) -> Any:
    run.make("team")
    run.make("booking")
    models.Review.objects.create(book=run.make("book"), text="real")
    person = run.make("person")
    models.Person.objects.create(name="real", boss=run.make("person", boss=person))
    gone = run.make("voucher")
    models.Voucher.objects.filter(pk=gone.pk).delete()
    recycled = run.make("voucher")
    models.Voucher.objects.filter(pk=recycled.pk).update(note="another row now")


def test_it_says_what_the_purge_then_does(run: Run) -> None:
    everything(run)
    plan = make_plan(run.run)
    receipt = run.purge().receipt
    assert dict(plan.removable) == receipt["removed"]
    assert dict(plan.gone) == receipt["alreadyGone"]

    def key(each: dict[str, Any]) -> Any:
        return each["type"], each["id"]

    assert sorted((held.as_wire() for held in plan.held), key=key) == sorted(receipt["quarantined"], key=key)


def test_it_only_reads(run: Run) -> None:
    everything(run)
    ledger = list(TestEntity.objects.order_by("pk").values())
    with CaptureQueriesContext(connection) as queries:
        make_plan(run.run)
    verbs = {verb(query["sql"]) for query in queries.captured_queries}
    assert verbs <= {"SELECT", "DECLARE"}
    assert list(TestEntity.objects.order_by("pk").values()) == ledger


def test_it_is_frozen(run: Run) -> None:
    run.make("voucher")
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_plan(run.run).digest = "other"  # type: ignore[misc]


def test_equal_plans_have_equal_digests_and_others_do_not(run: Run) -> None:
    book = run.make("book")
    plan = make_plan(run.run)
    assert make_plan(run.run).digest == plan.digest
    review = models.Review.objects.create(book=book, text="real")
    assert make_plan(run.run).digest != plan.digest
    review.delete()
    assert make_plan(run.run).digest == plan.digest
    run.make("voucher")
    assert make_plan(run.run).digest != plan.digest


def test_holders_come_before_what_they_hold(run: Run) -> None:
    run.make("booking")
    order = [label for group in make_plan(run.run).groups for label in group.models]
    assert order.index("stagehand_marketplace.booking") < order.index("stagehand_marketplace.sessiontype")
    assert order.index("stagehand_marketplace.sessiontype") < order.index("stagehand_marketplace.builder")
    assert order.index("stagehand_marketplace.builder") < order.index("auth.user")


def test_it_asks_no_more_queries_for_many_rows_than_for_few(run: Run) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            make_plan(run.run)
        return len(queries)

    run.make("book")
    few = cost()
    for _ in range(10):
        run.make("book")
    assert cost() == few


def test_a_part_of_a_run_can_be_planned(run: Run) -> None:
    book = run.make("book")
    voucher = run.make("voucher")
    plan = make_plan(run.run, [run.entry(voucher).pk])
    assert dict(plan.removable) == {"voucher": 1}
    held = make_plan(run.run, [run.entry(book).pk]).held
    assert not held or held[0].reason == "referenced"


def test_a_row_that_went_changes_the_digest(run: Run) -> None:
    voucher = run.make("voucher")
    plan = make_plan(run.run)
    models.Voucher.objects.filter(pk=voucher.pk).delete()
    assert make_plan(run.run).digest != plan.digest
