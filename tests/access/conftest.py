"""An issuer of OIDC tokens that no process has asked yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stagehand_testdata.access import issuers

from .issuer import Issuer


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuers.keys_of.cache_clear()
    with Issuer() as running:
        yield running
    issuers.keys_of.cache_clear()
