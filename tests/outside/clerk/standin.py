"""A stateful stand-in for Clerk's Backend API, which fails, hangs, loses its answers and recovers.

Every request that comes, and every answer that is given, is held against Clerk's own description
(`backend-api.yml`); what does not hold is in `violations`, which the fixture wants empty. Answers that are
spoilt on purpose are left out.
"""

from __future__ import annotations

import functools
import itertools
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse

SECRET_KEY = "sk_live_n0b0dyMayReadThisKeyAnywhere"
#: No test waits for a server that hangs longer than this.
HANGS_FOR = 5.0
#: After so long an order that is late is carried out: its client has given up by then.
LATE = 0.6

Answer = tuple[int, Any]

#: Every way in which a call may fail, and whether it is carried out all the same.
FAULTS = {
    "429": False,
    "500": False,
    "503": False,
    "hang": False,
    "drop": False,
    "lost": True,
    "late": True,
    "malformed": True,
    "wrong": True,
    "html": True,
}


@functools.cache
def description() -> OpenAPI:
    return OpenAPI.from_file_path(str(Path(__file__).parent / "backend-api.yml"))


class Clerk:
    """What the instance holds, and how it misbehaves."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.sign_in_tokens: dict[str, str] = {}
        #: Operations in the order in which they were asked for, by the names of the description.
        self.asked: list[str] = []
        #: Which versions of the API were asked for.
        self.versions: set[str] = set()
        #: What came with each request that made something.
        self.sent: list[dict[str, Any]] = []
        #: For each operation, what is wrong with its next calls, and what with all of them.
        self.next: dict[str, list[str]] = {}
        self.always: dict[str, str] = {}
        self.retry_after = "1"
        #: Called before a user is made, with what was sent; whatever it raises is in `trouble`.
        self.before_create: Callable[[dict[str, Any]], None] | None = None
        #: Called after each operation.
        self.after: Callable[[str], None] | None = None
        self.trouble: list[BaseException] = []
        self.violations: list[str] = []
        self.lock = threading.RLock()
        self.released = threading.Event()
        self.late: list[threading.Thread] = []
        self._numbers = itertools.count(1)
        self._clock = itertools.count(1_700_000_000_000, 10)

    # What the tests look at

    def keys(self) -> list[str]:
        return sorted(str(each["external_id"]) for each in self.users.values())

    def recover(self) -> None:
        self.next.clear()
        self.always.clear()
        self.released.set()
        for each in self.late:
            each.join(timeout=HANGS_FOR)
        self.released = threading.Event()

    def fault_of(self, operation: str) -> str:
        with self.lock:
            waiting = self.next.get(operation)
            return waiting.pop(0) if waiting else self.always.get(operation, "")

    # What Clerk does

    def add(self, **values: Any) -> dict[str, Any]:
        """A user, as whoever else made it: through the product's own pages, or by another system."""
        addresses = values.pop("email_address", [])
        now, number = next(self._clock), next(self._numbers)
        user = {
            "id": f"user_{number:08d}",
            "object": "user",
            "external_id": None,
            "primary_email_address_id": f"idn_{number}_0" if addresses else None,
            "primary_phone_number_id": None,
            "primary_web3_wallet_id": None,
            "username": None,
            "first_name": None,
            "last_name": None,
            "locale": None,
            "has_image": False,
            "image_url": "https://img.example.com/none.png",
            "public_metadata": {},
            "private_metadata": {},
            "unsafe_metadata": {},
            "email_addresses": [_address(number, at, each, now) for at, each in enumerate(addresses)],
            "phone_numbers": [],
            "web3_wallets": [],
            "passkeys": [],
            "password_enabled": False,
            "two_factor_enabled": False,
            "totp_enabled": False,
            "backup_code_enabled": False,
            "mfa_enabled_at": None,
            "mfa_disabled_at": None,
            "password_last_updated_at": None,
            "external_accounts": [],
            "saml_accounts": [],
            "enterprise_accounts": [],
            "last_sign_in_at": None,
            "banned": False,
            "locked": False,
            "lockout_expires_in_seconds": None,
            "verification_attempts_remaining": 100,
            "created_at": now,
            "updated_at": now,
            "delete_self_enabled": True,
            "create_organization_enabled": True,
            "create_organizations_limit": None,
            "last_active_at": None,
            "legal_accepted_at": None,
            **values,
        }
        self.users[user["id"]] = user
        return user

    def create_user(self, query: dict[str, list[str]], body: Any) -> Answer:
        if self.before_create is not None:
            try:
                self.before_create(body)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.trouble.append(error)
        wanted = dict(body)
        for name in ("skip_password_requirement", "skip_legal_checks"):
            wanted.pop(name, None)
        addresses = [each.lower() for each in wanted.pop("email_address", [])]
        taken = {each["email_address"] for user in self.users.values() for each in user["email_addresses"]}
        known = {user["external_id"] for user in self.users.values()} - {None}
        if taken & set(addresses):
            return 422, _errors("form_identifier_exists", "That email address is taken. Please try another.")
        if wanted.get("external_id") in known:
            return 422, _errors("form_identifier_exists", "That external ID is taken.")
        self.sent.append(dict(body))
        return 200, self.add(email_address=addresses, **wanted)

    def get_user_list(self, query: dict[str, list[str]], body: Any) -> Answer:
        found = list(self.users.values())
        for each in query.get("external_id", []):
            sign, name = (each[0], each[1:]) if each[0] in "+-" else ("+", each)
            found = [user for user in found if (user["external_id"] == name) == (sign == "+")]
        if "created_at_after" in query:
            found = [user for user in found if user["created_at"] > int(query["created_at_after"][0])]
        order = query.get("order_by", ["-created_at"])[0]
        found.sort(key=lambda user: (user["created_at"], user["id"]), reverse=order.startswith("-"))
        offset, limit = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["10"])[0])
        return 200, found[offset : offset + limit]

    def get_user(self, user_id: str) -> Answer:
        user = self.users.get(user_id)
        return (200, user) if user else (404, _errors("resource_not_found", "not found"))

    def delete_user(self, user_id: str) -> Answer:
        user = self.users.pop(user_id, None)
        if user is None:
            return 404, _errors("resource_not_found", "not found")
        return 200, {"object": "user", "id": user_id, "deleted": True}

    def create_sign_in_token(self, query: dict[str, list[str]], body: Any) -> Answer:
        if body["user_id"] not in self.users:
            return 404, _errors("resource_not_found", "not found")
        number, now = next(self._numbers), next(self._clock)
        token = f"ticket-n0b0dyMayReadThis{number}"
        self.sent.append(dict(body))
        self.sign_in_tokens[token] = body["user_id"]
        return 200, {
            "object": "sign_in_token",
            "id": f"sit_{number}",
            "user_id": body["user_id"],
            "token": token,
            "status": "pending",
            "url": f"https://accounts.example.com/v1/tickets/accept?ticket={token}",
            "created_at": now,
            "updated_at": now,
        }

    def create_testing_token(self, query: dict[str, list[str]], body: Any) -> Answer:
        return 200, {
            "object": "testing_token",
            "token": "1713877200-n0b0dyMayReadThis",
            "expires_at": int(time.time()) + 3600,
        }


