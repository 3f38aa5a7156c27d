"""Nothing leaves: what goes to test addresses is kept, what a run sends to anybody else is refused."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from email.message import MIMEPart
from typing import Any

import django
import pytest
from django.contrib.auth import get_user_model
from django.core.mail import EmailMessage, EmailMultiAlternatives, send_mail
from django.db import DatabaseError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.exceptions import OutboundRefused, RunClosed
from stagehand_testdata.isolation.contents import read_contents
from stagehand_testdata.isolation.mail import MOST_ATTACHMENTS, sort_out
from stagehand_testdata.models import Message, TestEntity, TestRun
from stagehand_testdata.operations import entities, runs
from stagehand_testdata.operations.purge.purge import clean_up, purge_run
from tests.host.models import Voucher
from tests.mailing import OURS, SMTP, Postbox, host_mails_through, postbox
from tests.making import TEST_ID, changed, perform

REAL = "customer@gmail.com"
#: The issue's figure where the tests run long.
MANY = 10_000 if "SOAK_EXAMPLES" in os.environ else 300

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def server() -> Iterator[Postbox]:
    with postbox() as box:
        yield box


@pytest.fixture
def box(server: Postbox) -> Postbox:
    server.received.clear()
    return server


@pytest.fixture
def run() -> TestRun:
    return opened()


def opened(test_id: str = TEST_ID, owner: str = "", **options: Any) -> TestRun:
    with transaction.atomic():
        return runs.open_or_join(test_id, owner=owner, **options)


def under(run: TestRun) -> Any:
    return use_run(CurrentRun(run.pk, run.test_id))


def mail(*to: str, subject: str = "Hello", body: str = "text", **options: Any) -> EmailMessage:
    return EmailMessage(subject, body, "shop@shop.com", list(to), **options)


def inbox(run: TestRun) -> list[list[str]]:
    """Whom the run's messages are to, the oldest first."""
    return [each.addresses for each in run.messages.order_by("pk")]


def received(box: Postbox) -> list[list[str]]:
    return [each.recipients for each in box.received]


