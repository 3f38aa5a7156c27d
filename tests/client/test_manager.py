"""A run, from its opening to its receipt, by the plain half of the client."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest

from project.shop.models import Category, Product
from stagehand_testdata.client import TestDataManager, errors, models
from stagehand_testdata.client.retries import Retries
from stagehand_testdata.marketplace.models import SessionType
from stagehand_testdata.models import TestEntity, TestRun
from tests.conftest import host_counts
from tests.document_client.conftest import host_rows

Manager = Callable[..., TestDataManager]


class TestTheBlock:
    def test_leaves_the_host_as_it_was(self, manager: Manager) -> None:
        before = host_rows()
        with manager(label="a test") as run:
            made = run.create("product", count=50)
            booking = run.booking_scenario(status="CONFIRMED")
            assert len(made) == 50
            assert {each.type for each in made} == {"product"}
            assert booking.status == "CONFIRMED"
            assert host_rows() != before
        assert host_rows() == before
        assert run.receipt is not None
        assert run.receipt.removed["product"] == 50
        assert run.receipt.remaining == 0
        assert TestRun.objects.get().state == "closed"

    def test_cleans_up_when_its_body_raises(self, manager: Manager) -> None:
        before = host_counts()
        with pytest.raises(ZeroDivisionError), manager() as run:
            run.builder()
            _ = 1 / 0
        assert host_counts() == before

    def test_a_clean_up_that_fails_does_not_hide_what_the_test_failed_of(self, manager: Manager) -> None:
        with pytest.raises(ZeroDivisionError) as caught, manager() as run:
            hold_for_ever(run.builder())
            _ = 1 / 0
        [note] = caught.value.__notes__
        assert run.test_id in note

    def test_what_had_to_stay_is_an_error_with_the_receipt(self, manager: Manager) -> None:
        with pytest.raises(errors.Residue) as caught, manager() as run:
            hold_for_ever(run.builder())
        assert caught.value.code == "residue"
        assert caught.value.receipt.remaining == 2
        held = next(each for each in caught.value.receipt.quarantined if each.type == "builder")
        assert held.blocked_by == {"stagehand_marketplace.SessionType": 1}
        assert str(held) == f"{held.type} {held.id}: {held.reason} (1 stagehand_marketplace.SessionType)"

    def test_a_run_that_is_joined_is_left_to_whoever_opened_it(self, manager: Manager) -> None:
        with manager() as run:
            with manager(test_id=run.test_id) as joined:
                joined.client()
            assert run.status().state == "open"
            assert run.status().entities["live"] == 2
        assert TestEntity.objects.standing().count() == 0

    def test_a_persistent_run_is_left_to_its_end(self, manager: Manager) -> None:
        with manager(scope="persistent_session") as run:
            pass
        assert run.status().state == "open"
        assert run.cleanup().success

    def test_a_server_that_is_down_is_waited_for_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        monkeypatch.setattr("stagehand_testdata.client._sync.wire.sleep", pauses.append)
        with pytest.raises(errors.ConnectionFailed) as caught, TestDataManager("http://127.0.0.1:9"):
            pytest.fail("the block began")
        assert len(pauses) == Retries().attempts - 1
        assert not hasattr(caught.value, "__notes__")

    def test_what_it_could_not_be_opened_for_is_what_is_told(
        self, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = manager()

        def fail() -> None:
            raise errors.Residue("something stays")

        monkeypatch.setattr(run, "cleanup", fail)
        monkeypatch.setattr(run, "initialize", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError) as caught, run:
            pytest.fail("the block began")
        [note] = caught.value.__notes__
        assert "something stays" in note

    def test_two_cleanings_are_one(self, manager: Manager) -> None:
        with manager() as run:
            run.client()
            assert run.cleanup().removed["client"] == 1
            assert run.cleanup().removed == {}


def hold_for_ever(builder: models.Builder) -> None:
    """A real row that goes with the test's builder, so that the builder has to stay."""
    SessionType._base_manager.create(builder_id=builder.id, title="Real", duration_minutes=30, price=1)