def _errors(code: str, message: str) -> dict[str, Any]:
    one = {"message": message, "long_message": f"{message} (key=SECRET)", "code": code}
    return {"errors": [one], "clerk_trace_id": "trace_1"}


def _address(number: int, at: int, address: str, now: int) -> dict[str, Any]:
    return {
        "id": f"idn_{number}_{at}",
        "object": "email_address",
        "email_address": address,
        "reserved": False,
        "verification": {
            "object": "verification_admin",
            "status": "verified",
            "strategy": "admin",
            "attempts": None,
            "expire_at": None,
        },
        "linked_to": [],
        "created_at": now,
        "updated_at": now,
    }


class _Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        clerk: Clerk = self.server.clerk
        url = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = parse_qs(url.query, keep_blank_values=True)
        operation, work = self._operation(method, url.path, query, json.loads(sent) if sent else None)
        asked = MockRequest(
            "http://127.0.0.1",
            method.lower(),
            url.path,
            args={name: found if len(found) > 1 else found[0] for name, found in query.items()},
            headers=dict(self.headers),
            data=sent or None,
            content_type=self.headers.get("Content-Type") or "application/json",
        )
        self._hold(operation, lambda: description().validate_request(asked))
        clerk.asked.append(operation)
        clerk.versions.add(self.headers.get("Clerk-API-Version", ""))
        fault = clerk.fault_of(operation)
        if fault in ("hang", "drop"):
            if fault == "hang":
                clerk.released.wait(HANGS_FOR)
            self._hang_up()
            return
        if fault.isdecimal():
            body = _errors("too_many_requests" if fault == "429" else "internal_clerk_error", "trouble")
            # The description has no word for these; their shape is the one of every error.
            self._hold(operation, lambda: _validate(_ANY_ERROR, _ANY_ERROR_STATUS, body))
            headers = {"Retry-After": clerk.retry_after} if fault == "429" else {}
            self._answer(int(fault), json.dumps(body).encode(), headers=headers)
            return
        if fault == "late":
            late = threading.Timer(LATE, lambda: self._carry_out(operation, work))
            clerk.late.append(late)
            late.start()
            clerk.released.wait(HANGS_FOR)
            self._hang_up()
            return
        status, body = self._carry_out(operation, work)
        if fault == "lost":
            self._hang_up()
        elif fault == "malformed":
            self._answer(status, json.dumps(body).encode()[:-1])
        elif fault == "wrong":
            self._answer(status, json.dumps({"id": 17, "object": "spoon", "token": None}).encode())
        elif fault == "html":
            self._answer(status, b"<html>Log in to the hotel's network</html>", kind="text/html")
        else:
            self._hold(operation, lambda: _validate(asked, status, body))
            self._answer(status, json.dumps(body).encode())

    def _carry_out(self, operation: str, work: Callable[[], Answer]) -> Answer:
        clerk: Clerk = self.server.clerk
        if self.headers.get("Authorization") != f"Bearer {SECRET_KEY}":
            return 401, _errors("authentication_invalid", "Invalid authentication")
        with clerk.lock:
            found = work()
        if clerk.after is not None:
            try:
                clerk.after(operation)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                clerk.trouble.append(error)
        return found

    def _operation(
        self, method: str, path: str, query: dict[str, list[str]], body: Any
    ) -> tuple[str, Callable[[], Answer]]:
        clerk: Clerk = self.server.clerk
        user = path.removeprefix("/users/")
        match method, path:
            case "POST", "/users":
                return "CreateUser", lambda: clerk.create_user(query, body)
            case "GET", "/users":
                return "GetUserList", lambda: clerk.get_user_list(query, body)
            case "POST", "/sign_in_tokens":
                return "CreateSignInToken", lambda: clerk.create_sign_in_token(query, body)
            case "POST", "/testing_tokens":
                return "CreateTestingToken", lambda: clerk.create_testing_token(query, body)
            case "GET", _:
                return "GetUser", lambda: clerk.get_user(user)
            case _:
                return "DeleteUser", lambda: clerk.delete_user(user)

    def _hold(self, operation: str, validate: Callable[[], Any]) -> None:
        try:
            validate()
        except Exception as error:  # noqa: BLE001 - whatever does not hold
            reasons = getattr(error.__cause__, "schema_errors", None) or [error.__cause__ or error]
            self.server.clerk.violations += [f"{operation}: {reason}" for reason in reasons]

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _answer(
        self,
        status: int,
        text: bytes,
        *,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Type": kind, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except OSError:
            pass  # the client has hung up


_ANY_ERROR = MockRequest("http://127.0.0.1", "get", "/users")
_ANY_ERROR_STATUS = 400


def _validate(request: MockRequest, status: int, body: Any) -> None:
    description().validate_response(request, MockResponse(json.dumps(body).encode(), status))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a lost answer closes the socket under the handler


class Running:
    """The stand-in behind a real socket, within a block."""

    def __init__(self) -> None:
        self.clerk = Clerk()
        self.server: Any = _Server(("127.0.0.1", 0), _Handler)
        self.server.clerk = self.clerk
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Running:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.clerk.recover()
        self.server.shutdown()
        self.server.server_close()
