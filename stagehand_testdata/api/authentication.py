"""The first two questions of every request: is the gate open, and who asks?"""

from __future__ import annotations

from rest_framework.request import Request

from ..access import gate, keys
from ..access.callers import Caller
from ..access.trail import network_of
from ..conf import settings
from ..exceptions import GateClosed, NotAuthenticated
from .throttling import refuse_too_many

_SCHEME = "bearer"


def admit_stranger(request: Request) -> Caller:
    """Whoever has no key yet and asks for one: past a closed gate too where a key could clean up behind it.

    Raises GateClosed, Throttled.
    """
    if not gate.is_open() and not settings.REQUIRE_ACCESS_KEY:
        raise GateClosed
    return Caller(address=_counted_address(request))


def authenticate(request: Request, *, cleaning: bool) -> Caller:
    """The caller for whom the request is done; one without a key where the host asks for none.

    A closed gate never stops the clean-up of whoever can show a key. Raises GateClosed, NotAuthenticated,
    Throttled.
    """
    if not gate.is_open() and not (cleaning and settings.REQUIRE_ACCESS_KEY):
        raise GateClosed
    address = _counted_address(request)
    if not settings.REQUIRE_ACCESS_KEY:
        return Caller(address=address)
    scheme, _, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != _SCHEME:
        raise NotAuthenticated
    caller = keys.verify(text, address)
    refuse_too_many(settings.RATE_PER_KEY, "key", caller.key_id)
    return caller


def _counted_address(request: Request) -> str:
    """Where keys are not needed nothing is counted: the host has a door of its own, and one address."""
    address = request.META.get("REMOTE_ADDR") or ""
    if settings.REQUIRE_ACCESS_KEY:
        refuse_too_many(settings.RATE_PER_ADDRESS, "address", network_of(address))
    return address
