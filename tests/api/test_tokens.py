"""A CI job's own token buys a key of a few minutes, once; every token that does not buys the same answer."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import F
from django.db.models.functions import Now

from stagehand_testdata.access import issuers, keys, oidc, trail
from stagehand_testdata.context import current_run
from stagehand_testdata.models import AccessKey, AuditEntry, SpentToken, TestRun
from stagehand_testdata.operations import tokens
from tests.access.conftest import issuer  # noqa: F401 - a fixture
from tests.access.issuer import KEYS, Issuer, rsa_key
from tests.conftest import Wire, error_of
from tests.guarding import forget_the_audit
from tests.making import changed

from .conftest import all_counts, nothing_written
from .test_schema import check

on_postgresql = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="needs PostgreSQL (DATABASE_URL)"
)


@pytest.fixture
def trusting(issuer: Issuer) -> Iterator[Issuer]:  # noqa: F811
    with changed(REQUIRE_ACCESS_KEY=True, OIDC_TRUST=[issuer.trust()]):
        yield issuer


def exchange(wire: Wire, token: Any, **headers: Any) -> Any:
    return wire.post("tokens", {"token": token}, **{"X-Test-ID": None, **headers})


def key_of(wire: Wire, issuer: Issuer, **claims: Any) -> str:  # noqa: F811
    response = exchange(wire, issuer.token(**claims))
    assert response.status_code == 201, response.content
    return str(response.json()["key"])


def with_key(wire: Wire, key: str, method: str, path: str, body: Any = None, **headers: Any) -> Any:
    return wire.send(method, path, body, Authorization=f"Bearer {key}", **headers)


class TestExchange:
    def test_gives_a_key_of_fifteen_minutes(self, wire: Wire, trusting: Issuer) -> None:
        response = exchange(wire, trusting.token())
        assert response.status_code == 201
        answer = response.json()
        key = AccessKey.objects.get(public_id=answer["id"])
        assert key.expires_at - key.created_at == dt.timedelta(minutes=15)
        assert answer == {
            "id": key.public_id,
            "key": answer["key"],
            "name": "shop",
            "owner": key.owner,
            "operations": [],
            "entityTypes": [],
            "scopes": [],
            "expiresAt": key.expires_at.isoformat().replace("+00:00", "Z"),
        }
        assert key.owner.startswith("oidc:")
        assert key.holder == "repo:octo-org/shop:environment:e2e"
        assert response["Cache-Control"] == "no-store"

    def test_gives_a_key_that_may_do_what_the_entry_says(self, wire: Wire, trusting: Issuer) -> None:
        allowed = {
            "operations": ["verify-access", "cleanup"],
            "entity_types": ["book"],
            "scopes": ["ephemeral"],
            "networks": ["127.0.0.0/8", "::1/128"],
            "max_minutes": 30,
            "max_live_rows": 100,
            "max_open_runs": 2,
        }
        with changed(OIDC_TRUST=[trusting.trust(minutes=5, **allowed)]):
            answer = exchange(wire, trusting.token()).json()
        key = AccessKey.objects.get(public_id=answer["id"])
        assert {name: getattr(key, name) for name in allowed} == allowed
        assert key.expires_at - key.created_at == dt.timedelta(minutes=5)
        assert answer["operations"] == ["verify-access", "cleanup"]

    def test_needs_no_key_and_no_test_id_and_takes_any_test_id(self, wire: Wire, trusting: Issuer) -> None:
        for test_id in (None, "stagehand_test_x", "nonsense"):
            assert exchange(wire, trusting.token(), **{"X-Test-ID": test_id}).status_code == 201

    def test_the_key_opens_the_api(self, wire: Wire, trusting: Issuer) -> None:
        key = key_of(wire, trusting)
        assert with_key(wire, key, "post", "entities/book", {}).status_code == 201
        assert TestRun.objects.get(test_id=wire.test_id).owner.startswith("oidc:")

    def test_a_later_job_of_the_same_subject_cleans_up_what_an_earlier_one_left(
        self, wire: Wire, trusting: Issuer
    ) -> None:
        earlier = key_of(wire, trusting)
        assert with_key(wire, earlier, "post", "entities/book", {}).status_code == 201
        AccessKey.objects.update(expires_at=F("created_at") + dt.timedelta(microseconds=1))
        assert error_of(with_key(wire, earlier, "post", "cleanup", {})) == (401, "not_authenticated")
        later = key_of(wire, trusting, ref="refs/heads/another")
        receipt = with_key(wire, later, "post", "cleanup", {}).json()
        assert receipt["removed"]["book"] == 1
        assert receipt["remaining"] == 0

    def test_another_subject_does_not_see_its_runs(self, wire: Wire, trusting: Issuer) -> None:
        assert with_key(wire, key_of(wire, trusting), "post", "entities/book", {}).status_code == 201
        other = key_of(wire, trusting, sub="repo:octo-org/shop:ref:refs/heads/main")
        seen = with_key(wire, other, "get", f"runs/{wire.test_id}")
        unknown = with_key(wire, other, "get", "runs/stagehand_test_unknown", **{"X-Test-ID": None})
        assert error_of(seen) == error_of(unknown) == (404, "not_found")
        assert with_key(wire, other, "post", "cleanup", {}).json()["removed"] == {}

    def test_a_closed_gate_does_not_keep_a_job_from_cleaning_up(self, wire: Wire, trusting: Issuer) -> None:
        assert with_key(wire, key_of(wire, trusting), "post", "entities/book", {}).status_code == 201
        with changed(ENABLED=False):
            key = key_of(wire, trusting)
            assert error_of(with_key(wire, key, "post", "entities/book", {})) == (403, "test_mode_disabled")
            assert with_key(wire, key, "post", "cleanup", {}).json()["removed"]["book"] == 1

    def test_behind_a_closed_gate_that_no_key_opens_there_is_none(self, wire: Wire, trusting: Issuer) -> None:
        with changed(ENABLED=False, REQUIRE_ACCESS_KEY=False), nothing_written():
            assert error_of(exchange(wire, trusting.token())) == (403, "test_mode_disabled")

    def test_an_entry_that_allows_what_is_not_there_is_the_hosts_fault_and_spends_nothing(
        self, wire: Wire, trusting: Issuer
    ) -> None:
        token = trusting.token()
        with changed(OIDC_TRUST=[{**trusting.trust(), "operations": ["raed"]}]):
            assert error_of(exchange(wire, token)) == (500, "misconfigured")
        assert exchange(wire, token).status_code == 201

    @pytest.mark.parametrize("body", [{}, {"token": 5}, {"token": ""}, {"token": None}, {"token": ["x"]}])
    def test_a_body_without_a_token_is_no_token_at_all(self, wire: Wire, trusting: Issuer, body: Any) -> None:
        with nothing_written():
            assert error_of(wire.post("tokens", body)) == (400, "invalid_body")

    def test_a_field_that_it_does_not_know_is_refused(self, wire: Wire, trusting: Issuer) -> None:
        body = {"token": trusting.token(), "owner": "oidc:mine", "minutes": 600}
        response = wire.post("tokens", body)
        assert error_of(response) == (400, "invalid_body")
        assert set(response.json()["details"]) == {"owner", "minutes"}

    def test_under_a_run_the_issuer_is_asked_all_the_same(
        self, wire: Wire, trusting: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The middleware puts the request under the run of its pass."""
        key = key_of(wire, trusting)
        with_key(wire, key, "post", "verify-access", {})
        ticket = with_key(wire, key, "post", f"runs/{wire.test_id}/pass").json()
        issuers.keys_of.cache_clear()
        seen = []
        monkeypatch.setattr(tokens, "_forget_old", lambda alias: seen.append(current_run()))
        assert exchange(wire, trusting.token(), **{ticket["header"]: ticket["token"]}).status_code == 201
        assert seen[0] is not None
        assert trusting.asked.count(KEYS) == 2


