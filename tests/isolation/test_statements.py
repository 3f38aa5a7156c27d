"""Each statement that is sent under a run says so to the database, and no other one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.isolation.statements import tag_statements
from tests.guarding import on_postgresql
from tests.host.models import Label
from tests.threads import in_thread

RUN, OTHER = CurrentRun(12, "stagehand_test_12"), CurrentRun(13, "stagehand_test_13")
TAG = "/*stagehand run=12*/ "

pytestmark = pytest.mark.django_db


def arrived(statement: Any = "SELECT current_query()") -> str:
    """The statement as the database has got it; it must ask for that."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return str(cursor.fetchone()[0])


def arrived_and_closed() -> str:
    try:
        return arrived()
    finally:
        connections.close_all()


def sent(work: Callable[[], Any]) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        work()
    return [each["sql"] for each in queries]


@on_postgresql
class TestOnPostgreSQL:
    def test_text_bytes_and_what_the_driver_composes_are_tagged(self) -> None:
        from django.db.backends.postgresql.psycopg_any import sql

        text = "SELECT current_query()"
        composed = sql.SQL("{} current_query()").format(sql.SQL("SELECT"))
        with use_run(RUN):
            for statement in (text, text.encode(), sql.SQL(text), composed):
                assert arrived(statement) == TAG + text

    def test_nothing_is_tagged_before_the_run_and_after_it(self) -> None:
        assert arrived() == "SELECT current_query()"
        with use_run(RUN):
            with use_run(OTHER):
                assert arrived().startswith("/*stagehand run=13*/ ")
            with use_run(None):
                assert arrived() == "SELECT current_query()"
            assert arrived() == TAG + "SELECT current_query()"
        assert arrived() == "SELECT current_query()"

    def test_the_orm_s_statements_and_savepoints_are_tagged(self) -> None:
        def work() -> None:
            with transaction.atomic():
                label = Label.objects.create(text="a")
                Label.objects.filter(pk=label.pk).update(text=F("text"))
                list(Label.objects.raw("SELECT * FROM host_label WHERE text = %s", ["100%"]))
                label.delete()

        with use_run(RUN):
            statements = sent(work)
        assert len(statements) >= 6
        assert [each for each in statements if not each.startswith(TAG)] == []
        assert [each for each in sent(work) if "stagehand" in each] == []

    def test_each_of_executemany_is_tagged(self) -> None:
        with connection.cursor() as cursor, use_run(RUN):
            cursor.execute("CREATE TEMP TABLE heard (text text DEFAULT current_query(), number int)")
            cursor.executemany("INSERT INTO heard (number) VALUES (%s)", [[1], [2], [3]])
            cursor.execute("SELECT text FROM heard")
            assert [row[0].startswith(TAG) for row in cursor.fetchall()] == [True] * 3
            cursor.execute("DROP TABLE heard")

    @pytest.mark.parametrize("autocommit", [True, False])
    @pytest.mark.django_db(transaction=True)
    def test_what_a_named_cursor_declares_is_tagged(self, autocommit: bool) -> None:
        Label.objects.bulk_create([Label(text=str(number)) for number in range(5)])

        def look() -> list[str]:
            rows = Label.objects.order_by("pk").iterator(chunk_size=2)
            next(rows)
            declared: list[str] = []
            with connection.cursor() as cursor:
                cursor.execute("SELECT statement FROM pg_cursors WHERE name LIKE '\\_django\\_curs%'")
                declared += [row[0] for row in cursor.fetchall()]
            assert len(list(rows)) == 4
            return declared

        with use_run(RUN):
            if autocommit:
                [statement] = look()
            else:
                with transaction.atomic():
                    [statement] = look()
        assert statement.startswith("DECLARE ")
        assert f" FOR {TAG}SELECT" in statement

    @pytest.mark.django_db(transaction=True)
    def test_in_autocommit_and_in_a_transaction_and_not_after_them(self) -> None:
        with use_run(RUN):
            assert arrived().startswith(TAG)
        assert not arrived().startswith(TAG)
        with transaction.atomic():
            with use_run(RUN):
                assert arrived().startswith(TAG)
            assert not arrived().startswith(TAG)

    @pytest.mark.django_db(transaction=True)
    def test_threads_do_not_get_one_anothers_run(self) -> None:
        def ask(number: int) -> bool:
            run = CurrentRun(number, "x") if number % 3 else None
            with use_run(run):
                got = arrived_and_closed()
            return got == (f"/*stagehand run={number}*/ " if run else "") + "SELECT current_query()"

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(64)))

    @pytest.mark.django_db(transaction=True)
    def test_tasks_of_asyncio_do_not_get_one_anothers_run(self) -> None:
        async def ask(number: int) -> bool:
            run = CurrentRun(number, "x") if number % 3 else None
            with use_run(run):
                await asyncio.sleep(0)
                got = await sync_to_async(arrived_and_closed, thread_sensitive=False)()
                await asyncio.sleep(0)
            return got == (f"/*stagehand run={number}*/ " if run else "") + "SELECT current_query()"

        async def all_at_once() -> list[bool]:
            return await asyncio.gather(*(ask(number) for number in range(64)))

        assert all(asyncio.run(all_at_once()))

    def test_a_new_connection_tags_too(self) -> None:
        def ask() -> str:
            with use_run(RUN):
                return arrived()

        thread, results = in_thread(ask)
        thread.join()
        assert results == [TAG + "SELECT current_query()"]

    @pytest.mark.django_db(transaction=True)
    def test_a_connection_that_is_made_within_somebodys_wrapper_goes_on_tagging(self) -> None:
        connection.close()
        connection.execute_wrappers = []
        with connection.execute_wrapper(lambda execute, *arguments: execute(*arguments)), use_run(RUN):
            assert arrived().startswith(TAG)
        with use_run(RUN):
            assert arrived().startswith(TAG)
        assert connection.execute_wrappers == []

    def test_whoever_wraps_statements_too_sees_them_as_they_were(self) -> None:
        seen = []

        def look(execute: Any, sql: Any, *arguments: Any) -> Any:
            seen.append(sql)
            return execute(sql, *arguments)

        with use_run(RUN), connection.execute_wrapper(look), connection.execute_wrapper(look):
            assert arrived() == TAG + "SELECT current_query()"
        assert seen == ["SELECT current_query()"] * 2

    @pytest.mark.django_db(transaction=True)
    def test_is_put_on_each_connection_once(self) -> None:
        tag_statements()
        connection.close()
        arrived()
        tag_statements()
        with use_run(RUN):
            assert arrived() == TAG + "SELECT current_query()"

    def test_a_copy_passes_it_by(self) -> None:
        text = "COPY (SELECT current_query()) TO STDOUT"
        with connection.cursor() as cursor, use_run(RUN), cursor.copy(text) as copy:
            assert b"".join(copy).startswith(b"COPY")


@pytest.mark.skipif(connection.vendor == "postgresql", reason="it reads them")
def test_a_database_that_cannot_read_it_is_sent_nothing() -> None:
    def work() -> None:
        with transaction.atomic():
            Label.objects.bulk_create([Label(text=str(number)) for number in range(3)])
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO host_label (text) VALUES (%s)", [["a"], ["b"]])
            assert len(list(Label.objects.iterator(chunk_size=2))) == 5

    with use_run(RUN):
        assert [each for each in sent(work) if "stagehand" in each] == []
