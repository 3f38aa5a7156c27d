"""The admin: what its pages say, who may do what, and that nobody can falsify the ledger there."""

from __future__ import annotations

import datetime as dt
import html
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path, resolve, reverse
from pytest_django.asserts import assertContains, assertNotContains

from stagehand_testdata import admin as testdata_admin
from stagehand_testdata.models import Message, Receipt, TestEntity, TestRun
from stagehand_testdata.operations import entities, runs
from stagehand_testdata.operations.purge import failures
from stagehand_testdata.operations.purge.purge import purge_run
from tests.conftest import host_counts
from tests.host.models import Author, Book, Loan, Note, Voucher
from tests.making import changed

SCRIPT = "<script>alert(1)</script>"
NAMES = {TestRun: "testrun", TestEntity: "testentity", Receipt: "receipt", Message: "message"}


class VoucherAdmin(admin.ModelAdmin):
    """Hides some rows, and lets nobody open some others."""

    def get_queryset(self, request):
        return super().get_queryset(request).exclude(note="hidden")

    def has_view_permission(self, request, obj=None):
        return super().has_view_permission(request, obj) and (obj is None or obj.note != "secret")

    def has_change_permission(self, request, obj=None):
        return False


#: A host's own second site, which knows the host's models; the default site knows few of them.
ops = admin.AdminSite(name="ops")
ops.register(TestRun, testdata_admin.TestRunAdmin)
ops.register(TestEntity, testdata_admin.TestEntityAdmin)
ops.register(Receipt, testdata_admin.ReceiptAdmin)
ops.register(Message, testdata_admin.MessageAdmin)
ops.register([Book, Author])
ops.register(Voucher, VoucherAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("ops/", ops.urls)]
pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


def url(model: type, page: str = "changelist", *args: Any, site: str = "admin") -> str:
    return reverse(f"{site}:stagehand_testdata_{NAMES[model]}_{page}", args=args)


def make(
    test_id: str = "stagehand_test_a", *, owner: str = "", times: int = 1, label: str = "", **made: Any
) -> TestRun:
    """A run with these entity types made in it: `book=2`, or `voucher={"note": "x"}`."""
    with transaction.atomic():
        runs.open_or_join(test_id, owner=owner, label=label)
    for type_name, what in made.items():
        for _ in range(what if isinstance(what, int) else 1):
            fields = {} if isinstance(what, int) else what
            entities.perform(test_id, owner, lambda call, t=type_name, f=fields: call.create(t, **f))
    return TestRun.objects.get(test_id=test_id, owner=owner)


def write(run: TestRun, **values: str) -> Message:
    """A message in the run's inbox."""
    to = Message.line_of(["a@example.com"])
    return Message.objects.create(run=run, sender="shop@shop.com", recipients=to, **values)


def expire(run: TestRun) -> None:
    hour = dt.timedelta(hours=1)
    TestRun.objects.filter(pk=run.pk).update(
        opened_at=Now() - 3 * hour, expires_at=Now() - 2 * hour, latest_end=Now() - hour
    )


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("boss"))
    return client


@pytest.fixture
def staff() -> Callable[..., Client]:
    """A client whose user has these permissions only, each as `app.codename`."""

    def log_in(*names: str) -> Client:
        user = get_user_model().objects.create_user("clerk", is_staff=True)
        for name in names:
            app, codename = name.split(".")
            user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
        client = Client()
        client.force_login(user)
        return client

    return log_in


def act(client: Client, action: str, *chosen: TestRun, **data: Any) -> Any:
    sent = {"action": action, "_selected_action": [run.pk for run in chosen], **data}
    return client.post(url(TestRun), sent)


def digests(response: Any) -> list[str]:
    """The digests in the confirmation page's form, as a browser would send them."""
    return re.findall(r'name="digest" value="(\w+)"', response.content.decode())


def confirm(client: Client, *chosen: TestRun) -> list[tuple[str, str]]:
    """Ask for a purge, say yes to what is shown; the messages then."""
    shown = act(client, "purge", *chosen)
    return said(act(client, "purge", *chosen, digest=digests(shown)))


def said(response: Any) -> list[tuple[str, str]]:
    assert response.status_code == 302, response.content.decode()
    return [(message.level_tag, message.message) for message in get_messages(response.wsgi_request)]


