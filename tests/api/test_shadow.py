"""Shadow calls: the same answers, ids of their own, and nothing in the host's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import factory
import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core import mail
from django.db import connection, transaction
from django.db.models.signals import post_delete, post_save, pre_save
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.models import Receipt, ShadowKey, TestEntity
from stagehand_testdata.operations import audit
from tests.conftest import Wire, error_of, host_counts
from tests.host import models
from tests.host.factories import LabelFactory, VoucherFactory
from tests.making import changed, registered

from .conftest import CREATING, nothing_written
from .test_schema import check, schema

__all__ = ["schema"]

HOST_TABLES = {
    model._meta.db_table
    for model in apps.get_models(include_auto_created=True)
    if model._meta.app_label != "stagehand_testdata"
}


@pytest.fixture
def untouched_host(db: None) -> Iterator[None]:
    """No row, no statement on the host's tables, no signal of a row, no mail; in the test's whole body."""
    signals: list[Any] = []

    def take_down(sender: Any, **kwargs: Any) -> None:
        if sender._meta.app_label != "stagehand_testdata":
            signals.append(sender)

    before = host_counts()
    for signal in (pre_save, post_save, post_delete):
        signal.connect(take_down)
    try:
        with CaptureQueriesContext(connection) as queries:
            yield
    finally:
        for signal in (pre_save, post_save, post_delete):
            signal.disconnect(take_down)
    quoted = [connection.ops.quote_name(table) for table in HOST_TABLES]
    sent = [each["sql"] for each in queries.captured_queries]
    assert [sql for sql in sent if any(table in sql for table in quoted)] == []
    assert (signals, mail.outbox) == ([], [])
    assert host_counts() == before


def shadow(wire: Wire, path: str, body: Any = None) -> Any:
    return wire.make(path, {**(body or {}), "shadow": True})


def shape(value: Any) -> Any:
    """The keys of an answer, and what kind of JSON stands under each."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items() if name not in ("shadow", "deep")}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


@pytest.fixture
def warm(new_wire: Callable[[], Wire]) -> None:
    """What is imported and remembered at the first call is not this test's."""
    new_wire().make("booking-scenarios")


class TestAnswers:
    @pytest.mark.parametrize(("path", "body"), CREATING)
    def test_nothing_reaches_the_host(self, wire: Wire, untouched_host: None, path: str, body: Any) -> None:
        answer = shadow(wire, path, body)
        assert answer["shadow"] is True
        assert "deep" not in answer
        assert set(TestEntity.objects.values_list("origin", "state")) == {("shadow", "live")}

    @pytest.mark.parametrize(("path", "body"), CREATING)
    def test_they_have_the_shape_of_live_ones(
        self, wire: Wire, new_wire: Callable[[], Wire], schema: Any, path: str, body: Any
    ) -> None:
        live = wire.make(path, body)
        response = new_wire().post(path, {**body, "shadow": True})
        assert shape(response.json()) == shape(live)
        check(schema, "post", path, response)
        deep = new_wire().post(path, {**body, "shadow": True, "deep": True})
        assert shape(deep.json()) == shape(live)
        check(schema, "post", path, deep)

    def test_they_have_the_values_of_live_ones(self, wire: Wire) -> None:
        changing = {"id", "userId", "createdAt", "expiresAt", "shadow"}
        answer = shadow(wire, "builders")
        wire.send("delete", f"runs/{wire.test_id}")
        TestEntity.objects.all().delete()
        Receipt.objects.all().delete()
        apps.get_model("stagehand_testdata.TestRun").objects.all().delete()
        live = wire.make("builders")
        assert {name: answer[name] for name in set(answer) - changing} == {
            name: live[name] for name in set(live) - changing
        }

    def test_an_array_says_so_in_each_object(self, wire: Wire) -> None:
        many = shadow(wire, "entities/person", {"count": 2})
        assert [each["shadow"] for each in many] == [True, True]

    def test_no_key_reads_like_its_ids(self, wire: Wire) -> None:
        scenario = shadow(wire, "booking-scenarios")["entities"]
        keys = {each["id"] for rows in scenario.values() for each in rows}
        assert len(keys) == 4
        assert all(ShadowKey.read(key) for key in keys)
        assert shadow(wire, "entities/voucher", {"fields": {"note": "x"}})["id"].startswith("shadow-")

    def test_what_is_made_on_the_way_is_entered(self, wire: Wire) -> None:
        shadow(wire, "entities/book")
        entered = TestEntity.objects.values_list("type", "model")
        assert set(entered) == {
            ("country", "shadow.host.country"),
            ("author", "shadow.host.author"),
            ("book", "shadow.host.book"),
            ("chapter", "shadow.host.chapter"),
        }

    def test_an_address_is_claimed_once(self, wire: Wire) -> None:
        first, second = shadow(wire, "builders")["email"], shadow(wire, "builders")["email"]
        assert (first, second) == (f"{wire.test_id}@example.com", f"{wire.test_id}+2@example.com")
        assert error_of(wire.post("clients", {"shadow": True, "email": first})) == (409, "conflict")


