"""Where the server is, and how it is spoken to."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from . import errors
from .retries import Retries

API_PATH = "/api/test"
_KEY = re.compile(r"[\x21-\x7e]+")


class Secret:
    """A text that no repr, log, traceback or error shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(…)" if self else "Secret('')"

    def __bool__(self) -> bool:
        return bool(self._text)

    def reveal(self) -> str:
        return self._text


class Bearer(httpx.Auth):
    """The access key, put on when the request goes out: no headers that anybody keeps hold it."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        yield request


@dataclass(frozen=True, kw_only=True)
class Connection:
    """`url` is the product's own, `api_path` where it includes the API; `timeout` in seconds."""

    url: str
    api_path: str = API_PATH
    key: Secret = field(default_factory=lambda: Secret(""))
    timeout: float = 60
    retries: Retries = field(default_factory=Retries)

    @property
    def api(self) -> str:
        return f"{self.url}{self.api_path}"

    def auth(self) -> httpx.Auth | None:
        return Bearer(self.key) if self.key else None

    def timeouts(self) -> httpx.Timeout:
        return httpx.Timeout(self.timeout, connect=min(self.timeout, 10))


def read_url(text: str) -> str:
    """The URL as it is used: no slash at its end. Raises Misuse."""
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise errors.Misuse("The server's URL must be one of http or https, such as https://shop.example.")
    if parts.username or parts.password:
        # Not shown: it is a password.
        raise errors.Misuse(
            "The server's URL must hold no user name or password: the access key is sent in their place."
        )
    if parts.query or parts.fragment:
        raise errors.Misuse("The server's URL must have no query and no fragment.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def read_path(text: str) -> str:
    """The API's path on the server, beginning with a slash and ending without."""
    path = text.strip("/")
    return f"/{path}" if path else ""


def read_key(key: Secret) -> Secret:
    """Raises Misuse for a key that no header can carry."""
    stripped = Secret(key.reveal().strip())
    if stripped and not _KEY.fullmatch(stripped.reveal()):
        raise errors.Misuse(
            "The access key holds a character that none has: is it the whole of what"
            " `manage.py testdata keys create` printed, on one line?"
        )
    return stripped