def tables(response: Any) -> list[list[list[str]]]:
    """The rows of every table of ours on the page, as text."""
    found = []
    for table in re.findall(
        r'<table class="stagehand-table">(.*?)</table>', response.content.decode(), re.DOTALL
    ):
        body = table.split("<tbody>")[1]
        rows = [
            re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
            for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
        ]
        found.append([[html.unescape(re.sub(r"<.*?>", "", cell)).strip() for cell in row] for row in rows])
    return found


class TestPages:
    def test_the_runs_show_their_entries_counted_by_state(self, boss):
        run = make(voucher=3)
        TestEntity.objects.filter(run=run, ordinal=1).update(state="quarantined", reason="referenced")
        Voucher.objects.get(pk=TestEntity.objects.get(run=run, ordinal=2).key_text).delete()
        cells = {
            state: re.search(
                rf'field-{state}_count"><span[^>]*>(\d+)<', boss.get(url(TestRun)).content.decode()
            )[1]
            for state in TestEntity.State.values
        }
        assert cells == {"live": "2", "quarantined": "1", "removed": "0", "gone": "0"}

        purge_run(run)
        assertContains(
            boss.get(url(TestRun)), 'field-removed_count"><span class="stagehand-count stagehand-removed">2<'
        )

    def test_the_lists_ask_as_many_queries_for_many_rows_as_for_few(self, boss):
        def queries(model):
            address = url(model, site="ops")
            with CaptureQueriesContext(connection) as asked:
                assert boss.get(address).status_code == 200
            return len(asked)

        purge_run(make("stagehand_test_1", book=1))
        make("stagehand_test_2", book=1, voucher=1)
        few = {model: queries(model) for model in NAMES}
        for number in range(3, 10):
            make(f"stagehand_test_{number}", book=2, voucher=2)
            if number % 2:
                purge_run(TestRun.objects.get(test_id=f"stagehand_test_{number}"))
        assert {model: queries(model) for model in NAMES} == few
        assert max(few.values()) <= 12

    def test_a_run_says_how_long_it_has_or_since_when_it_is_over(self, boss):
        make("stagehand_test_open")
        expire(make("stagehand_test_late"))
        purge_run(make("stagehand_test_done"))
        text = re.sub(r"<.*?>|\s+", " ", boss.get(url(TestRun)).content.decode()).replace("\xa0", " ")
        assert re.search(r"stagehand_test_open +open +in (59 minutes|1 hour)", text)
        assert re.search(r"stagehand_test_late +expired +expired 2 hours ago", text)
        assert re.search(r"stagehand_test_done +closed +closed 0 minutes ago", text)

    def test_a_runs_page_counts_its_rows_by_type_and_state_and_shows_its_last_receipts(self, boss):
        run = make(voucher=2)
        Loan.objects.create(book=Book.objects.get(pk=_key(make(book=1), "book")), by="a reader")
        purge_run(run)
        counts, receipts = tables(boss.get(url(TestRun, "change", run.pk)))
        assert ["voucher", "0", "0", "2", "0"] in counts
        assert ["book", "0", "1", "0", "0"] in counts
        receipt = Receipt.objects.get(run=run)
        removed = ", ".join(f"{count} {name}" for name, count in sorted(receipt.body["removed"].items()))
        assert [row[1:] for row in receipts] == [
            ["rows left", removed, "nothing", str(receipt.body["remaining"])]
        ]

    def test_a_runs_page_links_to_its_entities_and_no_others(self, boss):
        run = make("stagehand_test_a", voucher=2)
        make("stagehand_test_b", voucher=1)
        page = boss.get(url(TestRun, "change", run.pk))
        for address in re.findall(
            r'href="(/admin/stagehand_testdata/testentity/\?[^"]+)"', page.content.decode()
        ):
            listed = boss.get(html.unescape(address)).context["cl"].result_list
            assert {entry.run_id for entry in listed} == {run.pk}
            assert len(listed) == 2

    def test_a_run_without_rows_says_so(self, boss):
        page = boss.get(url(TestRun, "change", make().pk))
        assertContains(page, "This run has made no rows.")
        assertContains(page, "Nothing was cleaned up yet.")

    def test_a_receipt_tells_what_its_purge_did(self, boss):
        run = make(voucher=1, author=1)
        Book.objects.create(title="real", author=Author.objects.get())
        purge_run(run)
        receipt = Receipt.objects.get(run=run)
        removed, stayed = tables(boss.get(url(Receipt, "change", receipt.pk)))
        assert removed == [["voucher", "1"]]
        assert [
            "author",
            _key(run, "author"),
            "rows that this purge may not remove point at it",
            "1 host.Book",
        ] in stayed

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("end=running", ["open"]),
            ("end=expired", ["late"]),
            ("end=closed", ["done"]),
            ("rows=standing", ["late"]),
            ("rows=quarantined", ["late"]),
            ("rows=none", ["done", "open"]),
            ("state__exact=closed", ["done"]),
            ("scope__exact=ephemeral", ["done", "late", "open"]),
            ("q=Nightly", ["late"]),
            ("q=ci-main", ["done"]),
            ("opened_at__year=1999", []),
        ],
    )
    def test_runs_are_filtered_and_searched(self, boss, query, expected):
        make("stagehand_test_open")
        late = make("stagehand_test_late", label="Nightly", voucher=1)
        expire(late)
        late.entities.update(state="quarantined", reason="referenced")
        purge_run(make("stagehand_test_done", owner="ci-main", voucher=1))
        response = boss.get(f"{url(TestRun)}?{query}")
        found = sorted(
            run.test_id.removeprefix("stagehand_test_") for run in response.context["cl"].result_list
        )
        assert found == expected

    def test_entities_and_receipts_are_filtered_and_searched(self, boss):
        run = make("stagehand_test_a", voucher=2)
        purge_run(make("stagehand_test_b", label="Nightly", note=1))
        key = _key(run, "voucher")
        for model, query, count in [
            (TestEntity, f"run={run.pk}", 2),
            (TestEntity, "run=0", 0),
            (TestEntity, "run=x", 0),
            (TestEntity, f"run={'9' * 20}", 0),
            (TestEntity, f"run={'9' * 5000}", 0),
            (TestEntity, "state__exact=live", 2),
            (TestEntity, "type=note", 1),
            (TestEntity, f"q={key}", 1),
            (TestEntity, "q=Nightly", 2),
            (Receipt, "outcome=complete", 1),
            (Receipt, "outcome=left", 0),
            (Receipt, "q=Nightly", 1),
            (Receipt, f"run={run.pk}", 0),
        ]:
            response = boss.get(f"{url(model)}?{query}")
            assert (query, response.context["cl"].result_count) == (query, count)

    @pytest.mark.parametrize("model", NAMES)
    def test_counts_beside_the_filters_work(self, boss, model):
        run = make(voucher=1)
        purge_run(run)
        chosen = "" if model is TestRun else f"&run={run.pk}"
        assert boss.get(f"{url(model)}?_facets=1{chosen}").status_code == 200

    def test_pages_on_a_site_of_the_hosts_own_stay_on_it(self, boss):
        run = make(voucher=1)
        purge_run(run)
        for model, pk in [
            (TestRun, run.pk),
            (TestEntity, run.entities.get().pk),
            (Receipt, run.receipts.get().pk),
        ]:
            for address in (url(model, site="ops"), url(model, "change", pk, site="ops")):
                assertNotContains(boss.get(address), 'href="/admin/')
        page = boss.post(url(TestRun, site="ops"), {"action": "purge", "_selected_action": [run.pk]})
        assertNotContains(page, 'href="/admin/')

    def test_what_clients_wrote_is_escaped_everywhere(self, boss):
        run = make(owner=f"owner{SCRIPT}", label=f"label{SCRIPT}", voucher={"code": f"key{SCRIPT}"}, author=1)
        Note.objects.create(text="real", subject=Voucher.objects.get())
        TestRun.objects.filter(pk=run.pk).update(build_id=f"build{SCRIPT}")
        run.entities.filter(type="author").update(type=f"type{SCRIPT}")
        plan = act(boss, "purge", run)
        done = act(boss, "purge", run, digest=digests(plan))
        assert "type<script>" in said(done)[0][1]
        run.entities.filter(state="quarantined").update(blocked_by={f"by{SCRIPT}": 1}, reason=f"why{SCRIPT}")
        TestRun.objects.filter(pk=run.pk).update(test_id=f"id{SCRIPT}")
        held = run.entities.get(state="quarantined")
        pages = {
            "plan": (plan, ["owner", "label", "key", "type"]),
            "runs": (
                boss.get(url(TestRun)),
                ["id", "owner", "label", "type"],
            ),  # with the message of the purge
            "run": (boss.get(url(TestRun, "change", run.pk)), ["id", "owner", "label", "build", "type"]),
            "history": (boss.get(url(TestRun, "history", run.pk)), ["type"]),
            "entities": (boss.get(url(TestEntity)), ["id", "key", "type", "by"]),
            "entity": (boss.get(url(TestEntity, "change", held.pk)), ["id", "key", "by", "why"]),
            "receipts": (boss.get(url(Receipt)), ["id", "type"]),
            "receipt": (boss.get(url(Receipt, "change", run.receipts.get().pk)), ["type", "key"]),
        }
        for name, (response, expected) in pages.items():
            text = response.content.decode()
            assert "<script>alert" not in text, name
            missing = [each for each in expected if f"{each}{html.escape(SCRIPT)}" not in text]
            assert not missing, name

    def test_a_message_is_shown_as_its_source_and_listed_without_its_bodies(self, boss):
        run = make(test_id="stagehand_test_mail")
        message = write(run, subject=f"subject{SCRIPT}", text=f"text{SCRIPT}", html=f"html{SCRIPT}")
        page = boss.get(url(Message, "change", message.pk)).content.decode()
        assert "<script>alert" not in page
        for each in ("subject", "text", "html"):
            assert f"{each}{html.escape(SCRIPT)}" in page
        with CaptureQueriesContext(connection) as queries:
            listed = boss.get(f"{url(Message)}?run={run.pk}&q=a@example.com")
        assertContains(listed, f"subject{html.escape(SCRIPT)}")
        assertNotContains(listed, "<script>alert")
        assert not [each for each in queries if 'message"."html"' in each["sql"].partition("WHERE")[0]]


