"""Route, key state, owner, allowance, gate, run state: every cell against the answer that it must have.

The answers come from the small table below, which knows nothing of the code. A cell that is refused must
leave every table as it was.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from stagehand_testdata.access import keys
from stagehand_testdata.access.callers import known_operations
from stagehand_testdata.models import AccessKey, TestEntity
from stagehand_testdata.urls import _routes
from tests.conftest import Wire
from tests.host.models import Author

from .conftest import all_counts, expire

HOUR = dt.timedelta(hours=1)

Answer = tuple[int, str]

# --- what must be answered -------------------------------------------------------------------------------

OK, CREATED = (200, ""), (201, "")
UNKNOWN, TOO_OLD, CLOSED = (404, "not_found"), (400, "test_too_old"), (409, "run_closed")

RUN_STATES = ("none", "open", "expired", "closed", "deleted")

#: By what a route is for: its answer in each state of the run.
KINDS: dict[str, tuple[Answer, ...]] = {
    "open": (OK, OK, TOO_OLD, CLOSED, CLOSED),
    "create": (CREATED, CREATED, TOO_OLD, CLOSED, CLOSED),
    "create in": ((404, "not_in_run"), CREATED, TOO_OLD, CLOSED, CLOSED),
    "read": (OK, OK, OK, OK, OK),
    "read run": (UNKNOWN, OK, OK, OK, UNKNOWN),
    "change run": (UNKNOWN, OK, TOO_OLD, CLOSED, UNKNOWN),
    "pass": (UNKNOWN, CREATED, TOO_OLD, CLOSED, UNKNOWN),
    "receipt": (UNKNOWN, UNKNOWN, UNKNOWN, OK, OK),
    "clean up": (OK, OK, OK, OK, OK),
    "delete run": (UNKNOWN, OK, OK, OK, UNKNOWN),
    "token": ((401, "not_authenticated"),) * 5,
    "unknown": ((400, "unknown_operation"),) * 5,
}

#: (method, path): what it is for, and the operation that a key must be allowed.
ROUTES: dict[tuple[str, str], tuple[str, str | None]] = {
    ("post", "verify-access"): ("open", "verify-access"),
    ("post", "builders"): ("create", "builders"),
    ("post", "session-types"): ("create in", "session-types"),
    ("post", "clients"): ("create", "clients"),
    ("post", "booking-scenarios"): ("create", "booking-scenarios"),
    ("post", "batch"): ("create", "batch"),
    ("post", "entities/voucher"): ("create", "entities"),
    ("post", "scenarios/booking"): ("create", "scenarios"),
    ("post", "shadow-copies"): ("create", "shadow-copies"),
    ("post", "cleanup"): ("clean up", None),
    ("get", "runs"): ("read", "read"),
    ("get", "runs/{testId}"): ("read run", "read"),
    ("patch", "runs/{testId}"): ("change run", "renew"),
    ("delete", "runs/{testId}"): ("delete run", None),
    ("get", "runs/{testId}/entities"): ("read run", "read"),
    ("get", "runs/{testId}/messages"): ("read run", "read"),
    ("get", "runs/{testId}/receipt"): ("receipt", "read"),
    ("post", "runs/{testId}/pass"): ("pass", "pass"),
    ("post", "runs/{testId}/sessions"): ("pass", "sessions"),
    ("get", "entity-types"): ("read", "read"),
    ("get", "schema"): ("read", "read"),
    ("get", "docs"): ("read", "read"),
    ("post", "tokens"): ("token", None),
    ("post", "nonsense"): ("unknown", None),
}

#: Each state of a key, and whether it counts.
KEY_STATES = {
    "counts": True,
    "was rotated": True,
    "former, in its grace": True,
    "from its network": True,
    "missing": False,
    "malformed": False,
    "unknown": False,
    "wrong secret": False,
    "former": False,
    "expired": False,
    "revoked": False,
    "from elsewhere": False,
}
OWNERS = ("the run's", "another")
ALLOWANCES = ("everything", "this alone", "all but this")


@dataclass(frozen=True, slots=True)
class Cell:
    key: str
    owner: str
    allowance: str
    gate_open: bool
    run: str


def expected(route: tuple[str, str], cell: Cell) -> Answer:
    kind, operation = ROUTES[route]
    # Whoever shows a token asks for a key, to clean up with it perhaps.
    cleaning = kind in ("clean up", "delete run", "token")
    if not (cell.gate_open or cleaning):
        return 403, "test_mode_disabled"
    if not KEY_STATES[cell.key] or kind == "token":
        return 401, "not_authenticated"
    if operation is not None and cell.allowance == "all but this":
        return 403, "not_allowed"
    run = cell.run if cell.owner == "the run's" else "none"
    return KINDS[kind][RUN_STATES.index(run)]


def cells() -> Iterator[Cell]:
    """Every cell of a key that counts; of the others those in which something else could answer instead."""
    for found in product(KEY_STATES, OWNERS, ALLOWANCES, (True, False), RUN_STATES):
        cell = Cell(*found)
        if cell.key == "counts" or (
            cell.run == "open"
            and cell.allowance != "this alone"
            and (cell.gate_open or cell.allowance == "everything")
        ):
            yield cell


# --- what is there ---------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """A run in each state, of one owner, its keys in each state, and the keys of another owner."""

    test_ids: dict[str, str]
    headers: dict[tuple[str, str], str | None]
    builder: str
    user: str
    author: str


def set_up(configure: Callable[..., None]) -> Stage:
    configure(
        REQUIRE_ACCESS_KEY=True,
        RATE_PER_KEY="",
        RATE_PER_ADDRESS="",
        SHADOW_COPIES={"host.Author": {"keep": ["name"]}},
    )
    headers = {}
    for owner in OWNERS:
        for state in KEY_STATES:
            headers[owner, state] = make_key(owner, state)
    AccessKey.objects.update(last_used_at=Now())
    mine = {"Authorization": str(headers[OWNERS[0], "counts"])}
    test_ids = {state: f"stagehand_test_matrix_{state}" for state in RUN_STATES}
    builder = ""
    for state in RUN_STATES[1:]:
        wire = Wire(test_ids[state])
        made = wire.post("builders", **mine)
        assert made.status_code == 201, made.content
        builder = made.json()["id"] if state == "open" else builder
        if state == "expired":
            expire(wire.test_id)
        if state in ("closed", "deleted"):
            assert wire.post("cleanup", **mine).status_code == 200
        if state == "deleted":
            assert wire.send("delete", f"runs/{wire.test_id}", **mine).status_code == 200
    user = TestEntity.objects.get(run__test_id=test_ids["open"], model=settings.AUTH_USER_MODEL.lower())
    author = str(Author.objects.create(name="real").pk)
    return Stage(test_ids, headers, builder, user.key_text, author)


def make_key(owner: str, state: str) -> str | None:
    networks = {"from its network": ["127.0.0.0/8"], "from elsewhere": ["203.0.113.0/24"]}.get(state, ())
    key, text = keys.create(state, HOUR, owner=f"key:{owner}", networks=networks)
    token = keys.parse(text)
    assert token is not None
    if state in ("was rotated", "former", "former, in its grace"):
        _, after = keys.rotate(key, grace=HOUR if state == "former, in its grace" else dt.timedelta(0))
        text = after if state == "was rotated" else text
    if state == "expired":
        AccessKey.objects.filter(pk=key.pk).update(created_at=Now() - 2 * HOUR, expires_at=Now() - HOUR)
    if state == "revoked":
        keys.revoke(key)
    text = {
        "malformed": text[:-1],
        "unknown": str(token._replace(public_id="0" * len(token.public_id))),
        "wrong secret": str(token._replace(secret="0" * len(token.secret))),
    }.get(state, text)
    return None if state == "missing" else f"Bearer {text}"


def body_of(path: str, stage: Stage) -> dict[str, Any]:
    return {
        "session-types": {"builderId": stage.builder},
        "batch": {"builders": 1},
        "shadow-copies": {"model": "host.Author", "id": stage.author},
        "runs/{testId}": {"label": "matrix"},
        "runs/{testId}/sessions": {"userId": stage.user},
        "tokens": {"token": "nonsense"},
    }.get(path, {})


def allowed(allowance: str, operation: str | None) -> list[str]:
    match allowance:
        case "everything":
            return []
        case "this alone":
            return [operation or "read"]
    return sorted(known_operations() - {operation})


# --- the matrix ------------------------------------------------------------------------------------------


def test_the_matrix_has_more_than_two_thousand_cells() -> None:
    assert len(ROUTES) * len(list(cells())) >= 2000


def test_every_route_is_in_it() -> None:
    placeholders = {"<str:testId>": "{testId}", "<str:type>": "voucher", "<str:name>": "booking"}
    found = {("get", "schema"), ("get", "docs"), ("post", "nonsense")}
    for route, _, actions, _ in _routes():
        path = route
        for placeholder, value in placeholders.items():
            path = path.replace(placeholder, value)
        found |= {(method, path) for method in actions}
    assert set(ROUTES) == found


@pytest.mark.django_db
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_every_cell_has_its_answer(route: tuple[str, str], configure: Callable[..., None]) -> None:
    stage = set_up(configure)
    method, path = route
    operation = ROUTES[route][1]
    wrong = []
    for allowance, gate_open in product(ALLOWANCES, (True, False)):
        AccessKey.objects.update(operations=allowed(allowance, operation))
        configure(ENABLED=gate_open)
        before = all_counts()
        for cell in cells():
            if (cell.allowance, cell.gate_open) != (allowance, gate_open):
                continue
            wire = Wire(stage.test_ids[cell.run])
            header = stage.headers[cell.owner, cell.key]
            sent = {} if header is None else {"Authorization": header}
            with transaction.atomic():
                response = wire.send(method, path.format(testId=wire.test_id), body_of(path, stage), **sent)
                got = (response.status_code, code_of(response))
                if got != expected(route, cell):
                    wrong.append((cell, got, expected(route, cell)))
                elif response.status_code >= 400 and all_counts() != before:
                    wrong.append((cell, got, "nothing written"))
                transaction.set_rollback(True)
    assert wrong == []


def code_of(response: Any) -> str:
    if response.status_code < 400:
        return ""
    code: str = response.json()["code"]
    return code
