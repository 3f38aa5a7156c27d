"""A purge takes what is outside the database too, after the rows, and reports what it could not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from stagehand_testdata.exceptions import RunClosed
from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import entities, runs
from stagehand_testdata.operations.purge import purge
from stagehand_testdata.operations.purge.plan import make_plan
from stagehand_testdata.operations.purge.purge import Outcome, purge_run
from tests.conftest import Wire
from tests.host import models
from tests.making import TEST_ID, perform, registered
from tests.outside.factories import ContractFactory, DocumentFactory
from tests.outside.models import Document
from tests.outside.servers import Service

pytestmark = pytest.mark.django_db(transaction=True)


def the_run() -> TestRun:
    return runs.find(TEST_ID, "", deleted=True)


def finished(**options: Any) -> Outcome:
    outcome = purge_run(the_run(), **options)
    assert outcome is not None
    return outcome


def make(*names: str) -> list[Any]:
    def work(call: entities.Creation) -> list[Any]:
        call.create("voucher")
        return [call.external(name) for name in names]

    return perform(work)


def test_everything_goes_and_the_run_closes(accounts: Service, mailboxes: Service) -> None:
    make("account", "mailbox", "account")
    outcome = finished()
    assert outcome.success
    assert outcome.receipt["removed"] == {"account": 2, "mailbox": 1, "voucher": 1}
    assert not accounts.things
    assert not mailboxes.things
    assert the_run().state == TestRun.State.CLOSED


def test_a_plan_counts_what_is_outside_and_asks_nobody(accounts: Service) -> None:
    make("account")
    plan = make_plan(the_run())
    assert dict(plan.removable) == {"account": 1, "voucher": 1}
    assert not plan.held
    assert [order for order, _ in accounts.asked] == ["create"]


def test_residue_outside_is_reported_and_the_rows_go_all_the_same(accounts: Service) -> None:
    [account] = make("account")
    accounts.failing.add("remove")
    outcome = finished()
    assert not outcome.success
    assert outcome.receipt["removed"] == {"voucher": 1}
    assert outcome.receipt["quarantined"] == [
        {"type": "account", "id": account.key, "reason": "external_failed", "blockedBy": {}}
    ]
    assert "the outside system did not remove it" in outcome.message
    assert (the_run().state, models.Voucher.objects.count()) == (TestRun.State.CLOSING, 0)
    accounts.recover()
    assert finished().receipt["removed"] == {"account": 1}
    assert not accounts.things
    assert the_run().state == TestRun.State.CLOSED


def test_what_is_being_made_is_left_and_the_message_says_so(accounts: Service) -> None:
    seen: list[Outcome] = []

    def purge_meanwhile(order: str, key: str, process: int) -> None:
        if order == "create":
            try:
                seen.append(finished())
            finally:
                connections.close_all()

    accounts.before = purge_meanwhile
    make("account")
    assert not accounts.trouble
    assert [each["reason"] for each in seen[0].receipt["quarantined"]] == ["external_being_made"]
    assert "account" not in seen[0].receipt["removed"]
    assert seen[0].message
    assert finished().success
    assert not accounts.things


def test_files_go_with_their_rows(media: Path) -> None:
    with registered(document=DocumentFactory, contract=ContractFactory):
        perform(lambda call: (call.create("document"), call.create("contract")))
    assert len([path for path in media.rglob("*") if path.is_file()]) == 3
    outcome = finished()
    assert outcome.success, outcome.message
    assert outcome.receipt["removed"]["file"] == 3
    assert not [path for path in media.rglob("*") if path.is_file()]
    assert the_run().state == TestRun.State.CLOSED


def test_a_file_stays_with_the_row_that_stays(media: Path) -> None:
    with registered(document=DocumentFactory):
        document = perform(lambda call: call.create("document"))
    Document.objects.filter(pk=document.pk).delete()
    Document.objects.create(title="real", file=document.file.name)
    outcome = finished()
    assert [(each["type"], each["reason"]) for each in outcome.receipt["quarantined"]] == [
        ("file", "referenced")
    ]
    assert outcome.receipt["quarantined"][0]["blockedBy"] == {"outside.Document": 1}
    assert (media / document.file.name).exists()


def test_nothing_is_made_once_the_run_is_closed(accounts: Service) -> None:
    make("account")
    finished()
    with pytest.raises(RunClosed):
        make("account")
    assert [order for order, _ in accounts.asked] == ["create", "remove"]


def test_a_clean_up_of_what_is_listed_takes_the_thing_that_is_listed(
    accounts: Service, new_wire: Callable[[], Wire]
) -> None:
    first, second = make("account", "account")
    outcome = purge.clean_up(TEST_ID, "", [("account", first.key)])
    assert outcome.receipt["removed"] == {"account": 1}
    assert accounts.keys() == [second.key]
    assert models.Voucher.objects.count() == 1


def test_an_outside_that_is_down_keeps_a_purge_no_longer_than_its_timeouts(accounts: Service) -> None:
    make(*["account"] * 5)
    accounts.failing.add("remove")
    begun = time.monotonic()
    assert finished().receipt["remaining"] == 5
    assert time.monotonic() - begun < 5
    assert TestEntity.objects.standing().filter(reason="external_failed").count() == 5