def _key(run: TestRun, type_name: str) -> str:
    return run.entities.filter(type=type_name).first().key_text


class TestRowLinks:
    """An entity links to its row's own page where there is one that this user can open."""

    @staticmethod
    def links(client: Client, entry: TestEntity, site: str = "ops") -> set[str]:
        """The address of the row, as the entity's page and the list give it: the same, or none."""
        found = []
        for address in (url(TestEntity, site=site), url(TestEntity, "change", entry.pk, site=site)):
            response = client.get(address)
            assert response.status_code == 200
            found.append(set(re.findall(r'<a href="([^"]+)">Open ', response.content.decode())))
        assert found[0] == found[1]
        return found[0]

    @pytest.mark.parametrize(
        ("type_name", "fields"),
        [("voucher", {"code": "a/b_2F ?"}), ("voucher", {}), ("author", {"country": None})],
    )
    def test_the_link_opens_the_row(self, boss, type_name, fields):
        entry = make(**{type_name: fields}).entities.get()
        (address,) = self.links(boss, entry)
        page = boss.get(html.unescape(address))
        assert page.status_code == 200
        assert str(page.context["original"].pk) == entry.key_text

    def test_a_model_without_a_page_on_this_site_has_no_link(self, boss):
        entry = make(voucher=1).entities.get()
        assert self.links(boss, entry, site="admin") == set()

    def test_a_user_who_may_not_view_the_model_gets_no_link(self, staff):
        entry = make(voucher=1).entities.get()
        assert self.links(staff("stagehand_testdata.view_testentity"), entry) == set()

    def test_a_user_who_may_view_it_gets_one(self, staff):
        entry = make(voucher=1).entities.get()
        clerk = staff("stagehand_testdata.view_testentity", "host.view_voucher")
        assert len(self.links(clerk, entry)) == 1

    @pytest.mark.parametrize("note", ["hidden", "secret"])
    def test_a_row_that_its_own_page_hides_or_refuses_has_no_link(self, boss, note):
        assert self.links(boss, make(voucher={"note": note}).entities.get()) == set()

    def test_a_row_that_is_gone_has_no_link(self, boss):
        entry = make(voucher=1).entities.get()
        Voucher.objects.all().delete()
        assert self.links(boss, entry) == set()

    def test_another_row_under_the_key_of_a_removed_one_has_no_link(self, boss):
        run = make(voucher=1)
        purge_run(run)
        entry = run.entities.get()
        Voucher.objects.create(code=entry.key_text, note="another")
        assert self.links(boss, entry) == set()

    @pytest.mark.parametrize(
        "damage",
        [
            {"model": "ghost.thing"},
            {"model": "nonsense"},
            {"model": ""},
            {"model": "host.author"},  # a model whose keys are of another kind
            {"model": "host.book"},
            {"key_text": "no such key"},
        ],
    )
    def test_a_missing_model_or_key_fails_nowhere(self, boss, damage):
        entry = make(voucher=1).entities.get()
        TestEntity.objects.filter(pk=entry.pk).update(**damage)
        assert self.links(boss, entry) == set()

    @pytest.mark.parametrize("error", [ValueError, TypeError, ValidationError("bad")])
    def test_a_key_that_its_model_does_not_understand_fails_nowhere(self, boss, monkeypatch, error):
        entry = make(voucher=1).entities.get()
        monkeypatch.setattr(TestEntity, "row_key", mock.Mock(side_effect=error))
        assert self.links(boss, entry) == set()