class TestLaterCalls:
    def test_they_can_name_earlier_shadows(self, wire: Wire, warm: None, untouched_host: None) -> None:
        builder, client = shadow(wire, "builders"), shadow(wire, "clients")
        [session] = shadow(
            wire, "session-types", {"builderId": builder["id"], "sessionTypes": [{"price": 40}]}
        )
        booked = shadow(wire, "booking-scenarios", {"sessionTypeId": session["id"], "clientId": client["id"]})
        rows = {name: rows[0] for name, rows in booked["entities"].items()}
        assert rows["booking"]["clientId"] == client["id"]
        assert rows["booking"]["sessionTypeId"] == session["id"]
        assert rows["builder"]["email"] == builder["email"]
        assert booked["amount"] == 40

    def test_a_field_takes_the_id_of_a_shadow(self, wire: Wire, untouched_host: None) -> None:
        author = shadow(wire, "entities/author")
        book = shadow(wire, "entities/book", {"fields": {"author": author["id"]}})
        assert book["fields"]["author"] == author["id"]

    @pytest.mark.parametrize("deep", [{}, {"shadow": True, "deep": True}])
    def test_a_live_call_cannot_name_a_shadow(self, wire: Wire, deep: Any) -> None:
        builder, author = shadow(wire, "builders"), shadow(wire, "entities/author")
        for path, body in (
            ("session-types", {"builderId": builder["id"]}),
            ("booking-scenarios", {"builderId": builder["id"]}),
            ("entities/book", {"fields": {"author": author["id"]}}),
        ):
            with nothing_written():
                assert error_of(wire.post(path, {**body, **deep})) == (400, "shadow_id")

    def test_a_shadow_call_cannot_name_a_row(self, wire: Wire, configure: Any) -> None:
        configure(REFERENCE_MODELS=["host.Country"])
        builder = wire.make("builders")
        models.Country.objects.create(code="NO", name="Norway")
        for path, body in (
            ("session-types", {"builderId": builder["id"]}),
            ("entities/author", {"fields": {"country": "NO"}}),
        ):
            with nothing_written():
                assert error_of(wire.post(path, {**body, "shadow": True})) == (400, "not_shadow")

    def test_neither_another_runs_nor_one_of_another_model(
        self, wire: Wire, new_wire: Callable[[], Wire]
    ) -> None:
        foreign, client = shadow(new_wire(), "builders"), shadow(wire, "clients")
        for key in (foreign["id"], client["id"], "shadow-1-999999", "shadow-0-0"):
            with nothing_written():
                answer = wire.post("session-types", {"shadow": True, "builderId": key})
                assert error_of(answer) == (404, "not_in_run")

    def test_not_once_the_shadow_is_cleaned_up(self, wire: Wire) -> None:
        builder = shadow(wire, "builders")
        shadow(wire, "clients")
        wire.cleanup(createdData=[{"type": "builder", "id": builder["id"]}])
        answer = wire.post("session-types", {"shadow": True, "builderId": builder["id"]})
        assert error_of(answer) == (404, "not_in_run")


class Mailing(VoucherFactory):
    @factory.post_generation
    def mail(self, create, extracted, **kwargs):
        mail.send_mail("x", "x", "a@example.com", ["b@example.com"])


class Committing(VoucherFactory):
    @factory.post_generation
    def later(self, create, extracted, **kwargs):
        transaction.on_commit(lambda: models.Label.objects.create(text="later"))


class Calling(VoucherFactory):
    @factory.post_generation
    def another(self, create, extracted, **kwargs):
        LabelFactory()


