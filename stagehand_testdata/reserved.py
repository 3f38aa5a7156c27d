"""The domains in which no mailbox can be anybody's (RFC 2606, RFC 6761), and those that the host adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from django.utils.encoding import punycode

from .conf import settings

#: A leading dot stands for every name below it.
RESERVED_DOMAINS = ("example.com", "example.org", "example.net", ".test", ".invalid")


def reserved_domains() -> Iterator[str]:
    """Those of the standards, then EMAIL_DOMAINS."""
    yield from RESERVED_DOMAINS
    listed: Sequence[Any] = settings.EMAIL_DOMAINS
    yield from (each for each in listed if isinstance(each, str))  # E052 tells of the others


def is_reserved(address: str) -> bool:
    """Whether the address lies in a domain where no mailbox can be anybody's."""
    domain = ascii_domain(address.rpartition("@")[2])
    for reserved in reserved_domains():
        name = ascii_domain(reserved.removeprefix("."))
        if domain.endswith(f".{name}") if reserved.startswith(".") else domain == name:
            return True
    return False


def ascii_domain(domain: str) -> str:
    """The domain as the name servers are asked for it, however it was written."""
    with suppress(UnicodeError):  # then no name server knows it, and no reserved one is like it
        domain = punycode(domain)
    return domain.lower().rstrip(".")
