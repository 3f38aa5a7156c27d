"""How a command that runs on is asked to stop."""

from __future__ import annotations

import select
import signal
import socket
from types import FrameType, TracebackType
from typing import Any, Self

ASKING = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Asked for by the first SIGTERM or SIGINT within the block; the second has its usual effect.

    It wakes whoever sleeps on it through a socket, because a handler may not take the lock of an Event: it
    runs in the very thread that may hold it.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._ear, self._mouth = socket.socketpair()
        self._before: dict[signal.Signals, Any] = {each: signal.signal(each, self._ask) for each in ASKING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._restore()
        self._ear.close()
        self._mouth.close()

    def __call__(self) -> bool:
        return self.asked

    def sleep(self, seconds: float) -> None:
        """That long, or until it is asked for."""
        select.select([self._ear], [], [], seconds)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()
        self._mouth.send(b".")

    def _restore(self) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
