"""The client against the host product, served for real."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from stagehand_testdata.client import TestDataManager

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests are not to find the key, the token or the files of whoever runs them."""
    for name in list(os.environ):
        if name.startswith(("STAGEHAND_TESTDATA_", "TESTDATA_TOKEN", "GITHUB_", "ACTIONS_", "CI_", "TEST_")):
            monkeypatch.delenv(name)


@pytest.fixture
def manager(product: str) -> Callable[..., TestDataManager]:
    return partial(TestDataManager, product)


def wait_for(true: Callable[[], Any], seconds: float = 20) -> Any:
    """What `true` returns, once that is something; fails where it never is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    pytest.fail(f"not within {seconds} s")


def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A test runner's process, which knows nothing of Django."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Road:
    """What lies between a client and the server: it may lose answers, or answer in the server's place."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        #: How many of the next answers get lost after the server has given them.
        self.lose = 0
        #: What the next requests get in place of the server's answer: (status, headers).
        self.instead: list[tuple[int, dict[str, str]]] = []
        #: (method, path, headers) of each request that came.
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""
        self.lock = threading.Lock()

    def take(self) -> tuple[bool, tuple[int, dict[str, str]] | None]:
        with self.lock:
            if self.instead:
                return False, self.instead.pop(0)
            loses, self.lose = self.lose > 0, max(self.lose - 1, 0)
            return loses, None


class _Carrier(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *args: Any) -> None:
        pass

    def carry(self) -> None:
        road: Road = self.server.road
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        road.seen.append((self.command, self.path, dict(self.headers.items())))
        loses, instead = road.take()
        if instead is not None:
            status, headers = instead
            self.answer(status, headers, b"<h1>a proxy</h1>")
            return
        connection = HTTPConnection(road.host, road.port, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if loses:
            self.close_connection = True
            self.connection.close()
            return
        self.answer(answer.status, dict(answer.getheaders()), text)

    def answer(self, status: int, headers: dict[str, str], text: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "connection", "server", "date"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PATCH = do_DELETE = carry


class _RoadServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a lost answer closes the socket under the handler


@pytest.fixture
def road(product: str) -> Iterator[Road]:
    """A road to the server; `road.url` is its near end."""
    made: Any = _RoadServer(("127.0.0.1", 0), _Carrier)
    made.road = road = Road(product)
    road.url = f"http://127.0.0.1:{made.server_address[1]}"
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield road
    made.shutdown()
    made.server_close()
