"""The host product's public pages: the listing with its filters, a builder, a booking."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import io
import re
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from stagehand_testdata.marketplace.models import Booking, Builder, SessionType

pytestmark = pytest.mark.django_db


def make_builder(name: str, **fields: Any) -> Builder:
    user = get_user_model().objects.create_user(username=name, email="")
    return Builder.objects.create(user=user, display_name=name, **fields)


def make_session(builder: Builder, **fields: Any) -> SessionType:
    return SessionType.objects.create(
        **{"builder": builder, "title": "Review", "duration_minutes": 90, "price": Decimal(120), **fields}
    )


def listed(client: Client, **query: Any) -> list[str]:
    response = client.get("/marketplace/builders", query)
    assert response.status_code == 200
    return re.findall(r'<h2><a href="[^"]+">([^<]+)</a></h2>', response.content.decode())


class TestListing:
    def test_home_leads_to_it_and_the_slash_is_optional(self, client: Client) -> None:
        assert client.get("/").headers["Location"] == "/marketplace/builders"
        assert client.get("/marketplace/builders/").status_code == 200

    def test_shows_searchable_builders_only_and_counts_them(self, client: Client) -> None:
        make_builder("Ann")
        make_builder("Bob", searchable=False)
        assert listed(client) == ["Ann"]
        assert "<strong>1</strong> builder\n" in client.get("/marketplace/builders").content.decode()

    def test_says_so_when_nothing_matches(self, client: Client) -> None:
        assert "No builders found" in client.get("/marketplace/builders?q=nobody").content.decode()

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ({"min_rate": "90"}, ["B", "C"]),
            ({"max_rate": "90"}, ["A"]),
            ({"min_rate": "50", "max_rate": "100"}, ["A", "B"]),
            ({"tier": "3"}, ["C"]),
            ({"availability": "limited"}, ["B"]),
            ({"skill": "react"}, ["A", "C"]),
            ({"skill": "React", "tier": "3"}, ["C"]),
            ({"skill": "reac"}, []),
            ({"skill": "%"}, []),
            ({"skill": 'Say "hi" \\o/'}, ["B"]),
            ({"skill": "Größe"}, ["B"]),
            ({"q": "ALGEBRA"}, ["A"]),
            ({"q": "größe"}, ["B"]),
            ({"q": "linear react"}, ["A"]),
            ({"sort": "rate"}, ["A", "B", "C", "D"]),
            ({"sort": "-rate"}, ["C", "B", "A", "D"]),
            ({"sort": "newest"}, ["D", "C", "B", "A"]),
            ({"sort": "name"}, ["A", "B", "C", "D"]),
        ],
    )
    def test_filters_and_sorts(self, client: Client, query: dict[str, str], names: list[str]) -> None:
        make_builder("A", hourly_rate=85, top_skills=["React", "Node.js"], headline="Linear algebra")
        make_builder("B", hourly_rate=95, top_skills=["Größe", 'Say "hi" \\o/'], availability="limited")
        make_builder("C", hourly_rate=140, top_skills=["react"], validation_tier=3)
        make_builder("D", hourly_rate=None, top_skills=["React Native"])
        assert listed(client, **query) == names

    @pytest.mark.parametrize(
        ("query", "label"),
        [
            ("tier=9", "Tier"),
            ("tier=<script>", "Tier"),
            ("min_rate=NaN", "Rate from"),
            ("max_rate=1e999", "Rate to"),
            ("min_rate=-1", "Rate from"),
            ("availability=never", "Availability"),
            ("sort=password", "Sort by"),
            ("q=%00", "Search"),
            ("skill=" + "x" * 101, "Skill"),
        ],
    )
    def test_ignores_a_filter_that_makes_no_sense_and_says_so(
        self, client: Client, query: str, label: str
    ) -> None:
        make_builder("Ann")
        response = client.get(f"/marketplace/builders?{query}")
        page = response.content.decode()
        assert response.status_code == 200
        assert re.search(rf'_error">{label}: .* This filter is ignored.</li>', page)
        assert "Ann" in page
        assert "<script>" not in page

    @pytest.mark.parametrize("page", ["1", "2", "99", "0", "-1", "x", "9" * 5000])
    def test_has_pages(self, client: Client, page: str) -> None:
        for number in range(13):
            make_builder(f"Builder {number:02}")
        assert len(listed(client, page=page, sort="name")) in {1, 12}

    def test_pages_keep_the_filters(self, client: Client) -> None:
        for number in range(13):
            make_builder(f"Builder {number:02}")
        assert "?q=Builder&amp;page=2" in client.get("/marketplace/builders?q=Builder").content.decode()


class TestBuilderPage:
    def test_shows_the_builder_and_the_active_sessions(self, client: Client) -> None:
        builder = make_builder("Ann & <b>", headline="Head", hourly_rate=85, top_skills=["React"])
        make_session(builder)
        make_session(builder, title="Retired", is_active=False)
        page = client.get(f"/marketplace/builders/{builder.pk}/").content.decode()
        for text in ("Ann &amp; &lt;b&gt;", "Head", "$85.00 / hour", "React", "Review", "90 minutes"):
            assert text in page
        assert "Retired" not in page

    @pytest.mark.parametrize("key", ["0", "999999", "9" * 18, "9" * 30, "-1", "abc", "1.5", "%00"])
    def test_is_not_found_under_another_id(self, client: Client, key: str) -> None:
        assert client.get(f"/marketplace/builders/{key}").status_code == 404


def test_a_feed_shows_a_name_that_xml_cannot_write(client: Client) -> None:
    make_builder("A\x0bB", headline="C\x1b[31m\uffff")
    response = client.get("/marketplace/builders.atom")
    assert response.status_code == 200
    assert b"<title>A B</title>" in response.content


class TestBooking:
    @pytest.fixture
    def session(self) -> SessionType:
        return make_session(make_builder("Ann"))

    def body(self, session: SessionType, **fields: Any) -> dict[str, Any]:
        start = (timezone.now() + dt.timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
        known = {"name": "Zoe", "email": "zoe@example.com", "session_type": session.pk, "start_time": start}
        return {**known, **fields}

    def book(self, client: Client, session: SessionType, **fields: Any) -> Any:
        return client.post(f"/marketplace/builders/{session.builder_id}", self.body(session, **fields))

    def test_of_a_stranger_is_linked_to_nobody(self, client: Client, session: SessionType) -> None:
        get_user_model().objects.create_user(username="zoe", email="zoe@example.com")
        response = self.book(client, session)
        booking = Booking.objects.get()
        assert booking.client is None
        assert booking.state_data == {"contact": {"name": "Zoe", "email": "zoe@example.com"}}
        assert (booking.title, booking.amount, booking.currency) == ("Review", Decimal(120), "USD")
        assert (booking.status, booking.payment_status) == ("PENDING", "UNPAID")
        assert booking.end_time - booking.start_time == dt.timedelta(minutes=90)
        confirmation = client.get(response.headers["Location"])
        assert "Your session with Ann is requested" in confirmation.content.decode()
        assert "zoe@example.com" not in confirmation.content.decode()

    @pytest.mark.parametrize("logged_in", [False, True])
    def test_is_confirmed_by_mail(self, client: Client, session: SessionType, logged_in: bool) -> None:
        address = "zoe@shop.example" if logged_in else "sam@shop.example"
        if logged_in:
            client.force_login(get_user_model().objects.create_user(username="zoe", email=address))
        response = self.book(client, session, email=address)
        [message] = mail.outbox
        assert (message.subject, message.to) == ("Booking received: Review", [address])
        assert f"http://testserver{response.headers['Location']}" in message.body

    def test_of_a_session_whose_title_has_two_lines_is_confirmed_in_one(self, client: Client) -> None:
        session = make_session(make_builder("Ann"), title="Review\nBcc: x@y.example")
        assert self.book(client, session, email="sam@shop.example").status_code == 302
        [message] = mail.outbox
        assert message.subject == "Booking received: Review Bcc: x@y.example"

    def test_of_a_logged_in_user_is_theirs(self, client: Client, session: SessionType) -> None:
        user = get_user_model().objects.create_user(username="zoe")
        client.force_login(user)
        assert "Your e-mail" not in client.get(f"/marketplace/builders/{session.builder_id}").content.decode()
        assert self.book(client, session).status_code == 302
        assert Booking.objects.get().client == user

    @pytest.mark.parametrize(
        "fields",
        [
            {"name": ""},
            {"email": "zoe"},
            {"start_time": "2020-01-01T10:00"},
            {"start_time": "9999-12-31T23:59"},
            {"start_time": "soon"},
            {"session_type": ""},
            {"session_type": "9" * 30},
            {"session_type": "x"},
            {"name": "\0"},
        ],
    )
    def test_that_makes_no_sense_is_refused(
        self, client: Client, session: SessionType, fields: dict[str, str]
    ) -> None:
        response = self.book(client, session, **fields)
        assert response.status_code == 200
        assert 'aria-invalid="true"' in response.content.decode()
        assert not Booking.objects.exists()

    def test_of_a_session_of_another_builder_or_a_retired_one_is_refused(
        self, client: Client, session: SessionType
    ) -> None:
        other = make_session(make_builder("Bob"))
        retired = make_session(session.builder, is_active=False)
        for foreign in (other, retired):
            assert self.book(client, session, session_type=foreign.pk).status_code == 200
        assert not Booking.objects.exists()

    def test_with_somebody_who_is_not_for_hire_is_refused(self, client: Client, session: SessionType) -> None:
        Builder.objects.update(available_for_hire=False)
        assert "takes no bookings" in self.book(client, session).content.decode()
        assert not Booking.objects.exists()

    @pytest.mark.parametrize("token", ["1", "1:", "1:forged", "x:y"])
    def test_is_not_shown_to_who_guesses_its_number(
        self, client: Client, session: SessionType, token: str
    ) -> None:
        self.book(client, session)
        assert client.get(f"/marketplace/bookings/{token}").status_code == 404


@pytest.mark.parametrize("model", ["builder", "client", "sessiontype", "booking"])
def test_admin_lists_searches_and_edits(admin_client: Client, model: str) -> None:
    from project.seed import seed

    seed()
    base = f"/admin/stagehand_marketplace/{model}/"
    assert admin_client.get(base, {"q": "a"}).status_code == 200
    assert admin_client.get(f"{base}add/").status_code == 200
    first = re.search(rf'href="({base}\d+/change/)', admin_client.get(base).content.decode())
    assert first
    assert admin_client.get(first[1]).status_code == 200


def test_style_sheets_are_served_and_nothing_else(client: Client) -> None:
    with contextlib.closing(client.get("/static/project/marketplace.css")) as style:
        assert b"--ink" in b"".join(style)
    assert client.get("/static/../settings.py").status_code == 400
    assert client.get("/static/project/settings.py").status_code == 404


def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "shop", "stagehand_marketplace", check=True, dry_run=True, verbosity=0)


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("https://evil.test")', "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"]
)
def test_a_formula_in_the_csv_is_a_text(client: Client, text: str) -> None:
    make_builder("Ann", headline=text)
    lines = list(
        csv.reader(io.StringIO(b"".join(client.get("/marketplace/builders.csv")).decode(), newline=""))
    )
    assert dict(zip(*lines, strict=True))["headline"] == f"'{text}"
