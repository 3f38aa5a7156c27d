"""Clerk fails at each call of a user's life: nobody there without an entry, nothing left once it is well."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections

from stagehand_testdata.models import AuditEntry, TestEntity, TestRun
from stagehand_testdata.operations import audit
from tests.conftest import Wire, error_of
from tests.outside.clerk.standin import FAULTS, SECRET_KEY, Clerk

from .conftest import WEBHOOK_SECRET
from .test_clerk import TYPE, entries, long_ago, run, session, user_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("impatient")]

User = get_user_model()
CALLS = ["CreateUser", "GetUserList", "GetUser", "DeleteUser", "CreateSignInToken", "CreateTestingToken"]


@pytest.fixture
def wire(transactional_db: None, new_wire: Callable[[], Wire]) -> Wire:
    return new_wire()


@pytest.fixture
def real(clerk: Clerk) -> dict[str, Any]:
    """Somebody who has nothing to do with tests; a user is looked for while he is made, too."""
    clerk.retry_after = "0"

    def look(sent: dict[str, Any]) -> None:
        try:
            assert TestEntity.objects.standing().filter(key_text=sent["external_id"]).exists()
        finally:
            connections.close_all()

    clerk.before_create = look
    return clerk.add(email_address=["real@shop.example.org"], external_id="17")


def no_user_without_entry(clerk: Clerk) -> None:
    standing = set(TestEntity.objects.standing().filter(type=TYPE).values_list("key_text", flat=True))
    with clerk.lock:
        assert set(clerk.keys()) - {"17"} <= standing


def is_as_before(clerk: Clerk, real: dict[str, Any]) -> None:
    assert clerk.users == {real["id"]: real}
    assert User.objects.count() == 0
    assert TestRun.objects.get().state == TestRun.State.CLOSED
    assert audit.audit().clean


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
class TestAFault:
    def test_that_passes_is_made_good_by_another_attempt(
        self, wire: Wire, clerk: Clerk, real: dict[str, Any], call: str, fault: str
    ) -> None:
        clerk.next[call] = [fault]
        if call == "GetUserList":
            clerk.next["CreateUser"] = ["lost"]  # or nobody would be looked for
        wire.make("clients")
        no_user_without_entry(clerk)
        assert session(wire, user_of(wire)).status_code == 201
        assert wire.cleanup()["success"]
        assert clerk.next[call] == []
        clerk.recover()
        is_as_before(clerk, real)

    def test_that_stays_leaves_nothing_once_it_is_over(
        self, wire: Wire, clerk: Clerk, real: dict[str, Any], call: str, fault: str
    ) -> None:
        clerk.always[call] = fault
        if call == "GetUserList":
            clerk.always["CreateUser"] = "malformed"
        made = wire.post("clients")
        no_user_without_entry(clerk)
        assert made.status_code == (502 if call in ("CreateUser", "GetUserList") else 201)
        signed_in = session(wire, user_of(wire))
        no_user_without_entry(clerk)
        if made.status_code == 201:
            assert signed_in.status_code == (201 if call == "DeleteUser" else 502)
        first = wire.post("cleanup")
        assert first.status_code in (200, 409)
        no_user_without_entry(clerk)
        clerk.recover()
        no_user_without_entry(clerk)
        long_ago()
        assert wire.cleanup()["success"]
        is_as_before(clerk, real)


class TestComingBackLater:
    def test_waits_for_as_long_as_clerk_says(self, wire: Wire, clerk: Clerk) -> None:
        clerk.next["CreateUser"] = ["429"]
        began = time.monotonic()
        wire.make("clients")
        assert time.monotonic() - began >= 1

    @pytest.mark.parametrize("wait", ["3600", "1e9"])
    def test_does_not_wait_for_long_and_asks_no_more(self, wire: Wire, clerk: Clerk, wait: str) -> None:
        clerk.always["CreateUser"], clerk.retry_after = "429", wait
        began = time.monotonic()
        assert error_of(wire.post("clients")) == (502, "external_failed")
        assert time.monotonic() - began < 3
        assert clerk.asked == ["CreateUser"]

    @pytest.mark.parametrize("wait", ["", "soon", "nan", "-5", "Wed, 21 Oct 2026 07:28:00 GMT"])
    def test_takes_what_is_no_number_for_nothing(self, wire: Wire, clerk: Clerk, wait: str) -> None:
        clerk.next["CreateUser"], clerk.retry_after = ["429"], wait
        wire.make("clients")


class TestNoAnswer:
    def test_a_purge_gives_what_was_not_answered_time_to_come(self, wire: Wire, clerk: Clerk) -> None:
        clerk.always["CreateUser"] = "late"
        assert wire.post("clients").status_code == 502
        assert wire.cleanup(409)["quarantined"][0]["reason"] == "external_being_made"
        clerk.recover()
        assert len(clerk.users) == 1
        long_ago()
        assert wire.cleanup()["success"]
        assert clerk.users == {}

    def test_where_nobody_listened_there_is_nothing_to_wait_for(
        self, wire: Wire, clerk: Clerk, settings: Any
    ) -> None:
        before = settings.STAGEHAND_TESTDATA
        options = {**before["IDENTITY_OPTIONS"], "server_url": "http://127.0.0.1:9"}
        settings.STAGEHAND_TESTDATA = {**before, "IDENTITY_OPTIONS": options}
        assert wire.post("clients").status_code == 502
        settings.STAGEHAND_TESTDATA = before
        assert wire.cleanup()["success"]

    def test_the_purge_command_says_what_stays_and_comes_back(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        clerk.always["DeleteUser"] = "500"
        done = run("purge_test_data", "--run", wire.test_id)
        assert done.status == 1
        assert "the outside system did not remove it" in done.out
        clerk.recover()
        assert run("purge_test_data", "--run", wire.test_id).status == 0
        assert clerk.users == {}


KILLED = """
import os, signal, django
django.setup()
from django.conf import settings
from django.db import connection
connection.settings_dict["NAME"] = {database!r}
settings.STAGEHAND_TESTDATA = {{**settings.STAGEHAND_TESTDATA,
    "IDENTITY_PROVIDER": "stagehand_testdata.contrib.clerk.Clerk",
    "IDENTITY_OPTIONS": {options!r}}}
