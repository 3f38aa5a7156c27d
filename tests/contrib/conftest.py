"""Clerk on loopback, and a host that has its users there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stagehand_testdata.contrib import clerk as adapter
from tests.outside.clerk.standin import SECRET_KEY, Clerk, Running, description

WEBHOOK_SECRET = "whsec_bjBiMGR5TWF5UmVhZFRoaXNFaXRoZXI="


@pytest.fixture
def clerk(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Clerk]:
    """Clerk, as the host's identity provider; whatever it did must have been as its description has it."""
    monkeypatch.setattr(adapter.Clerk, "backoff", 0.01)
    description()  # which takes longer to read than any answer may
    with Running() as running:
        settings.STAGEHAND_TESTDATA = {
            **settings.STAGEHAND_TESTDATA,
            "IDENTITY_PROVIDER": "stagehand_testdata.contrib.clerk.Clerk",
            "IDENTITY_OPTIONS": {
                "secret_key": SECRET_KEY,
                "webhook_secret": WEBHOOK_SECRET,
                "server_url": running.url,
            },
        }
        yield running.clerk
    adapter._client_of.cache_clear()
    assert running.clerk.violations == []
    assert running.clerk.trouble == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is not answered is given up soon."""
    monkeypatch.setattr(adapter, "_REQUEST_SECONDS", 0.4)
    monkeypatch.setattr(adapter.Clerk, "timeout", 1.6)
    adapter._client_of.cache_clear()
