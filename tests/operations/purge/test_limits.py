"""A purge of very much waits for somebody who has looked at its plan."""

from __future__ import annotations

import pytest

from stagehand_testdata.exceptions import PlanChanged, PurgeHalted
from stagehand_testdata.models import TestRun
from stagehand_testdata.operations.purge import purge
from stagehand_testdata.operations.purge.plan import make_plan
from tests.host import models
from tests.making import changed

from .conftest import Run


def vouchers(run: Run, count: int) -> list[models.Voucher]:
    return [run.make("voucher") for _ in range(count)]


class TestMoreRowsThanMayGo:
    def test_halt_before_anything_is_done(self, run: Run) -> None:
        vouchers(run, 4)
        with changed(MAX_ROWS_PER_PURGE=3), pytest.raises(PurgeHalted) as halted:
            run.purge()
        assert models.Voucher.objects.count() == 4
        assert run.run.state == TestRun.State.OPEN
        assert "would remove 4 rows, more than MAX_ROWS_PER_PURGE (3)" in halted.value.message
        assert f"--confirm {make_plan(run.run).digest}" in halted.value.message

    def test_as_many_as_may_go_do(self, run: Run) -> None:
        vouchers(run, 3)
        with changed(MAX_ROWS_PER_PURGE=3):
            assert run.purge().success

    def test_are_remembered_and_put_the_run_off(self, run: Run) -> None:
        vouchers(run, 4)
        with changed(MAX_ROWS_PER_PURGE=3), pytest.raises(PurgeHalted):
            run.purge()
        assert run.run.purge_failures == 1
        assert "MAX_ROWS_PER_PURGE" in run.run.purge_error
        assert run.run.next_purge_at is not None

    def test_go_with_the_digest_of_their_plan(self, run: Run) -> None:
        vouchers(run, 4)
        with changed(MAX_ROWS_PER_PURGE=3):
            outcome = run.purge(expect=make_plan(run.run).digest)
        assert outcome.success
        assert run.run.purge_failures == 0

    def test_stay_with_any_other(self, run: Run) -> None:
        vouchers(run, 4)
        digest = make_plan(run.run).digest
        run.make("voucher")
        with pytest.raises(PlanChanged) as refused:
            run.purge(expect=digest)
        assert make_plan(run.run).digest in refused.value.message
        assert models.Voucher.objects.count() == 5
        assert run.run.state == TestRun.State.OPEN

    def test_listed_by_a_client_halt_too(self, run: Run) -> None:
        made = vouchers(run, 4)
        listed = [("voucher", voucher.pk) for voucher in made]
        with changed(MAX_ROWS_PER_PURGE=3), pytest.raises(PurgeHalted):
            purge.clean_up(run.test_id, "", listed)
        assert models.Voucher.objects.count() == 4


class TestMoreOfATableThanMayGo:
    @pytest.mark.parametrize(("real", "halts"), [(2, True), (9, False)])
    def test_halts(self, run: Run, real: int, halts: bool) -> None:
        models.Voucher.objects.bulk_create(models.Voucher(code=f"real{n}", note="real") for n in range(real))
        vouchers(run, 1)
        with changed(MAX_TABLE_SHARE=0.1):
            if halts:
                with pytest.raises(PurgeHalted, match=r"1 of the 3 rows of host\.Voucher"):
                    run.purge()
            else:
                assert run.purge().success
        assert models.Voucher.objects.count() == real + halts

    def test_is_no_matter_by_default(self, run: Run) -> None:
        vouchers(run, 1)
        assert run.purge().success

    def test_halts_always_where_no_share_is_allowed(self, run: Run) -> None:
        vouchers(run, 1)
        with changed(MAX_TABLE_SHARE=0), pytest.raises(PurgeHalted):
            run.purge()


def test_a_run_that_grew_while_it_closed_is_not_the_one_that_was_confirmed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    vouchers(run, 1)
    digest = make_plan(run.run).digest
    plain = purge._close

    def grow_first(*args: object, **kwargs: object) -> object:
        run.make("voucher")
        return plain(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(purge, "_close", grow_first)
    with pytest.raises(PlanChanged):
        run.purge(expect=digest)
    assert models.Voucher.objects.count() == 2


def test_a_run_that_grew_over_the_limit_while_it_closed_halts(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    vouchers(run, 1)
    plain = purge._close

    def grow_first(*args: object, **kwargs: object) -> object:
        run.make("voucher")
        return plain(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(purge, "_close", grow_first)
    with changed(MAX_ROWS_PER_PURGE=1), pytest.raises(PurgeHalted):
        run.purge()
    assert models.Voucher.objects.count() == 2
