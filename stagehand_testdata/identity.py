"""Where the product's users have their identity: with Django itself, or at a provider that a host names.

A host writes a subclass of `IdentityProvider` and gives its dotted path as IDENTITY_PROVIDER. What an outside
provider makes is entered in the ledger before it is made, as any thing outside the database is, and goes with
its run. See `docs/identity.md`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from django.contrib.sessions.backends.base import SessionBase
from django.db.models import Model
from django.utils.module_loading import import_string

from .conf import settings
from .exceptions import ConfigurationError
from .registry import ExternalHandler

#: What ENVIRONMENT says where the users are real.
PRODUCTION = frozenset({"production", "prod", "live"})


@dataclass(frozen=True, slots=True)
class SigningIn:
    """A user of a run who is to be signed in. That the account is the run's own is proven already."""

    user: Model
    #: The key that the user was made under, and what the provider calls it; both empty for Django's own.
    key: str
    reference: str
    #: How long what is granted may lie about unused, in seconds.
    seconds: int
    #: The run's end.
    until: dt.datetime
    #: What of the asking request the product's receivers of a login may ask for.
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Granted:
    """What lets a browser in: a session of the product's own, or a link of the provider's."""

    session: SessionBase | None = None
    link: str = ""
    #: What else a test needs, for the answer's `identity`. It is shown once, and kept nowhere.
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Marked:
    """A user at the provider that carries a mark of this app: of whatever run, ended ones too."""

    reference: str
    #: The ledger's key that it carries; empty where it only looks like a test's.
    key: str = ""
    #: ENVIRONMENT of whoever made it.
    environment: str = ""


class Fault(NamedTuple):
    """What is wrong with a provider's set-up, and what heals it; a system check says both."""

    what: str
    advice: str


class IdentityProvider(ExternalHandler):
    """How the users of a run get an identity: a host writes a subclass.

    `create` and `remove` are an external handler's, and are called as such; `create` gets what `describe`
    gave. No method that asks the provider is called within a transaction of ours.
    """

    #: Whether its users are outside the database. Django's own are rows, which are owned as any row is.
    outside: ClassVar[bool] = True

    @property
    def options(self) -> Mapping[str, Any]:
        """IDENTITY_OPTIONS: whatever the provider wants to know."""
        return settings.IDENTITY_OPTIONS

    def require_ready(self) -> None:
        """Raise CannotSignIn where nobody could be signed in here at all."""

    def describe(self, user: Model) -> Mapping[str, Any] | None:
        """What `create` needs to know of an account that a run makes; None where it gets no identity.

        Called in the transaction that makes the account: whatever it raises undoes the call.
        """
        raise NotImplementedError

    def sign_in(self, asked: SigningIn) -> Granted:
        """What lets a browser in as this user. May be called again where its answer was lost."""
        raise NotImplementedError

    def marked_users(self) -> Iterator[Marked]:
        """Every user at the provider that carries a mark of this app, page by page, the oldest first."""
        raise NotImplementedError

    def faults(self) -> Iterator[Fault]:
        """What is wrong with its options; asks nobody."""
        yield from ()

    def faults_in_production(self) -> Iterator[Fault]:
        """What must not be so where the users are real; asks nobody."""
        yield from ()


def load_provider() -> IdentityProvider:
    """The provider that IDENTITY_PROVIDER names; raises ConfigurationError."""
    path: Any = settings.IDENTITY_PROVIDER
    try:
        found: Any = import_string(path)
        if not (isinstance(found, type) and issubclass(found, IdentityProvider)):
            raise ConfigurationError(f"IDENTITY_PROVIDER: {path!r} is no subclass of IdentityProvider.")
        provider: IdentityProvider = found()
    except ConfigurationError:
        raise
    except Exception as error:  # whatever the host's module raises while it is imported
        raise ConfigurationError(f"IDENTITY_PROVIDER: cannot load {path!r} ({error}).") from error
    return provider


def is_production() -> bool:
    """Whether ENVIRONMENT says that the users here are real."""
    return str(settings.ENVIRONMENT).lower() in PRODUCTION
