"""What the client does with threads: to wait, and to do something now and then. `tasks` is its like."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

#: How long an end waits for a beat that is under way.
_PATIENCE = 5.0


def sleep(seconds: float) -> None:
    time.sleep(seconds)


class Heartbeat:
    """Calls `beat` in a thread of its own, first after `first` seconds, then as it says; None ends it."""

    def __init__(self, beat: Callable[[], float | None], first: float) -> None:
        self._beat, self._first = beat, first
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="testdata-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        wait: float | None = self._first
        while wait is not None and not self._stopped.wait(wait):
            try:
                wait = self._beat()
            except Exception as error:  # noqa: BLE001 - a test must not fail for it; the lease is the limit
                logger.warning("the lease could not be renewed: %s", type(error).__name__)
