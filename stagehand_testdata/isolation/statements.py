"""Each statement says to the database in whose name it is sent, and whether it must see every row.

# Note [Why a comment]
What runs in the database, a trigger or a policy, needs to know the run. A setting of the session would stay
on for whoever gets the connection next, from Django or from a pooler; one of the transaction (`SET LOCAL`)
does nothing in autocommit. A comment begins and ends with its statement, and nobody else's statement has it.
The database reads it with `current_query()`. It counts at the start alone: further on, anybody could have
written it.

# Note [Nearest to the database]
Whoever wraps the execution of statements looks at them: this app's own capture, a host's tracing, tests. So
the tag goes on after all of theirs, those that come later too. Django goes through the wrappers backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.core.signals import request_started
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from ..context import current_run
from ..databases import strategy

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


def tag_statements() -> None:
    """From now on, put its tags before each statement, on connections that are open and to come.

    Only where the database can read it. What passes Django's wrappers by (`COPY`, `callproc`) is not tagged.
    """
    connection_created.connect(_tag, dispatch_uid=f"{__name__}._tag")
    for connection in connections.all(initialized_only=True):
        _tag(connection)


def _tag(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    wrappers = connection.execute_wrappers
    if strategy(connection.vendor).reads_tags and not isinstance(wrappers, _WrappersAndTags):
        connection.execute_wrappers = _WrappersAndTags(wrappers)


class _WrappersAndTags(list[Any]):
    """See Note [Nearest to the database]."""

    def __reversed__(self) -> Iterator[Any]:
        yield _put_tags_before
        yield from super().__reversed__()


def _put_tags_before(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    run, all_rows = current_run(), _all_rows.get()
    if run is not None or all_rows:
        tagged = strategy(context["connection"].vendor).tagged
        sql = tagged(sql, None if run is None else run.pk, all_rows=all_rows)
    return execute(sql, params, many, context)
