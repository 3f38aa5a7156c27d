"""A run's inbox over the wire: what a test reads to follow a confirmation mail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import factory
import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.db import connection
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.models import Message, TestRun
from tests.conftest import Wire, error_of
from tests.host.factories import VoucherFactory
from tests.host.models import Voucher
from tests.mailing import Postbox, postbox
from tests.making import registered

from .conftest import nothing_written


@pytest.fixture(scope="module")
def server() -> Iterator[Postbox]:
    with postbox() as box:
        yield box


@pytest.fixture
def send(server: Postbox) -> Callable[..., None]:
    """Send these under the run of this test ID, which is opened if need be."""

    def sending(wire: Wire, *messages: Any) -> None:
        assert wire.post("verify-access").status_code == 200
        run = TestRun.objects.get(test_id=wire.test_id)
        with use_run(CurrentRun(run.pk, run.test_id)):
            assert server.backend().send_messages(messages) == len(messages)

    return sending


def mail(*to: str, subject: str = "Hello", body: str = "text") -> EmailMessage:
    return EmailMessage(subject, body, "Shop <shop@shop.com>", list(to) or ["a@example.com"])


def read(wire: Wire, query: str = "", status: int = 200) -> Any:
    response = wire.get(f"runs/{wire.test_id}/messages{query}")
    assert response.status_code == status, response.content
    return response.json()


def subjects(wire: Wire, query: str = "") -> list[str]:
    return [each["subject"] for each in read(wire, query)["results"]]


def test_a_message_says_all_that_was_kept(wire: Wire, send: Callable[..., None]) -> None:
    message = EmailMultiAlternatives(
        "Confirm",
        "Your code is 123456: https://shop.com/c?t=1&u=2.",
        "Shop <shop@shop.com>",
        ["Ann <A@x.test>"],
    )
    message.attach_alternative('<a href="https://shop.com/c?t=1&amp;u=2">yes</a> 654321', "text/html")
    message.attach("terms.pdf", b"1234", "application/pdf")
    send(wire, message)
    (found,) = read(wire)["results"]
    kept = Message.objects.get()
    assert found.pop("createdAt")
    assert found == {
        "id": str(kept.pk),
        "from": "Shop <shop@shop.com>",
        "to": ["a@x.test"],
        "subject": "Confirm",
        "text": "Your code is 123456: https://shop.com/c?t=1&u=2.",
        "html": '<a href="https://shop.com/c?t=1&amp;u=2">yes</a> 654321',
        "attachments": [{"name": "terms.pdf", "type": "application/pdf", "size": 4}],
        "truncated": False,
        "links": ["https://shop.com/c?t=1&u=2"],
        "codes": ["123456", "654321"],
    }


def test_the_answer_is_what_the_schema_says(wire: Wire, send: Callable[..., None]) -> None:
    from .test_schema import check

    message = mail(subject="")
    message.attach("x", b"", "application/x")
    send(wire, message, mail())
    schema = wire.get("schema").json()
    path = f"runs/{wire.test_id}/messages"
    check(schema, "get", path, wire.get(path))
    check(schema, "get", path, wire.get(f"{path}?page=0"))
    names = {
        each["name"] for each in schema["paths"]["/api/test/runs/{testId}/messages"]["get"]["parameters"]
    }
    assert names == {"testId", "to", "page", "pageSize"}


def test_the_newest_comes_first_page_by_page(wire: Wire, send: Callable[..., None]) -> None:
    send(wire, *(mail(subject=str(nth)) for nth in range(5)))
    first = read(wire, "?pageSize=2")
    assert (first["count"], [each["subject"] for each in first["results"]]) == (5, ["4", "3"])
    assert subjects(wire, "?pageSize=2&page=3") == ["0"]


def test_those_to_one_address(wire: Wire, send: Callable[..., None]) -> None:
    send(wire, mail("ann@x.test", "b@x.test", subject="1"), mail("joann@x.test", subject="2"))
    assert subjects(wire, "?to=Ann@x.test") == ["1"]
    assert subjects(wire, "?to=b@x.test") == ["1"]
    assert subjects(wire, "?to=@x.test") == []
    assert subjects(wire, "?to=_nn@x.test") == []
    assert subjects(wire, "?to=") == []


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=x",
        "page=99",
        "page=1e3",
        "page=%00",
        "page=" + "9" * 400,
        "to=%00",
    ],
)
def test_a_strange_query_is_refused(wire: Wire, send: Callable[..., None], query: str) -> None:
    send(wire, mail())
    with nothing_written():
        status, code = error_of(wire.get(f"runs/{wire.test_id}/messages?{query}"))
    assert (status, code) in ((404, "not_found"), (400, "invalid_body"))


@pytest.mark.parametrize("query", ["pageSize=99999", "to=%ff", "x=1"])
def test_what_says_nothing_changes_nothing(wire: Wire, send: Callable[..., None], query: str) -> None:
    send(wire, mail())
    assert read(wire, f"?{query}")["count"] == (0 if query.startswith("to") else 1)


@pytest.mark.parametrize("test_id", ["stagehand_test_unknown", "x", "a%20b", "%00", "1%27--", "x" * 200])
def test_the_inbox_of_a_run_that_is_not_there(wire: Wire, send: Callable[..., None], test_id: str) -> None:
    send(wire, mail())
    with nothing_written():
        response = wire.get(f"runs/{test_id}/messages", **{"X-Test-ID": None})
        assert error_of(response) == (404, "not_found")


def test_another_runs_header_is_refused(wire: Wire, send: Callable[..., None]) -> None:
    send(wire, mail())
    response = wire.get(f"runs/{wire.test_id}/messages", **{"X-Test-ID": "stagehand_test_forged"})
    assert error_of(response) == (400, "test_id_mismatch")


def test_the_inbox_of_anothers_run_is_as_unknown_as_none(wire: Wire, send: Callable[..., None]) -> None:
    send(wire, mail())
    TestRun.objects.update(owner="somebody")
    assert error_of(wire.get(f"runs/{wire.test_id}/messages")) == (404, "not_found")


def test_a_closed_gate_shows_nothing(
    wire: Wire, send: Callable[..., None], configure: Callable[..., None]
) -> None:
    send(wire, mail())
    configure(ENABLED=False)
    assert error_of(wire.get(f"runs/{wire.test_id}/messages")) == (403, "test_mode_disabled")


@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_it_can_only_be_read(wire: Wire, send: Callable[..., None], method: str) -> None:
    send(wire, mail())
    response = wire.send(method, f"runs/{wire.test_id}/messages", {})
    assert error_of(response) == (405, "method_not_allowed")
    assert Message.objects.count() == 1


def test_a_cleanup_empties_it(wire: Wire, send: Callable[..., None]) -> None:
    wire.make("builders")
    send(wire, mail())
    assert wire.cleanup()["success"]
    assert read(wire) == {"count": 0, "next": None, "previous": None, "results": []}


def test_reading_costs_the_same_however_long(wire: Wire, send: Callable[..., None]) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            read(wire)
        return len(queries)

    send(wire, mail())
    first = cost()
    send(wire, *(mail() for _ in range(20)))
    assert cost() == first == 3


def test_an_operation_that_mails_somebody_real_is_refused_whole(wire: Wire, server: Postbox) -> None:
    class MailingFactory(VoucherFactory):
        @factory.post_generation
        def mailed(self, create: bool, extracted: Any, **kwargs: Any) -> None:
            server.backend().send_messages([mail("customer@gmail.com")])

    server.received.clear()
    with registered(mailing=MailingFactory):
        assert error_of(wire.post("entities/mailing")) == (409, "outbound_refused")
    assert not Voucher.objects.exists()
    assert not TestRun.objects.exists()
    assert server.received == []


def test_a_mail_that_was_made_on_the_way_is_in_the_inbox(wire: Wire, server: Postbox) -> None:
    class MailingFactory(VoucherFactory):
        @factory.post_generation
        def mailed(self, create: bool, extracted: Any, **kwargs: Any) -> None:
            server.backend().send_messages([mail(subject="Welcome")])

    with registered(mailing=MailingFactory):
        wire.make("entities/mailing")
        assert subjects(wire) == ["Welcome"]
        assert wire.get(f"runs/{wire.test_id}/entities").json()["count"] == 1