class TestRows:
    def test_the_documents_operations(self, manager: Manager) -> None:
        with manager() as run:
            builder = run.builder(name="Grace", expertise=["COBOL"], hourly_rate=90, validation_tier=2)
            assert builder.name == "stagehand_test_Grace"
            assert (builder.expertise, builder.hourly_rate, builder.validation_tier) == (("COBOL",), 90, 2)
            assert builder.created_at is not None
            assert builder.created_at.tzinfo is not None
            offers = run.session_types(
                builder,
                {"name": "First", "duration": 30},
                {"name": "Second", "calendly_url": "https://a.test/x"},
            )
            assert [each.duration for each in offers] == [30, 60]
            assert offers[1].calendly_url == "https://a.test/x"
            [usual] = run.session_types(builder.id)
            assert (usual.duration, usual.price) == (60, 75)
            client = run.client(name="Zoe", company_name="Zoe & Co")
            assert client.company_name == "Zoe & Co"
            start = dt.datetime(2030, 1, 2, 10, tzinfo=dt.UTC)
            made = run.booking_scenario(
                builder=builder,
                client=client,
                session_type=offers[0],
                start_time=start,
                payment_status="PAID",
            )
            assert (made.builder.id, made.client.id) == (builder.id, client.id)
            assert made.session_type.id == made.booking.session_type_id == offers[0].id
            assert (made.start_time, made.payment_status) == (start, "PAID")

    def test_one_row_or_a_list_with_fields_under_the_hosts_names(self, manager: Manager) -> None:
        with manager() as run:
            one = run.create("product", title="Lamp")
            assert one["title"] == "Lamp"
            assert one.fields["title"] == "Lamp"
            [listed] = run.create("product", count=1, fields={"title": "Chair"})
            assert listed["title"] == "Chair"

    def test_moments_numbers_and_rows_go_as_what_json_has(self, manager: Manager) -> None:
        with manager() as run:
            author = run.create("author")
            made = run.create(
                "book",
                author=author,
                price=Decimal("9.95"),
                published=dt.date(2030, 1, 2),
            )
            assert (made["author"], made["price"], made["published"]) == (author.id, "9.95", "2030-01-02")
            assert run.create("book", author=UUID(author.id))["author"] == author.id
            start = dt.datetime(2030, 1, 2, 10, tzinfo=dt.UTC)
            booking = run.operation("booking-scenarios", clientId=run.client(), startTime=start)
            assert dt.datetime.fromisoformat(booking["startTime"]) == start
            assert run.booking_scenario(amount=Decimal("7.50")).amount == 7.5

    @pytest.mark.parametrize(
        ("value", "what"), [({1}, "a set"), (b"x", "a bytes"), (object(), "a object"), (float("nan"), "nan")]
    )
    def test_what_json_has_nothing_for_is_misuse_that_names_the_field(self, value: Any, what: str) -> None:
        # Nobody is asked: nobody listens there.
        run = TestDataManager("http://127.0.0.1:9")
        for make in (
            lambda: run.create("product", title=value),
            lambda: run.builder(title=value),
            lambda: run.scenario("payment", title=[value]),
            lambda: run.operation("clients", title={"en": value}),
        ):
            with pytest.raises(errors.Misuse, match=f"title.*: JSON has nothing for {what}; give a text"):
                make()

    def test_batches_scenarios_and_operations(self, manager: Manager) -> None:
        with manager() as run:
            made = run.batch(builders=2, clients=1, sessionTypes=True)
            assert {name: len(rows) for name, rows in made.entities.items()} == {
                "builder": 2,
                "client": 1,
                "sessionType": 2,
            }
            assert run.scenario("payment", status="CONFIRMED").entities["booking"][0]["amount"] == 85
            assert run.operation("clients", name="Zoe")["name"] == "stagehand_test_Zoe"

    def test_only_some_rows_are_cleaned_up_and_the_run_goes_on(self, manager: Manager) -> None:
        with manager() as run:
            first, second, client = run.create("product"), run.create("product"), run.client()
            receipt = run.cleanup(first, client, ("product", "0"))
            assert receipt.removed["product"] == 1
            assert dict(receipt.not_owned[0]) == {"type": "product", "id": "0"}
            assert [each.id for each in run.entities(state="live", type="product")] == [second.id]
            run.create("product")

    def test_a_seed_gives_the_same_values(self, manager: Manager) -> None:
        titles = []
        for _ in range(2):
            with manager(seed=42) as run:
                assert run.seed == 42
                titles.append([each["title"] for each in run.create("product", count=5)])
        assert titles[0] == titles[1]

    @pytest.mark.parametrize("shadow", [True, "deep"])
    def test_in_shadow_no_row_is_made(self, manager: Manager, shadow: Any) -> None:
        before = host_counts()
        with manager(shadow=shadow) as run:
            assert run.booking_scenario().shadow
            assert run.create("product").shadow
            assert host_counts() == before

    def test_a_copy_of_a_real_row(self, manager: Manager, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {
            **settings.STAGEHAND_TESTDATA,
            "SHADOW_COPIES": {"shop.Product": {"keep": ["title"]}},
            "REFERENCE_MODELS": ["shop.Category"],
        }
        shelf = Category.objects.create(name="real")
        real = Product.objects.create(sku="real", title="Real lamp", price=3, category=shelf)
        with manager() as run:
            copy = run.shadow_copy("shop.Product", str(real.pk))
            assert (copy["title"], copy.copy_of) == ("Real lamp", str(real.pk))
        assert Product.objects.get(pk=real.pk).title == "Real lamp"


class TestTheRun:
    def test_says_what_it_is(self, manager: Manager) -> None:
        with manager(label="x", build_id="77", test_user_email="ci-77@example.com") as run:
            assert run.access is not None
            assert run.access.environment == "test"
            found = run.status()
            assert (found.label, found.build_id, found.state) == ("x", "77", "open")
            assert run.test_id in {each.test_id for each in run.runs()}
            assert run.renew(30, label="y").label == "y"
        assert run.last_receipt().test_id == run.test_id

    def test_lists_come_whole_however_many_pages_they_have(self, manager: Manager) -> None:
        with manager() as run:
            run.create("product", count=501)
            assert len({each.id for each in run.entities(type="product")}) == 501

    def test_deleted_it_is_unknown(self, manager: Manager) -> None:
        with manager() as run:
            run.client()
            assert run.delete().removed["client"] == 1
            with pytest.raises(errors.NotFound):
                run.status()

    def test_says_what_can_be_made(self, manager: Manager) -> None:
        with manager() as run:
            types = {each.name: each for each in run.entity_types()}
            assert {"product", "builder"} <= set(types)
            assert "title" in {each.name for each in types["product"].fields}

    def test_a_pass_puts_the_products_pages_under_it(self, manager: Manager, product: str) -> None:
        with manager() as run:
            builder = run.builder()
            page = f"{product}/marketplace/builders/{builder.id}"
            granted = run.pass_()
            assert httpx.get(page).status_code == 404
            assert httpx.get(page, headers=granted.headers).status_code == 200
            cookie = granted.cookie_for(product)
            assert httpx.get(page, cookies={cookie["name"]: cookie["value"]}).status_code == 200

    def test_every_user_of_it_can_be_signed_in(self, manager: Manager) -> None:
        with manager() as run:
            made = run.booking_scenario()
            for each in (made.client, made.builder, made.client.user_id, run.create("user")):
                opened = run.session(each, next_path="/marketplace/builders")
                answer = httpx.get(opened.link)
                assert answer.status_code == 302
                assert answer.headers["Location"] == "/marketplace/builders"

    def test_a_row_stands_for_the_account_that_it_has(self, manager: Manager) -> None:
        with manager() as run:
            user = run.create("user")
            book = run.create("book", owner=user)
            assert (
                run.session(book).user_id == run.session(run.create("profile", user=user)).user_id == user.id
            )

    def test_a_row_without_an_account_is_never_taken_for_one(self, manager: Manager) -> None:
        with manager() as run:
            for person in run.create("person", count=3):
                with pytest.raises(errors.InvalidRequest) as caught:
                    run.session(person)
                assert "userId" in caught.value.details

    def test_is_opened_by_the_first_row_where_nobody_did(self, manager: Manager) -> None:
        run = manager(seed=42, label="lazy", lease_minutes=5)
        row = run.create("product")
        assert run.seed == 42
        found = run.status()
        assert (found.label, found.seed) == ("lazy", 42)
        assert found.expires_at - found.opened_at < dt.timedelta(minutes=6)
        run.close()
        assert run.receipt is not None
        assert run.receipt.removed["product"] == 1
        with manager(seed=42) as again:
            assert again.create("product")["title"] == row["title"]
        with pytest.raises(errors.RunClosed):
            run.create("product")

    def test_one_that_is_joined_is_opened_by_nobody_else(self, manager: Manager) -> None:
        with manager(label="its own") as run:
            joined = manager(test_id=run.test_id, label="another")
            joined.create("product")
            assert joined.access is None
            assert run.status().label == "its own"

    def test_test_ids_differ_whatever_is_seeded(self) -> None:
        import random

        random.seed(1)
        first = TestDataManager("http://127.0.0.1:9").test_id
        random.seed(1)
        assert first != TestDataManager("http://127.0.0.1:9").test_id
