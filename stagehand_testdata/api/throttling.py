"""How many requests in how short a time: of one address, of one key.

They are counted in Django's default cache; where each process has its own (`LocMemCache`), each counts alone.
A cache that is away stops nobody: what lets a caller in is the key, and a clean-up must get through.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from rest_framework.exceptions import Throttled
from rest_framework.throttling import SimpleRateThrottle

from ..context import use_run
from ..logs import log_error

logger = logging.getLogger(__name__)


class _Rate(SimpleRateThrottle):
    """One rate (`100/s`, `3000/m`) for whoever `ident` names."""

    def __init__(self, rate: str, scope: str, ident: str) -> None:
        self.rate = rate
        self._key = f"stagehand_testdata.rate.{scope}.{quote(ident)}"
        super().__init__()

    def get_cache_key(self, request: Any, view: Any) -> str:
        return self._key


def refuse_too_many(rate: str, scope: str, ident: str) -> None:
    """Count a request; raise Throttled where there were too many of late."""
    if not rate:
        return
    try:
        # Under a pass the cache may be another one for each run.
        with use_run(None):
            throttle = _Rate(rate, scope, ident)
            allowed = throttle.allow_request(None, None)  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - any cache, and whatever it raises where it is away
        log_error(logger, "requests cannot be counted", error)
        return
    if not allowed:
        wait = max(throttle.wait() or 1, 1)
        raise Throttled(wait, f"Too many requests of this {scope} in so short a time.")