class TestPurgesThatDidNotFinish:
    def test_are_marked_in_the_list_found_by_a_filter_and_explained_on_the_page(self, boss):
        bad, good = make("stagehand_test_bad"), make("stagehand_test_good")
        for _ in range(2):
            failures.failed(bad, "held by <b>real</b> rows")
        listed = boss.get(url(TestRun), {"purge": "failing"}).content.decode()
        assert bad.test_id in listed
        assert good.test_id not in listed
        assert "purge failed 2 times" in listed
        page = boss.get(url(TestRun, "change", bad.pk)).content.decode()
        assert "held by &lt;b&gt;real&lt;/b&gt; rows" in page
        assert "purge failed" not in boss.get(url(TestRun, "change", good.pk)).content.decode()

    def test_are_forgotten_once_one_has_finished(self, boss):
        run = make("stagehand_test_bad")
        failures.failed(run, "something")
        failures.succeeded(run)
        assert "purge failed" not in boss.get(url(TestRun, "change", run.pk)).content.decode()


class TestViewOnly:
    """Not even a superuser can add, change or delete what the purge relies on."""

    @pytest.fixture
    def row(self, request) -> tuple[type, Any]:
        run = make(voucher=1)
        write(run)
        purge_run(make("stagehand_test_b", voucher=1))
        model = request.param
        return model, run if model is TestRun else model.objects.first()

    @pytest.mark.parametrize("row", NAMES, indirect=True)
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_adding_and_deleting_are_refused(self, boss, row, method):
        model, obj = row
        before = list(model.objects.values())
        for address in (url(model, "add"), url(model, "delete", obj.pk)):
            assert getattr(boss, method)(address, {"post": "yes"}).status_code == 403
        assert list(model.objects.values()) == before

    @pytest.mark.parametrize("row", NAMES, indirect=True)
    def test_changing_is_refused_and_the_page_has_nothing_to_change(self, boss, row):
        model, obj = row
        before = list(model.objects.values())
        address = url(model, "change", obj.pk)
        content = boss.get(address).content.decode()
        assert not re.search(r'name="(_save|_continue|_addanother|_saveasnew)"', content)
        main = content.split(f'id="{NAMES[model]}_form"')[1].split("</form>")[0]
        assert re.findall(r"<(?:input|select|textarea)[^>]*>", main) == re.findall(
            r'<input type="hidden" name="csrfmiddlewaretoken"[^>]*>', main
        )
        sent = {"state": "open", "test_id": "x", "key_text": "1", "body": "{}", "digest": "x", "_save": "1"}
        assert boss.post(address, sent).status_code == 403
        assert list(model.objects.values()) == before

    @pytest.mark.parametrize("row", NAMES, indirect=True)
    def test_deleting_the_selected_is_no_action(self, boss, row):
        model, obj = row
        assertNotContains(boss.get(url(model)), "delete_selected")
        before = list(model.objects.values())
        sent = {"action": "delete_selected", "_selected_action": [obj.pk], "post": "yes"}
        assert boss.post(url(model), sent).status_code in (200, 302)
        assert list(model.objects.values()) == before

    @pytest.mark.parametrize("row", NAMES, indirect=True)
    def test_the_list_edits_nothing_in_place(self, boss, row):
        model, obj = row
        before = list(model.objects.values())
        sent = {
            "form-TOTAL_FORMS": 1,
            "form-INITIAL_FORMS": 1,
            "form-0-id": obj.pk,
            "form-0-state": "closed",
            "_save": 1,
        }
        boss.post(url(model), sent)
        assert list(model.objects.values()) == before


