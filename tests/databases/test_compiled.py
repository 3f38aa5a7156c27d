"""A query that is compiled once answers as one that is compiled each time."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.databases import database
from stagehand_testdata.databases.compiled import Mark, compile_once, filled_in
from stagehand_testdata.models import TestRun
from stagehand_testdata.operations import runs
from tests.making import TEST_ID, perform
from tests.threads import in_thread

OTHER = "stagehand_test_other"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def two_runs() -> None:
    for test_id, rows in ((TEST_ID, 1), (OTHER, 2)):
        perform(lambda call, rows=rows: [call.create("voucher") for _ in range(rows)], test_id)


def asked(test_id: str, owner: str = "") -> Any:
    compiled = compile_once(runs._with_clock(Mark("test_id"), Mark("owner")))
    return filled_in(compiled, {"test_id": test_id, "owner": owner})


@pytest.mark.parametrize("test_id", [TEST_ID, OTHER])
def test_is_the_same_statement_with_the_same_answer(test_id: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        [plain] = runs._with_clock(test_id, "")
        [found] = asked(test_id)
    first, second = (each["sql"] for each in queries)
    assert first == second
    columns = [field.attname for field in TestRun._meta.concrete_fields]
    assert [getattr(found, each) for each in columns] == [getattr(plain, each) for each in columns]
    assert found.last_ordinal == plain.last_ordinal == {TEST_ID: 1, OTHER: 2}[test_id]
    assert found.now.tzinfo is not None
    assert (found._state.db, found._state.adding) == ("default", False)


def test_remembers_nobodys_values() -> None:
    compiled = compile_once(runs._with_clock(Mark("test_id"), Mark("owner")))
    for test_id in (TEST_ID, OTHER, TEST_ID):
        assert [run.test_id for run in filled_in(compiled, {"test_id": test_id, "owner": ""})] == [test_id]
    assert list(filled_in(compiled, {"test_id": TEST_ID, "owner": "another"})) == []
    assert list(filled_in(compiled, {"test_id": "' OR 1=1 --", "owner": ""})) == []


class TestHoldingARun:
    def test_compiles_its_statement_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if database("default").share_suffix is None:
            pytest.skip("whoever writes has every lock")
        with transaction.atomic():
            runs.hold(TEST_ID, "")
            monkeypatch.setattr(SQLCompiler, "pre_sql_setup", None)
            assert runs.hold(OTHER, "").last_ordinal == 2  # type: ignore[attr-defined]
            assert runs.hold(TEST_ID, "").last_ordinal == 1  # type: ignore[attr-defined]

    def test_locks_it_as_ever(self) -> None:
        suffix = database("default").share_suffix
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            for _ in range(2):
                runs.hold(TEST_ID, "")
        if suffix is not None:
            table = connection.ops.quote_name(TestRun._meta.db_table)
            ends = [each["sql"].endswith(f" {suffix.format(table=table)}") for each in queries]
            assert ends == [True, True]

    @pytest.mark.django_db(transaction=True)
    def test_is_asked_on_the_threads_own_connection(self) -> None:
        def hold() -> Any:
            with transaction.atomic(), CaptureQueriesContext(connections["default"]) as queries:
                return runs.hold(OTHER, ""), len(queries)

        with transaction.atomic():
            runs.hold(TEST_ID, "")
        thread, found = in_thread(hold)
        thread.join(10)
        [(run, sent)] = found
        assert (run.test_id, sent > 0) == (OTHER, True)
