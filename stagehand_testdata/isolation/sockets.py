"""For tests: nothing that this process does may leave the machine, and what tried to is counted.

# Note [Why an audit hook]
Replacing `socket.socket` or its methods, as pytest-socket does, misses whoever has got hold of them before.
The interpreter itself tells an audit hook of each connection, datagram and look-up before it makes it, and a
hook that raises prevents it. A hook cannot be taken away again: there is one, put in place by the first
guard, and it looks at nothing while no guard is up. A guard holds for the whole process, because look-ups and
clients run in threads that know nothing of whoever started them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from socket import AF_UNIX, gaierror, getaddrinfo, gethostname
from typing import Any, NamedTuple

from ..exceptions import OutboundRefused

#: What leaves by a socket, and what asks a name server, as the interpreter calls it.
_SENDING = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_ASKING = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}


class Escape(NamedTuple):
    """What would have left: what was asked of the system, and for which host."""

    event: str
    host: str


@dataclass(eq=False, slots=True)
class _Guard:
    allowed: set[str]
    escapes: list[Escape] = field(default_factory=list)


_guards: list[_Guard] = []


@contextmanager
def guard(allow: Iterable[str] = ()) -> Iterator[list[Escape]]:
    """Within the block this process reaches loopback, Unix sockets and the hosts in `allow`, nobody else.

    Gives the list of what was refused, which grows meanwhile. `allow` has names and addresses without a port;
    the names are looked up before the block begins. Whoever connects, sends or looks up a name within the
    block gets OutboundRefused.

    It sees what goes through Python's own sockets. Libraries with sockets of their own (libpq, libcurl, gRPC,
    uvloop), other processes and connections that were open before pass it by. Where a name is handed to
    `connect` or `sendto` themselves, Python looks it up before it tells: only what follows is refused.
    """
    mine = _Guard(set(_with_addresses(allow)))
    _listen()
    _guards.append(mine)
    try:
        yield mine.escapes
    finally:
        _guards.remove(mine)


def _with_addresses(names: Iterable[str]) -> Iterator[str]:
    # Each e-mail's Message-ID looks up the machine's own name.
    yield _normal(gethostname())
    for name in names:
        yield _normal(name)
        if not _is_address(name):
            with suppress(gaierror):
                yield from (_normal(found[4][0]) for found in getaddrinfo(name, None))


@cache
def _listen() -> None:
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guards:
        return
    if event in _SENDING:
        sock, target = arguments[:2]
        if sock.family == AF_UNIX:
            return
    elif event in _ASKING:
        target = arguments[0]
    else:
        return
    # None: to whom the socket is connected, which was looked at before; or, in a look-up, to this machine.
    host = _normal(target[0] if isinstance(target, tuple) else target or "")
    if not _is_here(host):
        _refuse(Escape(event, host))


def _refuse(escape: Escape) -> None:
    refusing = [each for each in tuple(_guards) if escape.host not in each.allowed]
    for each in refusing:
        each.escapes.append(escape)
    if refusing:
        raise OutboundRefused(f"{escape.event} to {escape.host!r} was refused: nothing may leave here.")


def _normal(host: Any) -> str:
    text = host.decode(errors="replace") if isinstance(host, bytes | bytearray) else str(host)
    text = text.lower().rstrip(".")
    with suppress(ValueError):
        address = ip_address(text)
        return str(getattr(address, "ipv4_mapped", None) or address)
    return text


def _is_address(text: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(text))
    return False


def _is_here(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    with suppress(ValueError):
        address = ip_address(host)
        return address.is_loopback or address.is_unspecified
    return False
