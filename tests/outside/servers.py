"""An HTTP service and a mail robot on loopback that fail, hang, lose their answers, and recover."""

from __future__ import annotations

import email
import json
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

#: No test waits for a server that hangs longer than this.
HANGS_FOR = 5.0


class Service:
    """What a service holds and how it misbehaves; `server` is the socket end of it."""

    def __init__(self) -> None:
        #: What is there now: its key by its id.
        self.things: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.fail_next = 0
        self.failing: set[str] = set()
        self.lose_answers = 0
        self.hanging: set[str] = set()
        #: Called with (order, key, process id of the client) before an order is carried out.
        self.before: Callable[[str, str, int], None] | None = None
        self.trouble: list[BaseException] = []
        self._released = threading.Event()
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def keys(self) -> list[str]:
        return sorted(self.things.values())

    def create(self, key: str) -> str:
        """The same key gives the same thing, as long as it is there."""
        with self._lock:
            if self._known.get(key) not in self.things:
                self._known[key] = f"acc_{len(self._known) + 1}"
                self.things[self._known[key]] = key
            return self._known[key]

    def remove(self, key: str, reference: str = "") -> bool:
        with self._lock:
            return self.things.pop(reference or self._known.get(key, ""), None) is not None

    def misbehave(self, order: str, key: str, process: int) -> bool:
        """Whether this order is to fail; hangs before where it is to hang."""
        self.asked.append((order, key))
        if self.before is not None:
            try:
                self.before(order, key, process)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.trouble.append(error)
        if order in self.hanging or key in self.hanging:
            self._released.wait(HANGS_FOR)
            return True
        if self.fail_next > 0:
            self.fail_next -= 1
            return True
        return order in self.failing or key in self.failing

    def loses_answer(self) -> bool:
        if self.lose_answers <= 0:
            return False
        self.lose_answers -= 1
        return True

    def recover(self) -> None:
        self.failing.clear()
        self.hanging.clear()
        self.fail_next = self.lose_answers = 0
        self._released.set()
        self._released = threading.Event()


class _HTTP(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        key = self.headers["Idempotency-Key"]
        self.rfile.read(int(self.headers["Content-Length"]))
        self._carry_out("create", key, lambda: (201, {"id": self.server.service.create(key)}))

    def do_DELETE(self) -> None:
        key = self.headers["Idempotency-Key"]
        url = urlsplit(self.path)
        by_key = parse_qs(url.query).get("key", [""])[0]
        reference = "" if by_key else url.path.rpartition("/")[2]
        service = self.server.service
        self._carry_out("remove", key, lambda: (204 if service.remove(by_key, reference) else 404, None))

    def _carry_out(self, order: str, key: str, work: Callable[[], tuple[int, Any]]) -> None:
        service = self.server.service
        if service.misbehave(order, key, int(self.headers["X-Process"])):
            self._answer(500, {"error": "token=SECRET"})
            return
        status, body = work()
        if service.loses_answer():
            self.close_connection = True
            self.connection.close()
            return
        self._answer(status, body)

    def _answer(self, status: int, body: Any) -> None:
        text = b"" if body is None else json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except OSError:
            pass  # the client has hung up


class _SMTP(socketserver.StreamRequestHandler):
    server: Any

    def handle(self) -> None:
        try:
            self._say("220 robot")
            for line in self.rfile:
                word = line.split()[0].upper() if line.split() else b""
                if word == b"QUIT":
                    self._say("221 bye")
                    return
                if word == b"DATA":
                    self._say("354 go on")
                    if not self._mail():
                        return
                else:
                    self._say("250 ok")
        except OSError:
            pass  # the client has hung up

    def _mail(self) -> bool:
        """Carry out one order; False where its answer gets lost."""
        lines = iter(self.rfile.readline, b".\r\n")
        mail = email.message_from_bytes(b"".join(lines))
        order, key = str(mail["Subject"]), str(mail.get_payload()).strip()
        service = self.server.service
        if service.misbehave(order, key, 0):
            self._say("451 try again later")
            return True
        service.create(key) if order == "create" else service.remove(key)
        if service.loses_answer():
            return False
        self._say("250 ok")
        return True

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a lost answer closes the socket under the handler


class _SMTPServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


class Running:
    """A service behind a real socket, within a block."""

    def __init__(self, kind: str) -> None:
        self.service = Service()
        made: Any = _HTTPServer if kind == "http" else _SMTPServer
        self.server = made(("127.0.0.1", 0), _HTTP if kind == "http" else _SMTP)
        self.server.service = self.service
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Running:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.service.recover()
        self.server.shutdown()
        self.server.server_close()
