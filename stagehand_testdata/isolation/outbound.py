"""What else a product sends (webhooks, payments, analytics) asks here first.

# Note [Why it answers and does not raise]
A page that sends ten events to an analytics service must still work under a run: whoever sends leaves them
out and goes on. E-mail is refused with an exception: there the product has sent, and would believe so.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any, Self

from django.utils.module_loading import import_string

from ..conf import settings
from ..context import current_run
from ..logs import log_error
from ..reserved import ascii_domain

logger = logging.getLogger(__name__)

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_SCHEME = r"(?:(?:(?P<scheme>[a-z][a-z0-9+.-]*):)?//)?+"
_IPV6 = r"\[[0-9a-f:.]+\]"
# Libraries disagree on where the host ends that has two @ before it, or a backslash after it: no match.
_ADDRESS = re.compile(
    _SCHEME + r"(?:[^/?#@\\\s]*@)?"
    rf"(?P<host>[^/?#@:\\\s\[\]]+|{_IPV6})(?::(?P<port>[0-9]*))?"
    r"(?:[/?#][^\\\s]*)?",
    re.IGNORECASE,
)
_PATTERN = re.compile(
    _SCHEME + rf"(?P<host>\*|(?:\*\.)?[a-z0-9_.-]+|{_IPV6})(?::(?P<port>[0-9]+|\*))?", re.IGNORECASE
)
_HOST = re.compile(rf"\*|(?:\*\.)?[a-z0-9_.-]+|{_IPV6}")


def allow(kind: str, target: str) -> bool:
    """Whether the product may send this: always in ordinary traffic, under a run where OUTBOUND says so.

    `kind` is the product's own word ("webhook"), `target` a URL or a host. Each refusal is a line in the log,
    which names the run, the kind and the host; paths, parameters and passwords are not written down.
    """
    run = current_run()
    if run is None or _agreed(kind, str(target)):
        return True
    place = _Place.read(_ADDRESS, str(target))
    logger.warning("%s: %r to %s was refused", run.test_id, kind, place.shown if place else "no address")
    return False


def is_pattern(text: Any) -> bool:
    """Whether anything could match this as a pattern of OUTBOUND."""
    return isinstance(text, str) and _PATTERN.fullmatch(text) is not None


def _agreed(kind: str, target: str) -> bool:
    """Only True agrees; a rule that fails does not."""
    rules: Any = settings.OUTBOUND
    try:
        if isinstance(rules, str):
            rules = import_string(rules)
        if callable(rules):
            return rules(kind, target) is True
        listed = rules.get(kind, ())
        if not isinstance(listed, list | tuple):  # a text would be a list of its letters, and * is one
            return False
        patterns = [_Place.read(_PATTERN, each) for each in listed]
    except Exception as error:  # noqa: BLE001 - the host's function, or a setting that E029 tells of
        log_error(logger, "OUTBOUND failed, so nothing is sent", error)
        return False
    place = _Place.read(_ADDRESS, target)
    return place is not None and any(each is not None and each.covers(place) for each in patterns)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a target is, or where the targets of a pattern are. None and * stand for any."""

    scheme: str | None
    host: str
    port: str | None

    @classmethod
    def read(cls, form: re.Pattern[str], text: str) -> Self | None:
        found = form.fullmatch(text)
        host = ascii_domain(found["host"]) if found else ""
        if found is None or not _HOST.fullmatch(host):
            return None
        scheme = found["scheme"] and found["scheme"].lower()
        return cls(scheme, host, found["port"] or None)

    def covers(self, place: _Place) -> bool:
        if self.scheme not in (None, place.scheme):
            return False
        if self.port not in (None, "*", place.port or _DEFAULT_PORTS.get(place.scheme or "")):
            return False
        any_below = self.host.startswith("*.") and place.host.endswith(self.host[1:])
        return self.host == "*" or any_below or self.host == place.host

    @property
    def shown(self) -> str:
        """For the log. A word that is no host's name could be a key or a token."""
        if self.scheme is None and "." not in self.host and self.host != "localhost":
            return "no address"
        scheme = f"{self.scheme}://" if self.scheme else ""
        return f"{scheme}{self.host}:{self.port}" if self.port else f"{scheme}{self.host}"
