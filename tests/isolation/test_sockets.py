"""While a guard is up nothing leaves the machine, by whatever way, and each attempt is counted."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.db import connection

from stagehand_testdata.exceptions import OutboundRefused
from stagehand_testdata.isolation.sockets import Escape, guard
from stagehand_testdata.models import TestEntity
from tests.conftest import Wire

#: Nobody's: what RFC 5737 and RFC 3849 keep for documents.
OUTSIDE, OUTSIDE_6 = "192.0.2.1", "2001:db8::1"


@pytest.fixture
def port() -> Iterator[int]:
    """A server on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def tcp(family: int = socket.AF_INET) -> Any:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(1)
    return closing(made)


def udp() -> Any:
    return closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def connect(address: Any = (OUTSIDE, 80), family: int = socket.AF_INET) -> None:
    with tcp(family) as sock:
        sock.connect(address)


def connect_ex() -> None:
    with tcp() as sock:
        sock.connect_ex((OUTSIDE, 80))


def send_to() -> None:
    with udp() as sock:
        sock.sendto(b"x", (OUTSIDE, 53))


def send_message() -> None:
    with udp() as sock:
        sock.sendmsg([b"x"], [], 0, (OUTSIDE, 53))


async def sock_connect() -> None:
    with tcp() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (OUTSIDE, 80))


async def open_connection() -> None:
    await asyncio.open_connection("outside.example", 80)


async def datagram() -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(OUTSIDE, 53)
    )


WAYS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "connect": (connect, "socket.connect", OUTSIDE),
    "connect, IPv6": (
        lambda: connect((OUTSIDE_6, 80, 0, 0), socket.AF_INET6),
        "socket.connect",
        OUTSIDE_6,
    ),
    "connect, an IPv4 address in IPv6": (
        lambda: connect((f"::ffff:{OUTSIDE}", 80, 0, 0), socket.AF_INET6),
        "socket.connect",
        OUTSIDE,
    ),
    "connect_ex": (connect_ex, "socket.connect", OUTSIDE),
    "create_connection": (
        lambda: socket.create_connection((OUTSIDE, 80), 1),
        "socket.getaddrinfo",
        OUTSIDE,
    ),
    "sendto": (send_to, "socket.sendto", OUTSIDE),
    "sendmsg": (send_message, "socket.sendmsg", OUTSIDE),
    "getaddrinfo": (
        lambda: socket.getaddrinfo(b"Outside.Example.", 80),
        "socket.getaddrinfo",
        "outside.example",
    ),
    "gethostbyname": (
        lambda: socket.gethostbyname("outside.example"),
        "socket.gethostbyname",
        "outside.example",
    ),
    "gethostbyname_ex": (
        lambda: socket.gethostbyname_ex("outside.example"),
        "socket.gethostbyname",
        "outside.example",
    ),
    "gethostbyaddr": (lambda: socket.gethostbyaddr(OUTSIDE), "socket.gethostbyaddr", OUTSIDE),
    "getnameinfo": (lambda: socket.getnameinfo((OUTSIDE, 80), 0), "socket.getnameinfo", OUTSIDE),
    "asyncio's sock_connect": (lambda: asyncio.run(sock_connect()), "socket.connect", OUTSIDE),
    "asyncio's open_connection": (
        lambda: asyncio.run(open_connection()),
        "socket.getaddrinfo",
        "outside.example",
    ),
    "asyncio's datagrams": (lambda: asyncio.run(datagram()), "socket.connect", OUTSIDE),
    "urllib": (
        lambda: urllib.request.urlopen("http://outside.example/", timeout=1),
        "socket.getaddrinfo",
        "outside.example",
    ),
    "smtplib": (
        lambda: smtplib.SMTP("outside.example", timeout=1),
        "socket.getaddrinfo",
        "outside.example",
    ),
}


