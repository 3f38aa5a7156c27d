"""An Idempotency-Key: one effect and one answer, however often the request comes."""

from __future__ import annotations

import datetime as dt
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
from django.db import OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.access import idempotency
from stagehand_testdata.models import IdempotentAnswer, TestEntity, TestRun
from stagehand_testdata.operations import entities
from stagehand_testdata.operations.reaper import reap
from stagehand_testdata.registry import Scenario, get_registry, load_registry
from tests.conftest import Wire, error_of
from tests.host.models import Person, Voucher
from tests.operations.conftest import accounts
from tests.outside.handlers import Account
from tests.outside.servers import Service
from tests.threads import in_thread

from .conftest import CREATING, all_counts, expire, nothing_written
from .test_schema import check, schema

__all__ = ["accounts", "schema"]

KEY = {"Idempotency-Key": "3f1c9a0e-key"}

OPERATIONS = [each.name for each in get_registry().operations]
EVERY = [
    *CREATING,
    ("verify-access", {"maxAgeMinutes": 5}),
    ("scenarios/booking", {}),
    ("scenarios/payment", {}),
    ("entities/voucher", {"count": 2}),
]


def is_replay(response: Any) -> bool:
    return response.get("Idempotency-Replayed") == "true"


def post(wire: Wire, path: str, body: Any = None, **headers: str) -> Any:
    return wire.post(path, body, **{**KEY, **headers})


def both(wire: Wire, path: str, body: Any = None, **headers: str) -> tuple[Any, Any]:
    """The same request twice: the second must do nothing, and answer as the first."""
    first = post(wire, path, body, **headers)
    with nothing_written():
        second = post(wire, path, body, **headers)
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second["Content-Type"] == first["Content-Type"]
    assert not is_replay(first)
    assert is_replay(second)
    return first, second


class TestTheSameRequest:
    @pytest.mark.parametrize(("path", "body"), EVERY)
    def test_is_done_once_and_answered_alike(self, wire: Wire, schema: Any, path: str, body: Any) -> None:
        first, second = both(wire, path, body)
        assert first.status_code in (200, 201)
        check(schema, "post", path, second)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_of_every_operation_of_an_app(self, wire: Wire, name: str) -> None:
        body = {"builderId": wire.make("builders")["id"]} if name == "session-types" else {}
        assert both(wire, name, body)[0].status_code == 201

    @pytest.mark.parametrize(("path", "body"), CREATING)
    @pytest.mark.parametrize(
        "how", [{"shadow": True}, {"shadow": True, "deep": True}], ids=["shadow", "deep"]
    )
    def test_of_a_shadow_call(self, wire: Wire, path: str, body: Any, how: dict[str, bool]) -> None:
        first, _ = both(wire, path, {**body, **how})
        assert first.json()["shadow"] is True

    def test_has_the_answer_that_it_has_without_a_key(self, new_wire: Callable[[], Wire], db: None) -> None:
        with_key, without = new_wire(), new_wire()
        kept, plain = (
            post(with_key, "clients", {"name": "Zoë \u2028"}),
            without.post("clients", {"name": "Zoë \u2028"}),
        )
        assert kept.headers == plain.headers
        differing = {"userId", "id", "testId", "email", "createdAt", "expiresAt"}
        left, right = kept.json(), plain.json()
        assert {name: left[name] for name in left.keys() - differing} == {
            name: right[name] for name in right.keys() - differing
        }

    def test_may_have_its_fields_in_another_order_and_a_slash_at_the_end(self, wire: Wire) -> None:
        first = wire.send("post", "builders", raw=b'{"hourlyRate": 5, "name": "Ada"}', **KEY)
        again = wire.send("post", "builders/", raw=b'{"name":"Ada","hourlyRate":5}', **KEY)
        assert first.status_code == 201
        assert again.content == first.content

    def test_after_the_run_has_closed(self, wire: Wire) -> None:
        first = post(wire, "booking-scenarios")
        wire.cleanup()
        with nothing_written():
            again = post(wire, "booking-scenarios")
        assert (again.status_code, again.content) == (201, first.content)
        assert error_of(wire.post("booking-scenarios")) == (409, "run_closed")

    def test_after_the_runs_end_and_the_clients_own(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        created = int(time.time() * 1000)
        body = {"testCreationTime": created, "maxAgeMinutes": 1}
        first = post(wire, "clients", body)
        assert first.status_code == 201
        expire(wire.test_id)
        later = time.time() + 120
        monkeypatch.setattr(time, "time", lambda: later)
        assert post(wire, "clients", body).content == first.content
        assert error_of(wire.post("clients", body)) == (400, "test_too_old")

    def test_takes_one_query(self, wire: Wire) -> None:
        post(wire, "clients")
        with CaptureQueriesContext(connection) as queries:
            assert is_replay(post(wire, "clients"))
        assert len(queries) == 1

    def test_is_refused_while_the_gate_is_closed(self, wire: Wire, configure: Any) -> None:
        post(wire, "clients")
        configure(ENABLED=False)
        assert error_of(post(wire, "clients")) == (403, "test_mode_disabled")

    def test_needs_an_access_key_as_ever(self, wire: Wire, configure: Any) -> None:
        post(wire, "clients")
        configure(REQUIRE_ACCESS_KEY=True)
        assert error_of(post(wire, "clients")) == (401, "not_authenticated")

    def test_renews_a_session_once(self, wire: Wire) -> None:
        wire.post("verify-access", {"scope": "persistent_session", "maxAgeMinutes": 5})
        post(wire, "clients", {"maxAgeMinutes": 30})
        ends = TestRun.objects.get().expires_at
        post(wire, "clients", {"maxAgeMinutes": 30})
        assert TestRun.objects.get().expires_at == ends


class TestAnotherRequest:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("clients", {"name": "Bob"}),
            ("clients", {"name": "Ada", "shadow": True}),
            ("clients", {"name": 5, "colour": []}),
            ("builders", {"name": "Ada"}),
            ("verify-access", {}),
            ("scenarios/booking", {}),
            ("scenarios/nothing", {}),
            ("entities/voucher", {}),
        ],
    )
    def test_under_the_same_key_is_a_mismatch(self, wire: Wire, schema: Any, path: str, body: Any) -> None:
        post(wire, "clients", {"name": "Ada"})
        with nothing_written():
            refused = post(wire, path, body)
        assert error_of(refused) == (422, "idempotency_mismatch")
        if "nothing" not in path:
            check(schema, "post", path, refused)

    def test_under_another_key_is_another_effect(self, wire: Wire) -> None:
        first = post(wire, "clients")
        second = post(wire, "clients", **{"Idempotency-Key": "another"})
        assert first.json()["id"] != second.json()["id"]

    def test_a_key_is_its_test_ids_where_no_access_key_is_needed(
        self, new_wire: Callable[[], Wire], db: None
    ) -> None:
        first, second = post(new_wire(), "clients"), post(new_wire(), "builders")
        assert (first.status_code, second.status_code) == (201, 201)

    def test_a_key_is_its_owners(self, db: None) -> None:
        def name(owner: str, test_id: str) -> str:
            request = {"owner": owner, "method": "POST", "path": "/clients", "test_id": test_id, "body": {}}
            return idempotency.Once.of("k", **request)._name  # type: ignore[arg-type]

        assert name("key:a", "one") == name("key:a", "two") != name("key:b", "one")