class TestPurge:
    def test_asking_shows_the_plan_and_changes_nothing(self, boss):
        run = make(book=1, voucher=1)
        counts = host_counts()
        page = act(boss, "purge", run)
        assertContains(page, "Purge this test run?")
        assert host_counts() == counts
        run.refresh_from_db()
        assert run.state == TestRun.State.OPEN
        assert not Receipt.objects.exists()

    def test_what_is_confirmed_is_what_happens(self, boss):
        Voucher.objects.create(code="real", note="real")
        counts = host_counts()
        run = make(book=2, voucher=3)
        Voucher.objects.get(code=_key(run, "voucher")).delete()
        loan = Loan.objects.create(book=Book.objects.get(pk=_key(run, "book")), by="a reader")
        removed, gone, stays = tables(act(boss, "purge", run))

        ((level, text),) = confirm(boss, run)

        receipt = Receipt.objects.get(run=run).body
        assert level == "error"
        assert [[name, str(count)] for name, count in sorted(receipt["removed"].items())] == removed
        assert (
            [[name, str(count)] for name, count in receipt["alreadyGone"].items()]
            == gone
            == [["voucher", "1"]]
        )
        held = [
            [
                each["type"],
                each["id"],
                ", ".join(f"{count} {name}" for name, count in each["blockedBy"].items()),
            ]
            for each in receipt["quarantined"]
        ]
        assert sorted(held) == sorted([name, key, by] for name, key, _, by in stays)
        assert ["book", str(loan.book_id), "1 host.Loan"] in held
        assert "host.Loan (1)" in text
        assert sum(int(count) for _, count in removed) == sum(receipt["removed"].values())

        loan.delete()
        assert confirm(boss, run)[0][0] == "success"
        assert host_counts() == counts | {"admin.LogEntry": 2}

    def test_a_success_says_what_was_removed(self, boss):
        run = make(voucher=2)
        assert confirm(boss, run) == [("success", "stagehand_test_a: removed 2 voucher. The run is closed.")]
        assert not Voucher.objects.exists()

    def test_several_runs_are_shown_and_reported_one_by_one(self, boss):
        one, two = make("stagehand_test_a", voucher=1), make("stagehand_test_b", voucher=2)
        kept = make("stagehand_test_c", voucher=1)
        assertContains(act(boss, "purge", one, two), "Purge these 2 test runs?")
        assert {text for _, text in confirm(boss, one, two)} == {
            "stagehand_test_a: removed 1 voucher. The run is closed.",
            "stagehand_test_b: removed 2 voucher. The run is closed.",
        }
        assert Voucher.objects.count() == kept.entities.filter(state="live").count() == 1

    def test_a_plan_that_has_changed_is_shown_again_and_nothing_is_purged(self, boss):
        one, two = make("stagehand_test_a", voucher=1), make("stagehand_test_b", voucher=1)
        stale = digests(act(boss, "purge", one, two))
        make("stagehand_test_b", voucher=1)
        again = act(boss, "purge", one, two, digest=stale)
        assertContains(again, "nothing was purged")
        assert [["voucher", "2"]] in tables(again)
        assert Voucher.objects.count() == 3
        assert not Receipt.objects.exists()

        assert [level for level, _ in said(act(boss, "purge", one, two, digest=digests(again)))] == [
            "success"
        ] * 2
        assert not Voucher.objects.exists()

    def test_a_row_that_has_come_to_be_held_changes_the_plan(self, boss):
        run = make(author=1)
        stale = digests(act(boss, "purge", run))
        Book.objects.create(title="real", author=Author.objects.get())
        assertContains(act(boss, "purge", run, digest=stale), "1 host.Book")
        assert not Receipt.objects.exists()

    @pytest.mark.parametrize("digest", [[""], ["x"], ["yes", "post"]])
    def test_a_made_up_digest_purges_nothing(self, boss, digest):
        run = make(voucher=1)
        assertContains(act(boss, "purge", run, digest=digest), "nothing was purged")
        assert Voucher.objects.count() == 1

    def test_the_digests_of_more_runs_than_are_purged_purge_nothing(self, boss):
        one, two = make("stagehand_test_a", voucher=1), make("stagehand_test_b", voucher=1)
        both = digests(act(boss, "purge", one, two))
        assertContains(act(boss, "purge", one, digest=both), "nothing was purged")

    def test_a_closed_run_has_nothing_to_remove(self, boss):
        run = make(voucher=1)
        purge_run(run)
        assertContains(act(boss, "purge", run), "this run is closed already")
        assert confirm(boss, run) == [("success", "stagehand_test_a: removed nothing. The run is closed.")]
        assert Receipt.objects.count() == 1

    def test_it_works_with_the_gate_closed(self, boss):
        run = make(voucher=1)
        with changed(ENABLED=False):
            assert boss.get(url(TestRun)).status_code == 200
            assert confirm(boss, run)[0][0] == "success"

    def test_a_purge_that_fails_keeps_no_other_run_waiting(self, boss, monkeypatch):
        one, two = make("stagehand_test_a", voucher=1), make("stagehand_test_b", voucher=1)

        def purge_or_fail(run, **options):
            if run.pk == one.pk:
                raise RuntimeError("a secret of the server")
            return purge_run(run, **options)

        monkeypatch.setattr(testdata_admin, "purge_run", purge_or_fail)
        messages = dict(confirm(boss, one, two))
        assert "stagehand_test_a: the purge failed" in messages["error"]
        assert "secret" not in messages["error"]
        assert "stagehand_test_b: removed 1 voucher" in messages["success"]

    def test_too_many_runs_at_once_are_refused(self, boss, monkeypatch):
        monkeypatch.setattr(testdata_admin, "MOST_RUNS", 1)
        chosen = make("stagehand_test_a", voucher=1), make("stagehand_test_b", voucher=1)
        for action in ("purge", "renew"):
            level, text = said(act(boss, action, *chosen))[-1]
            assert (level, text[:24]) == ("error", "At most 1 runs at a time")

    def test_rows_that_stay_are_listed_up_to_a_limit_and_counted_beyond(self, boss, monkeypatch):
        monkeypatch.setattr(testdata_admin, "MOST_HELD", 1)
        run = make(author={"country": None})
        make(author={"country": None})
        for author in Author.objects.all():
            Book.objects.create(title="real", author=author)
        page = act(boss, "purge", run)
        assertContains(page, "2 rows will stay")
        assertContains(page, "and 1 more")
        assert len(tables(page)[0]) == 1

    def test_runs_that_left_the_filtered_list_are_not_purged(self, boss):
        run = make(voucher=1)
        sent = {"action": "purge", "_selected_action": [run.pk]}
        response = boss.post(f"{url(TestRun)}?end=closed", sent)
        assert said(response) == [("warning", "None of these runs is in the list any more.")]

    def test_it_commits_batch_by_batch_also_with_atomic_requests(self):
        assert resolve(url(TestRun)).func._non_atomic_requests == {"default"}

    def test_the_history_tells_who_purged_and_renewed(self, boss):
        run = make(voucher=1)
        act(boss, "renew", run)
        confirm(boss, run)
        page = boss.get(url(TestRun, "history", run.pk))
        assertContains(page, "Purged: removed 1 voucher.")
        assertContains(page, "Renewed: 60 minutes left.")
        assertContains(page, "boss")

    def test_an_entity_type_may_be_called_like_a_method_of_a_mapping(self, boss):
        run = make(voucher=1)
        run.entities.update(type="items")
        assert tables(act(boss, "purge", run)) == [[["items", "1"]]]
        purge_run(run)
        assert tables(boss.get(url(Receipt, "change", run.receipts.get().pk))) == [[["items", "1"]]]


