"""Who asks, and what they may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..exceptions import NotAllowed


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a request is done for. What is left empty restricts nothing, as in `AccessKey`."""

    #: Whose the runs are: `key:<id>`, `oidc:<…>`; empty where the host asks for no key.
    owner: str = ""
    #: The key's public id, or empty.
    key_id: str = ""
    name: str = ""
    #: The network address that the request came from.
    address: str = ""
    operations: frozenset[str] = frozenset()
    entity_types: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    #: How long a run may live, in minutes.
    max_minutes: int | None = None
    max_live_rows: int | None = None
    max_open_runs: int | None = None

    def require(
        self, *, operation: str | None = None, entity_types: Iterable[str] = (), scope: str | None = None
    ) -> None:
        """Raise NotAllowed unless the caller may do all of that."""
        if operation is not None and self.operations and operation not in self.operations:
            raise NotAllowed(f"This access key may not do '{operation}'.")
        if self.entity_types:
            for name in entity_types:
                if name not in self.entity_types:
                    raise NotAllowed(f"This access key may not make rows of the type '{name}'.")
        if scope is not None and self.scopes and scope not in self.scopes:
            raise NotAllowed(f"This access key may not open a run of the scope '{scope}'.")
