"""The client: `TestDataManager` and its twin for asyncio. Imports no Django and nothing of the app's own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._async.manager import AsyncTestDataManager
    from ._sync.manager import TestDataManager
    from .errors import TestDataError

__all__ = ["AsyncTestDataManager", "TestDataError", "TestDataManager"]

_HOMES = {
    "AsyncTestDataManager": "._async.manager",
    "TestDataManager": "._sync.manager",
    "TestDataError": ".errors",
}


def __getattr__(name: str) -> Any:
    # Each half is imported by who uses it: a command line starts in a moment.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
