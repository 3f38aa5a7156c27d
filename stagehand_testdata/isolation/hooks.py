"""What code of a run leaves for the commit to do is done in the run's name too.

A run's block ends before its transaction does. A mail that `transaction.on_commit` sends would go out as if
it were ordinary traffic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from django.db import connections

from ..context import CurrentRun, use_run
from ..exceptions import TestDataError
from ..logs import log_error
from .capture import in_place_of

logger = logging.getLogger(__name__)


@contextmanager
def until_commit(run: CurrentRun, *, removing: bool = False) -> Iterator[None]:
    """Run the block, and what it registers with `on_commit` on this thread, in the name of `run`.

    By then all is committed, so whatever such a hook raises goes into the log alone, but for the errors of
    ours that refuse what it does. With `removing` these do too: a purge goes on.
    """
    with use_run(run), ExitStack() as stack:
        for connection in connections.all():
            hook = _naming(run, connection, removing)
            stack.enter_context(in_place_of(connection, "on_commit", hook))
        yield


@contextmanager
def without_commit_hooks() -> Iterator[None]:
    """Within the block, what is registered with `on_commit` on this thread is forgotten."""

    def on_commit(func: Any, robust: bool = False) -> None:
        """Nothing was made, so there is nothing to do once it is committed."""

    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(in_place_of(connection, "on_commit", on_commit))
        yield


def _naming(run: CurrentRun, connection: Any, removing: bool) -> Callable[..., None]:
    plain = connection.on_commit
    # By then nobody takes down any more what is made. What a purge sets off is no run's: it has ended.
    its = run if removing else replace(run, captured=True)

    def on_commit(func: Any, robust: bool = False) -> None:
        committed = connection.in_atomic_block

        def later() -> None:
            try:
                with use_run(its):
                    func()
            except Exception as error:
                if not committed or (isinstance(error, TestDataError) and not removing):
                    raise
                log_error(logger, "what the product does after a commit has failed", error)

        # Django refuses what cannot be called, and would take `later` for it.
        plain(later if callable(func) else func, robust)

    return on_commit
