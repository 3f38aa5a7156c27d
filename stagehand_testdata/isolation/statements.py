"""Each statement says in whose name it is sent, for the database to read there.

# Note [Why a comment]
What runs in the database, a trigger or a policy, needs to know the run. A setting of the session would stay
on for whoever gets the connection next, from Django or from a pooler; one of the transaction (`SET LOCAL`)
does nothing in autocommit. A comment begins and ends with its statement, and nobody else's statement has it.
The database reads it with `current_query()`. It counts at the start alone: further on, anybody could have
written it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from ..context import current_run
from ..databases import strategy


def tag_statements() -> None:
    """From now on, put the current run before each statement, on connections that are open and to come.

    Only where the database can read it. What passes Django's wrappers by (`COPY`, `callproc`) is not tagged.
    """
    connection_created.connect(_tag, dispatch_uid=f"{__name__}._tag")
    for connection in connections.all(initialized_only=True):
        _tag(connection)


def _tag(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    wrappers: list[Any] = connection.execute_wrappers
    if strategy(connection.vendor).reads_tags and _put_run_before not in wrappers:
        # At the front: the end of a block of `execute_wrapper` takes the last one away, whosever it is.
        wrappers.insert(0, _put_run_before)


def _put_run_before(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    run = current_run()
    if run is not None:
        sql = strategy(context["connection"].vendor).tagged(sql, run.pk)
    return execute(sql, params, many, context)
