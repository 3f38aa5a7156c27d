"""A secret is sent everywhere that one may go, and is found nowhere afterwards."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core import mail
from django.db import DatabaseError, connection
from django.urls import reverse

from project.demo import bound_socket, wait_until_it_answers
from stagehand_testdata.access import trail
from stagehand_testdata.models import TestRun
from stagehand_testdata.registry import Scenario, load_registry
from tests.conftest import Wire

ROOT = Path(__file__).resolve().parent.parent.parent
CANARY = "c4n4ry-5ecret-Zx81q"
SHAPES = (CANARY, base64.b64encode(CANARY.encode()).decode().rstrip("="), CANARY.encode().hex())
#: As long as a key, with its prefix, and a checksum that is none.
KEY = f"tdk_{CANARY}_{'x' * 32}abcdef"

HEADERS: list[dict[str, str]] = [
    {"Authorization": f"Bearer {CANARY}"},
    {"Authorization": f"Bearer {KEY}"},
    {"Authorization": f"Basic {SHAPES[1]}"},
    {"Authorization": CANARY},
    {"X-Test-ID": f"{CANARY}!"},
    {"X-Test-ID": f"stagehand_test_{CANARY}/"},
    {"Idempotency-Key": CANARY},
    {"Idempotency-Key": f"{CANARY} é"},
    {"X-Testdata-Pass": CANARY},
    {"Cookie": f"testdata_pass={CANARY}; sessionid={CANARY}"},
    {"Content-Type": f"application/{CANARY}"},
    {"Referer": f"https://example.com/{CANARY}", "User-Agent": CANARY},
]
BODIES: list[Any] = [
    {},
    {"password": CANARY},
    {"email": CANARY},
    {"hourlyRate": CANARY},
    {"testId": CANARY},
    {"createdAt": CANARY},
    {"maxAgeMinutes": CANARY},
    {"fields": {"password": CANARY}},
    {"fields": {"unit_price": CANARY}},
    {"token": CANARY},
    {"builderId": CANARY},
    {"createdData": [{"type": CANARY}]},
    f'{{"name": "{CANARY}"'.encode(),
    CANARY.encode(),
    json.dumps([CANARY]).encode(),
]
PATHS = ["verify-access", "clients", "session-types", "entities/voucher", "batch", "cleanup", "tokens"]
ASKED = f"?token={CANARY}&key={CANARY}"


def requests(test_id: str) -> Iterator[tuple[str, str, Any, dict[str, str]]]:
    """(method, path, body, headers) of each place that a secret may be put into."""
    for path in PATHS:
        for headers in HEADERS:
            yield "POST", path, {}, headers
        for body in BODIES:
            yield "POST", path, body, {}
        yield "POST", f"{path}{ASKED}", {}, {}
    for path in ("runs", "entity-types", "schema", "docs", f"runs/{test_id}", f"runs/{test_id}/messages"):
        for headers in HEADERS:
            yield "GET", path, None, headers
        yield "GET", f"{path}{ASKED}", None, {}
    yield "POST", f"runs/{test_id}/pass", {"password": CANARY}, {"Idempotency-Key": CANARY}
    yield "POST", f"runs/{test_id}/sessions", {"userId": CANARY}, {}
    yield "PATCH", f"runs/{test_id}", {"colour": CANARY}, {"Idempotency-Key": CANARY}
    yield "DELETE", f"runs/{test_id}", {"password": CANARY}, {"Authorization": f"Bearer {CANARY}"}


def holds_canary(text: str) -> bool:
    return any(shape in text for shape in SHAPES)


def dump() -> str:
    """Every row of every table of ours."""
    models = apps.get_app_config(TestRun._meta.app_label).get_models()
    return repr([list(model._base_manager.values()) for model in models])


class Everything(logging.Handler):
    """Whatever any logger says, formatted as a file would have it, with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def logged() -> Iterator[Everything]:
    """All loggers at DEBUG, into one handler."""
    handler = Everything()
    names = [name for name in logging.root.manager.loggerDict if not name.startswith("faker")]
    loggers = [logging.root, *(logging.getLogger(name) for name in names)]
    before = [(each, each.level, each.propagate, each.disabled) for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
        each.propagate, each.disabled = True, False
    logging.root.addHandler(handler)
    try:
        yield handler
    finally:
        logging.root.removeHandler(handler)
        for each, level, propagate, disabled in before:
            each.setLevel(level)
            each.propagate, each.disabled = propagate, disabled


@pytest.fixture(autouse=True)
def _fresh_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "_refusals", trail._Refusals())


def send(wire: Wire, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
    sent = {"X-Test-ID": wire.test_id, **headers}
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    kind = sent.pop("Content-Type", "application/json")
    return wire.client.generic(method, f"/api/test/{path}", data, content_type=kind, headers=sent)


@pytest.mark.parametrize("debug", [False, True], ids=["", "DEBUG"])
@pytest.mark.parametrize(
    "door",
    [
        {"ENABLED": enabled, "REQUIRE_ACCESS_KEY": keys_needed}
        for enabled in (True, False)
        for keys_needed in (True, False)
    ],
    ids=str,
)
def test_in_no_log_no_answer_no_table(
    wire: Wire, logged: Everything, settings: Any, debug: bool, door: dict[str, bool]
) -> None:
    wire.make("clients")
    settings.DEBUG = debug
    connection.force_debug_cursor = debug
    # On a quick machine there are more requests in a second than an address may make.
    settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, **door, "RATE_PER_ADDRESS": ""}
    try:
        statuses = set()
        for method, path, body, headers in requests(wire.test_id):
            response = send(wire, method, path, body, headers)
            statuses.add(response.status_code)
            said = response.content.decode() + repr(dict(response.headers))
            assert not holds_canary(said), (method, path, body, headers, response.content[:500])
    finally:
        connection.force_debug_cursor = False
    assert len(logged.lines) > 50
    assert [line for line in logged.lines if holds_canary(line)] == []
    assert not holds_canary(dump())
    assert not mail.outbox
    assert max(statuses) < 500
    assert 429 not in statuses
    if door == {"ENABLED": True, "REQUIRE_ACCESS_KEY": False}:
        assert {200, 201, 400, 404} <= statuses


