from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from tests.api.conftest import configure, untouched

__all__ = ["configure", "untouched"]


@pytest.fixture
def real_user(db: None) -> Any:
    """An account of the host's own, with an address of the kind that tests may take."""
    return get_user_model().objects.create_user("ada", "ada@example.com", "pw", first_name="Ada")


@pytest.fixture
def users() -> Any:
    return get_user_model().objects
