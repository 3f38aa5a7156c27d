"""Errors in the log without a line that a client could have written."""

from __future__ import annotations

import logging
import traceback


def log_error(logger: logging.Logger, what: str, error: BaseException) -> None:
    """`what`, where it happened, and the error's own text escaped: names from clients may stand in it."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s: %s %r\n%s", what, type(error).__name__, str(error), frames.rstrip())
