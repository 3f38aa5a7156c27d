"""A statement of a creating call that takes too long is broken off, and nothing is done."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from stagehand_testdata.exceptions import StatementTimeout
from stagehand_testdata.models import TestRun
from stagehand_testdata.operations.entities import Creation
from tests.conftest import Wire, error_of
from tests.host.models import Voucher
from tests.making import changed, perform

SLEEP = {"postgresql": "SELECT pg_sleep(5)", "mysql": "SELECT SLEEP(5)"}

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor not in SLEEP, reason="SQLite has no statement timeout"),
]


def dawdle(call: Creation) -> Any:
    call.create("voucher")
    with connection.cursor() as cursor:
        cursor.execute(SLEEP[connection.vendor])


def test_it_is_said_so_and_nothing_is_made() -> None:
    with changed(STATEMENT_TIMEOUT_SECONDS=0.2), pytest.raises(StatementTimeout):
        perform(dawdle)
    assert not Voucher.objects.exists()
    assert not TestRun.objects.exists()


def test_the_next_transaction_of_the_connection_has_its_own_time() -> None:
    with changed(STATEMENT_TIMEOUT_SECONDS=0.2), pytest.raises(StatementTimeout):
        perform(dawdle)
    with connection.cursor() as cursor:
        cursor.execute(SLEEP[connection.vendor].replace("5", "0.4"))


def test_an_opening_that_waits_for_a_lock_is_broken_off_too(wire: Wire) -> None:
    from django.db import transaction

    from tests.threads import in_thread

    assert wire.post("verify-access").status_code == 200
    with transaction.atomic():
        list(TestRun.objects.select_for_update())
        with changed(STATEMENT_TIMEOUT_SECONDS=0.3):
            thread, found = in_thread(lambda: wire.post("verify-access"))
            thread.join(10)
    assert error_of(found[0]) == (503, "statement_timeout")
