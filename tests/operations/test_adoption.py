"""What may be taken into a run, and above all what may not."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections, transaction

from stagehand_testdata import fingerprints
from stagehand_testdata.exceptions import (
    Conflict,
    InvalidInput,
    NotFound,
    PrivilegedAccount,
    RunClosed,
    TestDataError,
    TooOld,
)
from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import runs
from stagehand_testdata.operations.adoption import adopt, candidates
from stagehand_testdata.operations.audit import audit
from stagehand_testdata.operations.purge.purge import purge_run
from tests.host import factories
from tests.host.models import Author, Person, Restaurant, Voucher
from tests.making import changed, create

from .test_audit import (
    OTHER,
    TEST_ID,
    bare,  # noqa: F401 - a fixture
    close,
    end,
    guest,  # noqa: F401 - a fixture
    leaked,
    seat,  # noqa: F401 - a fixture
    short,
    the_run,
    vouchers,
)

pytestmark = pytest.mark.django_db


def take(test_id: str, label: str, *keys: str) -> list[TestEntity]:
    return adopt(test_id, candidates(label, keys))


class TestAdopting:
    def test_a_marked_row_makes_it_the_runs_own(self) -> None:
        create(factories.VoucherFactory, TEST_ID)
        row = leaked()
        [entry] = take(TEST_ID, "host.Voucher", "V1")
        entry.refresh_from_db()
        assert (entry.run, entry.ordinal, entry.origin, entry.state) == (the_run(), 2, "captured", "live")
        assert (entry.model, entry.key_text, entry.type) == ("host.voucher", "V1", "host.voucher")
        assert entry.fingerprint == fingerprints.take(Voucher, {"code": row.code, "note": row.note})
        assert audit(deep=True).clean
        assert purge_run(the_run()).success  # type: ignore[union-attr]
        assert not Voucher.objects.exists()
        assert audit(deep=True).clean

    def test_opens_a_run_that_never_was(self) -> None:
        leaked()
        take(OTHER, "host.Voucher", "V1")
        assert (the_run(OTHER).state, the_run(OTHER).owner) == ("open", "")

    def test_joins_the_run_of_another_owner(self) -> None:
        with transaction.atomic():
            runs.open_or_join(TEST_ID, owner="a key")
        leaked()
        [entry] = take(TEST_ID, "host.voucher", "V1")
        assert entry.run.owner == "a key"
        assert TestRun.objects.count() == 1

    def test_several_at_once(self) -> None:
        for code in ("V1", "V2", "V3"):
            leaked(code)
        entries = take(TEST_ID, "host.Voucher", "V3", "V1", "V1")
        assert [(each.ordinal, each.key_text) for each in entries] == [(1, "V1"), (2, "V3")]
        assert short(audit().leaks) == [("host.Voucher", "prefix", 1)]

    def test_all_or_none(self) -> None:
        leaked("V1")
        shown = candidates("host.Voucher", ["V1"])
        leaked("V2")
        shown += candidates("host.Voucher", ["V2"])
        Voucher.objects.filter(pk="V2").delete()
        with pytest.raises(Conflict, match="went away"):
            adopt(TEST_ID, shown)
        assert not TestEntity.objects.exists()
        assert not TestRun.objects.exists()

    def test_with_the_gate_closed(self) -> None:
        leaked()
        with changed(ENABLED=False):
            take(TEST_ID, "host.Voucher", "V1")
        assert audit().clean

    @pytest.mark.parametrize("kind", ["uuid", "number", "multi-table"])
    def test_keys_of_every_kind(self, kind: str) -> None:
        row: Any = {
            "uuid": lambda: Author.objects.create(name="stagehand_test_a"),
            "number": lambda: Person.objects.create(name="stagehand_test_p"),
            "multi-table": lambda: Restaurant.objects.create(name="stagehand_test_r", serves="soup"),
        }[kind]()
        [found] = [each for each in audit().leaks if each.model == row._meta.label]
        take(TEST_ID, row._meta.label, found.examples[0][0])
        assert row._meta.label not in {each.model for each in audit(deep=True).leaks}
        assert not audit(deep=True).strangers

    @pytest.mark.django_db(transaction=True)
    def test_composite_keys(self, seat: Any) -> None:  # noqa: F811
        seat.objects.create(hall="A", number=1, guest="stagehand_test_guest")
        take(TEST_ID, "host.Seat", '["A", "1"]')
        assert audit(deep=True).clean
        for key in ("A,1", '["A"]', '"A"', "5", '["A", "x"]', "{", '["A", null]'):
            with pytest.raises((InvalidInput, NotFound)):
                candidates("host.Seat", [key])

    @pytest.mark.django_db(transaction=True)
    def test_a_flagged_row(self, guest: Any) -> None:  # noqa: F811
        guest.objects.create(since=dt.datetime(2020, 1, 1, tzinfo=dt.UTC), name="somebody", is_test=True)
        [found] = audit().leaks
        [shown] = candidates("host.Guest", [found.examples[0][0]])
        assert shown.marks == ("is_test is set",)
        adopt(TEST_ID, [shown])
        assert audit(deep=True).clean

    def test_what_is_shown(self) -> None:
        user = User.objects.create(
            username="stagehand_test_\x1b[2J\n", email="stagehand_test_x@example.com", first_name="x" * 150
        )
        user.set_password("secret")
        user.save()
        [shown] = candidates("auth.User", [str(user.pk)])
        assert shown.marks == (
            "username begins with 'stagehand_test_'",
            "email begins with 'stagehand_test_'",
        )
        assert shown.columns["password"] == "(not shown)"
        assert shown.columns["username"] == r"'stagehand_test_\x1b[2J\n'"
        assert len(shown.columns["first_name"]) == 60
        assert user.password not in str(shown)


class TestWhatIsNotAdopted:
    @pytest.mark.parametrize("mark", [{}, {"note": "about stagehand_test_"}], ids=["none", "elsewhere"])
    def test_a_row_without_a_mark(self, mark: Any) -> None:
        leaked(**{"note": "real", **mark})
        with pytest.raises(InvalidInput, match=r"host.Voucher V1 carries no mark"):
            candidates("host.Voucher", ["V1"])

    def test_a_row_that_lost_its_mark_after_it_was_shown(self) -> None:
        leaked()
        shown = candidates("host.Voucher", ["V1"])
        Voucher.objects.update(note="real after all")
        with pytest.raises(InvalidInput, match="carries no mark"):
            adopt(TEST_ID, shown)
        assert not TestRun.objects.exists()

    def test_another_row_under_the_key_that_was_shown(self) -> None:
        leaked()
        shown = candidates("host.Voucher", ["V1"])
        Voucher.objects.update(note="stagehand_test_ and yet another")
        with pytest.raises(Conflict, match="not as it was shown"):
            adopt(TEST_ID, shown)

    def test_a_row_of_a_run(self) -> None:
        row = create(factories.VoucherFactory, OTHER, note=f"{OTHER} note")
        with pytest.raises(Conflict, match=f"has an entry already, in the run {OTHER}"):
            candidates("host.Voucher", [row.pk])

    def test_a_row_that_came_to_be_of_a_run_after_it_was_shown(self) -> None:
        leaked()
        shown = candidates("host.Voucher", ["V1"])
        take(OTHER, "host.Voucher", "V1")
        with pytest.raises(Conflict, match="has an entry already"):
            adopt(TEST_ID, shown)

    @pytest.mark.parametrize("right", ["is_staff", "is_superuser"])
    def test_an_account_with_rights(self, right: str) -> None:
        user = User.objects.create(username="stagehand_test_boss", **{right: True})
        with pytest.raises(PrivilegedAccount, match="staff or superuser"):
            candidates("auth.User", [str(user.pk)])

    def test_an_account_that_got_rights_after_it_was_shown(self) -> None:
        user = User.objects.create(username="stagehand_test_boss")
        shown = candidates("auth.User", [str(user.pk)])
        User.objects.update(is_staff=True)
        with pytest.raises(PrivilegedAccount):
            adopt(TEST_ID, shown)

    @pytest.mark.parametrize(
        "label",
        ["stagehand_testdata.TestEntity", "stagehand_testdata.TestRun", "auth.Group", "auth.Permission"],
    )
    def test_the_ledger_and_rights_themselves(self, label: str) -> None:
        with pytest.raises(InvalidInput, match="cannot be adopted"):
            candidates(label, ["1"])

    @pytest.mark.parametrize(
        "label", ["", "voucher", "host.Nothing", "no.Voucher", "host.Voucher.x", "%", "."]
    )
    def test_rows_of_what_is_no_model(self, label: str) -> None:
        with pytest.raises(InvalidInput, match=r"write it as app\.Model"):
            candidates(label, ["1"])

    @pytest.mark.parametrize(
        ("label", "key"),
        [
            ("host.Person", "x"),
            ("host.Person", ""),
            ("host.Person", "9" * 30),
            ("host.Person", "9" * 5000),
            ("host.Person", "-1"),
            ("host.Person", "1; DROP TABLE host_person"),
            ("host.Author", "x"),
            ("host.Author", str(uuid.UUID(int=1))),
            ("host.Voucher", "%"),
            ("host.Voucher", "_"),
            ("host.Voucher", "v1"),
            ("host.Voucher", "V1\0"),
            ("host.Restaurant", "[]"),
        ],
    )
    def test_rows_under_keys_of_another_kind_or_none(self, label: str, key: str) -> None:
        leaked()
        with pytest.raises(TestDataError, match=r"no key of|no row of"):
            candidates(label, [key])

    @pytest.mark.parametrize("test_id", ["real", "stagehand_test_ x", "", "stagehand_test_" + "x" * 200])
    def test_into_what_can_be_no_run(self, test_id: str) -> None:
        leaked()
        with pytest.raises(InvalidInput, match="There is no run"):
            take(test_id, "host.Voucher", "V1")
        assert not TestRun.objects.exists()

    @pytest.mark.parametrize("state", ["closing", "closed"])
    def test_into_a_closed_run(self, state: str) -> None:
        vouchers(1)
        close()
        if state == "closing":
            TestRun.objects.update(state="closing", closed_at=None)
        leaked()
        with pytest.raises(RunClosed):
            take(TEST_ID, "host.Voucher", "V1")
        assert TestEntity.objects.count() == 1

    def test_into_a_run_past_its_end(self) -> None:
        vouchers(1)
        end()
        leaked()
        with pytest.raises(TooOld, match=f"The run {TEST_ID} is past its end"):
            take(TEST_ID, "host.Voucher", "V1")

    def test_into_one_of_several_owners_runs(self) -> None:
        for owner in ("a", "b"):
            with transaction.atomic():
                runs.open_or_join(TEST_ID, owner=owner)
        leaked()
        with pytest.raises(InvalidInput, match="Several owners"):
            take(TEST_ID, "host.Voucher", "V1")

    @pytest.mark.django_db(transaction=True)
    def test_a_row_that_nothing_tells_from_another(self, bare: Any) -> None:  # noqa: F811
        row = bare.objects.create(is_test=True)
        assert short(audit().leaks) == [("host.Bare", "flag", 1)]
        with pytest.raises(InvalidInput, match="nothing that tells it from another row"):
            candidates("host.Bare", [str(row.pk)])


@pytest.mark.django_db(transaction=True)
class TestTwoAtOnce:
    @pytest.mark.parametrize("second", [TEST_ID, OTHER], ids=["same-run", "another-run"])
    def test_one_wins_and_the_other_is_told(self, second: str) -> None:
        leaked()
        shown = candidates("host.Voucher", ["V1"])
        results: list[Any] = []

        def late() -> None:
            try:
                results.append(adopt(second, shown))
            except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
                results.append(error)
            finally:
                connections.close_all()

        thread = threading.Thread(target=late)
        with transaction.atomic():
            adopt(TEST_ID, shown)
            thread.start()
            thread.join(0.7)
            assert thread.is_alive()
        thread.join(30)
        [result] = results
        assert isinstance(result, Conflict)
        assert "has an entry already" in result.message
        assert TestEntity.objects.count() == 1
        assert audit(deep=True).clean
