"""Errors in the log without a line that a client could have written, and without what it has sent.

# Note [What was sent stays out of the log]
A factory's error may quote the value that it could not use, and a database's the row. So while a request is
answered, whatever text it has sent (body, query, cookies, keys) is struck out of an error's own text.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: What is shorter is a word that may stand anywhere.
_SHORTEST = 6
_STRUCK_OUT = "(sent)"

_sent: ContextVar[Callable[[], Iterable[str]] | None] = ContextVar("stagehand_testdata_sent", default=None)


@contextmanager
def keeping_out(sent: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Within the block none of these texts gets into the log; they are asked for where an error is told."""
    token = _sent.set(sent)
    try:
        yield
    finally:
        _sent.reset(token)


def without_sent(text: str) -> str:
    """The text without what the current request has sent. See Note [What was sent stays out of the log]."""
    ask = _sent.get()
    if ask is None:
        return text
    try:
        sent = {each for each in ask() if len(each) >= _SHORTEST}
    except Exception:  # noqa: BLE001 - whatever a request is that cannot be read: the error is told all the same
        return _STRUCK_OUT
    # The longest first: one may hold another.
    for each in sorted(sent, key=len, reverse=True):
        text = text.replace(each, _STRUCK_OUT).replace(repr(each)[1:-1], _STRUCK_OUT)
    return text


def log_error(logger: logging.Logger, what: str, error: BaseException) -> None:
    """`what`, where it happened, and the error's own text escaped: names from clients may stand in it."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    said = without_sent(str(error))
    logger.error("%s: %s %r\n%s", what, type(error).__name__, said, frames.rstrip())
