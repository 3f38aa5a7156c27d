"""What a host would write for an identity provider of its own: a directory at the HTTP service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stagehand_testdata.exceptions import InvalidInput
from stagehand_testdata.identity import Fault, Granted, IdentityProvider, Marked, SigningIn

from .handlers import Account


class Directory(IdentityProvider, Account):
    def describe(self, user: Any) -> Mapping[str, Any] | None:
        if "nobody" in user.email:
            return None
        if "refused" in user.email:
            raise InvalidInput("The directory takes no such address.")
        return {"email": user.email}

    def sign_in(self, asked: SigningIn) -> Granted:
        if self.options.get("broken"):
            raise RuntimeError("token=SECRET")
        link = self.options.get("link", f"https://directory.test/in/{asked.reference}")
        return Granted(link=link, details={"ticket": f"for {asked.key}"})

    def marked_users(self) -> Iterator[Marked]:
        yield Marked("acc_left", "stagehand_test_gone-1", "test")

    def faults_in_production(self) -> Iterator[Fault]:
        if self.options.get("toy"):
            yield Fault("This directory is a toy.", "Use the real one.")
