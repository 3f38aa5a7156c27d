"""The gate: whether test data may be made here at all."""

from __future__ import annotations

import logging

from django.utils.module_loading import import_string

from ..conf import settings

logger = logging.getLogger(__name__)


def is_open() -> bool:
    """Whether `ENABLED` says yes now: a flag that fails, or answers anything but True, does not."""
    flag = settings.ENABLED
    try:
        if isinstance(flag, str):
            flag = import_string(flag)
        answer = flag() if callable(flag) else flag
    except Exception:
        logger.exception("ENABLED failed; the gate stays closed")
        return False
    return answer is True