class TestKeys:
    @pytest.mark.parametrize("key", ["", " ", "a b", "k" * 256, "tab\t", "é", "ключ", "\x7f", "a, b"])
    def test_that_are_none_are_refused(self, wire: Wire, untouched: None, key: str) -> None:
        response = post(wire, "clients", **{"Idempotency-Key": key})
        assert error_of(response) == (400, "invalid_idempotency_key")

    @pytest.mark.parametrize("key", ["!", "~" * 255, '"quoted"', "a/b?c=d&<e>", "';DROP/**/TABLE/**/x;--"])
    def test_of_visible_ascii_are_taken(self, wire: Wire, key: str) -> None:
        assert post(wire, "clients", **{"Idempotency-Key": key}).status_code == 201

    def test_differ_by_case(self, wire: Wire) -> None:
        ids = {post(wire, "clients", **{"Idempotency-Key": key}).json()["id"] for key in ("k", "K")}
        assert len(ids) == 2

    def test_are_kept_as_digests_alone(self, wire: Wire) -> None:
        post(wire, "clients")
        [kept] = IdempotentAnswer.objects.values()
        assert "3f1c9a0e" not in repr(kept)

    @pytest.mark.parametrize(
        ("method", "path"), [("get", "runs"), ("get", "entity-types"), ("post", "cleanup")]
    )
    def test_mean_nothing_where_nothing_is_created(self, wire: Wire, method: str, path: str) -> None:
        answer = wire.send(method, path, {}, **{"Idempotency-Key": "no key"})
        assert (answer.status_code, is_replay(answer)) == (200, False)
        assert not IdempotentAnswer.objects.exists()

    def test_are_refused_with_a_pass_for_its_answer_is_a_secret(self, wire: Wire) -> None:
        wire.post("verify-access")
        response = wire.post(f"runs/{wire.test_id}/pass", **KEY)
        assert error_of(response) == (400, "idempotency_unsupported")


