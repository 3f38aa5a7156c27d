"""Which e-mail address may a test row have: nobody's, and each once."""

from __future__ import annotations

from typing import Any

import factory
import pytest
from django.contrib.auth import get_user_model

from stagehand_testdata.exceptions import ConfigurationError, Conflict, InvalidInput
from stagehand_testdata.operations.addresses import (
    AddressBook,
    identifying_columns,
    is_reserved,
    named_in,
    require_reserved,
)
from tests.host.factories import UserFactory
from tests.making import changed, create, perform, registered

User = get_user_model()
TEST_ID = "stagehand_test_Addr"
BASE = "stagehand_test_addr"


@pytest.mark.parametrize(
    "address",
    ["a@example.com", "a@EXAMPLE.ORG", "a+b@example.net", "a@shop.test", "a@deep.shop.test", "a@x.invalid"],
)
def test_a_reserved_domain_is_nobodys(address: str) -> None:
    assert is_reserved(address)
    assert require_reserved(address) == address.lower()


@pytest.mark.parametrize(
    "address",
    [
        "a@gmail.com",
        "a@example.co",
        "a@notexample.com",
        "a@mail.example.com",
        "a@example.com.evil.org",
        "a@example.com@gmail.com",
        "a@test.com",
        "a@invalid.com",
        "a@xtest.de",
    ],
)
def test_any_other_domain_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        require_reserved(address, "clientEmail")
    assert set(caught.value.details or ()) == {"clientEmail"}


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@",
        "a@",
        "@example.com",
        "a b@example.com",
        "a@example.com\n",
        "a@ex ample.com",
        "a,b@example.com",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput):
        require_reserved(address)


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        ("qa.shop.com", "a@qa.shop.com"),
        ("QA.Shop.com", "a@qa.shop.com"),
        (".Shop.com", "a@qa.shop.com"),
        (".shop.com", "a@QA.SHOP.COM"),
    ],
)
def test_the_host_may_add_domains_of_its_own(domain: str, address: str) -> None:
    assert not is_reserved(address)
    with changed(EMAIL_DOMAINS=[domain]):
        assert is_reserved(address)


def test_a_domain_that_is_empty_opens_nothing() -> None:
    with changed(EMAIL_DOMAINS=[5, None, ""]):
        assert not is_reserved("a@gmail.com")
        with pytest.raises(InvalidInput):
            require_reserved("a@gmail.com")


def test_every_text_in_a_body_that_could_be_an_address_is_named() -> None:
    body = {"email": "A@b.test", "deep": [{"x": ("c@d.test", 5, None)}, "no address"], "n": 1}
    assert list(named_in(body)) == ["a@b.test", "c@d.test"]
    assert list(named_in(None)) == []


class TestClaiming:
    def book(self, held: str | None = None) -> AddressBook:
        found = AddressBook(TEST_ID, [])
        found.read(held)
        return found

    def test_the_default_is_the_test_id_and_then_numbered(self) -> None:
        book = self.book()
        assert [book.claim(None) for _ in range(3)] == [
            f"{BASE}@example.com",
            f"{BASE}+2@example.com",
            f"{BASE}+3@example.com",
        ]
        assert book.claim(None, "_client") == f"{BASE}_client@example.com"

    def test_what_the_run_holds_already_is_stepped_over(self) -> None:
        book = self.book(f"{BASE}@example.com,{BASE}+2@example.com")
        assert book.claim(None) == f"{BASE}+3@example.com"

    def test_asking_for_the_default_by_name_is_asking_for_the_default(self) -> None:
        book = self.book(f"{BASE}@example.com")
        assert book.claim(f"{TEST_ID}@Example.com") == f"{BASE}+2@example.com"

    def test_an_address_of_ones_own_choice_is_had_once(self) -> None:
        book = self.book()
        assert book.claim("Ann@example.com") == "ann@example.com"
        with pytest.raises(Conflict):
            book.claim("ANN@example.com")

    def test_an_address_that_somebody_else_has_is_a_conflict(self) -> None:
        book = self.book(f"ann@example.com!,{BASE}@example.com!")
        with pytest.raises(Conflict):
            book.claim("ann@example.com")
        with pytest.raises(Conflict):
            book.claim(None)


