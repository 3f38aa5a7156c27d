"""The first two questions of every request: is the gate open, and who asks?"""

from __future__ import annotations

from rest_framework.request import Request

from ..access import gate
from ..conf import settings
from ..exceptions import GateClosed, NotAuthenticated


def authenticate(request: Request, *, cleaning: bool) -> str:
    """The owner in whose name the request is done; empty where the host asks for no key.

    A closed gate never stops the clean-up of whoever can show a key. Raises GateClosed, NotAuthenticated.
    """
    if not gate.is_open() and not (cleaning and settings.REQUIRE_ACCESS_KEY):
        raise GateClosed
    if settings.REQUIRE_ACCESS_KEY:
        raise NotAuthenticated
    return ""
