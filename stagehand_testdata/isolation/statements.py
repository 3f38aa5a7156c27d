"""Each statement is sent in the name of the current run, for the database to know whose rows it makes.

Where guards are installed, the database itself enters the rows that the product makes under a run, and
refuses to touch any that are not the run's: see Note [How a trigger knows the run] in `databases.postgresql`,
and its counterparts beside it.

# Note [Nearest to the database]
Whoever wraps the execution of statements looks at them: this app's own capture, a host's tracing, tests. So
what is put on goes on after all of theirs, those that come later too. Django goes through the wrappers
backwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from django.core.signals import request_started
from django.db import DatabaseError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from ..conf import settings
from ..context import current_run
from ..databases import database_of
from ..databases.base import Database, Sender, tell_touched
from ..databases.guards import CAPTURE, FENCE
from ..exceptions import RunClosed, TestDataError, TestRunTouchedRealRow

logger = logging.getLogger(__name__)

#: What FENCE may be.
FENCES = ("block", "report", "off")

#: What reads rows into a table past Django's wrappers, in psycopg 3 and 2; each takes the statement first.
_COPYING = ("copy", "copy_expert")


_all_rows: ContextVar[bool] = ContextVar("stagehand_testdata_all_rows", default=False)


@contextmanager
def seeing_all_rows(seeing: bool = True) -> Iterator[None]:
    """Within the block row-level security hides nothing; without it this does nothing."""
    token = _all_rows.set(seeing)
    try:
        yield
    finally:
        _all_rows.reset(token)


def see_all_rows_from_now_on() -> None:
    """As `seeing_all_rows`, until `hide_rows_again`: for `migrate`, of whose end a signal tells.

    One that fails sends none. Within a process that serves requests, the next request ends it then.
    """
    _all_rows.set(True)
    request_started.connect(hide_rows_again)


def hide_rows_again(**kwargs: Any) -> None:
    """What `see_all_rows_from_now_on` began ends here, if it ever began."""
    _all_rows.set(False)
    request_started.disconnect(hide_rows_again)


def name_statements() -> None:
    """From now on, send each statement in the name of the current run, on connections open and to come.

    It does not reach what passes by Django's cursors: `callproc`, `copy_from`, the driver's own connection.
    """
    connection_created.connect(_watch, dispatch_uid=f"{__name__}._watch")
    for connection in connections.all(initialized_only=True):
        _watch(connection)


def _watch(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    wrappers = connection.execute_wrappers
    database_of(connection).let_flush_through()
    if not isinstance(wrappers, _WrappersAndNames):
        engine = database_of(connection)
        connection.execute_wrappers = _WrappersAndNames(wrappers, engine)
        if connection.vendor == "postgresql":
            for maker in ("make_cursor", "make_debug_cursor"):
                setattr(connection, maker, _copying_in_its_name(engine, getattr(connection, maker)))
    if connection.vendor == "postgresql" and hasattr(connection.connection, "add_notice_handler"):
        with suppress(ValueError):  # once, whatever else calls this
            connection.connection.remove_notice_handler(_hear)
        connection.connection.add_notice_handler(_hear)


class _WrappersAndNames(list[Any]):
    """See Note [Nearest to the database]."""

    def __init__(self, wrappers: list[Any], engine: Database) -> None:
        super().__init__(wrappers)
        self._engine = engine

    def __reversed__(self) -> Iterator[Any]:
        yield self._in_its_name
        yield from super().__reversed__()

    def _in_its_name(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if current_run() is None and not _all_rows.get():
            self._engine.last_run = None
            try:
                return execute(sql, params, many, context)
            except OperationalError as error:
                if not self._engine.put_right(error):
                    raise
            return execute(sql, params, many, context)
        if many:
            params = list(params)  # what makes them may write in another name
        return _send(
            self._engine, context["cursor"], sql, lambda named: execute(named, params, many, context)
        )


def _send(engine: Database, cursor: Any, statement: Any, execute: Callable[[Any], Any]) -> Any:
    try:
        return engine.send(Sender(current_run(), _fence(), _all_rows.get()), statement, execute, cursor)
    except DatabaseError as error:
        refused = _refusal(str(error))
        if refused is None:
            raise
        raise refused from error


def _fence() -> str:
    """FENCE; what is none of its values (`stagehand.E031`) is taken for the strictest."""
    fence = settings.FENCE
    return fence if fence in FENCES else "block"


def _refusal(said: str) -> TestDataError | None:
    """What the guards meant, where it was they who refused."""
    if FENCE in said:
        return TestRunTouchedRealRow(
            f"{_after(FENCE, said)} would have been changed or deleted; nothing was."
            " List what a test may change in FENCE_EXEMPT."
        )
    return RunClosed(f"{_after(CAPTURE, said)}.") if CAPTURE in said else None


def _after(prefix: str, said: str) -> str:
    said = said.partition(prefix)[2].splitlines()[0].rstrip("\"')")
    return said[:1].upper() + said[1:]


def _hear(notice: Any) -> None:
    """With FENCE = "report" the database only says what a run has touched."""
    said = notice.message_primary or ""
    if said.startswith(FENCE) and current_run() is not None:
        tell_touched(current_run(), notice.table_name or "a table")
    elif said.startswith(FENCE):
        logger.warning("%s", said)


def _copying_in_its_name(engine: Database, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def made(cursor: Any) -> Any:
        wrapper = make(cursor)
        for name in _COPYING:
            if hasattr(cursor, name) and (current_run() is not None or _all_rows.get()):
                setattr(wrapper, name, _copying(engine, cursor, getattr(wrapper, name)))
        return wrapper

    return made


def _copying(engine: Database, cursor: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    # Not of the wrapper, which has this for an attribute: such a circle is garbage for the collector alone.
    def copying(statement: Any, *args: Any, **kwargs: Any) -> Any:
        return _send(engine, cursor, statement, lambda named: method(named, *args, **kwargs))

    return copying
