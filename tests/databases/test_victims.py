"""A transaction that the database broke off to end a deadlock is done again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, connections

from stagehand_testdata.databases import database
from stagehand_testdata.operations import entities
from tests.conftest import Wire
from tests.host.models import Label


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time cannot deadlock")
def test_two_calls_that_deadlock_both_succeed(new_wire: Callable[[], Wire]) -> None:
    first, second = (Label.objects.create(text=text) for text in ("first", "second"))
    both_hold = threading.Barrier(2, timeout=10)
    results: list[Any] = []

    def touch(order: tuple[Label, Label]) -> Callable[[entities.Creation], None]:
        tries = []

        def work(call: entities.Creation) -> None:
            call.create("voucher")
            Label.objects.filter(pk=order[0].pk).update(text=f"{order[0].text} {call.test_id}")
            if not tries:
                tries.append(1)
                both_hold.wait()
            Label.objects.filter(pk=order[1].pk).update(text=f"{order[1].text} {call.test_id}")

        return work

    def run(test_id: str, order: tuple[Label, Label]) -> None:
        try:
            results.append(entities.perform(test_id, "", touch(order)))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results.append(error)
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=run, args=(new_wire().test_id, order))
        for order in ((first, second), (second, first))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [None, None]


def test_any_other_failure_is_not_done_again() -> None:
    assert not database("default").chose_a_victim(OperationalError("disk full"))
