"""Users at Clerk, through the real API, against a stand-in that Clerk's own description is held against."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.db.models.functions import Now

from stagehand_testdata.models import TestEntity, TestRun
from tests.conftest import Wire, error_of
from tests.guarding import guards_up
from tests.management.running import run_command
from tests.outside.clerk.standin import Clerk

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()
TYPE = "identity.clerk"


@pytest.fixture
def wire(transactional_db: None, new_wire: Callable[[], Wire]) -> Wire:
    return new_wire()


class Done(NamedTuple):
    status: int
    out: str

    def json(self) -> Any:
        return json.loads(self.out)


def run(*arguments: str) -> Done:
    return Done(*run_command(*arguments))


def entries() -> list[TestEntity]:
    return list(TestEntity.objects.filter(type__startswith="identity.").order_by("pk"))


def long_ago() -> None:
    """Whatever is being made must have been answered by now, as the database's clock has it."""
    TestEntity.objects.update(created_at=Now() - dt.timedelta(hours=1))


def user_of(wire: Wire) -> Any:
    found = wire.get(f"runs/{wire.test_id}/entities?type=auth.user").json()["results"]
    return User.objects.get(pk=found[-1]["id"])


def session(wire: Wire, user: Any) -> Any:
    return wire.post(f"runs/{wire.test_id}/sessions", {"userId": str(user.pk)})


