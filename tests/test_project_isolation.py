"""Real users of the host product are answered byte for byte as if its 10,000 test rows were not there."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import models
from django.test import Client

from project.seed import seed
from project.shop.models import Category, Product, Tag
from stagehand_testdata.marketplace.models import Booking, Builder, SessionType
from stagehand_testdata.marketplace.models import Client as Customer
from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations import passes, runs
from stagehand_testdata.operations.entities import Creation
from tests.making import perform

pytestmark = pytest.mark.django_db

TEST_ID = "stagehand_test_differential"
ROWS = 10_000
BATCH = 1000
REAL_ROWS = 40

PUBLIC = (
    "/marketplace/builders",
    "/marketplace/builders?page=2",
    "/marketplace/builders?page=3&sort=newest",
    "/marketplace/builders?sort=newest",
    "/marketplace/builders?sort=-rate",
    "/marketplace/builders?sort=rate&tier=2",
    "/marketplace/builders?q=payments",
    "/marketplace/builders?skill=React",
    "/marketplace/builders?availability=limited&min_rate=50&max_rate=200",
    "/marketplace/builders?q=nobody+is+called+so",
    "/marketplace/builders.json",
    "/marketplace/builders.json?page=2&sort=newest",
    "/marketplace/builders.csv",
    "/marketplace/builders.csv?tier=3",
    "/marketplace/builders.atom",
    "/marketplace/figures.json",
    "/marketplace/builders/{builder}",
    "/sitemap.xml",
    "/shop/",
    "/shop/?sort=newest",
    "/shop/?page=2",
    "/shop/?q=pen",
    "/shop/?category=stationery",
    "/shop/?tag=new&sort=newest",
    "/shop/products.json",
    "/shop/NB-A5/",
)
ADMIN = (
    "/admin/stagehand_marketplace/builder/",
    "/admin/stagehand_marketplace/builder/?q=payments",
    "/admin/stagehand_marketplace/builder/?validation_tier__exact=3&o=-8",
    "/admin/stagehand_marketplace/client/",
    "/admin/stagehand_marketplace/sessiontype/?q=Ada",
    "/admin/stagehand_marketplace/booking/",
    "/admin/stagehand_marketplace/booking/?q=Ada&status__exact=CONFIRMED",
    "/admin/shop/product/",
    "/admin/shop/product/?q=pen&o=-5",
    "/admin/shop/product/?tags__id__exact={tag}",
    "/admin/shop/category/",
    "/admin/shop/tag/",
    "/admin/auth/user/",
    "/admin/auth/user/?q=example",
    "/admin/autocomplete/?app_label=stagehand_marketplace&model_name=booking&field_name=builder",
    "/admin/autocomplete/?app_label=shop&model_name=product&field_name=category&term=g",
)
#: The run itself is answered the same: nothing in these depends on rows beside the one that is shown.
ABOUT_ONE_ROW = (
    "/admin/stagehand_marketplace/builder/{builder}/change/",
    "/admin/shop/product/NB-A5/change/",
)
#: What no real user finds, though a test row is there by now.
OF_TEST_ROWS = ("/marketplace/builders/{next_builder}", "/shop/TEST-00000/")
REQUESTS = (*PUBLIC, *ADMIN, *ABOUT_ONE_ROW, *OF_TEST_ROWS)


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, admin_user: User, real_rows: None) -> Any:
    """Answers every request, to whoever has these headers: status, type and body."""
    # The one thing that differs between two answers: a token is masked anew for each.
    monkeypatch.setattr("django.middleware.csrf.get_random_string", lambda length, **_: "x" * length)
    named = {
        "builder": SessionType.objects.earliest("pk").builder_id,
        "next_builder": Builder.objects.latest("pk").pk + 1,
        "tag": Tag.objects.get(name="new").pk,
    }

    def ask(**headers: str) -> dict[str, tuple[int, str, bytes]]:
        client = Client(headers=headers)
        client.force_login(admin_user)
        answers = {}
        for request in REQUESTS:
            response = client.get(request.format_map(named))
            body = b"".join(response) if response.streaming else response.content
            answers[request] = response.status_code, response.headers["Content-Type"], body
        return answers

    return ask


@pytest.fixture
def real_rows(db: None) -> None:
    """Enough of them for a second page."""
    seed()
    users = get_user_model().objects
    category, tag = Category.objects.get(name="stationery"), Tag.objects.get(name="new")
    for n in range(REAL_ROWS):
        user = users.create(username=f"real{n:02}", email=f"real{n:02}@marketplace.example")
        builder = Builder.objects.create(
            user=user,
            display_name=f"Real {n:02}",
            headline="Payments",
            top_skills=["React"],
            hourly_rate=50 + n,
            validation_tier=n % 3 + 1,
            availability=("available", "limited")[n % 2],
        )
        SessionType.objects.create(builder=builder, title="Review", price=n)
        product = Product.objects.create(sku=f"REAL-{n:02}", title=f"Pen {n:02}", price=n, category=category)
        product.tags.add(tag)


def make_test_rows() -> int:
    """Rows of every table that would come first in each list, many of them at real ones; how many."""
    for batch in range(ROWS // BATCH):
        perform(lambda call, batch=batch: _make_batch(call, range(batch * 100, batch * 100 + 100)), TEST_ID)
    return TestEntity.objects.standing().filter(run__test_id=TEST_ID).count()


def _make_batch(call: Creation, numbers: range) -> None:
    users = get_user_model().objects.bulk_create(
        User(username=f"a{n}@example.com", email=f"a{n}@example.com", password="!") for n in numbers
    )
    builders = _make(
        Builder(
            user=user,
            display_name=f"A test {n}",
            headline="Payments",
            top_skills=["React"],
            hourly_rate=n % 250,
            validation_tier=n % 3 + 1,
            availability=("available", "limited")[n % 2],
            featured=True,
        )
        for n, user in zip(numbers, users, strict=True)
    )
    _make(Customer(user=user, display_name="A test") for user in users)
    real_builder = SessionType.objects.filter(title="Initial consultation").earliest("pk").builder
    sessions = _make(
        SessionType(builder=builder, title="A test session by Ada", price=1, display_order=0)
        for each in builders
        for builder in (each, real_builder)
    )
    start = dt.datetime(2040, 1, 1, tzinfo=dt.UTC)
    _make(
        Booking(
            builder=each.builder,
            session_type=each,
            client=users[0],
            title="Ada",
            start_time=start,
            end_time=start + dt.timedelta(hours=1),
            status="CONFIRMED",
        )
        for each in sessions
    )
    real_category, real_tag = Category.objects.get(name="stationery"), Tag.objects.get(name="new")
    category = Category.objects.create(name=f"a-general-{numbers[0]}")
    tag = Tag.objects.create(name=f"a-{numbers[0]}")
    products = _make(
        Product(
            sku=f"TEST-{n:05}",
            title=f"A pen {n}",
            price=Decimal(1),
            category=(category, real_category)[n % 2],
        )
        for n in numbers
    )
    _make(Product.tags.through(product=product, tag=each) for product in products for each in (real_tag, tag))


def _make(rows: Any) -> list[Any]:
    made = list(rows)
    model: type[models.Model] = type(made[0])
    return model._base_manager.bulk_create(made)


def test_real_users_are_answered_as_if_no_test_row_were_there(asking: Any) -> None:
    before = asking()
    assert len(before) >= 30
    assert [name for name, (status, _, _) in before.items() if status != 200] == list(OF_TEST_ROWS)

    assert make_test_rows() >= ROWS
    after = asking()
    assert [name for name in REQUESTS if after[name] != before[name]] == []

    # Had the rows not been there, or been such as no list shows, the above would say nothing.
    run = asking(**{"X-Testdata-Pass": passes.issue(runs.find(TEST_ID, "")).token})
    assert {run[name][0] for name in REQUESTS} == {200}
    same = {name for name in REQUESTS if run[name][2] == before[name][2]}
    assert same == {*ABOUT_ONE_ROW, "/marketplace/builders?q=nobody+is+called+so"}
