"""Things outside the database, at servers that fail, hang, lose their answers and recover."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import Error as DatabaseFault
from django.db import connection, connections, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.urls import reverse

from stagehand_testdata.exceptions import ConfigurationError, DuplicateName, ExternalFailed, RunClosed
from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import entities, externals, runs
from stagehand_testdata.operations.externals import BEING_MADE, External, remove_externals
from stagehand_testdata.registry import (
    EntityType,
    ExternalHandler,
    ExternalType,
    Registry,
    Scenario,
    load_registry,
)
from tests.conftest import Wire, error_of
from tests.host import models
from tests.making import TEST_ID, perform, registered
from tests.outside.handlers import Account
from tests.outside.servers import Service

pytestmark = pytest.mark.django_db(transaction=True)


def make(*names: str, test_id: str = TEST_ID) -> list[External]:
    """One thing of each of these types, and a row, in one call."""

    def work(call: entities.Creation) -> list[External]:
        call.create("voucher")
        return [call.external(name, plan="free") for name in names]

    return perform(work, test_id)


def the_run(test_id: str = TEST_ID) -> TestRun:
    return runs.find(test_id, "")


def entry_of(thing: External) -> TestEntity:
    return TestEntity.objects.get(key_text=thing.key)


def outside() -> list[TestEntity]:
    return list(TestEntity.objects.filter(origin="external").order_by("ordinal"))


def remove(*things: External, slept: list[float] | None = None) -> tuple[dict[str, int], list[str]]:
    """What went, by type, and why the rest stays."""
    ids = [entry_of(thing).pk for thing in things] if things else None
    sleep: Callable[[float], None] = time.sleep if slept is None else slept.append
    removed, held = remove_externals(the_run(), ids, sleep=sleep)
    return dict(removed), [each.reason for each in held]


def close_run(state: str = TestRun.State.CLOSING) -> None:
    closed_at = Now() if state == TestRun.State.CLOSED else None
    TestRun.objects.update(state=state, closing_at=Now(), closed_at=closed_at)


def long_ago() -> None:
    """Whatever is being made must have been answered by now, as the database's clock has it."""
    TestEntity.objects.update(created_at=Now() - dt.timedelta(hours=1))


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    def target() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=target)
    thread.start()
    return thread


