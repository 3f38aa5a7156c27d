"""The outside world that tests of externals and files talk to: real servers, a storage of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.outside.servers import Running, Service


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """An HTTP service."""
    with Running("http") as running:
        monkeypatch.setenv("OUTSIDE_HTTP", f"http://{running.address}")
        yield running.service


@pytest.fixture
def mailboxes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A mail robot."""
    with Running("smtp") as running:
        monkeypatch.setenv("OUTSIDE_SMTP", running.address)
        yield running.service


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> Path:
    """The default storage, empty."""
    settings.MEDIA_ROOT = str(tmp_path)
    return tmp_path