class TestUnderARun:
    def test_a_mail_to_a_test_address_is_kept_and_not_sent(self, box: Postbox, run: TestRun) -> None:
        with under(run):
            assert box.backend().send_messages([mail("Ann <Ann@Example.COM>", "b@shop.test")]) == 1
        assert box.received == []
        message = run.messages.get()
        assert (message.sender, message.subject, message.text) == ("shop@shop.com", "Hello", "text")
        assert message.addresses == ["ann@example.com", "b@shop.test"]

    @pytest.mark.parametrize("name", ["to", "cc", "bcc"])
    def test_a_mail_to_anybody_else_is_refused_whole(self, box: Postbox, run: TestRun, name: str) -> None:
        mixed = mail("a@example.com")
        getattr(mixed, name).append(REAL)
        with under(run), pytest.raises(OutboundRefused) as refused:
            box.backend().send_messages([mail("b@example.com"), mixed])
        assert "gmail.com" in refused.value.message
        assert "customer" not in refused.value.message
        assert box.received == []
        assert inbox(run) == []

    def test_silently_it_is_refused_too_and_the_log_has_it(
        self, box: Postbox, run: TestRun, caplog: pytest.LogCaptureFixture
    ) -> None:
        with under(run):
            sent = box.backend(fail_silently=True).send_messages([mail(REAL), mail("a@example.com")])
        assert sent == 1
        assert box.received == []
        assert inbox(run) == [["a@example.com"]]
        (record,) = caplog.records
        assert TEST_ID in record.getMessage()
        assert "customer" not in record.getMessage()

    def test_none_of_many_reaches_the_server(self, box: Postbox, run: TestRun) -> None:
        with under(run):
            kept = [mail(f"u{nth}@example.com") for nth in range(MANY)]
            assert box.backend().send_messages(kept) == MANY
            silent = box.backend(fail_silently=True)
            assert silent.send_messages([mail(f"u{nth}@gmail.com") for nth in range(MANY)]) == 0
            for nth in range(20):
                with pytest.raises(OutboundRefused):
                    box.backend().send_messages([mail(f"u{nth}@gmail.com")])
        assert box.received == []
        assert run.messages.count() == MANY

    def test_no_connection_is_opened(self, run: TestRun) -> None:
        nobody = Postbox()
        nobody.options = {"host": "127.0.0.1", "port": 1}
        with under(run), nobody.backend() as connection:
            assert connection.send_messages([mail("a@example.com")]) == 1

    def test_a_mail_to_nobody_is_none(self, box: Postbox, run: TestRun) -> None:
        with under(run):
            assert box.backend().send_messages([mail()]) == 0
        assert inbox(run) == []

    def test_a_closed_run_keeps_nothing_and_sends_nothing(self, box: Postbox, run: TestRun) -> None:
        purge_run(run)
        with under(run):
            assert box.backend().send_messages([mail("a@example.com")]) == 1
        assert box.received == []
        assert inbox(run) == []

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "webmaster",
            "a@example.com\nBcc: customer@gmail.com",
            "a@example.com\r",
            "a@example.com@gmail.com",
            "a@example.com.evil.org",
            "a@example.com <customer@gmail.com>",
            "a@example.com, customer@gmail.com",
            "Team: a@example.com, customer@gmail.com;",
            "=?utf-8?q?a=0Ab?=@example.com",
            "a@ex\udc80ample.com",
            ";;:,<>",
        ],
    )
    def test_what_is_not_certainly_a_test_address_is_refused(
        self, box: Postbox, run: TestRun, address: str
    ) -> None:
        message = mail("b@example.com", address)
        with under(run):
            if address:
                with pytest.raises(OutboundRefused):
                    box.backend().send_messages([message])
            else:  # Django leaves these out too
                assert box.backend().send_messages([message]) == 1
        assert box.received == []

    def test_headers_are_looked_at_as_they_are_where_mail_is_sent(self, box: Postbox, run: TestRun) -> None:
        with under(run), pytest.raises(ValueError, match=r"(?i)newline|linefeed"):
            box.backend().send_messages([mail("a@example.com", subject="Hi\nBcc: customer@gmail.com")])
        assert inbox(run) == []

    def test_the_log_is_not_told_of_the_mail_that_tells_of_the_log(self, box: Postbox, run: TestRun) -> None:
        logger = logging.getLogger("stagehand_testdata.isolation.mail")
        mailed = []

        class Mailing(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                mailed.append(record)
                box.backend(fail_silently=True).send_messages([mail("admin@shop.com")])

        handler = Mailing()
        logger.addHandler(handler)
        try:
            with under(run):
                box.backend(fail_silently=True).send_messages([mail(REAL)])
        finally:
            logger.removeHandler(handler)
        assert len(mailed) == 1
        assert box.received == []


class TestInOperations:
    def test_what_a_factory_mails_is_kept_and_is_no_row_of_the_test(self, box: Postbox) -> None:
        perform(lambda call: (box.backend().send_messages([mail("a@example.com")]), call.create("voucher")))
        run = TestRun.objects.get()
        assert inbox(run) == [["a@example.com"]]
        assert set(TestEntity.objects.values_list("model", flat=True)) == {"host.voucher"}

    def test_a_mail_to_anybody_else_takes_the_rows_back(self, box: Postbox) -> None:
        def work(call: entities.Creation) -> None:
            call.create("voucher")
            box.backend().send_messages([mail(REAL)])

        with pytest.raises(OutboundRefused):
            perform(work)
        assert not Voucher.objects.exists()
        assert box.received == []

    @pytest.mark.django_db(transaction=True)
    def test_what_is_left_for_the_commit_to_send_is_the_runs_too(self, box: Postbox) -> None:
        def later(address: str) -> Callable[[entities.Creation], Any]:
            return lambda call: transaction.on_commit(lambda: box.backend().send_messages([mail(address)]))

        perform(later("a@example.com"))
        assert inbox(TestRun.objects.get()) == [["a@example.com"]]
        with pytest.raises(OutboundRefused):
            perform(later(REAL))
        assert box.received == []
        transaction.on_commit(lambda: box.backend().send_messages([mail(REAL)]))
        assert received(box) == [[REAL]]

    def test_a_transaction_that_is_rolled_back_takes_its_messages_along(
        self, box: Postbox, run: TestRun
    ) -> None:
        with pytest.raises(ZeroDivisionError), under(run), transaction.atomic():
            box.backend().send_messages([mail("a@example.com")])
            assert run.messages.count() == 1
            raise ZeroDivisionError
        assert inbox(run) == []


class TestWithoutARun:
    def test_real_mail_arrives_as_it_does_without_us(self, box: Postbox) -> None:
        plain = _plain_backend(box)
        plain.send_messages(_varied())
        without = list(box.received)
        box.received.clear()
        assert box.backend().send_messages(_varied()) == len(_varied())
        assert len(without) == len(box.received) == len(_varied())
        for one, other in zip(without, box.received, strict=True):
            assert (one.sender, one.recipients) == (other.sender, other.recipients)
            assert one.same_each_time == other.same_each_time

    def test_many_arrive_in_one_batch_over_one_connection(self, box: Postbox) -> None:
        messages = [mail(f"u{nth}@gmail.com") for nth in range(min(MANY, 300))]
        assert box.backend().send_messages(messages) == len(messages)
        assert received(box) == [[f"u{nth}@gmail.com"] for nth in range(len(messages))]

    def test_real_mail_costs_no_query(self, box: Postbox) -> None:
        with CaptureQueriesContext(connection) as queries:
            box.backend().send_messages([mail(REAL), mail("Bob <bob@shop.com>")])
        assert queries.captured_queries == []

    def test_a_test_address_is_taken_out_and_the_callers_message_stays(
        self, box: Postbox, run: TestRun
    ) -> None:
        message = mail(
            REAL, f"{TEST_ID}@example.com", cc=["c@shop.test"], bcc=["Bob <bob@shop.com>", "b@x.invalid"]
        )
        assert box.backend().send_messages([message]) == 1
        (sent,) = box.received
        assert sent.recipients == [REAL, "bob@shop.com"]
        assert b"example.com" not in sent.content
        assert b"shop.test" not in sent.content
        assert message.recipients() == [
            REAL,
            f"{TEST_ID}@example.com",
            "c@shop.test",
            "Bob <bob@shop.com>",
            "b@x.invalid",
        ]
        # A real address is nothing for the inbox.
        assert inbox(run) == [[f"{TEST_ID}@example.com"]]

    def test_of_a_group_the_real_ones_are_left(self, box: Postbox) -> None:
        message = mail("Team: a@example.com, Bob <bob@shop.com>;")
        assert box.backend().send_messages([message]) == 1
        assert received(box) == [["bob@shop.com"]]

    def test_a_mail_to_tests_alone_is_counted_and_not_sent(self, box: Postbox) -> None:
        assert box.backend().send_messages([mail("a@example.com"), mail(REAL)]) == 2
        assert received(box) == [[REAL]]
        assert not Message.objects.exists()

    def test_what_cannot_be_read_is_for_the_real_backend_to_judge(self, box: Postbox) -> None:
        with pytest.raises(ValueError, match=r"(?i)invalid|newline|linefeed"):
            box.backend().send_messages([mail("a@example.com\nBcc: customer@gmail.com")])
        assert box.received == []

    def test_real_mail_goes_though_the_inbox_cannot_be_written(
        self, box: Postbox, run: TestRun, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*args: Any) -> Any:
            raise DatabaseError("gone")

        with connection.execute_wrapper(fail):
            assert box.backend().send_messages([mail(REAL), mail(f"{TEST_ID}@example.com")]) == 2
        assert received(box) == [[REAL]]
        assert "was not kept" in caplog.text

    def test_what_the_real_backend_raises_is_raised(self) -> None:
        nobody = Postbox()
        nobody.options = {"host": "127.0.0.1", "port": 1}
        with pytest.raises(OSError, match=r"refused|Errno"):
            nobody.backend().send_messages([mail(REAL)])
        assert nobody.backend(fail_silently=True).send_messages([mail(REAL)]) == 0

    def test_a_connection_that_is_opened_is_used(self, box: Postbox) -> None:
        with box.backend() as backend:
            assert backend.wrapped.connection is not None
            backend.send_messages([mail(REAL)])
            assert backend.wrapped.connection is not None
        assert backend.wrapped.connection is None
        assert received(box) == [[REAL]]

    def test_the_hosts_own_functions_go_through_it(self, box: Postbox, run: TestRun) -> None:
        with host_mails_through(OURS, box):
            assert send_mail("Hi", "text", None, [REAL]) == 1
            assert send_mail("Hi", "text", None, [f"{TEST_ID}+2@example.com"], html_message="<p>Hi") == 1
            with under(run), pytest.raises(OutboundRefused):
                send_mail("Hi", "text", None, [REAL])
        assert received(box) == [[REAL]]
        assert run.messages.get().html == "<p>Hi"

    def test_the_gate_does_not_let_mail_to_tests_out(self, box: Postbox) -> None:
        with changed(ENABLED=False):
            assert box.backend().send_messages([mail("a@example.com")]) == 1
        assert box.received == []

    def test_a_domain_of_the_hosts_own_is_a_test_address_too(self, box: Postbox) -> None:
        with changed(EMAIL_DOMAINS=[".bücher.de"]):
            box.backend().send_messages([mail("a@QA.Bücher.de", "b@qa.xn--bcher-kva.de")])
        assert box.received == []


class TestWhoseItIs:
    """Without a current run, by the address."""

    def send(self, box: Postbox, *to: str) -> None:
        assert box.backend().send_messages([mail(*to)]) == 1
        assert box.received == []

    def test_the_run_that_made_the_account(self, box: Postbox) -> None:
        user = perform(lambda call: call.create("user", email="some.one@shop.test"))
        opened("some.one")
        self.send(box, f"Some One <{user.email.upper()}>")
        assert inbox(TestRun.objects.get(test_id=TEST_ID)) == [["some.one@shop.test"]]

    @pytest.mark.parametrize("address", ["{}@example.com", "{}+2@example.com", "{}+signup@shop.test"])
    def test_the_run_that_the_address_names(self, box: Postbox, run: TestRun, address: str) -> None:
        opened(f"{TEST_ID}2")
        self.send(box, address.format(TEST_ID.upper()))
        assert inbox(run) == [[address.format(TEST_ID)]]

    def test_the_run_that_was_opened_with_it(self, box: Postbox) -> None:
        run = opened(test_user_email="ci@example.com")
        self.send(box, "CI@example.com")
        assert inbox(run) == [["ci@example.com"]]

    def test_each_run_keeps_its_own_addresses_alone(self, box: Postbox, run: TestRun) -> None:
        other = opened("stagehand_test_other")
        self.send(
            box, f"{TEST_ID}@example.com", f"{TEST_ID}+2@example.com", "stagehand_test_other@example.com"
        )
        assert inbox(run) == [[f"{TEST_ID}@example.com", f"{TEST_ID}+2@example.com"]]
        assert inbox(other) == [["stagehand_test_other@example.com"]]

    def test_none_where_two_runs_could_be_meant(self, box: Postbox) -> None:
        for owner in ("one", "two"):
            opened(owner=owner, test_user_email="ci@example.com")
        self.send(box, f"{TEST_ID}@example.com", "ci@example.com")
        assert not Message.objects.exists()

    @pytest.mark.parametrize("state", ["closing", "closed"])
    def test_none_where_the_run_is_not_open(self, box: Postbox, run: TestRun, state: str) -> None:
        TestRun.objects.update(state="closing", closed_at=None)
        if state == "closed":
            purge_run(TestRun.objects.get())
        self.send(box, f"{TEST_ID}@example.com")
        assert not Message.objects.exists()

    def test_none_by_a_real_account(self, box: Postbox, run: TestRun) -> None:
        get_user_model().objects.create_user("real", email="real@shop.test")
        self.send(box, "real@shop.test")
        assert not Message.objects.exists()


class TestWhatIsKept:
    def kept(self, run: TestRun, *messages: Any) -> Any:
        with postbox() as box, under(run):
            box.backend().send_messages(messages)
        return run.messages.first()

    def test_the_html_of_both_kinds(self, run: TestRun) -> None:
        both = EmailMultiAlternatives("s", "plain", to=["a@example.com"])
        both.attach_alternative("<p>rich", "text/html")
        both.attach_alternative("x", "text/calendar")
        message = self.kept(run, both)
        assert (message.text, message.html) == ("plain", "<p>rich")
        alone = mail("a@example.com", body="<p>only")
        alone.content_subtype = "html"
        message = self.kept(run, alone)
        assert (message.text, message.html) == ("", "<p>only")

    def test_attachments_by_name_type_and_size(self, run: TestRun) -> None:
        message = mail("a@example.com")
        message.attach("é.pdf", b"12345", "application/pdf")
        message.attach("note.txt", "é", "text/plain")
        message.attach("fwd.eml", mail(REAL), "message/rfc822")
        part = MIMEPart()
        part.set_content(b"123", "image", "png", filename="x.png", cte="base64")
        if django.VERSION >= (6, 0):
            message.attach(part)
        found = self.kept(run, message).attachments
        assert found[:2] == [
            {"name": "é.pdf", "type": "application/pdf", "size": 5},
            {"name": "note.txt", "type": "text/plain", "size": 2},
        ]
        assert found[2]["size"] > 100
        if django.VERSION >= (6, 0):
            assert found[3] == {"name": "x.png", "type": "image/png", "size": 3}

    def test_what_is_too_long_is_cut_and_said(self, run: TestRun) -> None:
        long = mail("a@example.com", body="x" * (Message.TEXT_LENGTH + 1))
        message = self.kept(run, long)
        assert message.truncated
        assert len(message.text) == Message.TEXT_LENGTH
        many = mail("a@example.com")
        for nth in range(MOST_ATTACHMENTS + 1):
            many.attach(f"{nth}.bin", b"", "application/x")
        message = self.kept(run, many)
        assert message.truncated
        assert len(message.attachments) == MOST_ATTACHMENTS
        message = self.kept(run, mail("a@example.com", subject="s" * 2000))
        assert message.truncated
        assert len(message.subject) == Message.LINE_LENGTH
        assert not self.kept(run, mail("a@example.com")).truncated

    def test_characters_that_no_database_takes(self, run: TestRun) -> None:
        with postbox() as box, under(run):
            message = mail("a@example.com", body="a\0b", subject="\N{PILE OF POO}")
            message.attach("a\0b", b"", "application/x")
            box.backend().send_messages([message])
        found = run.messages.get()
        assert (found.text, found.subject) == ("a\N{REPLACEMENT CHARACTER}b", "\N{PILE OF POO}")
        from stagehand_testdata.isolation.mail import Cutting

        Message.objects.filter(pk=found.pk).update(text=Cutting().text("a\ud800b"))
        found.refresh_from_db()
        assert found.text == "a?b"

    def test_it_goes_when_the_run_closes_and_in_one_statement(self, run: TestRun) -> None:
        other = opened("stagehand_test_other")
        self.kept(run, mail("a@example.com"), mail("b@example.com"))
        self.kept(other, mail("c@example.com"))
        with CaptureQueriesContext(connection) as queries:
            clean_up(TEST_ID, "")
        table = Message._meta.db_table
        touching = [each["sql"] for each in queries if table in each["sql"]]
        assert len(touching) == 1
        assert "DELETE FROM" in touching[0]
        assert inbox(run) == []
        assert len(inbox(other)) == 1

    def test_it_stays_while_rows_are_left(self, run: TestRun) -> None:
        from tests.host.models import Book, Loan

        book = perform(lambda call: call.create("book"))
        loan = Loan.objects.create(book=Book.objects.get(pk=book.pk), by="real")
        self.kept(run, mail("a@example.com"))
        assert not clean_up(TEST_ID, "").success
        assert len(inbox(run)) == 1
        loan.delete()
        assert clean_up(TEST_ID, "").success
        assert inbox(run) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")
def test_what_comes_while_the_run_closes_does_not_stay(box: Postbox) -> None:
    run = opened()
    kept, may_commit = threading.Event(), threading.Event()
    trouble: list[BaseException] = []

    def send() -> None:
        try:
            with transaction.atomic():
                box.backend().send_messages([mail(f"{TEST_ID}@example.com")])
                kept.set()
                may_commit.wait(10)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            trouble.append(error)
        finally:
            connections.close_all()

    def close() -> None:
        try:
            purge_run(run)
        except BaseException as error:  # noqa: BLE001
            trouble.append(error)
        finally:
            connections.close_all()

    sender, closer = threading.Thread(target=send), threading.Thread(target=close)
    sender.start()
    assert kept.wait(10)
    closer.start()
    closer.join(0.5)
    assert closer.is_alive()
    may_commit.set()
    sender.join()
    closer.join()
    assert trouble == []
    assert TestRun.objects.get().state == "closed"
    assert not Message.objects.exists()
    with pytest.raises(RunClosed):
        perform(lambda call: None)


@given(st.text(alphabet=st.sampled_from('a@.,;:<>()[]"\\ =?\n\r\0ü\udc80test'), max_size=25))
@hypothesis_settings(max_examples=int(os.environ.get("SOAK_EXAMPLES", "300")), deadline=None)
def test_any_text_is_sorted_out(text: str) -> None:
    tests, others = sort_out(text)
    assert tests or others == [text]
    assert not any(set(address) & set("\r\n") for address in tests)


class TestContents:
    def test_links_in_the_order_of_the_mail_each_once(self) -> None:
        text = (
            "See https://a.test/x?y=1&z=2. Or (http://b.test/(c)), <https://a.test/x?y=1&z=2> HTTPS://C.test!"
        )
        html = """<a href="https://d.test/?a=1&amp;b=2">x</a> <A HREF=' http://b.test/(c) '>y</a>
            <a href="/relative">z</a><a href="javascript:alert(1)">z</a><a href="mailto:a@b.test">z</a>
            <a>none</a><img src="https://pixel.test/"><area href="https://map.test/">"""
        assert read_contents(text, html).links == [
            "https://a.test/x?y=1&z=2",
            "http://b.test/(c)",
            "HTTPS://C.test",
            "https://d.test/?a=1&b=2",
            "https://map.test/",
        ]

    @pytest.mark.parametrize(
        "link", ["http://", "https://[::1", "https://a.test/" + "x" * 3000, "ftp://a.test/"]
    )
    def test_what_is_no_absolute_link(self, link: str) -> None:
        assert read_contents(link, f'<a href="{link[:100]}">x</a>').links in ([], [link[:100]])
        assert read_contents(link, "").links == []

    @pytest.mark.parametrize(
        ("text", "codes"),
        [
            ("Your code is 123456.", ["123456"]),
            ("code:1234", ["1234"]),
            ("(4321) *87654321*, 4321", ["4321", "87654321"]),
            ("123 or 123456789", []),
            ("a1234 1234b 12,3456 1234.56 12:3456 +491234 555-1234 #1234 12/2026 https://a.test/123456", []),
            ("٣٤٥٦٧٨", []),
        ],
    )
    def test_codes_that_stand_alone(self, text: str, codes: list[str]) -> None:
        assert read_contents(text, "").codes == codes
        assert read_contents("", f"<p>{text}</p>").codes == codes

    def test_a_code_is_read_as_it_is_shown(self) -> None:
        html = "<title>1111</title><style>p{top:2222}</style><script>3333</script>"
        html += "<td>4444</td><td>5555</td>&#54;666"
        assert read_contents("", html).codes == ["4444", "5555", "6666"]

    @pytest.mark.parametrize(
        "unit",
        ["<", "<a ", "<a href='", "<!--", "</", "<a b='c' ", "&#", "<![x[", ")", "https://a.test/)", "1"],
    )
    def test_a_mail_that_was_made_to_be_slow_is_not(self, unit: str) -> None:
        """What took minutes before is over before the test's patience is."""
        html = '<a href="https://a.test/">' + unit * (Message.TEXT_LENGTH // len(unit))
        done = threading.Event()

        def read() -> None:
            assert read_contents(html, html).links[0] == "https://a.test/"
            done.set()

        threading.Thread(target=read, daemon=True).start()
        assert done.wait(30)

    @given(st.text(alphabet=st.sampled_from("<>a/!-[]=\"' &#;1hrefscript:\0")))
    @hypothesis_settings(max_examples=int(os.environ.get("SOAK_EXAMPLES", "300")), deadline=None)
    def test_any_text_is_read(self, text: str) -> None:
        read_contents(text, text)


def _plain_backend(box: Postbox) -> Any:
    from django.utils.module_loading import import_string

    return import_string(SMTP)(alias="default", **box.options)


def _varied() -> Sequence[EmailMessage]:
    rich = EmailMultiAlternatives(
        "Überraschung", "plain é", "Shop <shop@shop.com>", [f"Jürgen <{REAL}>"], cc=["c@shop.com"]
    )
    rich.attach_alternative("<p>rich é</p>", "text/html")
    rich.attach("x.bin", b"\x00\x01", "application/octet-stream")
    hidden = mail(bcc=[REAL, "Bob <bob@shop.com>"], headers={"X-Own": "1", "Reply-To": "r@shop.com"})
    return [
        mail(REAL),
        rich,
        hidden,
        mail("a@bücher.de", body="." + "x" * 1200 + "\nFrom me\n.\n"),
        mail("a@example.co", "b@mail.example.com", reply_to=["x@example.com"]),
    ]