class Missing(VoucherFactory):
    note = None


class Staff(factory.django.DjangoModelFactory):
    class Meta:
        model = get_user_model()

    username = "boss"
    is_staff = True


class TestFactories:
    @pytest.mark.parametrize("name", ["team", "note", "bulk", "raw", "stall"])
    def test_one_that_asks_the_database_is_told_of_deep(self, wire: Wire, name: str) -> None:
        ContentType.objects.clear_cache()  # what is known already is not asked for
        with nothing_written():
            answer = wire.post(f"entities/{name}", {"shadow": True})
            assert error_of(answer) == (400, "needs_deep")
            assert "deep" in answer.json()["message"]

    def test_one_that_mails_keeps_nothing(self, wire: Wire, settings: Any) -> None:
        settings.EMAIL_BACKEND = "stagehand_testdata.isolation.mail.TestDataEmailBackend"
        with registered(thing=Mailing), nothing_written():
            assert error_of(wire.post("entities/thing", {"shadow": True})) == (400, "needs_deep")
        assert mail.outbox == []

    def test_what_waits_for_the_commit_is_forgotten(
        self, wire: Wire, django_capture_on_commit_callbacks: Any, unchanged_host: None
    ) -> None:
        with registered(thing=Committing), django_capture_on_commit_callbacks(execute=True) as waiting:
            shadow(wire, "entities/thing")
            wire.make("entities/thing", {"shadow": True, "deep": True})
        assert waiting == []

    def test_one_that_a_hook_calls_builds_too(self, wire: Wire, untouched_host: None) -> None:
        with registered(thing=Calling, label=LabelFactory):
            shadow(wire, "entities/thing")
        assert set(TestEntity.objects.values_list("type", flat=True)) == {"thing", "label"}

    @pytest.mark.parametrize("how", [{}, {"shadow": True}])
    def test_a_missing_value_is_refused_as_it_is_live(self, wire: Wire, how: Any) -> None:
        with registered(thing=Missing), nothing_written():
            assert error_of(wire.post("entities/thing", how)) == (409, "conflict")

    @pytest.mark.parametrize("how", [{}, {"shadow": True}])
    def test_privileges_are_refused_as_they_are_live(self, wire: Wire, how: Any) -> None:
        with registered(thing=Staff), nothing_written():
            assert error_of(wire.post("entities/thing", how)) == (500, "privileged_account")

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("builders", {"hourlyRate": "x"}),
            ("builders", {"email": "somebody@gmail.com"}),
            ("entities/person", {"fields": {"colour": 1}}),
            ("entities/person", {"fields": {"name": "x" * 101}}),
            ("scenarios/nonsense", {}),
            ("batch", {"nonsense": 1}),
        ],
    )
    def test_a_bad_body_gets_the_same_refusal(self, wire: Wire, path: str, body: Any) -> None:
        with nothing_written():
            live, shadowed = wire.post(path, body), wire.post(path, {**body, "shadow": True})
        assert error_of(live) == error_of(shadowed)
        assert live.status_code in (400, 404)


class TestForced:
    @pytest.mark.parametrize("sent", [{}, {"shadow": False}, {"shadow": True}])
    @pytest.mark.parametrize(("path", "body"), CREATING)
    def test_every_creating_call_is_shadow_whatever_the_client_says(
        self, wire: Wire, untouched_host: None, path: str, body: Any, sent: Any
    ) -> None:
        with changed(FORCE_SHADOW=True):
            assert wire.make(path, {**body, **sent})["shadow"] is True

    def test_deep_is_refused(self, wire: Wire, configure: Any) -> None:
        configure(FORCE_SHADOW=True)
        with nothing_written():
            answer = wire.post("builders", {"shadow": True, "deep": True})
            assert error_of(answer) == (403, "not_allowed")

    def test_the_run_says_so(self, wire: Wire, configure: Any) -> None:
        assert error_of(wire.post("verify-access", {"shadow": True})) == (400, "invalid_body")
        assert wire.post("verify-access").json()["shadow"] is False
        configure(FORCE_SHADOW=True)
        assert wire.post("verify-access", {"shadow": True}).json()["shadow"] is True
        assert wire.get(f"runs/{wire.test_id}").json()["shadow"] is True


