"""The current run: the one in whose name this code runs now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CurrentRun:
    """What code under a run may know of it without a query."""

    pk: int
    test_id: str
    #: Whether the database enters what is written into the ledger: the product's own code is at work.
    captured: bool = False
    #: Whether a row that is not the run's may not be touched.
    fenced: bool = False


_current: ContextVar[CurrentRun | None] = ContextVar("stagehand_testdata_current_run", default=None)


def current_run() -> CurrentRun | None:
    """The run of this thread or task, or None in ordinary traffic."""
    return _current.get()


@contextmanager
def use_run(run: CurrentRun | None) -> Iterator[None]:
    """Run the block in the name of `run`; whatever was current before is current again after it."""
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)