class TestMaking:
    def test_makes_it_under_our_key_and_keeps_what_the_outside_calls_it(self, accounts: Service) -> None:
        [account] = make("account")
        assert accounts.things == {account.reference: account.key}
        entry = entry_of(account)
        assert (entry.type, entry.model, entry.database) == ("account", "external.account", "")
        assert (entry.origin, entry.state, entry.reason) == ("external", "live", "")
        assert entry.reference == account.reference == "acc_1"
        assert entry.key_text.startswith(f"{TEST_ID}-")
        assert len(entry.key_text) == len(TEST_ID) + 1 + 32

    def test_what_has_no_name_outside_goes_by_its_key(self, mailboxes: Service) -> None:
        [mailbox] = make("mailbox")
        assert mailboxes.keys() == [mailbox.key]
        assert entry_of(mailbox).reference == mailbox.key

    def test_rows_and_things_are_numbered_on(self, accounts: Service, mailboxes: Service) -> None:
        make("account", "mailbox")
        make("account")
        found = TestEntity.objects.values_list("ordinal", "type")
        assert list(found) == [
            (1, "voucher"),
            (2, "account"),
            (3, "mailbox"),
            (4, "voucher"),
            (5, "account"),
        ]

    def test_its_entry_is_committed_before_the_outside_is_asked(self, accounts: Service) -> None:
        seen: list[Any] = []

        def look(order: str, key: str, process: int) -> None:
            # In the server's thread: another connection than the one that asks.
            try:
                seen.append(list(TestEntity.objects.filter(key_text=key).values_list("state", "reason")))
                seen.append(models.Voucher.objects.count())
            finally:
                connections.close_all()

        accounts.before = look
        make("account")
        assert seen == [[("live", BEING_MADE)], 1]
        assert not accounts.trouble

    def test_a_call_that_fails_makes_nothing_outside(self, accounts: Service) -> None:
        def work(call: entities.Creation) -> None:
            call.external("account")
            call.create("failing")

        with pytest.raises(Exception, match="factory"):
            perform(work)
        assert not accounts.asked
        assert not outside()

    def test_a_call_that_starts_over_makes_it_once(self, accounts: Service) -> None:
        models.Voucher.objects.create(code="taken", note="real")
        attempts: list[External] = []

        def work(call: entities.Creation) -> None:
            attempts.append(call.external("account"))
            call.create("voucher", code="taken" if len(attempts) < 3 else "free")

        perform(work)
        assert len(attempts) == 3
        assert accounts.keys() == [attempts[2].key]
        assert [entry.key_text for entry in outside()] == accounts.keys()

    def test_within_a_transaction_it_is_made_at_the_commit(self, accounts: Service) -> None:
        with transaction.atomic():
            [account] = make("account")
            assert not accounts.asked
            assert account.reference == ""
        assert accounts.keys() == [account.key]
        assert entry_of(account).reference == account.reference != ""

    def test_a_transaction_around_the_call_that_fails_makes_nothing(self, accounts: Service) -> None:
        with pytest.raises(RuntimeError), transaction.atomic():
            make("account")
            raise RuntimeError
        assert not accounts.asked
        assert not outside()

    def test_what_fails_at_the_commit_of_somebody_else_is_logged(
        self, accounts: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        accounts.failing.add("create")
        with transaction.atomic():
            make("account")
        assert "could not be made" in caplog.text
        assert [entry.state for entry in outside()] == ["live"]

    def test_answers_500_twice_and_is_asked_again(self, accounts: Service) -> None:
        accounts.fail_next = 2
        [account] = make("account")
        assert accounts.keys() == [account.key]
        assert accounts.asked == [("create", account.key)] * 3

    def test_a_lost_answer_makes_nothing_twice(self, accounts: Service, mailboxes: Service) -> None:
        accounts.lose_answers = mailboxes.lose_answers = 1
        account, mailbox = make("account", "mailbox")
        assert accounts.keys() == [account.key]
        assert mailboxes.keys() == [mailbox.key]
        assert entry_of(account).reference == account.reference

    def test_pauses_twice_as_long_each_time(self, accounts: Service, monkeypatch: Any) -> None:
        accounts.failing.add("create")
        monkeypatch.setattr(Account, "attempts", 5)
        monkeypatch.setattr(Account, "backoff", 0.2)
        slept: list[float] = []
        run = self.run_with_nothing()
        account = externals.ask_for(run, "account", {})
        TestEntity.objects.bulk_create(externals.entries(run, [account], [], after=0))
        with pytest.raises(ExternalFailed):
            externals.make(run, [account], sleep=slept.append)
        assert slept == [0.2, 0.4, 0.8, 1.6]
        assert len(accounts.asked) == 5

    def test_500_for_ever_fails_and_says_so_without_secrets(
        self, accounts: Service, mailboxes: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        accounts.failing.add("create")
        with pytest.raises(ExternalFailed) as caught:
            make("account", "mailbox")
        assert "'account'" in caught.value.message
        assert "SECRET" not in caught.value.message
        assert TEST_ID not in caught.value.message
        # The rows are in the run, the next thing was not even tried, and a purge need not wait for either.
        assert models.Voucher.objects.count() == 1
        assert [(entry.type, entry.reason) for entry in outside()] == [("account", ""), ("mailbox", "")]
        assert not mailboxes.asked
        assert "could not be made" in caplog.text
        accounts.recover()
        assert remove() == ({"account": 1, "mailbox": 1}, [])

    def test_a_server_that_hangs_is_given_up(self, accounts: Service, monkeypatch: Any) -> None:
        monkeypatch.setattr(Account, "timeout", 0.1)
        accounts.hanging.add("create")
        begun = time.monotonic()
        with pytest.raises(ExternalFailed):
            make("account")
        assert time.monotonic() - begun < 3
        accounts.recover()
        assert remove() == ({"account": 1}, [])

    @pytest.mark.parametrize("answer", ["x" * 256, "a\0b", 5])
    def test_a_reference_that_cannot_be_kept_is_a_failure_and_its_thing_is_found_by_key(
        self, accounts: Service, monkeypatch: Any, answer: Any
    ) -> None:
        plain = Account.create

        def create(self: Any, key: str, fields: Any) -> Any:
            plain(self, key, fields)
            return answer

        monkeypatch.setattr(Account, "create", create)
        with pytest.raises(ExternalFailed):
            make("account")
        assert len(accounts.things) == 1
        assert remove() == ({"account": 1}, [])
        assert not accounts.things

    def test_nothing_is_made_where_the_run_was_closed_meanwhile(
        self, accounts: Service, monkeypatch: Any
    ) -> None:
        late: list[Any] = []
        monkeypatch.setattr(externals, "make_once_committed", lambda *args: late.append(args))
        make("account")
        close_run()
        with pytest.raises(RunClosed):
            externals.make(*late[0])
        assert not accounts.asked
        # Nobody need wait for it any more.
        assert remove() == ({"account": 1}, [])

    def test_a_database_that_fails_after_the_making_is_no_success(
        self, accounts: Service, monkeypatch: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(thing: External) -> bool:
            raise DatabaseFault("gone away")

        with monkeypatch.context() as patched:
            patched.setattr(externals, "_answered", fail)
            with pytest.raises(ExternalFailed):
                make("account")
        assert len(accounts.things) == 1
        assert "could not be written down" in caplog.text
        long_ago()
        assert remove() == ({"account": 1}, [])
        assert not accounts.things

    def test_an_unknown_type_makes_nothing_at_all(self) -> None:
        with pytest.raises(ConfigurationError, match="'nothing'"):
            make("nothing")
        assert not models.Voucher.objects.exists()

    def run_with_nothing(self) -> TestRun:
        perform(lambda call: None)
        return the_run()


class TestRemoving:
    def test_removes_the_last_that_was_made_first(self, accounts: Service) -> None:
        first, second = make("account", "account")
        assert remove() == ({"account": 2}, [])
        assert accounts.asked[-2:] == [("remove", second.key), ("remove", first.key)]
        assert not accounts.things
        for entry in outside():
            assert (entry.state, entry.tombstone) == ("removed", entry.pk)
            assert entry.removed_at is not None

    def test_removes_what_is_listed_and_no_more(self, accounts: Service) -> None:
        first, second = make("account", "account")
        assert remove(first) == ({"account": 1}, [])
        assert accounts.keys() == [second.key]
        assert remove_externals(the_run(), []) == (Counter(), [])

    def test_leaves_rows_and_other_runs_alone(self, accounts: Service) -> None:
        make("account")
        [other] = make("account", test_id=f"{TEST_ID}_other")
        remove()
        assert accounts.keys() == [other.key]
        assert TestEntity.objects.standing().filter(type="voucher").count() == 2

    def test_twice_is_harmless(self, accounts: Service) -> None:
        make("account")
        assert remove() == ({"account": 1}, [])
        assert remove() == ({}, [])

    def test_what_somebody_else_removed_is_no_failure(self, accounts: Service) -> None:
        [account] = make("account")
        accounts.remove(account.key)
        assert remove() == ({"account": 1}, [])

    def test_finds_by_its_key_what_never_answered(self, accounts: Service) -> None:
        accounts.lose_answers = 3
        with pytest.raises(ExternalFailed):
            make("account")
        assert len(accounts.things) == 1
        assert outside()[0].reference == ""
        assert remove() == ({"account": 1}, [])
        assert not accounts.things

    def test_a_lost_answer_is_asked_for_again(self, accounts: Service, mailboxes: Service) -> None:
        make("account", "mailbox")
        accounts.lose_answers = mailboxes.lose_answers = 2
        assert remove() == ({"account": 1, "mailbox": 1}, [])
        assert not accounts.things
        assert not mailboxes.things

    def test_what_fails_stays_as_residue_until_the_server_recovers(
        self, mailboxes: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        [mailbox] = make("mailbox")
        mailboxes.failing.add("remove")
        slept: list[float] = []
        assert remove(slept=slept) == ({}, ["external_failed"])
        assert slept == [0.01, 0.02]
        entry = entry_of(mailbox)
        assert (entry.state, entry.reason, entry.tombstone) == ("quarantined", "external_failed", 0)
        assert [each.levelno for each in caplog.records if "could not be removed" in each.message] == [
            logging.ERROR
        ]
        mailboxes.recover()
        assert remove() == ({"mailbox": 1}, [])
        assert not mailboxes.things
        assert (entry_of(mailbox).state, entry_of(mailbox).reason) == ("removed", "")

    def test_names_from_outside_reach_the_log_escaped(
        self, accounts: Service, monkeypatch: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(self: Any, key: str, reference: str) -> None:
            raise RuntimeError("a\nforged line")

        make("account")
        monkeypatch.setattr(Account, "remove", fail)
        remove(slept=[])
        assert "a\\nforged line" in caplog.text
        assert "\nforged line" not in caplog.text

    def test_one_that_hangs_does_not_keep_the_others(
        self, accounts: Service, mailboxes: Service, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(Account, "timeout", 0.1)
        _, _, hangs, _ = make("mailbox", "account", "account", "account")
        accounts.hanging.add(hangs.key)
        begun = time.monotonic()
        assert remove() == ({"account": 2, "mailbox": 1}, ["external_failed"])
        assert time.monotonic() - begun < 3
        assert accounts.keys() == [hangs.key]
        accounts.recover()
        assert remove() == ({"account": 1}, [])

    def test_a_server_that_is_down_is_asked_once_for_each_of_the_others(self, accounts: Service) -> None:
        make("account", "account", "account")
        accounts.failing.add("remove")
        assert remove(slept=[]) == ({}, ["external_failed"] * 3)
        assert len([order for order, _ in accounts.asked if order == "remove"]) == 3 + 1 + 1

    def test_a_type_that_is_not_registered_any_more_is_residue(self, accounts: Service) -> None:
        [account] = make("account")
        load_registry().external_types._entries.clear()
        assert remove() == ({}, ["external_missing"])
        assert entry_of(account).reason == "external_missing"
        assert accounts.keys() == [account.key]
        load_registry.cache_clear()
        assert remove() == ({"account": 1}, [])

    def test_a_handler_that_cannot_be_loaded_is_residue(
        self, accounts: Service, monkeypatch: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        make("account")

        def fail(self: Any) -> None:
            raise KeyError("ACCOUNTS_API_KEY")

        monkeypatch.setattr(Account, "__init__", fail)
        assert remove() == ({}, ["external_missing"])
        assert "ACCOUNTS_API_KEY" in caplog.text

    def test_a_wrong_registration_elsewhere_does_not_stop_it(self, accounts: Service) -> None:
        make("account")
        load_registry().problems.append(ConfigurationError("Somebody's."))
        assert remove() == ({"account": 1}, [])

    def test_holds_nothing_while_the_outside_is_asked(self, accounts: Service) -> None:
        [account] = make("account")
        pk = entry_of(account).pk

        def write(order: str, key: str, process: int) -> None:
            # In the server's thread; with a lock held by the one who asks this would wait for it.
            try:
                with transaction.atomic():
                    runs.lock_exclusively(the_run())
                    TestEntity.objects.filter(pk=pk).update(ordinal=F("ordinal"))
            finally:
                connections.close_all()

        accounts.before = write
        assert remove() == ({"account": 1}, [])
        make("account")
        assert [order for order, _ in accounts.asked] == ["create", "remove", "create"]
        assert not accounts.trouble

    def test_two_at_once_remove_each_thing_and_count_it_once(self, accounts: Service) -> None:
        make(*["account"] * 6)
        both = threading.Barrier(2, timeout=10)
        counted: list[dict[str, int]] = []

        def both_remove() -> None:
            both.wait()
            counted.append(remove()[0])

        for thread in [in_thread(both_remove) for _ in range(2)]:
            thread.join()
        assert len(counted) == 2
        assert sum(each.get("account", 0) for each in counted) == 6
        assert not accounts.things


class TestTheRace:
    """A purge beside a making that has not been answered yet."""

    def test_a_purge_leaves_alone_what_is_being_made(self, accounts: Service) -> None:
        seen: list[Any] = []

        def purge(order: str, key: str, process: int) -> None:
            if order == "create" and not seen:
                try:
                    close_run()
                    seen.append(remove())
                finally:
                    connections.close_all()

        accounts.before = purge
        [account] = make("account")
        assert seen == [({}, [BEING_MADE])]
        assert (entry_of(account).state, entry_of(account).reason) == ("live", "")
        assert entry_of(account).reference == account.reference
        assert remove() == ({"account": 1}, [])
        assert not accounts.things

    @staticmethod
    def close_the_books(accounts: Service) -> Callable[[str, str, int], None]:
        """While `create` is on its way, a purge that waited long enough closes entry and run."""

        def purge(order: str, key: str, process: int) -> None:
            if order == "create":
                try:
                    long_ago()
                    close_run()
                    assert remove() == ({"account": 1}, [])
                    close_run(TestRun.State.CLOSED)
                finally:
                    connections.close_all()

        return purge

    def test_what_comes_after_its_entry_was_closed_is_removed_at_once(self, accounts: Service) -> None:
        accounts.before = self.close_the_books(accounts)
        with pytest.raises(RunClosed):
            make("account")
        assert not accounts.trouble
        assert not accounts.things
        assert [(entry.state, entry.reference) for entry in outside()] == [("removed", "acc_1")]
        run = the_run()
        # The row of the call is still in the run: it was only as good as closed.
        assert run.state == TestRun.State.CLOSING
        assert TestEntity.objects.standing().get().type == "voucher"

    def test_a_run_with_nothing_left_is_closed_again(self, accounts: Service) -> None:
        accounts.before = self.close_the_books(accounts)
        with pytest.raises(RunClosed):
            perform(lambda call: call.external("account"))
        assert not accounts.trouble
        assert not accounts.things
        assert the_run().state == TestRun.State.CLOSED
        assert the_run().closed_at is not None

    def test_what_cannot_be_removed_then_is_residue_of_a_run_that_is_open_to_purges(
        self, accounts: Service
    ) -> None:
        plain = self.close_the_books(accounts)

        def purge_and_break(order: str, key: str, process: int) -> None:
            plain(order, key, process)
            if order == "create":
                accounts.failing.add("remove")

        accounts.before = purge_and_break
        with pytest.raises(RunClosed):
            perform(lambda call: call.external("account"))
        assert not accounts.trouble
        [entry] = outside()
        assert accounts.keys() == [entry.key_text]
        assert (entry.state, entry.reason, entry.tombstone) == ("quarantined", "external_failed", 0)
        assert entry.reference == "acc_1"
        assert (the_run().state, the_run().closed_at) == (TestRun.State.CLOSING, None)
        accounts.before = None
        accounts.recover()
        assert remove() == ({"account": 1}, [])
        assert not accounts.things


KILLED = """
import os, signal, django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = {database!r}
from stagehand_testdata.operations import entities
from tests.outside.handlers import Account
plain = Account.create
def create(self, key, fields):
    if {when!r} == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = plain(self, key, fields)
    if {when!r} == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
Account.create = create
entities.perform({test_id!r}, "", lambda call: (call.create("voucher"), call.external("account")))
"""


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("during", 1), ("after", 1)])
def test_a_maker_killed_around_its_call_leaves_an_entry_that_clears(
    accounts: Service, when: str, made: int
) -> None:
    def kill(order: str, key: str, process: int) -> None:
        if when == "during" and order == "create":
            os.kill(process, signal.SIGKILL)

    accounts.before = kill
    script = KILLED.format(database=connection.settings_dict["NAME"], when=when, test_id=TEST_ID)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    deadline = time.monotonic() + 5
    while len(accounts.things) < made and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(accounts.things) == made
    [entry] = outside()
    assert (entry.state, entry.reference, entry.reason) == ("live", "", BEING_MADE)
    # Three attempts of half a second: until then somebody might still be making it.
    assert remove() == ({}, [BEING_MADE])
    time.sleep(2)
    assert remove() == ({"account": 1}, [])
    assert not accounts.things


REMOVER = """
import os, signal, django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = {database!r}
from stagehand_testdata.operations import externals, runs
from tests.outside.handlers import Account
plain = Account.remove
calls = []
def remove(self, key, reference):
    plain(self, key, reference)
    calls.append(key)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Account.remove = remove
externals.remove_externals(runs.find({test_id!r}, ""))
"""


def test_a_remover_killed_between_the_answer_and_the_books_is_finished_by_the_next(accounts: Service) -> None:
    make("account", "account", "account")
    script = REMOVER.format(database=connection.settings_dict["NAME"], test_id=TEST_ID)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(accounts.things) == 1
    assert Counter(entry.state for entry in outside()) == {"live": 2, "removed": 1}
    assert remove() == ({"account": 2}, [])
    assert not accounts.things


class TestTheWire:
    @pytest.fixture
    def wire(self, transactional_db: None, new_wire: Callable[[], Wire]) -> Wire:
        def signup(call: entities.Creation, data: Any) -> dict[str, Any]:
            call.create("voucher")
            return {"account": call.external("account", plan="free"), "all": [call.external("account")]}

        load_registry().scenarios.add(Scenario("signup", signup))
        return new_wire()

    def test_a_scenario_answers_with_what_the_outside_calls_it(self, wire: Wire, accounts: Service) -> None:
        answer = wire.make("scenarios/signup")
        assert answer["account"] == "acc_1"
        assert answer["all"] == ["acc_2"]
        assert set(accounts.things) == {"acc_1", "acc_2"}

    def test_a_failure_outside_is_a_502_that_names_the_type(self, wire: Wire, accounts: Service) -> None:
        accounts.failing.add("create")
        response = wire.post("scenarios/signup")
        assert error_of(response) == (502, "external_failed")
        assert "'account'" in response.json()["message"]
        assert "the purge removes it" in response.json()["message"]
        assert models.Voucher.objects.count() == 1

    def test_its_entries_are_listed_like_any_other(self, wire: Wire, accounts: Service) -> None:
        wire.make("scenarios/signup")
        found = wire.get(f"runs/{wire.test_id}/entities?origin=external").json()
        assert [(each["type"], each["model"], each["state"]) for each in found["results"]] == [
            ("account", "external.account", "live")
        ] * 2
        assert sorted(each["id"] for each in found["results"]) == accounts.keys()

    def test_the_admin_shows_them_without_a_page_of_a_row(
        self, wire: Wire, accounts: Service, client: Any
    ) -> None:
        load_registry().external_types.add(ExternalType("dotted.name", Account))
        perform(lambda call: (call.external("dotted.name"), call.external("account")))
        client.force_login(get_user_model().objects.create_superuser("boss"))
        listed = client.get(reverse("admin:stagehand_testdata_testentity_changelist"))
        shown = client.get(reverse("admin:stagehand_testdata_testrun_change", args=[the_run().pk]))
        assert (listed.status_code, shown.status_code) == (200, 200)
        assert all(entry.key_text in listed.content.decode() for entry in outside())


class TestTheRegistry:
    def test_a_testdata_module_registers_its_external_types(self) -> None:
        found = load_registry().external_types
        assert [each.name for each in found] == ["account", "mailbox"]
        assert isinstance(found.get("account").load_handler(), Account)  # type: ignore[union-attr]

    def test_names_share_one_space_with_entity_types(self) -> None:
        registry = Registry()
        registry.entity_types.add(EntityType("user", "x.Y", plural="users"))
        registry.external_types.add(ExternalType("mailbox", "x.Y"))
        with pytest.raises(DuplicateName, match="an entity type"):
            registry.external_types.add(ExternalType("users", "x.Y"))
        with pytest.raises(DuplicateName, match="an external type"):
            registry.entity_types.add(EntityType("mailbox", "x.Y"))
        with pytest.raises(DuplicateName, match="an external type"):
            registry.entity_types.add(EntityType("post", "x.Y", plural="mailbox"))
        with pytest.raises(DuplicateName, match="Two registrations"):
            registry.external_types.add(ExternalType("mailbox", "x.Z"))

    def test_an_entity_type_of_the_settings_keeps_its_name(self) -> None:
        with registered(account="tests.host.factories.VoucherFactory"):
            assert [type(problem) for problem in load_registry().problems] == [DuplicateName]

    def test_the_name_of_files_is_taken(self) -> None:
        with pytest.raises(DuplicateName, match="files in storage"):
            Registry().external_types.add(ExternalType("file", "x.Y"))

    @pytest.mark.parametrize(
        "handler", ["nowhere.Handler", "tests.outside.handlers.Nothing", "tests.host.models.Book", object, 5]
    )
    def test_a_handler_that_is_none_is_a_configuration_error(self, handler: Any) -> None:
        with pytest.raises(ConfigurationError, match="'broken'"):
            ExternalType("broken", handler).load_handler()

    def test_a_handler_must_do_both(self) -> None:
        with pytest.raises(NotImplementedError):
            ExternalHandler().create("key", {})
        with pytest.raises(NotImplementedError):
            ExternalHandler().remove("key", "")
