"""The host product as a hardened host has it: `check --deploy` must have nothing to say of it."""

from typing import Any

from project.settings import *  # noqa: F403
from project.settings import STAGEHAND_TESTDATA

HARDENED: dict[str, Any] = {
    "DEBUG": False,
    "SECRET_KEY": "a-long-and-random-key-that-nobody-knows-0123456789-abcdefghijklmnop",
    "ALLOWED_HOSTS": ["shop.example"],
    "SECURE_SSL_REDIRECT": True,
    "SECURE_HSTS_SECONDS": 31_536_000,
    "SECURE_HSTS_INCLUDE_SUBDOMAINS": True,
    "SECURE_HSTS_PRELOAD": True,
    "SESSION_COOKIE_SECURE": True,
    "CSRF_COOKIE_SECURE": True,
}
globals().update(HARDENED)

STAGEHAND_TESTDATA = {**STAGEHAND_TESTDATA, "ENABLED": True, "REQUIRE_ACCESS_KEY": True}