from stagehand_testdata.contrib.clerk import Clerk
from stagehand_testdata.operations import entities
plain = Clerk.create
def create(self, key, fields):
    if {when!r} == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    made = plain(self, key, fields)
    os.kill(os.getpid(), signal.SIGKILL)
Clerk.create = create
entities.perform({test_id!r}, "", lambda call: call.create("user"))
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_killed_around_the_call_leaves_an_entry_that_clears(
    wire: Wire, clerk: Clerk, settings: Any, when: str
) -> None:
    options = settings.STAGEHAND_TESTDATA["IDENTITY_OPTIONS"]
    script = KILLED.format(
        database=connection.settings_dict["NAME"], options=options, when=when, test_id=wire.test_id
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=90, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(clerk.users) == (when == "after")
    [entry] = entries()
    assert (entry.reason, entry.reference) == ("external_being_made", "")
    assert wire.cleanup(409)["quarantined"][0]["reason"] == "external_being_made"
    long_ago()
    assert wire.cleanup()["success"]
    assert clerk.users == {}
    assert User.objects.count() == 0


SECRETS = [SECRET_KEY, WEBHOOK_SECRET, "n0b0dyMayReadThis", "key=SECRET"]


@pytest.mark.parametrize("fault", ["429", "500", "lost", "malformed", "wrong", "html", ""])
def test_no_secret_gets_into_a_log_an_answer_or_a_table(  # noqa: PLR0917
    wire: Wire,
    clerk: Clerk,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    settings: Any,
    fault: str,
) -> None:
    clerk.retry_after = "0"
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    for debug in (False, True):
        settings.DEBUG = debug
        wire = Wire(f"stagehand_test_secrets{debug}")
        clerk.always = {} if not fault else {"CreateSignInToken": fault, "CreateTestingToken": fault}
        told.append(wire.post("clients").content.decode())
        shown = session(wire, user_of(wire))
        if shown.status_code != 201:
            told.append(shown.content.decode())
        clerk.recover()
        clerk.always = dict.fromkeys(CALLS, fault) if fault else {}
        told.append(wire.post("builders").content.decode())
        told.append(run("testdata", "audit", "--external").out)
        told.append(wire.post("cleanup").content.decode())
        clerk.recover()
        told.append(run("purge_test_data", "--run", wire.test_id).out)
        told.append(wire.get("runs").content.decode())
    told += [record.getMessage() + str(record.exc_info or "") for record in caplog.records]
    told += [caplog.text, *capsys.readouterr()]
    told += [str(row) for model in (AuditEntry, TestEntity, TestRun) for row in model.objects.values()]
    for text in told:
        for secret in SECRETS:
            assert secret not in text
