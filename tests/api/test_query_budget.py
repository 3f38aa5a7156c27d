"""What a booking scenario of six rows costs the database."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.access import keys
from stagehand_testdata.models import TestEntity
from tests.conftest import Wire

from .conftest import all_counts

_FRAME = re.compile(r"^\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|START TRANSACTION|SET )", re.IGNORECASE)
_RUN_LOCK = re.compile(r"(FROM|UPDATE|INTO)\s+[\"`]stagehand_testdata_testrun[\"`]", re.IGNORECASE)


def is_work(sql: str) -> bool:
    return not (_FRAME.match(sql) or _RUN_LOCK.search(sql))


@pytest.mark.parametrize("opened", [False, True], ids=["implicitly", "by verify-access"])
def test_a_scenario_of_six_rows_costs_seven_queries_in_a_new_run_and_an_old_one(
    wire: Wire, opened: bool
) -> None:
    wire.make("booking-scenarios")  # imports, caches
    wire = Wire(f"{wire.test_id}_b")
    if opened:
        wire.post("verify-access")
    for nth in (1, 2, 3):
        rows = TestEntity.objects.count()
        with CaptureQueriesContext(connection) as queries:
            wire.make("booking-scenarios")
        statements = [each["sql"] for each in queries.captured_queries]
        work = [sql for sql in statements if is_work(sql)]
        assert TestEntity.objects.count() - rows == 6
        audited = [sql for sql in work if "stagehand_testdata_auditentry" in sql]
        assert len(audited) == 1, "the audit's row is one statement"
        assert len(work) - len(audited) <= 7, (nth, "\n".join(work))
        assert len(statements) - len(work) <= 8, "\n".join(statements)


def test_a_key_costs_a_query_and_its_quota_two(wire: Wire, configure: Any) -> None:
    def cost(**headers: str) -> int:
        wire.post("booking-scenarios", **headers)
        with CaptureQueriesContext(connection) as queries:
            assert wire.post("booking-scenarios", **headers).status_code == 201
        statements = [each["sql"] for each in queries.captured_queries]
        return len([sql for sql in statements if not _FRAME.match(sql)])

    without = cost()
    configure(REQUIRE_ACCESS_KEY=True)
    hour = dt.timedelta(hours=1)
    costs = []
    for limits in ({"max_live_rows": None, "max_open_runs": None}, {}):
        wire = Wire(f"{wire.test_id}_k")
        costs.append(cost(Authorization=f"Bearer {keys.create('CI', hour, **limits).text}"))
    # On SQLite the writer has every lock: it counts, and locks nothing.
    assert costs == [without + 1, without + (2 if connection.vendor == "sqlite" else 3)]


def test_a_refusal_costs_no_query(wire: Wire) -> None:
    bodies: list[tuple[str, Any]] = [
        ("builders", {"isTest": False}),
        ("builders", {"testId": "stagehand_test_other"}),
        ("builders", {"testCreationTime": 1}),
        ("entities/person", {"fields": {"colour": 1}}),
        ("nonsense", {}),
    ]
    for path, body in bodies:
        with CaptureQueriesContext(connection) as queries:
            assert wire.post(path, body).status_code == 400
        assert queries.captured_queries == [], path


def test_a_closed_gate_costs_no_query(wire: Wire, configure: Any) -> None:
    configure(ENABLED=False)
    with CaptureQueriesContext(connection) as queries:
        assert wire.post("booking-scenarios").status_code == 403
        assert wire.get("runs").status_code == 403
    assert queries.captured_queries == []


def test_a_list_of_runs_costs_the_same_however_long(wire: Wire) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert wire.get("runs").status_code == 200
        return len(queries)

    wire.make("builders")
    first = cost()
    for nth in range(5):
        Wire(f"{wire.test_id}_{nth}").make("booking-scenarios")
    assert cost() == first == 2
    assert all_counts()["stagehand_testdata.TestRun"] == 6