class TestWhatIsRefused:
    @pytest.mark.parametrize("way", WAYS)
    def test_is_counted_by_whatever_way(self, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        attempt, event, host = WAYS[way]
        with guard() as escapes, pytest.raises(OutboundRefused, match="was refused"):
            attempt()
        assert escapes == [Escape(event, host)]

    def test_is_what_code_does_that_has_got_hold_of_a_socket_before(self) -> None:
        with tcp() as sock:
            method = sock.connect
            with guard() as escapes, pytest.raises(OutboundRefused):
                method((OUTSIDE, 80))
        assert len(escapes) == 1

    def test_is_counted_though_somebody_swallows_the_error(self) -> None:
        def fetch() -> None:
            try:
                connect()
            except Exception:  # noqa: BLE001 - as a product does that sends to an analytics service
                return

        with guard() as escapes:
            fetch()
            fetch()
        assert len(escapes) == 2

    def test_is_what_other_threads_do(self) -> None:
        def fetch() -> None:
            with pytest.raises(OutboundRefused):
                connect()

        with guard() as escapes:
            thread = threading.Thread(target=fetch)
            thread.start()
            thread.join()
        assert len(escapes) == 1

    def test_is_counted_by_each_guard_that_does_not_allow_it(self) -> None:
        with (
            guard() as outer,
            guard([OUTSIDE]) as middle,
            guard() as inner,
            pytest.raises(OutboundRefused),
        ):
            connect()
        assert (len(outer), len(middle), len(inner)) == (1, 0, 1)

    def test_is_nothing_once_the_guard_is_down(self) -> None:
        with guard() as escapes, guard():
            pass
        with udp() as sock:
            sock.connect((OUTSIDE, 53))  # sends nothing
        with pytest.raises(ZeroDivisionError), guard():
            _ = 1 / 0
        with udp() as sock:
            sock.connect((OUTSIDE, 53))
        assert escapes == []


class TestWhatIsAllowed:
    def test_is_loopback_by_address_and_by_name(self, port: int) -> None:
        async def open_connection() -> None:
            _, writer = await asyncio.open_connection("localhost", port, family=socket.AF_INET)
            writer.close()
            await writer.wait_closed()

        with guard() as escapes:
            socket.create_connection(("127.0.0.1", port), 1).close()
            socket.create_connection(("localhost", port), 1).close()
            asyncio.run(open_connection())
            with udp() as sock:
                sock.sendto(b"x", ("127.0.0.1", port))
                sock.connect(("127.0.0.1", port))
                sock.sendmsg([b"x"])
            socket.getaddrinfo(None, port)
        assert escapes == []

    def test_is_a_unix_socket(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        with closing(socket.socket(socket.AF_UNIX)) as server, closing(socket.socket(socket.AF_UNIX)) as sock:
            server.bind(path)
            server.listen()
            with guard() as escapes:
                sock.connect(path)
        assert escapes == []

    def test_is_what_was_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with guard(["Database.Example", OUTSIDE]) as escapes:
            with udp() as sock:
                sock.connect((OUTSIDE, 5432))
            with pytest.raises(socket.gaierror):
                socket.getaddrinfo("database.example", 5432, flags=socket.AI_NUMERICHOST)
            with pytest.raises(OutboundRefused):
                socket.getaddrinfo("other.example", 5432)
        assert [each.host for each in escapes] == ["other.example"]

    def test_is_the_address_of_a_name_that_was_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def look_up(name: str, port: None) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (OUTSIDE, 0))]

        monkeypatch.setattr("stagehand_testdata.isolation.sockets.getaddrinfo", look_up)
        with guard(["database.example"]) as escapes, udp() as sock:
            sock.connect((OUTSIDE, 5432))
        assert escapes == []

    def test_is_the_machines_own_name(self) -> None:
        with guard() as escapes:
            assert EmailMessage("s", "b", "a@shop.test", ["b@shop.test"]).message()["Message-ID"]
            socket.getfqdn()
        assert escapes == []


URL = "http://calendly.example/x"


@pytest.mark.django_db
class TestUrlsOfATest:
    """`calendlyUrl` and any other URL that a test gives is kept, and never fetched."""

    @pytest.fixture(autouse=True)
    def escapes(self) -> Iterator[list[Escape]]:
        with guard([connection.settings_dict["HOST"] or "localhost"]) as escapes:
            yield escapes
        assert escapes == []

    def test_a_session_type(self, wire: Wire) -> None:
        builder = wire.make("builders")
        body = {"builderId": builder["id"], "sessionTypes": [{"name": "Calls", "calendlyUrl": URL}]}
        [made] = wire.make("session-types", body)
        assert made["calendlyUrl"] == URL
        wire.cleanup()

    def test_rows_of_any_type(self, wire: Wire) -> None:
        wire.make("booking-scenarios")
        wire.entity("sessionType", calendly_event_type_uri=URL)
        wire.entity("booking", calendly_event_uri=URL, description=f"See {URL}")
        assert TestEntity.objects.standing().count() > 2
        wire.get("entities?type=booking")
        wire.cleanup()

    def test_the_guard_is_really_up(self, escapes: list[Escape]) -> None:
        with pytest.raises(OutboundRefused):
            urllib.request.urlopen(URL, timeout=1)
        assert escapes.pop().host == "calendly.example"
