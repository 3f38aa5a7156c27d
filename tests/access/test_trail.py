"""The audit: a row for each thing that was done, in its transaction, and nobody changes one."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from stagehand_testdata.access import keys, trail
from stagehand_testdata.access.trail import Act
from stagehand_testdata.databases import database
from stagehand_testdata.exceptions import AppendOnly
from stagehand_testdata.models import AuditEntry, TestRun
from stagehand_testdata.operations import guards
from stagehand_testdata.operations.reaper import reap
from tests.api.conftest import CREATING, configure, expire
from tests.conftest import Wire, error_of
from tests.guarding import forget_the_audit
from tests.host.models import Book, Loan, Voucher
from tests.management.running import run_command, run_testdata

__all__ = ["configure"]

TABLE = AuditEntry._meta.db_table


@pytest.fixture(autouse=True)
def _fresh_minute(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests were refused, or have committed, does not count here."""
    forget_the_audit()
    monkeypatch.setattr(trail, "_refusals", trail._Refusals())


def told() -> list[tuple[str, str, dict[str, int], str]]:
    """(asked, operation, counts, result) of every row, the oldest first."""
    found = AuditEntry.objects.order_by("pk").values_list("asked", "operation", "counts", "result")
    return list(found)


def last() -> AuditEntry:
    found = AuditEntry.objects.order_by("pk").last()
    assert found is not None
    return found


