"""The public keys of an issuer of OIDC tokens: fetched from it, and kept.

# Note [Who may make us ask an issuer]
Whoever can reach this server can send a token with an invented key id, and must not be able to turn this
server against the issuer. So an issuer is asked for an unknown key at most once in REFETCH_SECONDS, by one
thread at a time, however many requests wait; and where it failed, not before RETRY_SECONDS are over. A
request waits WAIT_SECONDS at most, the look-up of the name and an answer in drips included, which is why the
thread that asks is not the request's. That thread carries no run: what it sends is the app's own.

PyJWT's own client holds all callers while one asks, reads an answer of any size and takes the keys from
whatever host it is told.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from ..exceptions import IssuerUnavailable

if TYPE_CHECKING:
    from jwt import PyJWK

logger = logging.getLogger(__name__)

#: How long keys count. What an issuer withdraws is believed no longer than that.
FRESH_SECONDS = 900.0
#: The shortest time between two looks for a key that is not among those that count.
REFETCH_SECONDS = 60.0
#: How long an issuer that failed is left alone.
RETRY_SECONDS = 10.0
#: How long a request waits for an issuer.
WAIT_SECONDS = 5.0
MAX_BYTES = 256 * 1024
_PIECE = 16 * 1024

_DISCOVERY = "/.well-known/openid-configuration"


@lru_cache(maxsize=64)
def keys_of(issuer: str, jwks_uri: str) -> IssuerKeys:
    """The keys of this issuer as this process knows them; one object for each pair."""
    return IssuerKeys(issuer, jwks_uri)


def fault_of_url(url: Any) -> str | None:
    """Why nothing is fetched from there; None where it may be: https, and http on loopback alone."""
    if not isinstance(url, str) or any(character <= " " or character == "\\" for character in url):
        return "is no URL"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if not host or "@" in parts.netloc or "?" in url or "#" in url:
        return "is no URL of the form 'https://host/path'"
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        return "is not https"
    return None


class IssuerKeys:
    """The keys of one issuer, by their ids. See Note [Who may make us ask an issuer]."""

    def __init__(self, issuer: str, jwks_uri: str) -> None:
        self.issuer = issuer
        self.jwks_uri = jwks_uri
        self._lock = threading.Lock()
        self._keys: Mapping[str, PyJWK] = {}
        self._fetched_at: float | None = None
        self._asked_at = 0.0
        self._flight: Future[None] | None = None

    def find(self, key_id: str) -> PyJWK | None:
        """The key under this id; None where the issuer has none. Raises IssuerUnavailable."""
        found = self._known(key_id)
        if found is None and self._ask():
            found = self._known(key_id)
        return found

    def _known(self, key_id: str) -> PyJWK | None:
        return self._keys.get(key_id) if self._is_fresh() else None

    def _is_fresh(self) -> bool:
        return self._fetched_at is not None and time.monotonic() - self._fetched_at < FRESH_SECONDS

    def _ask(self) -> bool:
        """Have the keys fetched, and wait; False where that was done a moment ago."""
        with self._lock:
            now = time.monotonic()
            if self._flight is None or now - self._asked_at >= _pause(self._flight):
                self._asked_at, self._flight = now, Future()
                threading.Thread(target=self._fetch, args=(self._flight,), daemon=True).start()
            elif self._flight.done() and self._flight.exception() is None:
                return False
            flight, left = self._flight, self._asked_at + WAIT_SECONDS - now
        try:
            flight.result(max(left, 0.0))
        except Exception as error:
            raise IssuerUnavailable from error
        return True

    def _fetch(self, flight: Future[None]) -> None:
        try:
            keys = dict(_signing_keys(self._key_set()))
        except Exception as error:  # noqa: BLE001 - this thread has nobody above it
            logger.warning("no keys from the issuer %r: %s", self.issuer, type(error).__name__)
            flight.set_exception(error)
        else:
            self._keys, self._fetched_at = keys, time.monotonic()
            flight.set_result(None)

    def _key_set(self) -> Mapping[str, Any]:
        uri = self.jwks_uri
        if not uri:
            document = _get(self.issuer.rstrip("/") + _DISCOVERY)
            uri = document["jwks_uri"]
            if document["issuer"] != self.issuer:
                raise ValueError("the document is another issuer's")
            if fault_of_url(uri) is not None or _origin(urlsplit(uri)) != _origin(urlsplit(self.issuer)):
                raise ValueError("the keys are elsewhere: name the place in `jwks_uri`")
        return _get(uri)


def _pause(flight: Future[None]) -> float:
    """How long after its start nobody else sets out."""
    return RETRY_SECONDS if flight.done() and flight.exception() is not None else REFETCH_SECONDS


def _signing_keys(key_set: Mapping[str, Any]) -> Iterator[tuple[str, PyJWK]]:
    from jwt import PyJWKSet

    for key in PyJWKSet.from_dict(dict(key_set)).keys:
        if key.key_id and key.public_key_use in ("sig", None):
            yield str(key.key_id), key


def _get(url: str) -> Mapping[str, Any]:
    """The JSON object under this URL. Raises OSError or ValueError where there is none in good time."""
    deadline = time.monotonic() + WAIT_SECONDS
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310 - fault_of_url looked at it
    body = b""
    try:
        with _opener(url).open(request, timeout=WAIT_SECONDS) as response:
            while piece := response.read1(_PIECE):
                body += piece
                if len(body) > MAX_BYTES:
                    raise ValueError("the answer is too large")
                if time.monotonic() > deadline:
                    raise TimeoutError
    except HTTPError as error:
        error.close()
        raise
    parsed = json.loads(body)
    if not isinstance(parsed, dict):
        raise TypeError("the answer is no object")
    return parsed


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None  # so the 3xx is an error


def _opener(url: str) -> OpenerDirector:
    # A proxy of the machine's has no business with its own loopback.
    return build_opener(_NoRedirects, *([ProxyHandler({})] if url.startswith("http:") else []))


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
