"""What the client does with asyncio: to wait, and to do something now and then. `threads` is its like."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


async def asleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


class AsyncHeartbeat:
    """Calls `beat` in a task of the loop, first after `first` seconds, then as it says; None ends it."""

    def __init__(self, beat: Callable[[], Awaitable[float | None]], first: float) -> None:
        self._beat, self._first = beat, first
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="testdata-heartbeat")

    async def stop(self) -> None:
        if self._task is None or self._task is asyncio.current_task():
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        wait: float | None = self._first
        while wait is not None:
            await asyncio.sleep(wait)
            try:
                wait = await self._beat()
            except Exception as error:  # noqa: BLE001 - a test must not fail for it; the lease is the limit
                logger.warning("the lease could not be renewed: %s", type(error).__name__)
