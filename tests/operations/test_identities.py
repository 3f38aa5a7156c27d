"""An identity provider of a host's own, at a server that fails and recovers; Clerk's is in tests/contrib."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from stagehand_testdata.exceptions import ConfigurationError
from stagehand_testdata.identity import IdentityProvider, load_provider
from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations import externals
from stagehand_testdata.operations.sign_in import DjangoUsers
from stagehand_testdata.registry import ExternalHandler, TryLater, Unanswered, get_registry
from tests.conftest import Wire, error_of
from tests.making import changed
from tests.management.running import run_testdata
from tests.outside.servers import Service

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()
TYPE = "identity.directory"


@pytest.fixture
def wire(transactional_db: None, new_wire: Callable[[], Wire]) -> Wire:
    return new_wire()


@pytest.fixture
def directory(accounts: Service, settings: Any) -> Service:
    """The host's users are there too."""
    settings.STAGEHAND_TESTDATA = {
        **settings.STAGEHAND_TESTDATA,
        "IDENTITY_PROVIDER": "tests.outside.providers.Directory",
    }
    return accounts


def sign_in(wire: Wire, **lookup: Any) -> Any:
    user = User.objects.get(**lookup)
    return wire.post(f"runs/{wire.test_id}/sessions", {"userId": str(user.pk)})


class TestTheDefault:
    def test_is_djangos_own_users(self) -> None:
        assert isinstance(load_provider(), DjangoUsers)
        assert list(load_provider().marked_users()) == []

    def test_enters_nothing_beside_the_rows(self, wire: Wire) -> None:
        wire.make("clients")
        assert not TestEntity.objects.filter(origin="external").exists()
        assert not [each.name for each in get_registry().external_types if each.name.startswith("identity.")]

    def test_answers_as_it_did(self, wire: Wire) -> None:
        wire.make("clients")
        answer = sign_in(wire).json()
        assert set(answer) == {"testId", "userId", "link", "linkExpiresAt", "storageState", "expiresAt"}


