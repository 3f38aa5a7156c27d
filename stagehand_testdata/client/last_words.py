"""Clean-up when the process is told to end: SIGINT, SIGTERM, or an exit that nobody closed before.

# Note [A client of its own]
A signal's handler runs between any two steps of the main thread, which may hold the locks of its HTTP client.
So what is said last is said by another client, in another thread. Then the signal goes on to whoever had it
before: Ctrl-C still interrupts, and SIGTERM still ends the process.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

#: Seconds for all clean-ups together: a CI kills ten seconds after its SIGTERM.
LIMIT = 8.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LastWords:
    """What is to be done before the process ends; one for the whole process."""

    def __init__(self) -> None:
        self._held: dict[object, Callable[[], None]] = {}
        self._previous: dict[int, Any] = {}
        self._busy = False
        self._at_exit = False

    def hold(self, holder: object, say: Callable[[], None]) -> None:
        """`say` is called, once, if the process is told to end before `release(holder)`."""
        self._held[holder] = say
        if not self._at_exit:
            self._at_exit = True
            atexit.register(self._exit)
            # A child has a copy of all this, and must not end its parent's runs.
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._held.clear)
        if not self._previous and threading.current_thread() is threading.main_thread():
            self._install()

    def release(self, holder: object) -> None:
        self._held.pop(holder, None)
        if not self._held and threading.current_thread() is threading.main_thread():
            self._restore()

    def _install(self) -> None:
        for signum in _SIGNALS:
            previous = signal.getsignal(signum)
            # Who ignores a signal goes on ignoring it; a handler that is not Python's cannot be put back.
            if previous is not None and previous is not signal.SIG_IGN:
                self._previous[signum] = previous
                signal.signal(signum, self._handle)

    def _restore(self) -> None:
        for signum, previous in self._previous.items():
            if signal.getsignal(signum) == self._handle:  # else somebody came after us, and has the word
                signal.signal(signum, previous)
        self._previous.clear()

    def _handle(self, signum: int, frame: Any) -> None:
        previous = self._previous.get(signum, signal.SIG_DFL)
        if not self._busy:
            self._busy = True
            try:
                self._say_in_threads()
            finally:
                self._busy = False
        if callable(previous):
            previous(signum, frame)
        elif previous is not signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def _say_in_threads(self) -> None:
        threads = [threading.Thread(target=_quietly, args=(say,), daemon=True) for say in self._taken()]
        for thread in threads:
            thread.start()
        end = time.monotonic() + LIMIT
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))

    def _exit(self) -> None:
        # No thread can be started any more, and none holds anything.
        for say in self._taken():
            _quietly(say)

    def _taken(self) -> list[Callable[[], None]]:
        words = list(self._held.values())
        self._held.clear()
        return words


def _quietly(say: Callable[[], None]) -> None:
    try:
        say()
    except Exception as error:  # noqa: BLE001 - the process ends; the lease does the rest
        logger.warning("the run could not be cleaned up, its lease will end it: %s", error)


last_words = LastWords()
