"""What a host with its users at Clerk might have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import factory

from stagehand_testdata.contrib.clerk import Clerk
from tests.host.factories import UserFactory


class OwnedAddressFactory(UserFactory):
    email = factory.Sequence(lambda n: f"somebody{n}@gmail.com")


class OnlyClients(Clerk):
    """Builders get no user."""

    def describe(self, user: Any) -> Mapping[str, Any] | None:
        if "_client" not in user.email:
            return None
        more = {"skip_legal_checks": True, "external_id": "17", "private_metadata": {"plan": "free"}}
        return {**(super().describe(user) or {}), **more}