class TestBooks:
    def test_closing_the_run_ends_them(self, wire: Wire, warm: None, untouched_host: None) -> None:
        shadow(wire, "booking-scenarios")
        [found] = TestEntity.objects.filter(type="booking", origin="shadow")
        assert found.shadow_row["values"]["status"] == "PENDING"
        receipt = wire.cleanup()
        assert receipt["removed"] == {}
        assert receipt["shadow"] == {
            "entries": {"auth.user": 2, "booking": 1, "builder": 1, "client": 1, "sessionType": 1},
            "hostStatements": 0,
        }
        assert (receipt["state"], receipt["remaining"]) == ("closed", 0)
        assert list(TestEntity.objects.exclude(shadow_row=None)) == []

    def test_they_balance_beside_real_rows(self, wire: Wire, unchanged_host: None) -> None:
        wire.make("booking-scenarios")
        shadow(wire, "booking-scenarios")
        before = audit.audit(wire.test_id, deep=True)
        assert (before.books.hold, before.gone, before.strangers) == (True, (), ())
        assert (before.books.created, before.books.live) == (12, 12)
        receipt = wire.cleanup()
        assert sum(receipt["removed"].values()) == sum(receipt["shadow"]["entries"].values()) == 6
        after = audit.audit(wire.test_id)
        assert after.clean
        assert (after.books.created, after.books.removed) == (12, 12)

    def test_each_receipt_tells_of_each_once(self, wire: Wire) -> None:
        person = shadow(wire, "entities/person")
        shadow(wire, "entities/person")
        first = wire.cleanup(createdData=[{"type": "person", "id": person["id"]}])
        assert (first["shadow"]["entries"], first["state"]) == ({"person": 1}, "open")
        second = wire.cleanup()
        assert (second["shadow"]["entries"], second["state"]) == ({"person": 1}, "closed")

    def test_the_proof_is_what_was_counted(self, wire: Wire) -> None:
        shadow(wire, "entities/person")
        TestEntity.objects.update(fingerprint={"hostStatements": 3})
        assert wire.cleanup()["shadow"]["hostStatements"] == 3

    def test_a_real_row_under_a_shadows_key_is_a_real_row(self, wire: Wire) -> None:
        key = shadow(wire, "entities/voucher")["id"]
        real = models.Voucher.objects.create(code=key, note="real")
        assert not TestEntity.objects.for_keys(models.Voucher, [key]).exists()
        wire.cleanup()
        real.refresh_from_db()


class TestDeep:
    def test_it_needs_shadow(self, wire: Wire) -> None:
        with nothing_written():
            assert error_of(wire.post("builders", {"deep": True})) == (400, "invalid_body")

    @pytest.mark.parametrize(("path", "body"), [*CREATING, ("entities/team", {}), ("entities/stall", {})])
    def test_it_leaves_nothing_behind(self, wire: Wire, path: str, body: Any) -> None:
        with nothing_written():
            answer = wire.make(path, {**body, "shadow": True, "deep": True})
        assert (answer["shadow"], answer["deep"]) == (True, True)

    def test_its_ids_are_nobodys(self, wire: Wire) -> None:
        builder = wire.make("builders", {"shadow": True, "deep": True})
        body = {"builderId": builder["id"]}
        assert error_of(wire.post("session-types", body)) == (404, "not_in_run")
        assert error_of(wire.post("session-types", {**body, "shadow": True})) == (400, "not_shadow")

    def test_a_constraint_that_waits_for_the_commit_is_checked(self, wire: Wire) -> None:
        class Dangling(factory.django.DjangoModelFactory):
            class Meta:
                model = models.Review

            book_id = 987_654_321
            text = "x"

        with registered(thing=Dangling), nothing_written():
            answer = wire.post("entities/thing", {"shadow": True, "deep": True})
            assert error_of(answer) == (409, "conflict")

    def test_its_mail_is_held_back_and_goes_with_it(self, wire: Wire, settings: Any) -> None:
        settings.EMAIL_BACKEND = "stagehand_testdata.isolation.mail.TestDataEmailBackend"
        with registered(thing=Mailing), nothing_written():
            wire.make("entities/thing", {"shadow": True, "deep": True})
        assert mail.outbox == []

    def test_it_is_refused_where_mail_would_leave(self, wire: Wire, settings: Any) -> None:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        with nothing_written():
            answer = wire.post("builders", {"shadow": True, "deep": True})
            assert error_of(answer) == (500, "misconfigured")
