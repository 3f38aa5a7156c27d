"""Whose e-mail address a test row may have: nobody's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from tests.api.conftest import nothing_written
from tests.conftest import Wire, error_of

each_kind = pytest.mark.parametrize(("path", "suffix"), [("builders", ""), ("clients", "_client")])


class TestDefaults:
    @each_kind
    def test_the_first_has_the_runs_own_and_the_next_are_numbered(
        self, wire: Wire, path: str, suffix: str
    ) -> None:
        local = f"{wire.test_id}{suffix}"
        addresses = [wire.make(path)["email"] for _ in range(4)]
        assert addresses == [f"{local}{number}@example.com" for number in ("", "+2", "+3", "+4")]

    @each_kind
    def test_the_documents_client_names_the_default_each_time(
        self, wire: Wire, path: str, suffix: str
    ) -> None:
        default = f"{wire.test_id}{suffix}@example.com"
        assert wire.make(path, {"email": default})["email"] == default
        assert wire.make(path, {"email": default.upper()})["email"] == default.replace("@", "+2@")
        assert wire.make(path)["email"] == default.replace("@", "+3@")

    def test_they_are_in_lower_case(self, wire: Wire) -> None:
        wire.test_id = f"{wire.test_id}_UPPER"
        assert wire.make("builders")["email"] == f"{wire.test_id.lower()}@example.com"
        assert wire.make("builders")["email"] == f"{wire.test_id.lower()}+2@example.com"

    def test_a_scenario_numbers_them_too(self, wire: Wire) -> None:
        wire.make("builders")
        wire.make("clients")
        entities = wire.make("booking-scenarios")["entities"]
        assert entities["builder"][0]["email"] == f"{wire.test_id}+2@example.com"
        assert entities["client"][0]["email"] == f"{wire.test_id}_client+2@example.com"

    def test_within_one_call_they_are_numbered(self, wire: Wire) -> None:
        made = wire.make("batch", {"builders": 3})["entities"]["builder"]
        assert [each["email"].split("@")[0].removeprefix(wire.test_id) for each in made] == ["", "+2", "+3"]

    def test_the_default_of_a_run_whose_id_begins_another_is_its_own(self, wire: Wire) -> None:
        longer = Wire(f"{wire.test_id}_client")
        assert longer.make("builders")["email"] == f"{wire.test_id}_client@example.com"
        # The address is taken by another run, so it is not this one's to have; nor is that a refusal.
        assert wire.make("clients")["email"] == f"{wire.test_id}_client+2@example.com"

    def test_a_default_that_a_real_user_owns_is_a_conflict(self, wire: Wire, users: Any) -> None:
        users.create_user("real", f"{wire.test_id}@example.com", "pw")
        with nothing_written():
            assert error_of(wire.post("builders")) == (409, "conflict")


class TestChosen:
    @each_kind
    def test_twice_is_a_conflict(self, wire: Wire, path: str, suffix: str) -> None:
        wire.make(path, {"email": "ada@example.com"})
        with nothing_written():
            for again in ("ada@example.com", "ADA@Example.Com"):
                assert error_of(wire.post(path, {"email": again})) == (409, "conflict")

    def test_by_a_builder_and_a_client_is_a_conflict(self, wire: Wire) -> None:
        wire.make("builders", {"email": "ada@example.com"})
        assert error_of(wire.post("clients", {"email": "ada@example.com"})) == (409, "conflict")

    def test_by_another_run_is_a_conflict(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        new_wire().make("builders", {"email": "ada@example.com"})
        with nothing_written():
            assert error_of(wire.post("builders", {"email": "Ada@example.com"})) == (409, "conflict")

    @each_kind
    @pytest.mark.parametrize("email", ["ada@example.com", "ADA@EXAMPLE.COM", "aDa@example.com"])
    def test_a_real_users_is_a_conflict_and_the_user_untouched(
        self, wire: Wire, real_user: Any, path: str, suffix: str, email: str
    ) -> None:
        before = get_user_model().objects.filter(pk=real_user.pk).values().get()
        with nothing_written():
            response = wire.post(path, {"email": email})
        assert error_of(response) == (409, "conflict")
        assert get_user_model().objects.filter(pk=real_user.pk).values().get() == before

    def test_a_real_users_in_another_case_is_a_conflict(self, wire: Wire, users: Any) -> None:
        user = users.create_user("bob", "bob@example.com", "pw")
        users.filter(pk=user.pk).update(email="BoB@Example.Com")
        assert error_of(wire.post("clients", {"email": "bob@example.com"})) == (409, "conflict")

    def test_a_real_users_name_is_a_conflict_too(self, wire: Wire, users: Any) -> None:
        users.create_user("login@example.com", "elsewhere@real.example", "pw")
        with nothing_written():
            response = wire.post("builders", {"email": "login@example.com"})
        assert error_of(response) == (409, "conflict")

    def test_after_a_clean_up_it_is_free_again(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        wire.make("builders", {"email": "ada@example.com"})
        wire.cleanup()
        assert new_wire().make("builders", {"email": "ada@example.com"})["email"] == "ada@example.com"

    @pytest.mark.parametrize(
        "email",
        [
            "ada@example.com",
            "ada@EXAMPLE.org",
            "ada+tag@example.net",
            "ada@mail.test",
            "ada@a.b.test",
            "ada@nowhere.invalid",
        ],
    )
    def test_in_a_reserved_domain_is_taken(self, wire: Wire, email: str) -> None:
        assert wire.make("builders", {"email": email})["email"] == email.lower()

    @pytest.mark.parametrize(
        "email",
        [
            "ada@gmail.com",
            "ada@example.co",
            "ada@notexample.com",
            "ada@example.com.evil.com",
            "ada@sub.example.com",
            "ada@test.com",
            "ada@mytest",
            "ada@test",
            "ada@example.com@gmail.com",
            '"ada@example.com"@gmail.com',
            "ada@[127.0.0.1]",
            "ada@localhost",
            "ada@ex\u0430mple.com",
            "ada@gmail.com,b@example.com",
            "Ada <ada@gmail.com>",
        ],
    )
    def test_in_any_other_domain_is_refused(self, wire: Wire, untouched: None, email: str) -> None:
        response = wire.post("builders", {"email": email})
        assert error_of(response) == (400, "invalid_body")
        assert list(response.json()["details"]) == ["email"]

    def test_domains_are_the_hosts_to_add(self, wire: Wire, configure: Callable[..., None]) -> None:
        assert error_of(wire.post("builders", {"email": "ada@qa.acme.dev"})) == (400, "invalid_body")
        configure(EMAIL_DOMAINS=["qa.acme.dev"])
        assert wire.make("builders", {"email": "ada@QA.acme.dev"})["email"] == "ada@qa.acme.dev"
        assert error_of(wire.post("builders", {"email": "ada@acme.dev"})) == (400, "invalid_body")
