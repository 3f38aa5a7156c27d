"""`POST builders` and `POST clients`."""

from __future__ import annotations

from typing import Any

import pytest

from stagehand_testdata.marketplace.models import Builder, Client
from tests.api.conftest import nothing_written
from tests.conftest import Wire, error_of

PREFIX = "stagehand_test_"


class TestBuilders:
    def test_an_empty_body_gives_the_documents_defaults(self, wire: Wire, unchanged_host: None) -> None:
        made = wire.make("builders")
        times = {name: made.pop(name) for name in ("createdAt", "expiresAt")}
        assert times["createdAt"] < times["expiresAt"]
        assert all(text.endswith("Z") for text in times.values())
        builder = Builder.all_rows.get()
        assert made == {
            "id": str(builder.pk),
            "testId": wire.test_id,
            "name": builder.display_name,
            "email": f"{wire.test_id}@example.com",
            "userId": str(builder.user_id),
            "expertise": ["React", "Node.js"],
            "hourlyRate": 85,
            "availability": True,
            "validationTier": 1,
            "headline": builder.headline,
            "bio": "",
            "isTest": True,
        }
        assert made["name"].startswith(PREFIX)
        wire.cleanup()

    def test_everything_can_be_chosen(self, wire: Wire) -> None:
        body = {
            "name": f"{PREFIX}Ada",
            "email": "Ada.Lovelace@Example.COM",
            "expertise": ["Engines"],
            "hourlyRate": 120.5,
            "availability": "limited",
            "validationTier": 3,
            "headline": "First",
            "bio": "Notes <b>& more</b>",
        }
        made = wire.make("builders", body)
        assert {name: made[name] for name in body} == {**body, "email": "ada.lovelace@example.com"}
        builder = Builder.all_rows.select_related("user").get()
        assert (builder.hourly_rate, builder.top_skills) == (120.5, ["Engines"])
        assert builder.user.email == "ada.lovelace@example.com"

    @pytest.mark.parametrize(
        ("sent", "state", "for_hire"),
        [
            (True, "available", True),
            (False, "unavailable", False),
            ("available", "available", True),
            ("limited", "limited", True),
            ("unavailable", "unavailable", False),
        ],
    )
    def test_availability_is_given_back_as_sent(
        self, wire: Wire, sent: Any, state: str, for_hire: bool
    ) -> None:
        assert wire.make("builders", {"availability": sent})["availability"] is sent or sent == state
        builder = Builder.all_rows.get()
        assert (builder.availability, builder.available_for_hire) == (state, for_hire)

    @pytest.mark.parametrize(
        ("name", "stored"),
        [("Ada", f"{PREFIX}Ada"), (f"{PREFIX}Ada", f"{PREFIX}Ada"), ("é😀", f"{PREFIX}é😀")],
    )
    def test_names_get_the_prefix_where_they_lack_it(self, wire: Wire, name: str, stored: str) -> None:
        for path in ("builders", "clients"):
            assert wire.make(path, {"name": name})["name"] == stored
        assert Builder.all_rows.get().display_name == Client.all_rows.get().display_name == stored

    def test_default_names_differ(self, wire: Wire) -> None:
        names = {wire.make("builders")["name"] for _ in range(3)}
        assert len(names) == 3

    def test_the_id_is_that_of_the_public_page(self, wire: Wire) -> None:
        made = wire.make("builders", {"name": "Ada"})
        granted = wire.make(f"runs/{wire.test_id}/pass")
        page = wire.client.get(
            f"/marketplace/builders/{made['id']}", headers={granted["header"]: granted["token"]}
        )
        assert page.status_code == 200
        assert made["name"] in page.content.decode()

    def test_its_user_can_do_nothing(self, wire: Wire, users: Any) -> None:
        wire.make("builders")
        user = users.get()
        assert not user.has_usable_password()
        assert not user.is_staff
        assert not user.is_superuser
        assert user.first_name == Builder.all_rows.get().display_name

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""),
            ("name", 5),
            ("name", "A\x0bB"),
            ("name", "A\nB"),
            ("headline", "A\x0bB"),
            ("expertise", ["A\x1b[31m"]),
            ("name", "x" * 121),
            ("name", None),
            ("email", ""),
            ("email", "nobody"),
            ("email", 5),
            ("email", "x" * 250 + "@example.com"),
            ("expertise", "React"),
            ("expertise", [5]),
            ("expertise", [""]),
            ("expertise", ["x"] * 51),
            ("expertise", {"0": "React"}),
            ("hourlyRate", -1),
            ("hourlyRate", "85"),
            ("hourlyRate", 1.234),
            ("hourlyRate", 10**9),
            ("hourlyRate", True),
            ("availability", "sometimes"),
            ("availability", 1),
            ("availability", None),
            ("availability", []),
            ("validationTier", 0),
            ("validationTier", 4),
            ("validationTier", 1.5),
            ("validationTier", True),
            ("headline", "x" * 201),
            ("bio", "x" * 5001),
            ("password", "secret"),
            ("is_staff", True),
            ("user", 1),
            ("userId", 1),
            ("id", 1),
        ],
    )
    def test_what_is_not_acceptable_makes_nothing(
        self, wire: Wire, untouched: None, field: str, value: Any
    ) -> None:
        response = wire.post("builders", {field: value})
        assert error_of(response) == (400, "invalid_body")
        assert [name.split(".")[0] for name in response.json()["details"]] == [field]


class TestClients:
    def test_an_empty_body_gives_the_documents_defaults(self, wire: Wire, unchanged_host: None) -> None:
        made = wire.make("clients")
        assert {"id", "testId", "name", "email", "isTest", "createdAt", "expiresAt"} <= set(made)
        assert (made["email"], made["isTest"]) == (f"{wire.test_id}_client@example.com", True)
        assert made["name"].startswith(PREFIX)
        wire.cleanup()

    def test_everything_can_be_chosen(self, wire: Wire) -> None:
        made = wire.make("clients", {"name": "Bob", "email": "bob@example.org", "companyName": "Bob & Co"})
        assert (made["name"], made["email"]) == (f"{PREFIX}Bob", "bob@example.org")
        client = Client.all_rows.select_related("user").get()
        assert (client.company_name, client.user.email) == ("Bob & Co", "bob@example.org")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("companyName", 5),
            ("companyName", "A\nB"),
            ("companyName", "x" * 201),
            ("name", "A\x0b"),
            ("expertise", []),
            ("name", []),
        ],
    )
    def test_what_is_not_acceptable_makes_nothing(
        self, wire: Wire, untouched: None, field: str, value: Any
    ) -> None:
        response = wire.post("clients", {field: value})
        assert error_of(response) == (400, "invalid_body")
        assert list(response.json()["details"]) == [field]


def test_a_test_id_as_long_as_can_be_is_no_trouble(wire: Wire, unchanged_host: None) -> None:
    wire.test_id = PREFIX + "X" * (128 - len(PREFIX))
    for path in ("builders", "builders", "clients", "booking-scenarios"):
        wire.make(path)
    assert wire.cleanup()["remaining"] == 0


def test_a_refused_row_leaves_the_run_as_it_was(wire: Wire) -> None:
    wire.make("builders", {"email": "ada@example.com"})
    with nothing_written():
        assert wire.post("builders", {"email": "ada@example.com"}).status_code == 409