def refuse_everything(*args: Any) -> Any:
    raise DatabaseError(f"the row ({CANARY}) does not fit")


@pytest.mark.parametrize("debug", [False, True], ids=["", "DEBUG"])
class TestErrors:
    """What breaks quotes what was sent."""

    @pytest.fixture(autouse=True)
    def broken(self, wire: Wire, settings: Any, debug: bool) -> None:
        def fail(call: Any, data: Any) -> Any:
            raise RuntimeError(f"cannot use {data!r} or {CANARY!r}")

        wire.make("clients")
        load_registry().scenarios.add(Scenario("failing", fail))
        settings.DEBUG = debug
        settings.ADMINS = [("ops", "ops@example.com")]
        self.wire = wire

    def check(self, logged: Everything, response: Any) -> None:
        assert response.status_code >= 500
        assert response["Content-Type"] == "application/json"
        assert not holds_canary(response.content.decode())
        assert any("failed" in line or "unexpected" in line for line in logged.lines)
        assert [line for line in logged.lines if holds_canary(line)] == []
        assert not holds_canary(repr([each.message().as_string() for each in mail.outbox]))
        assert not holds_canary(dump())

    def test_of_a_factory(self, logged: Everything) -> None:
        body = {"buildId": CANARY}
        self.check(logged, send(self.wire, "POST", "scenarios/failing", body, {}))

    @pytest.mark.parametrize(
        "headers",
        [
            {"Idempotency-Key": CANARY},
            {"Cookie": f"testdata_pass={CANARY}"},
            {"Authorization": f"Bearer {CANARY}"},
        ],
    )
    def test_of_the_database(self, logged: Everything, headers: dict[str, str]) -> None:
        with connection.execute_wrapper(refuse_everything):
            response = send(self.wire, "POST", "clients", {"createdAt": CANARY}, headers)
        self.check(logged, response)

    def test_in_a_query(self, logged: Everything) -> None:
        with connection.execute_wrapper(refuse_everything):
            response = send(self.wire, "GET", f"runs{ASKED}", None, {})
        self.check(logged, response)


@pytest.mark.django_db(transaction=True)
def test_in_no_log_of_a_live_server_and_on_no_page_of_the_admin(
    new_wire: Callable[[], Wire], tmp_path: Path, client: Any, admin_user: Any
) -> None:
    """gunicorn with DEBUG on, every logger at DEBUG, its access log and its error log in files."""
    wire = new_wire()
    wire.make("clients")
    name = connection.settings_dict["NAME"]
    url = os.environ.get("DATABASE_URL", "sqlite:///x")
    scheme, _, rest = url.partition("://")
    host = rest.rpartition("/")[0]
    url = f"sqlite:///{name}" if connection.vendor == "sqlite" else f"{scheme}://{host}/{name}"
    environment = os.environ | {
        "DATABASE_URL": url,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DEBUG": "1",
        "LOG_LEVEL": "DEBUG",
        "PYTHONPATH": str(ROOT),
    }
    logs = [tmp_path / each for each in ("access.log", "error.log", "output.log")]
    with bound_socket(0) as listener, logs[2].open("wb") as output:
        command = [sys.executable, "-m", "gunicorn", "-c", "project/gunicorn_config.py"]
        command += ["--log-level", "debug", "--access-logfile", str(logs[0]), "--error-logfile", str(logs[1])]
        command += ["-b", f"fd://{listener.fileno()}", "project.wsgi"]
        address = listener.getsockname()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, pass_fds=[listener.fileno()], stdout=output, stderr=output
        )
    try:
        wait_until_it_answers(f"http://{address[0]}:{address[1]}", process)
        answered = 0
        with contextlib.closing(http.client.HTTPConnection(*address, timeout=30)) as server:
            for method, path, body, headers in requests(wire.test_id):
                data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
                sent = {"Content-Type": "application/json", "X-Test-ID": wire.test_id, **headers}
                encoded = {header: value.encode("latin-1") for header, value in sent.items()}
                server.request(method, f"/api/test/{path}", data, encoded)  # type: ignore[arg-type]
                response = server.getresponse()
                assert not holds_canary(response.read().decode() + repr(response.getheaders()))
                answered += 1
    finally:
        process.terminate()
        process.wait(20)
    lines = [line for each in logs for line in each.read_text(errors="replace").splitlines()]
    assert sum("/api/test/" in line for line in logs[0].read_text().splitlines()) >= answered
    assert len(lines) > answered
    assert [line for line in lines if holds_canary(line)] == []
    assert not holds_canary(dump())
    client.force_login(admin_user)
    for model in ("testrun", "testentity", "receipt", "message", "auditentry", "accesskey"):
        page = client.get(reverse(f"admin:stagehand_testdata_{model}_changelist"))
        assert page.status_code == 200
        assert not holds_canary(page.content.decode())


def test_it_would_be_found(db: None, logged: Everything) -> None:
    """The search itself: in a log, in each of its shapes, and in a table."""
    for shape in SHAPES:
        logging.getLogger("somebody.elses").debug("got %s", shape)
    assert sum(holds_canary(line) for line in logged.lines) == len(SHAPES)
    trail.record("x", subject=CANARY)
    assert holds_canary(dump())
