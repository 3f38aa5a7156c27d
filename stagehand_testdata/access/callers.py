"""Who asks, and what they may do.

# Note [Who acts is asked where it matters]
What a key may make is asked where rows are made, and how long its runs may live where they are opened: no
route, scenario or operation of a host's gets around that. Between the view, which knows the caller, and those
places lies code that is not concerned, the host's among it; so the caller is in a ContextVar, as the run is.
Where nobody is named (a command, a task, the admin) it is the host itself, which needs nobody's leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ..exceptions import NotAllowed
from ..registry import load_registry

#: What a key may be allowed, beside the operations that apps have registered. Whoever has made something may
#: remove it: a clean-up is nothing that a key could lack.
OPERATIONS = frozenset(
    {"batch", "entities", "pass", "read", "renew", "scenarios", "sessions", "shadow-copies", "verify-access"}
)


def known_operations() -> frozenset[str]:
    """Every operation that a key may be allowed."""
    return OPERATIONS | {each.name for each in load_registry().operations}


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


#: Where no request is being answered: the host itself.
HOST = Caller()

_current: ContextVar[Caller] = ContextVar("stagehand_testdata_caller", default=HOST)


def current_caller() -> Caller:
    """For whom this code works. See Note [Who acts is asked where it matters]."""
    return _current.get()


def act_for(caller: Caller) -> None:
    """From here on this code works for that caller: until the block of `one_request` ends."""
    _current.set(caller)


@contextmanager
def one_request() -> Iterator[None]:
    """What is done for a caller within the block is over at its end."""
    token = _current.set(HOST)
    try:
        yield
    finally:
        _current.reset(token)