@pytest.mark.django_db
class TestAgainstTheDatabase:
    def claim(self, *asked: str | None, test_id: str = TEST_ID) -> list[str]:
        """Accounts with these addresses, each in a call of its own."""
        found = []
        with registered(user=UserFactory):
            for each in asked:

                def make(call: Any, each: str | None = each) -> str:
                    address = call.addresses.claim(each)
                    return str(call.create("user", email=address).email)

                found.append(perform(make, test_id, data={"email": each}))
        return found

    def test_addresses_of_the_run_are_remembered_from_call_to_call(self) -> None:
        assert self.claim(None, None, "ann@example.com") == [
            f"{BASE}@example.com",
            f"{BASE}+2@example.com",
            "ann@example.com",
        ]
        with pytest.raises(Conflict, match="This run"):
            self.claim("Ann@Example.com")

    @pytest.mark.parametrize("stored", ["ann@example.com", "Ann@Example.COM"])
    def test_a_real_accounts_address_is_a_conflict_and_the_account_untouched(self, stored: str) -> None:
        real = User.objects.create(username="real", email=stored, first_name="Ann")
        with pytest.raises(Conflict, match="not of this run"):
            self.claim("ann@example.com")
        real.refresh_from_db()
        assert (real.email, real.first_name) == (stored, "Ann")
        assert User.objects.count() == 1

    def test_a_factorys_own_may_be_nobodys_either(self) -> None:
        class Open(UserFactory):
            email = factory.LazyAttribute(lambda user: f"{user.username}@shop.com")

        with pytest.raises(ConfigurationError, match=r"an address in shop\.com.*EMAIL_DOMAINS"):
            create(Open)
        assert not User.objects.exists()
        with changed(EMAIL_DOMAINS=["shop.com"]):
            assert create(Open).email.endswith("@shop.com")

    def test_a_real_account_under_the_default_address_is_a_conflict(self) -> None:
        User.objects.create(username="real", email=f"{BASE}@example.com")
        with pytest.raises(Conflict):
            self.claim(None)

    def test_another_runs_account_under_the_default_address_leaves_the_next(self) -> None:
        self.claim(f"{BASE}@example.com", test_id="stagehand_test_other")
        assert self.claim(None) == [f"{BASE}+2@example.com"]

    def test_another_runs_address_is_a_conflict(self) -> None:
        self.claim("ann@example.com", test_id="stagehand_test_other")
        with pytest.raises(Conflict, match="not of this run"):
            self.claim("ann@example.com")

    def test_a_run_whose_id_starts_with_this_ones_does_not_disturb(self) -> None:
        self.claim(None, test_id=f"{TEST_ID}_longer")
        assert self.claim(None) == [f"{BASE}@example.com"]

    @pytest.mark.parametrize("wild", ["stagehand_test_%", "stagehand_test__"])
    def test_an_id_is_no_pattern(self, wild: str) -> None:
        User.objects.create(username="real", email="stagehand_test_x@example.com")
        assert self.claim(None, test_id=wild) == [f"{wild}@example.com"]

    @pytest.mark.parametrize("email", ["a,b@example.com", "bang!", "x@example.com!", ""])
    def test_odd_addresses_of_real_accounts_confuse_nobody(self, email: str) -> None:
        User.objects.create(username="real", email=f"{BASE}{email}")
        assert self.claim("free@example.com") == ["free@example.com"]

    def test_asking_costs_no_query_of_its_own(self, django_assert_max_num_queries: Any) -> None:
        self.claim(None)
        # But for the tables besides the users' in which an address may be a real person's.
        with django_assert_max_num_queries(8 + len(identifying_columns())):
            self.claim("ann@example.com")
