"""A real SMTP server on loopback, and a host that mails through our backend to it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import django
from aiosmtpd.controller import Controller
from django.test import override_settings

from stagehand_testdata.isolation.mail import TestDataEmailBackend
from tests.making import changed

OURS = "stagehand_testdata.isolation.mail.TestDataEmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"


@dataclass(frozen=True)
class Received:
    """What came over the wire, envelope and all."""

    sender: str
    recipients: list[str]
    content: bytes

    @property
    def same_each_time(self) -> bytes:
        """The content without what no two sendings share."""
        text = re.sub(rb"(?m)^(Message-ID|Date): .*\r\n", b"", self.content)
        for nth, boundary in enumerate(re.findall(rb'boundary="([^"]+)"', text)):
            text = text.replace(boundary, b"boundary-%d" % nth)
        return text


class Postbox:
    """The server's end: what it took."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.options: dict[str, Any] = {}

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.received.append(Received(envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
        return "250 OK"

    def backend(self, **options: Any) -> TestDataEmailBackend:
        """Our backend in front of Django's own, which sends to this server."""
        with changed(EMAIL_BACKEND=SMTP):
            return TestDataEmailBackend(alias="default", **self.options, **options)


@contextmanager
def postbox() -> Iterator[Postbox]:
    box = Postbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    box.options = {"host": "127.0.0.1", "port": port}
    try:
        yield box
    finally:
        controller.stop()


@contextmanager
def host_mails_through(path: str, box: Postbox) -> Iterator[None]:
    """Within the block the host's e-mail goes through this backend; if it is ours, on to the box."""
    if django.VERSION >= (6, 1):
        mail = override_settings(MAILERS={"default": {"BACKEND": path, "OPTIONS": box.options}})
    else:
        mail = override_settings(
            EMAIL_BACKEND=path, EMAIL_HOST=box.options["host"], EMAIL_PORT=box.options["port"]
        )
    with mail, changed(EMAIL_BACKEND=SMTP):
        yield