class TestRenew:
    def test_a_run_gets_the_time_that_a_new_one_would_get(self, boss):
        run = make()
        TestRun.objects.filter(pk=run.pk).update(expires_at=Now() + dt.timedelta(minutes=5))
        assert said(act(boss, "renew", run)) == [("success", "stagehand_test_a: 60 minutes left.")]
        assert runs.minutes_left(TestRun.objects.annotate(now=Now()).get()) == 60

    def test_no_run_ends_sooner_for_being_renewed(self, boss):
        run = make()
        TestRun.objects.filter(pk=run.pk).update(expires_at=Now() + dt.timedelta(minutes=600))
        before = TestRun.objects.get().expires_at
        act(boss, "renew", run)
        assert TestRun.objects.get().expires_at >= before

    def test_each_runs_refusal_is_said_and_the_others_are_renewed(self, boss):
        fine, late, done = (make(f"stagehand_test_{name}") for name in ("fine", "late", "done"))
        expire(late)
        purge_run(done)
        assert sorted(said(act(boss, "renew", fine, late, done))) == [
            ("error", "stagehand_test_done: This test run is closed; open another one under a new test ID."),
            ("error", "stagehand_test_late: Test data is too old to modify"),
            ("success", "stagehand_test_fine: 60 minutes left."),
        ]