class TestARefusal:
    @pytest.mark.parametrize(
        ("body", "status"), [({"isTest": False}, 400), ({"email": "real@gmail.com"}, 400), ({"name": 5}, 400)]
    )
    def test_is_not_kept(self, wire: Wire, untouched: None, body: Any, status: int) -> None:
        assert post(wire, "clients", body).status_code == status

    def test_leaves_the_key_for_another_try(self, wire: Wire) -> None:
        get_user_model().objects.create_user("taken", email="taken@example.com")
        body = {"email": "taken@example.com"}
        assert error_of(post(wire, "clients", body)) == (409, "conflict")
        get_user_model().objects.all().delete()
        assert post(wire, "clients", body).status_code == 201

    def test_of_a_factory_is_not_kept(self, wire: Wire) -> None:
        with nothing_written():
            assert post(wire, "entities/failing").status_code == 500

    def test_of_too_large_an_answer_does_nothing(
        self, wire: Wire, untouched: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idempotency, "MAX_BYTES", 1000)
        assert error_of(post(wire, "entities/voucher", {"count": 20})) == (400, "answer_too_large")

    def test_a_large_answer_that_can_be_kept_is(self, wire: Wire) -> None:
        first, _ = both(wire, "entities/voucher", {"count": 1000})
        assert len(first.content) > 100_000


class TestTime:
    def age(self, **by: int) -> None:
        IdempotentAnswer.objects.update(created_at=F("created_at") - dt.timedelta(**by))

    def test_an_answer_is_kept_for_a_day(self, wire: Wire) -> None:
        first = post(wire, "clients")
        self.age(hours=23, minutes=59)
        reap()
        assert post(wire, "clients").content == first.content

    def test_then_the_key_is_new(self, wire: Wire) -> None:
        first = post(wire, "clients")
        self.age(hours=24)
        again = post(wire, "clients", {"name": "another"})
        assert again.status_code == 201
        assert again.json()["id"] != first.json()["id"]
        assert post(wire, "clients", {"name": "another"}).content == again.content

    def test_the_reaper_removes_what_has_ended_a_batch_at_a_time(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(5):
            post(wire, "clients", **{"Idempotency-Key": f"old{number}"})
        self.age(hours=25)
        post(wire, "clients")
        monkeypatch.setattr(idempotency, "BATCH", 3)
        left = []
        for _ in range(3):
            reap()
            left.append(IdempotentAnswer.objects.count())
        assert left == [3, 1, 1]

    def test_the_answer_to_a_copy_goes_with_its_run(self, wire: Wire, configure: Any) -> None:
        """It may hold what was a real row's."""
        configure(SHADOW_COPIES={"host.Voucher": {"keep": ["note"]}})
        real = Voucher.objects.create(code="REAL", note="kept")
        body = {"model": "host.Voucher", "id": str(real.pk)}
        first, _ = both(wire, "shadow-copies", body)
        assert first.status_code == 201
        post(wire, "clients", **{"Idempotency-Key": "other"})
        wire.cleanup()
        assert "kept" not in repr(list(IdempotentAnswer.objects.values()))
        assert IdempotentAnswer.objects.count() == 1
        assert error_of(post(wire, "shadow-copies", body)) == (409, "run_closed")


@pytest.mark.django_db(transaction=True)
class TestThingsOutside:
    @pytest.fixture(autouse=True)
    def scenario(self) -> None:
        def make(call: entities.Creation, data: Any) -> dict[str, Any]:
            call.create("voucher")
            return {"account": call.external("account", plan="free")}

        load_registry().scenarios.add(Scenario("signing-up", make))

    def test_the_answer_names_what_was_made(self, wire: Wire, accounts: Service) -> None:
        first, _ = both(wire, "scenarios/signing-up")
        assert first.json()["account"] == "acc_1"
        assert len(accounts.things) == 1

    def test_a_failure_outside_is_kept_for_its_rows_are_made(self, wire: Wire, accounts: Service) -> None:
        accounts.failing.add("create")
        first, _ = both(wire, "scenarios/signing-up")
        assert error_of(first) == (502, "external_failed")
        assert Voucher.objects.count() == 1

    def test_while_it_is_being_made_a_duplicate_is_told_so(self, wire: Wire, accounts: Service) -> None:
        seen: list[Any] = []
        plain = Account.create

        def create(self: Account, key: str, fields: Any) -> str:
            thread, results = in_thread(lambda: post(wire, "scenarios/signing-up"))
            thread.join()
            seen.extend(results)
            return plain(self, key, fields)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Account, "create", create)
            assert post(wire, "scenarios/signing-up").status_code == 201
        assert [error_of(each) for each in seen] == [(409, "in_progress")]

    def test_whoever_is_killed_while_making_it_leaves_a_failure(self, wire: Wire, accounts: Service) -> None:
        class Killed(BaseException):
            pass

        def create(self: Account, key: str, fields: Any) -> str:
            raise Killed

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Account, "create", create)
            post(wire, "scenarios/signing-up")
        assert error_of(post(wire, "scenarios/signing-up")) == (409, "in_progress")
        IdempotentAnswer.objects.update(under_way_until=F("under_way_until") - dt.timedelta(hours=1))
        with nothing_written():
            assert error_of(post(wire, "scenarios/signing-up")) == (502, "external_failed")