class TestMaking:
    def test_a_client_and_a_builder_have_a_user_at_clerk_each(self, wire: Wire, clerk: Clerk) -> None:
        made = [wire.make("clients"), wire.make("builders")]
        emails = [user["email_addresses"][0]["email_address"] for user in clerk.users.values()]
        assert emails == [each["email"] for each in made]
        assert [(each.reference, each.key_text) for each in entries()] == [
            (user["id"], user["external_id"]) for user in clerk.users.values()
        ]

    def test_its_entry_is_committed_before_it_is_made(self, wire: Wire, clerk: Clerk) -> None:
        seen = []

        def look(sent: dict[str, Any]) -> None:
            try:
                seen.append(TestEntity.objects.standing().get(key_text=sent["external_id"]).reason)
            finally:
                connections.close_all()

        clerk.before_create = look
        wire.make("clients")
        assert seen == ["external_being_made"]

    def test_carries_the_key_of_the_ledger_where_only_the_backend_writes(
        self, wire: Wire, clerk: Clerk
    ) -> None:
        wire.make("clients")
        [sent], [entry] = clerk.sent, entries()
        assert entry.key_text.startswith(f"{wire.test_id}-")
        assert sent["external_id"] == entry.key_text
        assert sent["private_metadata"] == {
            "stagehand_testdata": {"key": entry.key_text, "environment": "test"}
        }
        assert not {"password", "public_metadata", "unsafe_metadata"} & set(sent)

    def test_every_row_of_a_batch_and_of_a_scenario_has_one(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("batch", {"clients": 2, "builders": 1})
        wire.make("booking-scenarios")
        wire.entity("user")
        assert len(clerk.users) == 6 == User.objects.count()
        assert clerk.keys() == sorted(each.key_text for each in entries())

    def test_a_row_that_is_no_account_has_none(self, wire: Wire, clerk: Clerk) -> None:
        wire.entity("voucher")
        assert clerk.asked == []

    def test_an_account_without_an_address_gets_one_that_nobody_can_own(
        self, wire: Wire, clerk: Clerk
    ) -> None:
        wire.entity("user", email="")
        [user], [entry] = clerk.users.values(), entries()
        [address] = [each["email_address"] for each in user["email_addresses"]]
        assert address == f"{entry.key_text[-48:]}@example.com"

    @pytest.mark.parametrize("address", ["a+clerk_test@example.com", "A+CLERK_TEST@example.org"])
    def test_no_address_that_test_mode_would_open(self, wire: Wire, clerk: Clerk, address: str) -> None:
        response = wire.post("clients", {"email": address})
        assert error_of(response) == (400, "invalid_body")
        assert "Test mode" in response.json()["message"]
        assert (clerk.asked, User.objects.count(), entries()) == ([], 0, [])

    def test_no_address_that_somebody_may_own(self, wire: Wire, clerk: Clerk) -> None:
        from tests.making import registered

        with registered(owned="tests.contrib.factories.OwnedAddressFactory"):
            assert error_of(wire.post("entities/owned")) == (500, "factory_failed")
        assert (clerk.asked, User.objects.count(), entries()) == ([], 0, [])

    def test_a_shadow_call_makes_none(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients", {"shadow": True})
        wire.make("clients", {"shadow": True, "deep": True})
        assert clerk.asked == []

    def test_a_call_that_fails_makes_none(self, wire: Wire, clerk: Clerk) -> None:
        assert wire.post("batch", {"clients": 1, "failing": 1}).status_code == 500
        assert (clerk.asked, entries()) == ([], [])

    def test_an_address_that_is_taken_there_is_a_502_and_its_rows_go_with_the_run(
        self, wire: Wire, clerk: Clerk
    ) -> None:
        real = clerk.add(email_address=["shared@example.com"])
        assert error_of(wire.post("clients", {"email": "shared@example.com"})) == (502, "external_failed")
        assert list(clerk.users) == [real["id"]]
        assert wire.cleanup()["success"]
        assert list(clerk.users) == [real["id"]]
        assert User.objects.count() == 0

    def test_whose_answer_is_lost_is_made_once(self, wire: Wire, clerk: Clerk) -> None:
        clerk.next["CreateUser"] = ["lost"]
        wire.make("clients")
        assert clerk.asked == ["CreateUser", "CreateUser", "GetUserList"]
        assert [each.reference for each in entries()] == list(clerk.users)

    def test_asks_for_the_version_of_the_api_that_the_docs_name(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        docs = (Path(__file__).resolve().parents[2] / "docs" / "clerk.md").read_text()
        [version] = clerk.versions
        assert f"`Clerk-API-Version: {version}`" in docs

    def test_repeated_under_an_idempotency_key_makes_one(self, wire: Wire, clerk: Clerk) -> None:
        key = {"Idempotency-Key": "once"}
        first, second = wire.post("clients", {}, **key), wire.post("clients", {}, **key)
        assert first.content == second.content
        assert len(clerk.users) == 1

    def test_another_idea_of_who_gets_one_is_a_subclass(
        self, wire: Wire, clerk: Clerk, settings: Any
    ) -> None:
        settings.STAGEHAND_TESTDATA = {
            **settings.STAGEHAND_TESTDATA,
            "IDENTITY_PROVIDER": "tests.contrib.factories.OnlyClients",
        }
        wire.make("builders")
        wire.make("clients")
        [user] = clerk.users.values()
        assert user["email_addresses"][0]["email_address"] == f"{wire.test_id}_client@example.com"
        assert clerk.sent[0]["skip_legal_checks"] is True
        # Whatever it adds, what proves the key is not its to change.
        assert user["external_id"] == entries()[0].key_text
        assert set(user["private_metadata"]) == {"plan", "stagehand_testdata"}
        assert wire.cleanup()["removed"]["identity.onlyclients"] == 1
        assert clerk.users == {}


class TestTheColumn:
    @pytest.fixture(autouse=True)
    def _column(self, clerk: Clerk, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "IDENTITY_FIELD": "last_name"}

    def test_holds_what_clerk_calls_the_user(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        assert user_of(wire).last_name == next(iter(clerk.users))

    def test_is_written_under_the_fence_of_the_guards_too(self, wire: Wire, clerk: Clerk) -> None:
        with guards_up():
            wire.make("clients")
            assert user_of(wire).last_name == next(iter(clerk.users))
            assert wire.cleanup()["success"]

    def test_is_no_clients_to_set(self, wire: Wire, clerk: Clerk) -> None:
        response = wire.post("entities/user", {"fields": {"last_name": "user_real"}})
        assert error_of(response) == (400, "invalid_body")
        assert User.objects.count() == 0

    def test_does_not_keep_the_account_from_being_the_runs(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        assert wire.cleanup()["success"]
        assert (User.objects.count(), clerk.users) == (0, {})

    def test_of_a_real_row_under_the_same_key_is_left_as_it_is(self, wire: Wire, clerk: Clerk) -> None:
        def swap(sent: dict[str, Any]) -> None:
            try:
                account = User.objects.get()
                TestEntity.objects.filter(model="auth.user").delete()
                User.objects.filter(pk=account.pk).update(username="somebody real")
            finally:
                connections.close_all()

        clerk.before_create = swap
        wire.make("clients")
        assert User.objects.get().last_name == ""


class TestSigningIn:
    def test_gives_a_link_of_clerks_and_both_tokens(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        user = user_of(wire)
        response = session(wire, user)
        assert response.status_code == 201, response.content
        answer = response.json()
        [reference] = clerk.users
        assert answer["identity"] == {
            "provider": "clerk",
            "userId": reference,
            "signInToken": next(iter(clerk.sign_in_tokens)),
            "testingToken": "1713877200-n0b0dyMayReadThis",
        }
        assert clerk.sign_in_tokens == {answer["identity"]["signInToken"]: reference}
        assert answer["link"].endswith(f"?ticket={answer['identity']['signInToken']}")
        assert (answer["userId"], answer["testId"]) == (str(user.pk), wire.test_id)

    def test_the_token_counts_for_as_long_as_a_link_does(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        session(wire, user_of(wire))
        assert clerk.sent[-1] == {"user_id": next(iter(clerk.users)), "expires_in_seconds": 300}

    def test_the_browser_is_put_under_the_run_and_has_no_session_of_djangos(
        self, wire: Wire, clerk: Clerk
    ) -> None:
        wire.make("clients")
        state = session(wire, user_of(wire)).json()["storageState"]
        assert [each["name"] for each in state["cookies"]] == ["testdata_pass"]

    def test_of_a_real_account_or_anothers_asks_clerk_nothing(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        real = User.objects.create_user("real", "real@example.com")
        clerk.asked.clear()
        assert error_of(session(wire, real)) == (404, "not_in_run")
        assert clerk.asked == []

    def test_of_an_account_that_has_no_user_there_is_refused(self, wire: Wire, clerk: Clerk) -> None:
        clerk.always["CreateUser"] = "500"
        assert error_of(wire.post("clients")) == (502, "external_failed")
        assert error_of(session(wire, user_of(wire))) == (409, "cannot_sign_in")

    def test_never_of_a_user_who_does_not_carry_the_key(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        real = clerk.add(email_address=["real@shop.example.org"])
        TestEntity.objects.filter(type=TYPE).update(reference=real["id"])
        assert error_of(session(wire, user_of(wire))) == (502, "external_failed")
        assert clerk.sign_in_tokens == {}

    def test_each_account_is_signed_in_as_its_own_user(self, wire: Wire, clerk: Clerk) -> None:
        made = [wire.make("clients") for _ in range(3)]
        for each in made:
            account = User.objects.get(email=each["email"])
            user = clerk.users[session(wire, account).json()["identity"]["userId"]]
            assert user["email_addresses"][0]["email_address"] == each["email"]


class TestRemoving:
    def test_goes_with_the_run(self, wire: Wire, clerk: Clerk) -> None:
        real = clerk.add(email_address=["real@shop.example.org"])
        wire.make("clients")
        receipt = wire.cleanup()
        assert receipt["removed"][TYPE] == 1
        assert list(clerk.users) == [real["id"]]

    def test_goes_by_the_purge_command(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        done = run("purge_test_data", "--run", wire.test_id)
        assert (done.status, clerk.users) == (0, {})

    def test_goes_with_the_gate_closed(self, wire: Wire, clerk: Clerk, settings: Any) -> None:
        wire.make("clients")
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "ENABLED": False}
        assert run("purge_test_data", "--run", wire.test_id).status == 0
        assert clerk.users == {}

    def test_a_listed_account_takes_its_user_along_and_no_other(self, wire: Wire, clerk: Clerk) -> None:
        first, second = wire.entity("user"), wire.entity("user")
        receipt = wire.cleanup(createdData=[{"type": "user", "id": first["id"]}])
        assert receipt["removed"] == {"user": 1, TYPE: 1}
        [user] = clerk.users.values()
        assert user["email_addresses"][0]["email_address"] == second["fields"]["email"]

    def test_one_that_is_gone_already_is_no_error(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        clerk.users.clear()
        assert wire.cleanup()["success"]

    @pytest.mark.parametrize("page", ["html", "malformed", "wrong"])
    def test_a_404_of_something_on_the_way_is_no_proof_that_it_is_gone(
        self, wire: Wire, clerk: Clerk, page: str
    ) -> None:
        wire.make("clients")
        [kept] = clerk.users
        clerk.users["aside"] = clerk.users.pop(kept)  # so that it answers 404, in a form of its own
        clerk.always["GetUser"] = page
        assert wire.cleanup(409)["quarantined"][0]["reason"] == "external_failed"
        clerk.users[kept] = clerk.users.pop("aside")
        clerk.recover()
        assert wire.cleanup()["success"]
        assert clerk.users == {}

    def test_a_product_that_gives_its_users_external_ids_of_its_own(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        [user] = clerk.users.values()
        user["external_id"] = "17"
        assert wire.cleanup()["success"]
        assert clerk.users == {}

    def test_a_product_that_replaces_their_metadata(self, wire: Wire, clerk: Clerk) -> None:
        wire.make("clients")
        [user] = clerk.users.values()
        user["private_metadata"] = {"plan": "free"}
        assert wire.cleanup()["success"]
        assert clerk.users == {}

    @pytest.mark.parametrize(
        "marks",
        [
            {"external_id": None, "private_metadata": {}},
            {"external_id": "17", "private_metadata": {"stagehand_testdata": {"key": "another"}}},
            {"private_metadata": {"stagehand_testdata": {"key": "another"}}},
            {"external_id": "17", "private_metadata": {"stagehand_testdata": "key"}},
            {"external_id": "17", "private_metadata": None},
        ],
    )
    def test_one_that_does_not_prove_the_key_stays(
        self, wire: Wire, clerk: Clerk, marks: dict[str, Any]
    ) -> None:
        wire.make("clients")
        [user] = clerk.users.values()
        user.update(marks)
        assert wire.cleanup(409)["quarantined"][0]["reason"] == "external_failed"
        assert "DeleteUser" not in clerk.asked
        assert list(clerk.users) == [user["id"]]

    def test_a_real_user_with_the_same_address_stays(self, wire: Wire, clerk: Clerk) -> None:
        clerk.always["CreateUser"] = "500"
        assert wire.post("clients").status_code == 502
        clerk.recover()
        real = clerk.add(email_address=[f"{wire.test_id}_client@example.com"])
        assert wire.cleanup()["success"]
        assert list(clerk.users) == [real["id"]]

    @pytest.mark.parametrize("prefix", ["-", "--x_", "stagehand_test_"])
    def test_whose_answer_was_lost_is_found_by_its_key_whatever_that_begins_with(
        self, clerk: Clerk, settings: Any, prefix: str
    ) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "TEST_ID_PREFIX": prefix}
        wire, real = Wire(f"{prefix}1"), clerk.add(email_address=["real@shop.example.org"])
        clerk.always["CreateUser"] = "lost"
        clerk.always["GetUserList"] = "500"
        assert error_of(wire.post("clients")) == (502, "external_failed")
        assert len(clerk.users) == 2
        clerk.recover()
        long_ago()
        more = [clerk.add()["id"] for _ in range(12)]  # the newest ones would fill a page
        assert wire.cleanup()["success"]
        assert list(clerk.users) == [real["id"], *more]

    def test_what_another_provider_holds_is_not_sought_at_todays(
        self, wire: Wire, clerk: Clerk, settings: Any
    ) -> None:
        wire.make("clients")
        before = settings.STAGEHAND_TESTDATA
        settings.STAGEHAND_TESTDATA = {
            **before,
            "IDENTITY_PROVIDER": "tests.contrib.factories.OnlyClients",
        }
        assert wire.cleanup(409)["quarantined"][0]["reason"] == "external_missing"
        settings.STAGEHAND_TESTDATA = before
        assert wire.cleanup()["success"]
        assert clerk.users == {}


class TestTheAudit:
    @pytest.fixture
    def made(self, wire: Wire, clerk: Clerk) -> Wire:
        wire.make("clients")
        return wire

    def leftover(self, clerk: Clerk, key: str, environment: str = "test") -> str:
        mark = {"stagehand_testdata": {"key": key, "environment": environment}}
        return str(clerk.add(private_metadata=mark)["id"])

    def test_finds_nothing_where_every_user_is_a_runs(self, made: Wire, clerk: Clerk) -> None:
        clerk.add(email_address=["real@shop.example.org"], external_id="17")
        done = run("testdata", "audit", "--external", "--json")
        assert done.status == 0
        assert done.json()["outside"] == {"provider": TYPE, "count": 0, "examples": []}

    def test_finds_who_carries_a_key_that_no_entry_has(self, made: Wire, clerk: Clerk) -> None:
        by_metadata = self.leftover(clerk, "stagehand_test_gone-1")
        by_id = clerk.add(external_id="stagehand_test_gone-2")["id"]
        by_address = clerk.add(email_address=["stagehand_test_x@example.com"])["id"]
        before = dict(clerk.users)
        done = run("testdata", "audit", "--external", "--json")
        assert done.status == 1
        assert done.json()["outside"] == {
            "provider": TYPE,
            "count": 3,
            "examples": [
                {"userId": by_metadata, "key": "stagehand_test_gone-1"},
                {"userId": by_id, "key": "stagehand_test_gone-2"},
                {"userId": by_address},
            ],
        }
        assert clerk.users == before
        assert f"user {by_metadata} is no run's" in run("testdata", "audit", "--external").out

    def test_finds_who_stayed_when_the_entry_was_closed(self, made: Wire, clerk: Clerk) -> None:
        [user] = clerk.users.values()
        aside = clerk.users.pop(user["id"])
        assert made.cleanup()["success"]
        clerk.users[user["id"]] = aside
        assert run("testdata", "audit", "--external", "--json").json()["outside"]["count"] == 1

    def test_looks_at_one_run_alone_where_it_is_told_to(self, made: Wire, clerk: Clerk) -> None:
        self.leftover(clerk, f"{made.test_id}-abc")
        self.leftover(clerk, f"{made.test_id}0-abc")
        done = run("testdata", "audit", "--external", "--run", made.test_id, "--json")
        assert [each["key"] for each in done.json()["outside"]["examples"]] == [f"{made.test_id}-abc"]

    def test_leaves_out_who_was_made_by_another_environment(self, made: Wire, clerk: Clerk) -> None:
        self.leftover(clerk, "stagehand_test_theirs-1", "staging")
        done = run("testdata", "audit", "--external", "--json")
        assert (done.status, done.json()["outside"]["count"]) == (0, 0)
        assert any("another ENVIRONMENT" in each for each in done.json()["notes"])

    def test_reads_every_page_also_while_users_go(
        self, made: Wire, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from stagehand_testdata.contrib import clerk as adapter

        monkeypatch.setattr(adapter, "_PAGE", 5)
        real = [clerk.add()["id"] for _ in range(17)]
        for user in real[3:12]:
            clerk.users[user]["created_at"] = clerk.users[real[3]]["created_at"]
        left = [self.leftover(clerk, f"stagehand_test_gone-{n}") for n in range(8)]

        def go(operation: str) -> None:
            if operation == "GetUserList" and real:
                clerk.users.pop(real.pop(0), None)

        clerk.after = go
        found = run("testdata", "audit", "--external", "--json").json()["outside"]["examples"]
        assert [each["userId"] for each in found] == left

    def test_is_not_misled_by_a_purge_that_runs_meanwhile(self, made: Wire, clerk: Clerk) -> None:
        def purge(operation: str) -> None:
            # The page is read, and not sent yet.
            if operation == "GetUserList" and clerk.users:
                try:
                    assert made.cleanup()["success"]
                finally:
                    connections.close_all()

        clerk.after = purge
        assert run("testdata", "audit", "--external", "--json").json()["outside"]["count"] == 0
        assert clerk.users == {}

    def test_says_in_one_line_that_clerk_does_not_answer(self, made: Wire, clerk: Clerk) -> None:
        clerk.always["GetUserList"] = "503"
        done = run("testdata", "audit", "--external")
        assert done.status == 1
        assert len(done.out.strip().splitlines()) == 1
        assert "could not be asked" in done.out

    def test_without_an_outside_provider_says_that_there_is_nobody_to_ask(self, db: None) -> None:
        done = run("testdata", "audit", "--external", "--json")
        assert (done.status, done.json()["outside"]) == (0, None)
        assert any("no identity provider" in each for each in done.json()["notes"])

    def test_is_asked_for_nobody_where_nobody_asks(self, made: Wire, clerk: Clerk) -> None:
        clerk.asked.clear()
        assert run("testdata", "audit", "--json").json()["outside"] is None
        assert clerk.asked == []


def test_a_run_that_made_users_is_purged_of_them_after_its_end(wire: Wire, clerk: Clerk) -> None:
    from tests.api.conftest import expire

    wire.make("clients")
    expire(wire.test_id)
    assert run("purge_test_data", "--expired").status == 0
    assert clerk.users == {}
    assert TestRun.objects.get().state == TestRun.State.CLOSED