class TestAHostsOwn:
    def test_has_a_user_for_each_account(self, wire: Wire, directory: Service) -> None:
        wire.make("clients")
        wire.make("builders")
        found = TestEntity.objects.filter(type=TYPE).order_by("ordinal")
        assert [each.key_text for each in found] == list(directory.things.values())
        assert [each.reference for each in found] == list(directory.things)

    def test_signs_in_by_its_own_link(self, wire: Wire, directory: Service) -> None:
        wire.make("clients")
        answer = sign_in(wire).json()
        [(reference, key)] = directory.things.items()
        assert answer["link"] == f"https://directory.test/in/{reference}"
        assert answer["identity"] == {"ticket": f"for {key}"}
        assert [each["name"] for each in answer["storageState"]["cookies"]] == ["testdata_pass"]

    def test_goes_with_the_run(self, wire: Wire, directory: Service) -> None:
        wire.make("clients")
        assert wire.cleanup()["removed"][TYPE] == 1
        assert directory.things == {}

    def test_decides_which_accounts_it_takes(self, wire: Wire, directory: Service) -> None:
        wire.make("clients", {"email": "nobody@example.com"})
        assert (directory.asked, User.objects.count()) == ([], 1)
        assert error_of(sign_in(wire)) == (409, "cannot_sign_in")

    def test_may_refuse_one_and_with_it_the_call(self, wire: Wire, directory: Service) -> None:
        assert error_of(wire.post("clients", {"email": "refused@example.com"})) == (400, "invalid_body")
        assert (directory.asked, User.objects.count(), TestEntity.objects.count()) == ([], 0, 0)

    def test_whose_answers_are_lost_keeps_one_user(self, wire: Wire, directory: Service) -> None:
        directory.lose_answers = 2
        wire.make("clients")
        assert len(directory.things) == 1

    def test_that_fails_is_a_502_and_nothing_is_left(self, wire: Wire, directory: Service) -> None:
        directory.failing.add("create")
        assert error_of(wire.post("clients")) == (502, "external_failed")
        directory.recover()
        assert wire.cleanup()["success"]
        assert (directory.things, User.objects.count()) == ({}, 0)

    def test_that_signs_nobody_in_says_nothing_secret(
        self, wire: Wire, directory: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wire.make("clients")
        with changed(IDENTITY_OPTIONS={"broken": True}):
            response = sign_in(wire)
        assert error_of(response) == (502, "external_failed")
        assert "SECRET" not in response.content.decode()

    def test_may_have_no_link(self, wire: Wire, directory: Service) -> None:
        wire.make("clients")
        with changed(IDENTITY_OPTIONS={"link": ""}):
            answer = sign_in(wire).json()
        assert answer["link"] == ""
        assert answer["identity"]["ticket"].startswith("for ")

    def test_is_asked_by_the_audit(self, directory: Service) -> None:
        status, out = run_testdata("audit", "--external", "--json")
        assert status == 1
        assert json.loads(out)["outside"]["examples"] == [
            {"userId": "acc_left", "key": "stagehand_test_gone-1"}
        ]

    @pytest.mark.parametrize(("environment", "status"), [("production", 500), ("staging", 201)])
    def test_that_is_unfit_for_production_makes_nobody_there(
        self, wire: Wire, directory: Service, environment: str, status: int
    ) -> None:
        with changed(IDENTITY_OPTIONS={"toy": True}, ENVIRONMENT=environment):
            response = wire.post("clients")
            assert response.status_code == status
            assert ("Use the real one." in response.json().get("message", "")) == (status == 500)
            assert wire.cleanup()["success"]

    @pytest.mark.parametrize("path", ["nowhere.at.all", "tests.outside.handlers.Account", "json.loads"])
    def test_that_is_none_makes_nobody(self, wire: Wire, path: str) -> None:
        with changed(IDENTITY_PROVIDER=path):
            with pytest.raises(ConfigurationError, match="IDENTITY_PROVIDER"):
                load_provider()
            assert error_of(wire.post("clients")) == (500, "misconfigured")
        assert User.objects.count() == 0

    def test_must_say_what_its_methods_do(self) -> None:
        bare = IdentityProvider()
        for call in (bare.describe, bare.sign_in):
            with pytest.raises(NotImplementedError):
                call(None)  # type: ignore[operator]
        with pytest.raises(NotImplementedError):
            bare.marked_users()


class TestTryLater:
    class Handler(ExternalHandler):
        attempts, backoff, patience = 3, 0.5, 2.0

    def tried(self, *seconds: float) -> tuple[int, list[float]]:
        """How often it was called, and how long was waited in between."""
        answers, calls, slept = list(seconds), [], list[float]()

        def call() -> None:
            calls.append(1)
            if answers:
                raise TryLater(answers.pop(0))

        try:
            externals.repeatedly(self.Handler(), call, slept.append)
        except TryLater:
            slept.append(-1)
        return len(calls), slept

    def test_is_waited_for(self) -> None:
        assert self.tried(1.5) == (2, [1.5])

    def test_never_shortens_the_pause(self) -> None:
        assert self.tried(0, 0) == (3, [0.5, 1.0])

    def test_that_asks_for_more_than_there_is_patience_ends_the_attempts(self) -> None:
        assert self.tried(2.5) == (1, [-1])

    def test_counts_for_how_long_a_purge_waits(self) -> None:
        assert externals._allowed(self.Handler()) == 3 * 10 + 2 + 2


class TestUnanswered:
    def test_leaves_the_making_under_way(
        self, wire: Wire, directory: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.outside.providers import Directory

        def create(self: Directory, key: str, fields: Any) -> str:
            raise Unanswered

        monkeypatch.setattr(Directory, "create", create)
        assert wire.post("clients").status_code == 502
        assert wire.cleanup(409)["quarantined"][0]["reason"] == "external_being_made"
