"""What code of a run leaves for the commit to do is done in the run's name too.

A run's block ends before its transaction does. A mail that `transaction.on_commit` sends would go out as if
it were ordinary traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from django.db import connections

from ..context import CurrentRun, use_run
from .capture import in_place_of


@contextmanager
def until_commit(run: CurrentRun) -> Iterator[None]:
    """Run the block, and what it registers with `on_commit` on this thread, in the name of `run`."""
    with use_run(run), ExitStack() as stack:
        for connection in connections.all():
            plain = connection.on_commit
            stack.enter_context(in_place_of(connection, "on_commit", _naming(run, plain)))
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


def _naming(run: CurrentRun, plain: Callable[..., None]) -> Callable[..., None]:
    # By then nobody takes down any more what is made.
    its = replace(run, captured=True)

    def on_commit(func: Any, robust: bool = False) -> None:
        def later() -> None:
            with use_run(its):
                func()

        # Django refuses what cannot be called, and would take `later` for it.
        plain(later if callable(func) else func, robust)

    return on_commit