@pytest.mark.django_db(transaction=True)
class TestTwoAtOnce:
    def test_the_second_does_not_wait_for_the_first(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        new_wire().make("entities/voucher")
        made, go_on = threading.Event(), threading.Event()

        def make(call: entities.Creation, data: Any) -> None:
            call.create("voucher")
            made.set()
            assert go_on.wait(20)

        load_registry().scenarios.add(Scenario("slow", make))
        first, results = in_thread(lambda: post(wire, "scenarios/slow"))
        assert made.wait(20)
        began = time.monotonic()
        second = post(wire, "scenarios/slow")
        took = time.monotonic() - began
        go_on.set()
        first.join()
        [answer] = results
        assert answer.status_code == 201
        assert error_of(second) == (409, "in_progress")
        assert took < 5
        assert post(wire, "scenarios/slow").content == answer.content
        assert TestEntity.objects.filter(run__test_id=wire.test_id).count() == 1

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="writers of SQLite wait in line")
    def test_many_at_once_have_one_effect_each(self, new_wire: Callable[[], Wire]) -> None:
        wire = new_wire()
        wire.make("entities/voucher")
        keys, duplicates = 15, 6
        for number in range(keys):
            headers = {"Idempotency-Key": f"key-{number}"}
            barrier = threading.Barrier(duplicates)

            def send(headers: Any = headers, barrier: Any = barrier) -> Any:
                barrier.wait(20)
                return Wire(wire.test_id).post("entities/person", **headers)

            working = [in_thread(send) for _ in range(duplicates)]
            for thread, _ in working:
                thread.join()
            answers = [results[0] for _, results in working]
            told = Counter(
                (each.status_code, is_replay(each) or each.json().get("code", "done")) for each in answers
            )
            assert told[201, "done"] == 1, told
            assert set(told) <= {(201, "done"), (201, True), (409, "in_progress")}
            assert len({each.content for each in answers if each.status_code == 201}) == 1
            assert Person.objects.count() == number + 1
        assert IdempotentAnswer.objects.count() == keys


class FailAt:
    """The database goes away at that statement."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, execute: Any, *statement: Any) -> Any:
        self.left -= 1
        if self.left == -1:
            raise OperationalError("server closed the connection unexpectedly")
        return execute(*statement)


@pytest.mark.django_db(transaction=True)
class TestCrashes:
    def test_at_any_statement_leave_both_or_none(self, new_wire: Callable[[], Wire]) -> None:
        """Each statement of the call fails once, as where the database goes away."""
        new_wire().make("booking-scenarios")
        wire = new_wire()
        tried = 0
        while True:
            headers = {"Idempotency-Key": f"key-{tried}"}

            before = all_counts()
            with connection.execute_wrapper(FailAt(tried)):
                broken = wire.post("booking-scenarios", **headers)
            if broken.status_code == 201:
                break
            assert broken.status_code == 503
            assert all_counts() == before
            assert wire.post("booking-scenarios", **headers).status_code == 201
            assert is_replay(wire.post("booking-scenarios", **headers))
            tried += 1
        assert tried > 10

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_of_the_process_at_its_commit(self, wire: Wire, moment: str) -> None:
        """Killed with SIGKILL as the transaction commits, and right after."""
        wire.make("entities/voucher")
        made = Voucher.objects.count()
        code = f"""
import os, signal, django
django.setup()
from django.db import connections
connection = connections["default"]
connection.settings_dict.update({dict(connection.settings_dict)!r})
from tests.conftest import Wire
from stagehand_testdata.models import IdempotentAnswer
plain = type(connection)._commit
def commit(self):
    if IdempotentAnswer.objects.exists():
        if {moment == "after"}:
            plain(self)
        os.kill(os.getpid(), signal.SIGKILL)
    plain(self)
type(connection)._commit = commit
Wire({wire.test_id!r}).post("entities/voucher", **{KEY!r})
"""
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        connection.close()
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        committed = moment == "after"
        assert Voucher.objects.count() - made == IdempotentAnswer.objects.count() == committed
        again = post(wire, "entities/voucher")
        assert (again.status_code, is_replay(again)) == (201, committed)
        assert Voucher.objects.count() - made == 1
