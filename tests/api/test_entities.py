"""Rows of any registered factory, and what can be made here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db.models import BinaryField
from rest_framework.exceptions import ValidationError

from stagehand_testdata.api.entity_fields import _serializer_field
from stagehand_testdata.models import TestEntity
from stagehand_testdata.registry import get_registry
from tests.conftest import Wire, error_of, host_counts
from tests.host.factories import VoucherFactory
from tests.host.models import Author, Book, Country

from .conftest import nothing_written

#: Factories of the test host that must fail, and how.
FAILING = {
    "staff": (500, "privileged_account"),
    "failing": (500, "factory_failed"),
    "raw": (500, "untracked_write"),
}

NEVER = ["id", "pk", "password", "is_staff", "is_superuser", "groups", "user_permissions", "is_test"]


class TestCreating:
    def test_one_row_is_answered_in_the_hosts_own_names(self, wire: Wire, unchanged_host: None) -> None:
        made = wire.make("entities/author", {"fields": {"name": "Ada"}})
        assert set(made) == {"id", "type", "testId", "isTest", "fields"}
        assert (made["type"], made["testId"], made["isTest"]) == ("author", wire.test_id, True)
        assert made["fields"]["name"] == "Ada"
        assert Author.objects.get(pk=made["id"]).name == "Ada"
        wire.cleanup()
        Country.objects.all().delete()

    @pytest.mark.parametrize("count", [1, 3])
    def test_a_count_gives_an_array(self, wire: Wire, count: int) -> None:
        made = wire.make("entities/author", {"count": count, "fields": {"name": "Ada"}})
        assert len(made) == len({each["id"] for each in made}) == count
        assert {each["fields"]["name"] for each in made} == {"Ada"}

    def test_a_column_beside_fields_is_told_where_it_goes(self, wire: Wire) -> None:
        with nothing_written():
            response = wire.post("entities/product", {"title": "x"})
        assert error_of(response) == (400, "invalid_body")
        assert response.json()["details"] == {"title": ["Unknown field: columns go under `fields`."]}

    @pytest.mark.parametrize("body", [{}, {"fields": {}}])
    def test_without_fields_the_factory_decides(self, wire: Wire, body: Any) -> None:
        assert wire.make("entities/person", body)["fields"]["name"]

    @pytest.mark.parametrize("name", sorted(each.name for each in get_registry().entity_types))
    def test_every_registered_type_is_made_and_taken_away(self, wire: Wire, name: str) -> None:
        before = host_counts()
        response = wire.post(f"entities/{name}")
        if name in FAILING:
            assert error_of(response) == FAILING[name]
        else:
            assert response.status_code == 201, response.content
            assert wire.cleanup()["remaining"] == 0
        after = host_counts()
        # A country is a catalogue: who finds or makes it first does not matter here.
        before.pop("host.Country"), after.pop("host.Country")
        assert after.pop("host.Journal") - before.pop("host.Journal") in (0, 1)
        assert after == before

    def test_a_password_is_never_answered(self, wire: Wire) -> None:
        assert "password" not in wire.make("entities/user")["fields"]

    def test_an_unknown_type_is_not_found(self, wire: Wire, untouched: None) -> None:
        for name in ("nonsense", "builders", "Builder", "auth.user", "%00", "%F0%9F%98%80", "x" * 500):
            assert error_of(wire.post(f"entities/{name}")) == (404, "unknown_type")

    @pytest.mark.parametrize("count", [0, -1, 1001, 2**62, "3", 1.5, True, None, [2]])
    def test_a_count_that_is_none_is_refused(self, wire: Wire, untouched: None, count: Any) -> None:
        response = wire.post("entities/person", {"count": count})
        assert error_of(response) == (400, "invalid_body")
        assert set(response.json()["details"]) == {"count"}

    def test_the_most_rows_of_a_call_are_the_hosts_to_choose(
        self, wire: Wire, configure: Callable[..., None]
    ) -> None:
        configure(MAX_ROWS_PER_CALL=2)
        assert len(wire.make("entities/person", {"count": 2})) == 2
        assert error_of(wire.post("entities/person", {"count": 3})) == (400, "invalid_body")

    @pytest.mark.parametrize("fields", [None, [], "name", 5, True])
    def test_fields_that_are_none_are_refused(self, wire: Wire, untouched: None, fields: Any) -> None:
        response = wire.post("entities/person", {"fields": fields})
        assert error_of(response) == (400, "invalid_body")
        assert set(response.json()["details"]) == {"fields"}

    def test_a_failure_on_the_way_leaves_nothing(self, wire: Wire, untouched: None) -> None:
        body = {"count": 2, "fields": {"username": "twice"}}
        assert error_of(wire.post("entities/user", body)) == (409, "conflict")


class TestFields:
    def test_unknown_ones_are_refused_by_name(self, wire: Wire, untouched: None) -> None:
        response = wire.post("entities/person", {"fields": {"colour": 1, "name": "Ada"}})
        assert error_of(response) == (400, "invalid_body")
        assert set(response.json()["details"]) == {"fields.colour"}

    @pytest.mark.parametrize("name", NEVER)
    @pytest.mark.parametrize("type_name", ["user", "person", "builder"])
    def test_privileges_and_keys_are_never_set(
        self, wire: Wire, untouched: None, type_name: str, name: str
    ) -> None:
        response = wire.post(f"entities/{type_name}", {"fields": {name: 1}})
        assert error_of(response) == (400, "invalid_body")
        assert set(response.json()["details"]) == {f"fields.{name}"}

    @pytest.mark.parametrize(
        "name", ["user", "user__is_staff", "user__password", "user__address", "created_at", "user_id"]
    )
    def test_paths_into_other_rows_are_never_set(self, wire: Wire, untouched: None, name: str) -> None:
        response = wire.post("entities/builder", {"fields": {name: "1"}})
        assert error_of(response) == (400, "invalid_body")

    @pytest.mark.parametrize("name", ["content_type", "object_id"])
    def test_a_generic_pointer_is_never_set(self, wire: Wire, untouched: None, name: str) -> None:
        assert error_of(wire.post("entities/note", {"fields": {name: 1}})) == (400, "invalid_body")

    def test_whatever_is_listed_a_privilege_never_gets_through(
        self, wire: Wire, untouched: None, configure: Callable[..., None]
    ) -> None:
        factory = "tests.host.factories.UserFactory"
        configure(ENTITY_TYPES={"boss": {"factory": factory, "fields": ["username", "is_superuser"]}})
        response = wire.post("entities/boss", {"fields": {"is_superuser": True}})
        assert error_of(response) == (400, "invalid_body")
        assert get_user_model().objects.count() == 0

    def test_a_value_too_long_for_its_column_is_refused(self, wire: Wire, untouched: None) -> None:
        response = wire.post("entities/person", {"fields": {"name": "x" * 101}})
        assert error_of(response) == (400, "invalid_body")

    def test_every_kind_of_value_comes_back(self, wire: Wire) -> None:
        fields = {"title": "é😀", "blurb": "", "price": "12.50", "published": "2030-01-31"}
        assert wire.entity("book", **fields)["fields"].items() >= fields.items()


class TestReferences:
    def test_a_row_of_the_run_can_be_pointed_at(self, wire: Wire) -> None:
        author = wire.entity("author")
        book = wire.entity("book", author=author["id"])
        assert book["fields"]["author"] == author["id"]
        assert Author.objects.count() == 1

    def test_null_points_at_nothing_where_the_column_allows(self, wire: Wire) -> None:
        assert wire.entity("book", owner=None)["fields"]["owner"] is None
        assert error_of(wire.post("entities/book", {"fields": {"author": None}})) == (400, "invalid_body")

    def test_any_other_row_is_answered_alike(self, wire: Wire, new_wire: Callable[[], Wire]) -> None:
        real = get_user_model().objects.create_user("ada", "ada@real.example", "pw")
        another = new_wire().entity("user")["id"]
        wire.post("verify-access")
        answers = []
        with nothing_written():
            for owner in (
                real.pk,
                another,
                999_999,
                2**62,
                -1,
                "x",
                "",
                [],
                {},
                [1],
                True,
                False,
                1.5,
                "1\n",
            ):
                response = wire.post("entities/book", {"fields": {"owner": owner}})
                assert error_of(response) == (404, "not_in_run"), owner
                answers.append(response.content)
        assert len(set(answers)) == 1

    def test_a_real_row_of_a_reference_model_can_be_pointed_at(
        self, wire: Wire, configure: Callable[..., None]
    ) -> None:
        Country.objects.create(code="FR", name="France")
        assert error_of(wire.post("entities/author", {"fields": {"country": "FR"}})) == (404, "not_in_run")
        configure(REFERENCE_MODELS=["host.Country"])
        assert wire.entity("author", country="FR")["fields"]["country"] == "FR"
        wire.cleanup()
        assert Country.objects.filter(code="FR").exists()

    def test_a_row_that_the_factory_finds_is_nobodys(self, wire: Wire) -> None:
        Country.objects.create(code="NL", name="The real one")
        wire.entity("author")
        assert not TestEntity.objects.filter(model="host.country").exists()
        wire.cleanup()
        assert Country.objects.get().name == "The real one"

    def test_a_factory_that_only_finds_is_a_conflict(self, wire: Wire) -> None:
        Country.objects.create(code="NL", name="The real one")
        with nothing_written():
            assert error_of(wire.post("entities/country")) == (409, "conflict")


class TestAddresses:
    def test_a_real_users_is_refused(self, wire: Wire) -> None:
        get_user_model().objects.create_user("ada", "Ada@Example.com", "pw")
        with nothing_written():
            response = wire.post("entities/user", {"fields": {"email": "aDa@eXample.com"}})
        assert error_of(response) == (409, "conflict")

    def test_one_that_somebody_could_own_is_refused(self, wire: Wire, untouched: None) -> None:
        response = wire.post("entities/user", {"fields": {"email": "ada@gmail.com"}})
        assert error_of(response) == (400, "invalid_body")

    def test_one_that_is_chosen_twice_is_refused(self, wire: Wire) -> None:
        wire.entity("user", email="ada@example.com")
        response = wire.post("entities/user", {"fields": {"email": "ADA@example.com"}})
        assert error_of(response) == (409, "conflict")


class TestTypes:
    def test_they_say_what_can_be_made(self, wire: Wire) -> None:
        response = wire.get("entity-types", **{"X-Test-ID": None})
        assert response.status_code == 200
        types = {each["name"]: each for each in response.json()}
        assert set(types) == {each.name for each in get_registry().entity_types}
        assert types["builder"]["plural"] == "builders"
        assert types["book"]["model"] == "host.Book"
        for each in types.values():
            for field in each["fields"]:
                assert {"name", "type", "required", "example"} <= set(field)
                assert field["name"] not in NEVER

    @pytest.mark.parametrize(
        "name", sorted({each.name for each in get_registry().entity_types} - set(FAILING))
    )
    def test_their_examples_are_taken(self, wire: Wire, name: str) -> None:
        types = {each["name"]: each for each in wire.get("entity-types").json()}
        for field in types[name]["fields"]:
            if field["type"] == "id":
                continue
            response = wire.post(f"entities/{name}", {"fields": {field["name"]: field["example"]}})
            assert response.status_code == 201, (field, response.content)
            wire.cleanup()
            wire = Wire(f"{wire.test_id}x")

    def test_pointers_name_what_they_point_at(self, wire: Wire) -> None:
        types = {each["name"]: each for each in wire.get("entity-types").json()}
        fields = {field["name"]: field for field in types["book"]["fields"]}
        assert fields["author"] == {
            "name": "author",
            "type": "id",
            "required": False,
            "example": "1",
            "references": "host.Author",
        }

    def test_choices_and_lengths_are_said(self, wire: Wire) -> None:
        types = {each["name"]: each for each in wire.get("entity-types").json()}
        fields = {field["name"]: field for field in types["builder"]["fields"]}
        assert fields["availability"]["choices"] == ["available", "limited", "unavailable"]
        assert fields["headline"]["maxLength"] == 200


def test_bytes_that_cannot_be_read_are_the_clients_fault() -> None:
    """A binary column that a type lists in its `fields`: base64, as Django has it."""
    column: Any = BinaryField()
    column.set_attributes_from_name("data")
    field: Any = _serializer_field(column, "data")
    assert bytes(field.run_validation("AAEC")) == b"\x00\x01\x02"
    for value in ("ö", "A", "\u2028"):
        with pytest.raises(ValidationError):
            field.run_validation(value)


def test_a_book_is_what_its_table_holds(wire: Wire) -> None:
    book = Book.objects.get(pk=wire.entity("book", price="1.5")["id"])
    assert str(book.price) == "1.50"


class PickyFactory(VoucherFactory):
    """Cannot make sense of every note."""

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs["note"] == "strange":
            raise AttributeError("'str' object has no attribute 'colour'")
        return super()._create(model_class, *args, **kwargs)


def test_a_value_that_a_factory_stumbles_over_is_the_clients_fault(wire: Wire, settings: Any) -> None:
    settings.STAGEHAND_TESTDATA = {
        **settings.STAGEHAND_TESTDATA,
        "ENTITY_TYPES": {"picky": f"{__name__}.PickyFactory"},
    }
    assert wire.post("entities/picky").status_code == 201
    before = host_counts()
    response = wire.post("entities/picky", {"fields": {"note": "strange"}})
    assert error_of(response) == (400, "invalid_body")
    assert host_counts() == before