class TestPermissions:
    VIEW = "stagehand_testdata.view_testrun"

    @pytest.mark.parametrize("granted", [(), ("purge",), ("renew",), ("purge", "renew")])
    def test_actions_are_hidden_and_refused_without_their_permission(self, staff, granted):
        run = make(voucher=1)
        TestRun.objects.update(expires_at=Now() + dt.timedelta(minutes=5))
        clerk = staff(self.VIEW, *(f"stagehand_testdata.{name}_testrun" for name in granted))
        pages = clerk.get(url(TestRun)), clerk.get(url(TestRun, "change", run.pk))
        for name in ("purge", "renew"):
            assert [f'value="{name}"' in page.content.decode() for page in pages] == [name in granted] * 2

        act(clerk, "renew", run)
        left = runs.minutes_left(TestRun.objects.annotate(now=Now()).get())
        assert left == (60 if "renew" in granted else 5)

        digest = testdata_admin.make_plan(run).digest
        act(clerk, "purge", run, digest=[digest])
        assert Voucher.objects.exists() == ("purge" not in granted)

    @pytest.mark.parametrize("name", ["change", "delete", "add"])
    def test_the_models_other_permissions_give_no_action(self, staff, name):
        run = make(voucher=1)
        clerk = staff(self.VIEW, f"stagehand_testdata.{name}_testrun")
        act(clerk, "purge", run, digest=[testdata_admin.make_plan(run).digest])
        assert Voucher.objects.exists()
        assert clerk.post(url(TestRun, "delete", run.pk), {"post": "yes"}).status_code == 403

    def test_an_action_without_the_right_to_view_runs_is_refused(self, staff):
        run = make(voucher=1)
        clerk = staff("stagehand_testdata.purge_testrun")
        digest = testdata_admin.make_plan(run).digest
        assert act(clerk, "purge", run, digest=[digest]).status_code == 403
        assert Voucher.objects.exists()

    @pytest.mark.parametrize("model", NAMES)
    def test_each_page_needs_its_own_view_permission(self, staff, model):
        purge_run(make(voucher=1))
        write(make("stagehand_test_b"))
        pk = model.objects.first().pk
        clerk = staff(f"stagehand_testdata.view_{NAMES[model]}")
        for other in NAMES:
            status = 200 if other is model else 403
            assert clerk.get(url(other)).status_code == status
            assert clerk.get(url(other, "change", other.objects.first().pk)).status_code == status
        assert clerk.get(url(model, "change", pk)).status_code == 200

    def test_a_runs_page_shows_no_receipts_and_no_links_to_who_may_not_view_them(self, staff):
        run = make(voucher=1)
        purge_run(run)
        page = staff(self.VIEW).get(url(TestRun, "change", run.pk))
        assertNotContains(page, "Last receipts")
        assertNotContains(page, "/stagehand_testdata/testentity/")
        assert tables(page) == [[["voucher", "0", "0", "1", "0"]]]

    def test_strangers_are_sent_to_the_login(self):
        run = make(voucher=1)
        response = act(Client(), "purge", run, digest=[testdata_admin.make_plan(run).digest])
        assert response.status_code == 302
        assert "/login/" in response["Location"]
        assert Voucher.objects.exists()

    def test_a_forged_request_from_another_site_is_refused(self, boss):
        run = make(voucher=1)
        forged = Client(enforce_csrf_checks=True)
        forged.cookies = boss.cookies
        assert act(forged, "purge", run, digest=[testdata_admin.make_plan(run).digest]).status_code == 403
        assert Voucher.objects.exists()

    def test_the_buttons_of_a_runs_page_follow_its_state(self, boss):
        run = make()

        def offered():
            page = boss.get(url(TestRun, "change", run.pk)).content.decode()
            return re.findall(r'name="action" value="(\w+)"', page)

        assert offered() == ["purge", "renew"]
        expire(run)
        assert offered() == ["purge"]
        purge_run(run)
        assert offered() == []