class TestSchema:
    @pytest.fixture
    def schema(self, wire: Wire) -> Any:
        return wire.get("schema", **{"X-Test-ID": None}).json()

    def test_of_every_answer(self, schema: Any, wire: Wire, trusting: Issuer) -> None:
        token = trusting.token()
        answers = [exchange(wire, token) for _ in range(2)] + [exchange(wire, 5)]
        with changed(ENABLED=False, REQUIRE_ACCESS_KEY=False):
            answers.append(exchange(wire, token))
        with changed(MAX_BODY_BYTES=10):
            answers.append(exchange(wire, token))
        issuers.keys_of.cache_clear()
        trusting.instead[KEYS] = (500, {}, b"")
        answers.append(exchange(wire, token))
        assert [each.status_code for each in answers] == [201, 401, 400, 403, 413, 503]
        for answer in answers:
            check(schema, "post", "tokens", answer)


class TestRefusal:
    def test_is_byte_for_byte_the_same_whatever_was_wrong(
        self, wire: Wire, trusting: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spent = trusting.token()
        assert exchange(wire, spent).status_code == 201
        now = int(time.time())
        good = trusting.token()
        wrong = {
            "expired": trusting.token(iat=now - 900, nbf=now - 900, exp=now - 600),
            "not yet": trusting.token(nbf=now + 600),
            "replayed": spent,
            "audience": trusting.token(aud="https://other.test"),
            "issuer": trusting.token(iss="https://gitlab.com"),
            "kid": trusting.token(headers={"kid": "unknown"}),
            "signature": trusting.token(key=rsa_key(2)),
            "tampered": good[:-8] + "AAAAAAAA",
            "claims": trusting.token(repository="evil/shop"),
            "no jti": trusting.token(jti=None),
            "oversized": trusting.token(padding="x" * oidc.MAX_CHARACTERS),
            "no token": "tdk_000000000000_x",
            "a key": keys.create("CI", dt.timedelta(hours=1)).text,
        }
        with nothing_written():
            answers = {name: exchange(wire, token) for name, token in wrong.items()}
            with changed(OIDC_TRUST=[]):
                answers["nobody is trusted"] = exchange(wire, good)
        for answer in answers.values():
            assert error_of(answer) == (401, "not_authenticated")
        seen = {(answer.content, str(sorted(answer.headers.items()))) for answer in answers.values()}
        assert len(seen) == 1, seen

    @pytest.mark.parametrize("misbehaviour", ["hanging", "failing"])
    def test_of_nobody_where_the_issuer_cannot_be_asked(
        self, wire: Wire, trusting: Issuer, monkeypatch: pytest.MonkeyPatch, misbehaviour: str
    ) -> None:
        monkeypatch.setattr(issuers, "WAIT_SECONDS", 0.3)
        token = trusting.token()
        if misbehaviour == "hanging":
            trusting.hanging = True
        else:
            trusting.instead[KEYS] = (500, {}, b"")
        begin = time.monotonic()
        with nothing_written():
            response = exchange(wire, token)
        assert time.monotonic() - begin < 2
        assert error_of(response) == (503, "issuer_unavailable")
        assert response["Retry-After"] == "10"
        trusting.recover()
        monkeypatch.setattr(issuers, "WAIT_SECONDS", 5.0)
        monkeypatch.setattr(issuers, "REFETCH_SECONDS", 0.0)
        monkeypatch.setattr(issuers, "RETRY_SECONDS", 0.0)
        assert exchange(wire, token).status_code == 201

    def test_leaves_nothing_of_token_or_key_in_the_log(
        self, wire: Wire, trusting: Issuer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            token = trusting.token()
            key = exchange(wire, token).json()["key"]
            exchange(wire, token)
        assert token.rpartition(".")[2] not in caplog.text
        assert key.rpartition("_")[2] not in caplog.text


class TestTheAudit:
    @pytest.fixture(autouse=True)
    def fresh_minute(self, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
        forget_the_audit()
        monkeypatch.setattr(trail, "_refusals", trail._Refusals())

    def test_tells_who_got_which_key(self, wire: Wire, trusting: Issuer) -> None:
        answer = exchange(wire, trusting.token()).json()
        [entry] = AuditEntry.objects.all()
        assert (entry.operation, entry.result, entry.subject) == ("key.create", "done", answer["id"])
        assert (entry.owner, entry.name, entry.address) == (answer["owner"], "shop", "127.0.0.1")

    def test_has_one_row_for_a_refusal_and_nothing_of_the_token(self, wire: Wire, trusting: Issuer) -> None:
        exchange(wire, trusting.token(repository="evil/canary"))
        [entry] = AuditEntry.objects.all()
        assert (entry.operation, entry.result, entry.owner) == ("refused", "not_authenticated", "")
        assert "canary" not in repr(list(AuditEntry.objects.values()))


class TestSpentTokens:
    def test_a_token_is_taken_once(self, wire: Wire, trusting: Issuer) -> None:
        token = trusting.token()
        assert exchange(wire, token).status_code == 201
        before = all_counts()
        for _ in range(3):
            assert error_of(exchange(wire, token)) == (401, "not_authenticated")
        assert all_counts() == before

    def test_nor_is_another_token_of_the_same_id(self, wire: Wire, trusting: Issuer) -> None:
        assert exchange(wire, trusting.token(jti="one")).status_code == 201
        assert error_of(exchange(wire, trusting.token(jti="one", ref="other"))) == (401, "not_authenticated")
        assert exchange(wire, trusting.token(jti="ONE")).status_code == 201

    def test_the_same_id_of_another_issuer_is_another_token(self, wire: Wire, trusting: Issuer) -> None:
        with Issuer() as other, changed(OIDC_TRUST=[trusting.trust(), other.trust()]):
            assert exchange(wire, trusting.token(jti="one")).status_code == 201
            assert exchange(wire, other.token(jti="one")).status_code == 201

    def test_a_token_whose_key_could_not_be_made_is_not_spent(
        self, wire: Wire, trusting: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = trusting.token()
        with monkeypatch.context() as broken:

            def fail(*args: Any, **options: Any) -> Any:
                raise RuntimeError("the disk is full")

            broken.setattr(keys, "create", fail)
            assert exchange(wire, token).status_code == 500
        assert exchange(wire, token).status_code == 201

    def test_it_is_remembered_for_longer_than_it_counts(self, wire: Wire, trusting: Issuer) -> None:
        now = int(time.time())
        assert exchange(wire, trusting.token(exp=now + 300)).status_code == 201
        remembered = SpentToken.objects.get().expires_at
        assert remembered >= dt.datetime.fromtimestamp(now + 300, dt.UTC) + 2 * oidc.LEEWAY

    def test_what_no_longer_counts_is_forgotten(self, wire: Wire, trusting: Issuer) -> None:
        assert exchange(wire, trusting.token()).status_code == 201
        SpentToken.objects.update(expires_at=Now() - dt.timedelta(seconds=1))
        assert exchange(wire, trusting.token()).status_code == 201
        assert SpentToken.objects.count() == 1

    def test_keys_of_jobs_go_a_week_after_their_end_and_no_others(self, wire: Wire, trusting: Issuer) -> None:
        hour = dt.timedelta(hours=1)
        fresh, old = (keys.create("job", hour, owner=f"oidc:{name}").key for name in ("fresh", "old"))
        other = keys.create("by hand", hour).key
        for key, days in ((fresh, 6), (old, 8), (other, 80)):
            ended = Now() - dt.timedelta(days=days)
            AccessKey.objects.filter(pk=key.pk).update(created_at=ended - hour, expires_at=ended)
        made = exchange(wire, trusting.token()).json()["id"]
        left = set(AccessKey.objects.values_list("public_id", flat=True))
        assert left == {fresh.public_id, other.public_id, made}


@on_postgresql
@pytest.mark.django_db(transaction=True)
def test_of_parallel_replays_exactly_one_gets_a_key(trusting: Issuer, new_wire: Callable[[], Wire]) -> None:
    def replay(token: str) -> int:
        try:
            return int(exchange(new_wire(), token).status_code)
        finally:
            connections.close_all()

    for _ in range(20):
        token = trusting.token()
        with ThreadPoolExecutor(8) as pool:
            statuses = sorted(pool.map(replay, [token] * 8))
        assert statuses == [201] + [401] * 7
    assert AccessKey.objects.count() == SpentToken.objects.count() == 20