def execute(sql: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


class TestOverTheWire:
    @pytest.mark.parametrize(("path", "body"), [*CREATING, ("verify-access", {}), ("scenarios/booking", {})])
    def test_a_creating_request_leaves_one_row(self, wire: Wire, path: str, body: Any) -> None:
        assert wire.post(path, body).status_code in (200, 201)
        entry = last()
        assert AuditEntry.objects.count() == 1
        assert (entry.via, entry.test_id, entry.result) == ("api", wire.test_id, "done")
        assert entry.address == "127.0.0.1"
        assert entry.run_id == TestRun.objects.get().pk
        assert entry.asked == path.partition("/")[0]

    def test_it_says_how_many_rows_were_entered_by_type(self, wire: Wire) -> None:
        wire.make("batch", {"voucher": 3, "book": 1})
        assert last().operation == "rows.create"
        assert last().counts["voucher"] == 3
        assert sum(last().counts.values()) == TestRun.objects.get().entities.count()

    def test_a_shadow_call_leaves_one_too_and_a_deep_one_that_left_nothing_none(self, wire: Wire) -> None:
        wire.make("builders", {"shadow": True})
        assert (last().operation, AuditEntry.objects.count()) == ("shadow.create", 1)
        wire.make("builders", {"shadow": True, "deep": True})
        assert AuditEntry.objects.count() == 1

    def test_what_was_refused_leaves_none(self, wire: Wire) -> None:
        assert wire.post("clients", {"isTest": False}).status_code == 400
        assert wire.post("entities/failing").status_code == 500
        assert not AuditEntry.objects.exists()

    def test_reading_leaves_none(self, wire: Wire) -> None:
        wire.make("clients")
        for path in ("runs", f"runs/{wire.test_id}", f"runs/{wire.test_id}/entities", "entity-types"):
            assert wire.get(path).status_code == 200
        assert AuditEntry.objects.count() == 1

    def test_a_clean_up_says_when_it_began_and_what_came_of_it(self, wire: Wire) -> None:
        wire.make("entities/voucher")
        wire.cleanup()
        assert told()[1:] == [
            ("cleanup", "run.close", {}, "begun"),
            ("cleanup", "rows.remove", {"voucher": 1}, "done"),
        ]

    def test_of_what_is_listed_too(self, wire: Wire) -> None:
        made = [wire.entity("voucher") for _ in range(2)]
        wire.cleanup(createdData=[{"type": "voucher", "id": made[0]["id"]}])
        assert told()[2:] == [
            ("cleanup", "rows.remove", {"listed": 1}, "begun"),
            ("cleanup", "rows.remove", {"voucher": 1}, "done"),
        ]

    def test_a_residue_is_a_result(self, wire: Wire) -> None:
        Loan.objects.create(book=Book.objects.get(pk=wire.entity("book")["id"]), by="real")
        wire.send("delete", f"runs/{wire.test_id}")
        assert (last().operation, last().result) == ("rows.remove", "residue")

    def test_a_renewal_and_a_pass(self, wire: Wire) -> None:
        wire.post("verify-access")
        wire.send("patch", f"runs/{wire.test_id}", {"maxAgeMinutes": 5})
        wire.post(f"runs/{wire.test_id}/pass")
        assert [operation for _, operation, _, _ in told()] == ["run.open", "run.renew", "pass.issue"]

    def test_a_replayed_answer_leaves_none(self, wire: Wire) -> None:
        for _ in range(3):
            wire.post("clients", **{"Idempotency-Key": "k"})
        assert AuditEntry.objects.count() == 1

    def test_a_key_is_named_by_what_is_public_of_it(self, wire: Wire, configure: Any) -> None:
        configure(REQUIRE_ACCESS_KEY=True)
        made = keys.create("nightly", dt.timedelta(hours=1))
        wire.post("clients", Authorization=f"Bearer {made.text}")
        entry = last()
        assert (entry.owner, entry.key_id, entry.name) == (made.key.owner, made.key.public_id, "nightly")
        assert made.text[17:] not in repr(AuditEntry.objects.values())

    def test_it_costs_one_statement(self, wire: Wire) -> None:
        wire.make("clients")
        with CaptureQueriesContext(connection) as queries:
            wire.make("clients")
        assert sum(TABLE in each["sql"] for each in queries) == 1


class TestTheSameTransaction:
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize(
        ("method", "path"), [("post", "clients"), ("post", "verify-access"), ("post", "cleanup")]
    )
    def test_what_cannot_be_written_down_does_not_happen(
        self, new_wire: Callable[[], Wire], method: str, path: str
    ) -> None:
        wire = new_wire()
        wire.make("entities/voucher")
        before = list(TestRun.objects.values("state", "expires_at")), Voucher.objects.count()

        def refuse(go_on: Any, sql: Any, *rest: Any) -> Any:
            if TABLE in str(sql):
                raise DatabaseError("the disk is full")
            return go_on(sql, *rest)

        with connection.execute_wrapper(refuse):
            assert wire.send(method, path, {}).status_code == 500
        assert (list(TestRun.objects.values("state", "expires_at")), Voucher.objects.count()) == before

    @pytest.mark.django_db
    def test_a_key_that_cannot_be_written_down_is_not_made(self) -> None:
        def refuse(go_on: Any, sql: Any, *rest: Any) -> Any:
            if TABLE in str(sql):
                raise DatabaseError("the disk is full")
            return go_on(sql, *rest)

        with connection.execute_wrapper(refuse), pytest.raises(DatabaseError), transaction.atomic():
            keys.create("nightly", dt.timedelta(hours=1))
        assert not keys.AccessKey.objects.exists()


class TestOtherEdges:
    def test_the_reaper(self, wire: Wire) -> None:
        wire.make("entities/voucher")
        expire(wire.test_id)
        run_command("purge_test_data", "--expired")
        entry = last()
        assert (entry.via, entry.asked) == ("command", "purge_test_data")
        assert entry.owner.startswith("uid:")

    def test_a_hosts_own_code(self, wire: Wire) -> None:
        wire.make("entities/voucher")
        expire(wire.test_id)
        reap()
        assert (last().via, last().owner, last().operation) == ("code", "", "rows.remove")

    def test_keys(self, db: None) -> None:
        _, out = run_testdata("keys", "create", "nightly", "--expires", "1h", "--json")
        made = json.loads(out)
        run_testdata("keys", "rotate", made["id"])
        run_testdata("keys", "revoke", made["id"])
        run_testdata("keys", "revoke", made["id"])
        found = AuditEntry.objects.order_by("pk").values_list("asked", "operation", "subject")
        assert list(found) == [
            ("testdata keys create", "key.create", made["id"]),
            ("testdata keys rotate", "key.rotate", made["id"]),
            ("testdata keys revoke", "key.revoke", made["id"]),
        ]
        assert made["key"][17:] not in repr(list(AuditEntry.objects.values()))

    @pytest.mark.django_db(transaction=True)
    def test_guards(self) -> None:
        try:
            guards.install(connection.alias)
            assert AuditEntry.objects.filter(operation="guards.install").count() > 5
        finally:
            guards.remove(connection.alias)
        assert last().operation == "guards.remove"

    def test_the_admin_by_the_users_key_not_the_name(self, wire: Wire, client: Any) -> None:
        wire.post("verify-access")
        user = get_user_model().objects.create_superuser("ann@example.com", password="x")
        client.force_login(user)
        run = TestRun.objects.get()
        client.post(
            reverse("admin:stagehand_testdata_testrun_changelist"),
            {"action": "renew", "_selected_action": [run.pk]},
        )
        entry = last()
        assert (entry.via, entry.owner, entry.asked) == ("admin", f"user:{user.pk}", "renew")
        assert "ann@" not in repr(list(AuditEntry.objects.values()))


class TestRefusals:
    @pytest.fixture(autouse=True)
    def keys_needed(self, configure: Any, db: None) -> None:
        configure(REQUIRE_ACCESS_KEY=True)

    @pytest.mark.parametrize(
        "header", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic x"}]
    )
    @pytest.mark.parametrize("path", ["clients", "cleanup"])
    def test_of_a_key_leave_one_row_without_what_was_sent(
        self, wire: Wire, path: str, header: dict[str, str]
    ) -> None:
        assert error_of(wire.post(path, **header)) == (401, "not_authenticated")
        entry = last()
        assert (entry.operation, entry.result, entry.address) == ("refused", "not_authenticated", "127.0.0.1")
        assert (entry.owner, entry.test_id, entry.subject) == ("", "", "")
        assert AuditEntry.objects.count() == 1

    def test_of_what_a_key_may_not_do_name_the_key(self, wire: Wire) -> None:
        made = keys.create("reader", dt.timedelta(hours=1), operations=["read"])
        assert wire.post("clients", Authorization=f"Bearer {made.text}").status_code == 403
        assert (last().result, last().key_id) == ("not_allowed", made.key.public_id)

    @pytest.mark.parametrize("path", ["schema", "docs"])
    def test_of_a_page(self, wire: Wire, path: str) -> None:
        assert wire.get(path).status_code == 401
        assert (last().result, last().via, last().asked) == ("not_authenticated", "api", "read")

    @pytest.mark.parametrize("path", ["schema", "docs"])
    def test_of_a_page_name_the_key(self, wire: Wire, path: str) -> None:
        made = keys.create("nightly", dt.timedelta(hours=1), operations=["batch"])
        assert wire.get(path, Authorization=f"Bearer {made.text}").status_code == 403
        assert (last().result, last().key_id) == ("not_allowed", made.key.public_id)

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("path", ["schema", "docs", "docs/", "runs"])
    def test_stay_where_the_host_has_atomic_requests(
        self, new_wire: Callable[[], Wire], monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        assert new_wire().get(path).status_code == 401
        assert last().result == "not_authenticated"

    def test_are_written_down_so_often_for_an_address_and_then_counted(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(trail.PER_ADDRESS):
            wire.post("clients")
        with CaptureQueriesContext(connection) as queries:
            for _ in range(5):
                assert wire.post("clients").status_code == 401
        assert not queries.captured_queries
        assert AuditEntry.objects.count() == trail.PER_ADDRESS
        monkeypatch.setattr(trail.time, "monotonic", lambda: 1e9)
        wire.post("clients")
        assert last().counts == {"leftOut": 5}

    def test_are_as_many_for_one_network_of_ipv6_as_for_one_address(self) -> None:
        for number in range(50):
            trail.refused("not_authenticated", f"2001:db8::{number:x}")
        assert AuditEntry.objects.count() == trail.PER_ADDRESS

    def test_are_each_addresses_own_where_one_listener_takes_both_kinds(self) -> None:
        for number in range(50):
            trail.refused("not_authenticated", f"::ffff:10.0.0.{number}")
        assert AuditEntry.objects.count() == 50
        assert last().address == "10.0.0.49"

    @pytest.mark.parametrize(
        ("address", "network"),
        [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8::1", "2001:db8::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", ""),
            ("unix:", ""),
        ],
    )
    def test_of_one_network(self, address: str, network: str) -> None:
        assert trail.network_of(address) == network

    def test_are_so_many_in_all_whatever_the_addresses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trail, "OVERALL", 30)
        for number in range(100):
            trail.refused("not_authenticated", f"10.0.0.{number}")
        assert AuditEntry.objects.count() == 30

    def test_are_answered_where_they_cannot_be_written_down(self, wire: Wire) -> None:
        def refuse(*args: Any) -> Any:
            raise DatabaseError("the disk is full")

        with connection.execute_wrapper(refuse):
            assert error_of(wire.post("clients")) == (401, "not_authenticated")


@pytest.mark.django_db
class TestAppendOnly:
    @pytest.fixture(autouse=True)
    def entry(self, db: None) -> AuditEntry:
        if connection.features.can_rollback_ddl:
            # As the code has the triggers now, whenever this database was migrated.
            engine = database(connection.alias)
            for statement in (*engine.not_append_only_sql(TABLE), *engine.append_only_sql(TABLE)):
                execute(statement)
        trail.record("key.create", subject="k")
        return last()

    def test_the_model_refuses(self, entry: AuditEntry) -> None:
        everything = AuditEntry.objects.all()
        for change in (
            entry.save,
            entry.delete,
            everything.delete,
            lambda: everything.update(result="x"),
            lambda: everything.filter(pk=entry.pk).update(result="x"),
            lambda: everything.bulk_update([entry], ["result"]),
            lambda: AuditEntry._base_manager.all().update(result="x"),
        ):
            with pytest.raises((AppendOnly, IntegrityError)), transaction.atomic():
                change()
        assert AuditEntry.objects.filter(result="done").count() == 1

    @pytest.mark.parametrize(
        "sql",
        [
            f"UPDATE {TABLE} SET result = 'x'",
            f"UPDATE {TABLE} SET at = at WHERE id > 0",
            f"DELETE FROM {TABLE}",
            f"DELETE FROM {TABLE} WHERE id > 0",
        ],
    )
    def test_the_database_refuses(self, sql: str) -> None:
        with pytest.raises(IntegrityError, match="not changed or deleted"):
            execute(sql)
        assert AuditEntry.objects.get().result == "done"

    @pytest.mark.skipif(connection.vendor == "postgresql", reason="PostgreSQL has no REPLACE")
    def test_nor_does_replace(self, entry: AuditEntry) -> None:
        columns = ", ".join(
            connection.ops.quote_name(each.column) for each in AuditEntry._meta.concrete_fields
        )
        with pytest.raises(IntegrityError, match="not changed or deleted"):
            execute(f"REPLACE INTO {TABLE} ({columns}) SELECT {columns} FROM {TABLE}")

    @pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's settings")
    def test_a_door_that_is_set_for_a_session_opens_nothing(self) -> None:
        execute("SELECT set_config('stagehand.audit_prune', '1', false)")
        with pytest.raises(IntegrityError):
            execute(f"DELETE FROM {TABLE}")

    def test_the_door_opens_no_update(self) -> None:
        door = database(connection.alias).pruning_audit()
        with transaction.atomic(), door, pytest.raises(IntegrityError), transaction.atomic():
            execute(f"UPDATE {TABLE} SET result = 'x'")

    def test_a_plain_queryset_is_stopped_by_the_database(self) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            QuerySet(AuditEntry).delete()


@pytest.mark.django_db(transaction=True)
def test_flush_empties_it_with_everything_else() -> None:
    trail.record("key.create", subject="k")
    call_command("flush", interactive=False, verbosity=0)
    assert not AuditEntry.objects.exists()
    trail.record("key.create", subject="k")
    with pytest.raises(IntegrityError):
        execute(f"DELETE FROM {TABLE}")


@pytest.mark.django_db
class TestPruning:
    def make(self, *days: int) -> None:
        for each in days:
            AuditEntry(via="code", operation="x", result="done", at=Now() - dt.timedelta(days=each)).save()

    def test_removes_what_is_older_and_says_so(self, configure: Any) -> None:
        configure(AUDIT_DAYS=30)
        self.make(29, 31, 400)
        assert run_testdata("log", "prune") == (
            0,
            "2 entries of the audit were older than 30 days, and are removed.\n",
        )
        assert [operation for _, operation, _, _ in told()] == ["x", "audit.prune"]
        assert last().counts == {"entries": 2}
        assert last().asked == "testdata log prune"

    def test_goes_on_until_all_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trail, "_PRUNED_AT_A_TIME", 2)
        self.make(*[400] * 5)
        assert trail.prune(365) == 5
        assert [counts for _, _, counts, _ in told()] == [{"entries": 2}, {"entries": 2}, {"entries": 1}]

    def test_nothing_to_remove_leaves_nothing(self) -> None:
        self.make(1)
        assert trail.prune(365) == 0
        assert AuditEntry.objects.count() == 1

    @pytest.mark.parametrize("days", [0, -1])
    def test_is_refused_where_it_would_remove_everything(self, configure: Any, days: int) -> None:
        configure(AUDIT_DAYS=days)
        status, said = run_testdata("log", "prune")
        assert status == 2
        assert "AUDIT_DAYS" in said


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def entries(self, wire: Wire) -> None:
        with trail.acting(Act("admin", "renew", "user:5", "10.0.0.9")):
            trail.record("x", subject="=cmd|' /C calc'!A0\n\x1b[31mred", counts={"voucher": 2})
        wire.make("clients")

    def test_writes_one_json_object_a_line(self) -> None:
        status, out = run_testdata("log", "--format", "jsonl")
        lines = [json.loads(line) for line in out.splitlines()]
        assert status == 0
        assert [line["operation"] for line in lines] == ["x", "rows.create"]
        assert lines[0]["counts"] == {"voucher": 2}
        assert set(lines[0]) == {
            *("id", "at", "via", "asked", "operation", "owner", "keyId", "name", "address"),
            *("testId", "subject", "counts", "result"),
        }

    def test_nothing_in_it_is_a_formula_or_steers_a_terminal(self) -> None:
        _, lines = run_testdata("log", "--format", "jsonl")
        assert json.loads(lines.splitlines()[0])["subject"].startswith("'=")
        for out in (lines, run_testdata("log")[1]):
            assert len(out.splitlines()) == 2
            assert "\x1b" not in out

    @pytest.mark.parametrize(
        ("options", "count"),
        [
            (["--owner", "user:5"], 1),
            (["--owner", "nobody"], 0),
            (["--since", "1h"], 2),
            (["--since", "2000-01-01"], 2),
            (["--since", "2999-01-01T00:00"], 0),
        ],
    )
    def test_filters(self, options: list[str], count: int) -> None:
        assert len(run_testdata("log", "--format", "jsonl", *options)[1].splitlines()) == count

    def test_filters_by_run(self, wire: Wire) -> None:
        assert len(run_testdata("log", "--run", wire.test_id)[1].splitlines()) == 1

    def test_json_is_one_document(self) -> None:
        assert len(json.loads(run_testdata("log", "--json")[1])) == 2
        assert json.loads(run_testdata("log", "--json", "--owner", "nobody")[1]) == []

    def test_it_holds_no_more_than_a_few_rows_at_a_time(self) -> None:
        with CaptureQueriesContext(connection) as queries:
            run_testdata("log")
        assert len(queries) >= 1

    @pytest.mark.parametrize(
        "options",
        [["--json", "--format", "jsonl"], ["prune", "--owner", "x"], ["prune", "--format", "jsonl"]],
    )
    def test_misuse_says_what_to_type(self, options: list[str]) -> None:
        assert run_testdata("log", *options)[0] == 2

    def test_a_time_that_is_none_is_refused_with_what_to_type(self) -> None:
        status, said = run_testdata("log", "--since", "yesterday")
        assert status != 0
        assert "type 2h, 7d" in said


class TestTheAdmin:
    @pytest.fixture(autouse=True)
    def staff(self, admin_client: Any, wire: Wire) -> None:
        self.client = admin_client
        wire.make("clients", {"name": "<script>alert(1)</script>"})
        trail.record("key.create", subject="<script>alert(1)</script>")

    def test_lists_and_shows_it_escaped(self) -> None:
        page = self.client.get(reverse("admin:stagehand_testdata_auditentry_changelist"))
        assert page.status_code == 200
        assert b"rows.create" in page.content
        assert b"<script>alert" not in page.content
        one = self.client.get(reverse("admin:stagehand_testdata_auditentry_change", args=[last().pk]))
        assert one.status_code == 200
        assert b"<script>alert" not in one.content

    def test_nobody_changes_it_there(self) -> None:
        change = reverse("admin:stagehand_testdata_auditentry_change", args=[last().pk])
        assert self.client.post(change, {"result": "x"}).status_code == 403
        for page in ("add", "delete"):
            args = [last().pk] if page == "delete" else []
            url = reverse(f"admin:stagehand_testdata_auditentry_{page}", args=args)
            assert self.client.post(url, {"post": "yes"}).status_code == 403
        assert AuditEntry.objects.count() == 2

    def test_it_is_searched_and_filtered(self, wire: Wire) -> None:
        url = reverse("admin:stagehand_testdata_auditentry_changelist")
        for query in (
            f"q={wire.test_id}",
            "operation=rows.create",
            "via=api",
            f"at__year={timezone.now().year}",
        ):
            assert self.client.get(f"{url}?{query}").status_code == 200


def test_the_time_is_the_databases(wire: Wire) -> None:
    wire.make("clients")
    assert AuditEntry.objects.filter(at__lte=Now(), at__gt=Now() - dt.timedelta(minutes=1)).exists()
    assert AuditEntry.objects.annotate(other=F("at")).get().at.tzinfo is not None
