"""Clerk's webhook: real signatures of svix, and what an event may change."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from svix.webhooks import Webhook

from stagehand_testdata.contrib import clerk as clerk_py
from stagehand_testdata.models import AuditEntry, SpentToken, TestEntity, TestRun
from stagehand_testdata.operations import runs
from tests.conftest import Wire, error_of
from tests.outside.clerk.standin import Clerk

from .conftest import WEBHOOK_SECRET
from .test_clerk import TYPE, entries, long_ago, run, user_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.contrib.urls_clerk")]

User = get_user_model()
OTHER_SECRET = "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCE="


@pytest.fixture
def wire(transactional_db: None, new_wire: Callable[[], Wire], clerk: Clerk) -> Wire:
    return new_wire()


def signed(
    body: bytes, *, message: str = "msg_1", at: float | None = None, secret: str = WEBHOOK_SECRET
) -> dict[str, str]:
    when = dt.datetime.fromtimestamp(int(at or time.time()), dt.UTC)
    return {
        "svix-id": message,
        "svix-timestamp": str(int(when.timestamp())),
        "svix-signature": Webhook(secret).sign(message, when, body.decode()),
    }


def post(body: bytes, headers: dict[str, str]) -> Any:
    browser = Client(raise_request_exception=False, enforce_csrf_checks=True)
    return browser.generic("POST", "/hooks/clerk", body, content_type="application/json", headers=headers)


def event(kind: str, data: Any) -> bytes:
    return json.dumps({"object": "event", "type": kind, "data": data}).encode()


def send(kind: str, data: Any, **options: Any) -> bool:
    body = event(kind, data)
    response = post(body, signed(body, **options))
    assert response.status_code == 200, response.content
    ours: bool = response.json()["ours"]
    return ours


def gone(user: str) -> dict[str, Any]:
    return {"id": user, "object": "user", "deleted": True}


class TestUserCreated:
    def test_links_a_user_whose_answer_was_lost(self, wire: Wire, clerk: Clerk) -> None:
        clerk.always.update(CreateUser="lost", GetUserList="500")
        assert wire.post("clients").status_code == 502
        [user] = clerk.users.values()
        assert send("user.created", user)
        [entry] = entries()
        assert (entry.reference, entry.tombstone) == (user["id"], 0)
        clerk.recover()
        long_ago()
        assert wire.cleanup()["success"]
        assert clerk.users == {}

    def test_links_its_account_where_a_column_is_named(self, wire: Wire, clerk: Clerk, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "IDENTITY_FIELD": "last_name"}
        clerk.always.update(CreateUser="lost", GetUserList="500")
        assert wire.post("clients").status_code == 502
        assert user_of(wire).last_name == ""
        [user] = clerk.users.values()
        assert send("user.created", user)
        assert user_of(wire).last_name == user["id"]
        assert send("user.deleted", gone(user["id"]), message="msg_2")
        assert user_of(wire).last_name == ""

    def test_changes_nothing_where_the_answer_came(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        before = list(TestEntity.objects.values()), AuditEntry.objects.count()
        [user] = clerk.users.values()
        assert send("user.created", user)
        assert (list(TestEntity.objects.values()), AuditEntry.objects.count()) == before

    def test_is_kept_where_the_making_fails_after_it(self, wire: Wire, clerk: Clerk) -> None:
        clerk.always.update(CreateUser="malformed", GetUserList="500")

        def tell(operation: str) -> None:
            try:
                if operation == "CreateUser" and len(clerk.asked) == 1:
                    [user] = clerk.users.values()
                    assert send("user.created", user)
            finally:
                connections.close_all()

        clerk.after = tell
        assert wire.post("clients").status_code == 502
        assert [each.reference for each in entries()] == list(clerk.users)
        clerk.recover()
        assert wire.cleanup()["success"]
        assert clerk.users == {}

    def test_of_a_user_who_came_after_the_purge_opens_the_books_again(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        [user] = clerk.users.values()
        assert wire.cleanup()["success"]
        clerk.users[user["id"]] = user
        assert send("user.created", user)
        assert TestRun.objects.get().state == TestRun.State.CLOSING
        assert run("purge_test_data", "--run", wire.test_id).status == 0
        assert clerk.users == {}
        assert TestRun.objects.get().state == TestRun.State.CLOSED

    def test_of_a_second_user_under_the_same_key_is_not_believed(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        [user] = clerk.users.values()
        assert not send("user.created", {**user, "id": "user_other"})
        assert entries()[0].reference == user["id"]

    def test_of_a_real_user_changes_nothing(self, wire: Wire, clerk: Clerk, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "IDENTITY_FIELD": "last_name"}
        wire.make("clients")
        real = User.objects.create_user("real", "real@example.com", last_name="Real")
        before = list(User.objects.order_by("pk").values()), list(TestEntity.objects.values())
        for number, marks in enumerate(
            [
                {},
                {"external_id": str(real.pk)},
                {"external_id": f"{wire.test_id}-0123456789abcdef"},
                {"email_addresses": [{"email_address": f"{wire.test_id}_client@example.com"}]},
                {"public_metadata": {"stagehand_testdata": {"key": entries()[0].key_text}}},
                {"unsafe_metadata": {"stagehand_testdata": {"key": entries()[0].key_text}}},
            ]
        ):
            assert not send("user.created", {"id": f"user_real{number}", **marks}, message=f"msg_{number}")
        assert (list(User.objects.order_by("pk").values()), list(TestEntity.objects.values())) == before

    def test_costs_no_look_into_the_ledger_for_a_real_user(self, wire: Wire) -> None:
        with CaptureQueriesContext(connection) as asked:
            assert not send("user.created", {"id": "user_real", "external_id": "17"})
        assert not any("testentity" in each["sql"] for each in asked.captured_queries)


class TestUserDeleted:
    def test_closes_the_entry(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        [user] = clerk.users
        clerk.users.clear()
        assert send("user.deleted", gone(user))
        assert entries()[0].state == "gone"
        assert wire.cleanup()["alreadyGone"][TYPE] == 1

    def test_of_a_real_user_changes_nothing(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        before = list(TestEntity.objects.values())
        assert not send("user.deleted", gone("user_real"))
        assert not send("user.deleted", gone(""), message="msg_2")
        assert not send("user.deleted", gone(entries()[0].key_text), message="msg_3")
        assert list(TestEntity.objects.values()) == before

    def test_of_a_user_whom_a_purge_removed_says_that_there_is_nothing_to_do(
        self, wire: Wire, clerk: Clerk
    ) -> None:
        wire.make("clients")
        [user] = clerk.users
        assert wire.cleanup()["success"]
        assert not send("user.deleted", gone(user))

    @pytest.mark.parametrize("user", ["\0", "a\nb", "x" * 300, 17, None, ["user_1"], {"a": 1}])
    def test_of_what_is_no_user_changes_nothing(self, wire: Wire, clerk: Clerk, user: Any) -> None:
        wire.make("clients")
        [known] = clerk.users.values()
        assert not send("user.deleted", {**gone("x"), "id": user})
        assert not send("user.created", {**known, "id": user}, message="msg_2")
        key = f"{known['external_id']}\0" if user == "\0" else user
        assert not send("user.created", {"id": "user_1", "external_id": key}, message="msg_3")
        assert entries()[0].tombstone == 0

    def test_is_in_the_audit(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        [user] = clerk.users
        send("user.deleted", gone(user))
        row = AuditEntry.objects.get(operation="identity.unlink")
        assert (row.via, row.asked, row.test_id) == ("code", "clerk.webhook", wire.test_id)
        assert user not in str(AuditEntry.objects.filter(pk=row.pk).values())


class TestWhatIsRefused:
    @pytest.fixture
    def known(self, wire: Wire, clerk: Clerk) -> str:
        wire.make("clients")
        return next(iter(clerk.users))

    def refused(self, body: bytes, headers: dict[str, str]) -> None:
        response = post(body, headers)
        assert error_of(response) == (400, "invalid_webhook")
        assert entries()[0].tombstone == 0

    def test_another_secret(self, known: str) -> None:
        body = event("user.deleted", gone(known))
        self.refused(body, signed(body, secret=OTHER_SECRET))

    def test_another_body(self, known: str) -> None:
        self.refused(event("user.deleted", gone(known)), signed(event("user.deleted", gone("user_real"))))

    @pytest.mark.parametrize("minutes", [-6, 6])
    def test_another_time(self, known: str, minutes: int) -> None:
        body = event("user.deleted", gone(known))
        self.refused(body, signed(body, at=time.time() + 60 * minutes))

    @pytest.mark.parametrize("name", ["svix-id", "svix-timestamp", "svix-signature"])
    @pytest.mark.parametrize("value", [None, "", "x", "\u00e9", "9" * 400, "v1,"])
    def test_a_header_that_is_none(self, known: str, name: str, value: str | None) -> None:
        body = event("user.deleted", gone(known))
        headers = {**signed(body), name: value}
        self.refused(body, {name: text for name, text in headers.items() if text is not None})

    @pytest.mark.parametrize("body", [b"", b"null", b"[]", b'{"data": 1}', b"[" * 100_000, b'{"type": "x"}'])
    def test_a_body_that_is_no_event(self, known: str, body: bytes) -> None:
        self.refused(body, signed(body))

    def test_a_body_that_is_no_text(self, known: str) -> None:
        self.refused(b"\xff\xfe", signed(b"{}"))

    def test_the_same_request_once_more(self, wire: Wire, clerk: Clerk, known: str) -> None:
        body = event("user.created", clerk.users[known])
        headers = signed(body)
        assert post(body, headers).status_code == 200
        self.refused(body, headers)

    def test_an_event_that_is_sent_once_more_is_taken_and_changes_nothing(
        self, wire: Wire, clerk: Clerk, known: str
    ) -> None:
        now = time.time()
        assert send("user.deleted", gone(known), at=now - 60)
        before = list(TestEntity.objects.values())
        assert not send("user.deleted", gone(known), at=now)
        assert list(TestEntity.objects.values()) == before

    def test_what_was_refused_is_not_remembered(self, known: str) -> None:
        body = event("user.deleted", gone(known))
        self.refused(body, {**signed(body), "svix-signature": "v1,AAAA"})
        assert not SpentToken.objects.exists()

    def test_too_large_a_body(self, known: str, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "MAX_BODY_BYTES": 100}
        body = event("user.deleted", gone(known))
        body += b" " * 100
        assert error_of(post(body, signed(body))) == (413, "body_too_large")

    @pytest.mark.parametrize("method", ["get", "put", "delete", "head"])
    def test_another_method(self, known: str, method: str) -> None:
        response = getattr(Client(), method)("/hooks/clerk")
        assert (response.status_code, response.headers["Allow"]) == (405, "POST")

    def test_everything_where_no_secret_is_set(self, known: str, settings: Any) -> None:
        options = settings.STAGEHAND_TESTDATA["IDENTITY_OPTIONS"]
        options = {name: value for name, value in options.items() if name != "webhook_secret"}
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "IDENTITY_OPTIONS": options}
        body = event("user.deleted", gone(known))
        assert error_of(post(body, signed(body))) == (503, "misconfigured")
        assert entries()[0].tombstone == 0

    def test_says_nothing_secret(self, known: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("DEBUG")
        body = event("user.deleted", gone(known))
        for headers in (signed(body, secret=OTHER_SECRET), {**signed(body), "svix-timestamp": "x"}):
            answer = post(body, headers).content.decode()
            for secret in (WEBHOOK_SECRET, OTHER_SECRET, headers["svix-signature"]):
                assert secret not in answer + caplog.text


def test_works_with_the_gate_closed(wire: Wire, clerk: Clerk, settings: Any) -> None:
    wire.make("clients")
    [user] = clerk.users
    settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "ENABLED": False}
    assert send("user.deleted", gone(user))


def test_has_transactions_of_its_own_in_the_database_of_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ledger_alias", lambda: "ledger")
    spec = importlib.util.spec_from_file_location("stagehand_testdata.contrib.clerk_again", clerk_py.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again.webhook._non_atomic_requests == {"ledger"}


def test_works_within_a_transaction_of_the_hosts_request(wire: Wire, clerk: Clerk, settings: Any) -> None:
    wire.make("clients")
    [user] = clerk.users
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert send("user.deleted", gone(user))
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert entries()[0].state == "gone"
