"""What a key may do, whose a run is, and how every refusal looks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.access import keys
from stagehand_testdata.models import AccessKey, TestEntity, TestRun
from tests.conftest import Wire, error_of
from tests.host.models import Author

from .conftest import ROUTES, nothing_written

HOUR = dt.timedelta(hours=1)

pytestmark = pytest.mark.django_db

MakeKey = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def _keys_are_required(configure: Callable[..., None]) -> None:
    configure(REQUIRE_ACCESS_KEY=True)


@pytest.fixture
def key() -> MakeKey:
    """The headers of a new key."""

    def make(**options: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {keys.create('CI', HOUR, **options).text}"}

    return make


def whole(response: Any) -> tuple[int, bytes, dict[str, str]]:
    return response.status_code, response.content, dict(response.headers)


class TestOwnership:
    def test_a_run_is_the_keys_that_opened_it(self, wire: Wire, key: MakeKey) -> None:
        mine = key()
        assert wire.post("builders", **mine).status_code == 201
        owner = f"key:{AccessKey.objects.get().public_id}"
        assert TestRun.objects.get().owner == owner
        assert wire.get(f"runs/{wire.test_id}", **mine).status_code == 200

    def test_two_keys_may_use_one_test_id_and_meet_only_their_own_run(self, wire: Wire, key: MakeKey) -> None:
        mine, theirs = key(), key()
        made = wire.post("builders", **mine).json()
        assert wire.post("clients", **theirs).status_code == 201
        refused = wire.post("session-types", {"builderId": made["id"]}, **theirs)
        assert error_of(refused) == (404, "not_in_run")
        assert TestRun.objects.count() == 2

    def test_a_run_outlives_the_rotation_of_its_key(self, wire: Wire, key: MakeKey) -> None:
        wire.post("builders", **key())
        _, text = keys.rotate(AccessKey.objects.get())
        answer = wire.get(f"runs/{wire.test_id}", Authorization=f"Bearer {text}")
        assert answer.status_code == 200

    @pytest.mark.parametrize(("method", "path"), [(m, p) for m, p in ROUTES if "{testId}" in p], ids=str)
    def test_anothers_run_and_an_unknown_one_answer_alike_to_the_byte_and_the_query(
        self, wire: Wire, key: MakeKey, method: str, path: str
    ) -> None:
        theirs, mine = key(), key()
        wire.post("builders", **theirs)
        other = Wire(f"{wire.test_id[:-1]}x")
        wire.get("runs", **mine)  # its use is noted
        found = []
        for each in (wire, other):
            with CaptureQueriesContext(connection) as queries:
                answer = each.send(method, path.format(testId=each.test_id), {}, **mine)
            asked = [query["sql"].replace(each.test_id, "…") for query in queries]
            found.append((whole(answer), asked))
        assert found[0] == found[1]
        assert found[0][0][0] == 404

    def test_a_clean_up_of_anothers_run_and_of_none_answer_alike(self, wire: Wire, key: MakeKey) -> None:
        theirs, mine = key(), key()
        made = wire.post("builders", **theirs).json()
        other = Wire(f"{wire.test_id[:-1]}x")
        wire.get("runs", **mine)
        for body in ({}, {"createdData": [{"type": "builder", "id": made["id"]}]}):
            found = []
            for each in (wire, other):
                with CaptureQueriesContext(connection) as queries, nothing_written():
                    answer = each.post("cleanup", body, **mine)
                # The digest covers the test ID.
                receipt = {**answer.json(), "testId": "…", "digest": "…"}
                asked = [query["sql"].replace(each.test_id, "…") for query in queries]
                found.append((answer.status_code, receipt, asked))
            assert found[0] == found[1]
        assert TestEntity.objects.standing().exists()

    def test_the_list_of_runs_has_the_keys_own(self, wire: Wire, key: MakeKey) -> None:
        wire.post("builders", **key())
        assert wire.get("runs", **key()).json()["count"] == 0


class TestRefusals:
    def test_they_are_the_same_to_the_byte_whatever_is_wrong(self, wire: Wire, key: MakeKey) -> None:
        good = keys.create("CI", HOUR).text
        token = keys.parse(good)
        assert token is not None
        expired, revoked, elsewhere = (keys.create(name, HOUR) for name in ("a", "b", "c"))
        AccessKey.objects.filter(pk=expired.key.pk).update(created_at=Now() - 2 * HOUR, expires_at=Now())
        keys.revoke(revoked.key)
        AccessKey.objects.filter(pk=elsewhere.key.pk).update(networks=["203.0.113.0/24"])
        headers = {
            "missing": None,
            "another scheme": f"Basic {good}",
            "no scheme": good,
            "malformed": "Bearer tdk_x",
            "a wrong checksum": f"Bearer {good[:-1]}{'a' if good[-1] != 'a' else 'b'}",
            "a wrong secret": f"Bearer {token._replace(secret='0' * 32)}",
            "unknown": f"Bearer {token._replace(public_id='0' * 12)}",
            "expired": f"Bearer {expired.text}",
            "revoked": f"Bearer {revoked.text}",
            "from elsewhere": f"Bearer {elsewhere.text}",
        }
        with nothing_written():
            answers = {
                name: whole(wire.post("builders", **({"Authorization": value} if value else {})))
                for name, value in headers.items()
            }
        assert len(set(map(repr, answers.values()))) == 1, answers
        response = wire.post("builders")
        assert error_of(response) == (401, "not_authenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"

    def test_the_address_is_the_connections_and_no_header_says_another(
        self, wire: Wire, key: MakeKey
    ) -> None:
        headers = key(networks=["203.0.113.0/24"])
        forged = {
            "X-Forwarded-For": "203.0.113.9",
            "X-Real-IP": "203.0.113.9",
            "Forwarded": "for=203.0.113.9",
        }
        assert error_of(wire.post("builders", **headers, **forged)) == (401, "not_authenticated")
        wire.client.defaults["REMOTE_ADDR"] = "203.0.113.9"
        assert wire.post("builders", **headers).status_code == 201

    def test_the_scheme_may_be_in_any_case(self, wire: Wire, key: MakeKey) -> None:
        text = key()["Authorization"].partition(" ")[2]
        assert wire.post("builders", Authorization=f"bearer {text}").status_code == 201


class TestGateClosed:
    @pytest.fixture(autouse=True)
    def made(self, wire: Wire, key: MakeKey, configure: Callable[..., None]) -> dict[str, str]:
        headers = key()
        assert wire.post("builders", **headers).status_code == 201
        configure(ENABLED=False)
        return headers

    def test_a_key_still_cleans_up_and_deletes(self, wire: Wire, made: dict[str, str]) -> None:
        receipt = wire.post("cleanup", **made)
        assert (receipt.status_code, receipt.json()["remaining"]) == (200, 0)
        assert not TestEntity.objects.standing().exists()
        assert wire.send("delete", f"runs/{wire.test_id}", **made).status_code == 200

    def test_it_does_nothing_else(self, wire: Wire, made: dict[str, str]) -> None:
        for method, path in (("post", "builders"), ("get", "runs"), ("get", f"runs/{wire.test_id}/receipt")):
            assert error_of(wire.send(method, path, {}, **made)) == (403, "test_mode_disabled")

    def test_nobody_cleans_up_with_a_key_that_does_not_count(self, wire: Wire, made: dict[str, str]) -> None:
        keys.revoke(AccessKey.objects.get())
        with nothing_written():
            assert error_of(wire.post("cleanup", **made)) == (401, "not_authenticated")


class TestAllowance:
    #: Each route and what a key must be allowed for it; None where every key is.
    NEEDS = {
        ("post", "verify-access"): "verify-access",
        ("post", "cleanup"): None,
        ("delete", "runs/{testId}"): None,
        ("patch", "runs/{testId}"): "renew",
        ("post", "entities/voucher"): "entities",
        ("post", "scenarios/booking"): "scenarios",
        ("post", "nonsense"): None,
        **{(method, path): "read" for method, path in ROUTES if method == "get"},
    }

    @pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{m} {p}" for m, p in ROUTES])
    def test_a_key_does_what_it_is_allowed_and_nothing_else(
        self, wire: Wire, key: MakeKey, method: str, path: str
    ) -> None:
        needed = self.NEEDS.get((method, path), path)
        path = path.format(testId=wire.test_id)
        others = sorted(keys.known_operations() - {needed})
        headers = key(operations=others)
        if needed is None:
            assert wire.send(method, path, {}, **headers).status_code != 403
            return
        with nothing_written():
            refused = wire.send(method, path, {}, **headers)
        assert error_of(refused) == (403, "not_allowed")
        assert wire.send(method, path, {}, **key(operations=[needed])).status_code != 403

    def test_a_type_that_it_is_not_allowed_is_refused_wherever_it_is_made(
        self, wire: Wire, key: MakeKey
    ) -> None:
        headers = key(entity_types=["voucher"])
        assert wire.post("entities/voucher", **headers).status_code == 201
        for path, body in (
            ("entities/person", {}),
            ("builders", {}),
            ("batch", {"voucher": 1, "builders": 1}),
            ("scenarios/marketplace", {}),
            ("booking-scenarios", {}),
            ("entities/nonsense", {}),
        ):
            with nothing_written():
                assert error_of(wire.post(path, body, **headers)) == (403, "not_allowed"), path

    def test_a_copy_is_of_a_type_too(self, wire: Wire, key: MakeKey, configure: Callable[..., None]) -> None:
        configure(SHADOW_COPIES={"host.Author": {"keep": ["name"]}})
        body = {"model": "host.Author", "id": str(Author.objects.create(name="real").pk)}
        headers = key(entity_types=["voucher"])
        with nothing_written():
            refused = wire.post("shadow-copies", body, **headers)
        assert error_of(refused) == (403, "not_allowed")
        assert wire.post("shadow-copies", body, **key(entity_types=["author"])).status_code == 201

    def test_a_scope_that_it_is_not_allowed_is_not_opened(self, wire: Wire, key: MakeKey) -> None:
        headers = key(scopes=["persistent_session"])
        with nothing_written():
            for path, body in (
                ("verify-access", {}),
                ("builders", {}),
                ("verify-access", {"scope": "ephemeral"}),
            ):
                assert error_of(wire.post(path, body, **headers)) == (403, "not_allowed")
        opened = wire.post("verify-access", {"scope": "persistent_session"}, **headers)
        assert opened.status_code == 200
        assert wire.post("builders", **headers).status_code == 201

    def test_its_runs_live_no_longer_than_it_may_have_them(self, wire: Wire, key: MakeKey) -> None:
        headers = key(max_minutes=10)
        opened = wire.post("verify-access", {"maxAgeMinutes": 600}, **headers).json()
        assert opened["maxAgeMinutes"] == 10
        renewed = wire.send("patch", f"runs/{wire.test_id}", {"maxAgeMinutes": 600}, **headers)
        assert renewed.status_code == 200
        run = TestRun.objects.get()
        assert run.expires_at - run.opened_at <= 10 * dt.timedelta(minutes=1)
        assert wire.post("verify-access", {"maxAgeMinutes": 600}, **headers).json()["maxAgeMinutes"] == 10

    def test_one_that_is_opened_on_the_way_ends_as_soon(self, wire: Wire, key: MakeKey) -> None:
        wire.post("builders", **key(max_minutes=10))
        run = TestRun.objects.get()
        assert run.expires_at - run.opened_at == 10 * dt.timedelta(minutes=1)

    def test_what_one_request_may_do_is_not_the_next_ones(self, wire: Wire, key: MakeKey) -> None:
        assert error_of(wire.post("entities/voucher", **key(entity_types=["person"])))[0] == 403
        assert wire.post("entities/voucher", **key()).status_code == 201
