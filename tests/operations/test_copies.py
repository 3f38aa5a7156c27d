"""Copies of real rows: a test's own, without what is somebody's, and gone with the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from stagehand_testdata.marketplace.models import Builder
from stagehand_testdata.models import TestEntity
from tests.conftest import Wire, error_of, host_counts
from tests.host import models
from tests.making import changed, owns

User = get_user_model()
RULES: dict[str, Any] = {
    "auth.User": {"replace": {"first_name": "Ann"}},
    "stagehand_marketplace.Builder": {"keep": ["headline", "top_skills"]},
    "host.Book": {"keep": ["title"]},
    "host.Voucher": {"keep": ["note"]},
    "host.Team": {},
    "host.Restaurant": {"keep": ["serves"]},
    "host.Flyer": {},
}


@pytest.fixture(autouse=True)
def _rules(db: None) -> Iterator[None]:
    with changed(SHADOW_COPIES=RULES):
        yield


@pytest.fixture
def builder() -> Builder:
    user = User.objects.create(
        username="mary", first_name="Mary", last_name="Real", email="mary@real.example.org", password="hash"
    )
    return Builder.objects.create(
        user=user, display_name="Mary Real", slug="mary", headline="Plumber", bio="Lives in Delft",
        top_skills=["taps"], hourly_rate=90, availability="limited",
    )  # fmt: skip


def copy(wire: Wire, model: str, key: Any, status: int = 201) -> Any:
    response = wire.post("shadow-copies", {"model": model, "id": str(key)})
    assert response.status_code == status, response.content
    return response.json() if status == 201 else error_of(response)


class TestCopy:
    def test_it_is_a_row_of_the_run_without_what_is_somebodys(self, wire: Wire, builder: Builder) -> None:
        answer = copy(wire, "stagehand_marketplace.Builder", builder.pk)
        assert (answer["copyOf"], answer["type"], answer["isTest"]) == (str(builder.pk), "builder", True)
        made = Builder.all_rows.get(pk=answer["id"])
        assert (made.headline, made.top_skills, made.hourly_rate) == ("Plumber", ["taps"], 90)
        assert made.availability == "limited"
        assert owns(made, wire.test_id)
        assert owns(made.user, wire.test_id)
        user = made.user
        assert (user.first_name, user.email) == ("Ann", user.email.lower())
        assert user.email.endswith("@example.com")
        assert not user.has_usable_password()
        written = " ".join(str(each) for row in (made, user) for each in vars(row).values()).lower()
        for personal in ("mary", "real.example", "delft", "hash"):
            assert personal not in written

    def test_the_real_row_stays_as_it_was_when_the_copy_goes(self, wire: Wire, builder: Builder) -> None:
        before, columns = host_counts(), User.objects.values().get()
        copy(wire, "stagehand_marketplace.Builder", builder.pk)
        receipt = wire.cleanup()
        assert receipt["removed"] == {"auth.user": 1, "builder": 1}
        assert (host_counts(), User.objects.values().get()) == (before, columns)

    def test_every_copy_is_another(self, wire: Wire, builder: Builder) -> None:
        made = {copy(wire, "stagehand_marketplace.Builder", builder.pk)["id"] for _ in range(3)}
        assert len(made) == 3
        assert User.objects.count() == 4

    def test_a_copy_of_a_copy_is_one_too(self, wire: Wire, builder: Builder) -> None:
        first = copy(wire, "stagehand_marketplace.Builder", builder.pk)
        assert copy(wire, "stagehand_marketplace.Builder", first["id"])["copyOf"] == first["id"]

    def test_a_key_that_people_type_in_is_replaced(self, wire: Wire) -> None:
        models.Voucher.objects.create(code="SPRING", note="ten percent")
        answer = copy(wire, "host.voucher", "SPRING")
        assert answer["id"] != "SPRING"
        assert answer["fields"]["note"] == "ten percent"

    def test_a_multi_table_child_has_a_parent_of_its_own(self, wire: Wire) -> None:
        real = models.Restaurant.objects.create(name="Chez Real", serves="soup")
        answer = copy(wire, "host.Restaurant", real.pk)
        made = models.Restaurant.objects.get(pk=answer["id"])
        assert (made.serves, made.name != "Chez Real") == ("soup", True)
        assert sorted(TestEntity.objects.values_list("model", flat=True)) == ["host.place", "host.restaurant"]

    def test_a_pointer_that_may_be_null_is_left_out(self, wire: Wire) -> None:
        team = models.Team.objects.create(name="x")
        team.captain = models.Player.objects.create(name="y", team=team)
        team.save()
        assert copy(wire, "host.Team", team.pk)["fields"]["captain"] is None

    def test_a_catalogue_row_is_pointed_at(self, wire: Wire) -> None:
        country = models.Country.objects.create(code="NO", name="Norway")
        real = models.Author.objects.create(name="Real", country=country)
        rules = {**RULES, "host.Author": {}}
        with changed(SHADOW_COPIES=rules, REFERENCE_MODELS=["host.Country"]):
            assert copy(wire, "host.Author", real.pk)["fields"]["country"] == "NO"


class TestRefusals:
    @pytest.mark.parametrize("model", ["host.Loan", "auth.Group", "nowhere", "", "host.Voucher.x"])
    def test_a_model_that_is_not_listed(self, wire: Wire, model: str) -> None:
        response = wire.post("shadow-copies", {"model": model, "id": "1"})
        assert error_of(response) in {(403, "not_allowed"), (400, "invalid_body")}
        assert not TestEntity.objects.exists()

    @pytest.mark.parametrize("key", ["999999", "x", "shadow-1-1", "9" * 60])
    def test_an_unknown_row(self, wire: Wire, key: str) -> None:
        assert copy(wire, "auth.User", key, 404) == (404, "not_found")

    def test_another_runs_row(self, wire: Wire, new_wire: Any) -> None:
        foreign = new_wire().make("builders")
        assert copy(wire, "stagehand_marketplace.Builder", foreign["id"], 404) == (404, "not_found")

    @pytest.mark.parametrize("right", ["is_staff", "is_superuser"])
    def test_a_privileged_account_however_it_is_reached(
        self, wire: Wire, builder: Builder, right: str
    ) -> None:
        User.objects.update(**{right: True})
        assert copy(wire, "auth.User", builder.user_id, 403) == (403, "not_allowed")
        assert copy(wire, "stagehand_marketplace.Builder", builder.pk, 403) == (403, "not_allowed")
        assert (User.objects.count(), TestEntity.objects.count()) == (1, 0)

    def test_a_pointer_that_would_be_at_a_real_row(self, wire: Wire) -> None:
        author = models.Author.objects.create(name="Real")
        book = models.Book.objects.create(title="x", author=author)
        assert copy(wire, "host.Book", book.pk, 403) == (403, "not_allowed")
        assert models.Book.objects.count() == 1

    def test_all_where_the_server_makes_no_rows(self, wire: Wire, builder: Builder) -> None:
        with changed(SHADOW_COPIES=RULES, FORCE_SHADOW=True):
            assert copy(wire, "auth.User", builder.user_id, 403) == (403, "not_allowed")

    def test_one_by_a_bad_rule_is_none(self, wire: Wire, builder: Builder) -> None:
        with changed(SHADOW_COPIES={"auth.User": {"keep": ["password"]}}):
            assert copy(wire, "auth.User", builder.user_id, 403) == (403, "not_allowed")
