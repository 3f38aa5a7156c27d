"""What a shadow call may send: statements of ours on the ledger, and nothing else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from django.db import connection, transaction

from stagehand_testdata.exceptions import NeedsDeep
from stagehand_testdata.isolation.shadow import watching_statements
from stagehand_testdata.models import TestRun
from tests.host.models import Label

pytestmark = pytest.mark.django_db

REFUSED = [
    "SELECT 1",
    "SELECT text FROM host_label",
    'SELECT "id" FROM "stagehand_testdata_testrun" JOIN host_label ON true',
    "INSERT INTO stagehand_testdata_testrun SELECT * FROM host_label",
    "UPDATE host_label SET text = 'FROM stagehand_testdata_testrun'",
    "DELETE FROM public.host_label",
    "TRUNCATE host_label",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_a_statement_that_is_not_on_the_ledger_alone_is_refused_before_it_is_sent(sql: str) -> None:
    with watching_statements() as watch, pytest.raises(NeedsDeep), connection.cursor() as cursor:
        cursor.execute(sql)
    assert (watch.on_ledger, watch.on_host) == (0, 1)


def test_statements_on_the_ledger_go_through_and_are_counted() -> None:
    with watching_statements() as watch:
        assert not TestRun.objects.exists()
        assert not TestRun.objects.filter(label="FROM host_label").update(label="x")
    assert (watch.on_ledger, watch.on_host) == (2, 0)


def test_the_hosts_code_may_not_even_read_the_ledger() -> None:
    with watching_statements() as watch:
        with pytest.raises(NeedsDeep), watch.host_runs():
            TestRun.objects.exists()
        assert not TestRun.objects.exists()
    assert (watch.on_ledger, watch.on_host) == (1, 0)


def test_a_refusal_that_the_host_swallows_is_raised_all_the_same() -> None:
    def swallow() -> None:
        with suppress(NeedsDeep):
            Label.objects.create(text="x")

    with watching_statements() as watch, pytest.raises(NeedsDeep, match="host_label"), watch.host_runs():
        swallow()
    assert watch.on_host == 1


def test_a_transaction_of_the_hosts_is_no_statement_on_a_table() -> None:
    with watching_statements() as watch, watch.host_runs(), transaction.atomic():
        pass
    assert (watch.on_ledger, watch.on_host) == (0, 0)


def test_nothing_is_watched_after_the_block() -> None:
    with watching_statements():
        pass
    Label.objects.create(text="x")
