"""Models with a mind of their own: their delete(), their queryset's, their receivers; always watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db import models as orm
from django.db.models.signals import post_delete, pre_delete

from stagehand_testdata.isolation import outbound
from stagehand_testdata.models import TestEntity
from tests.host import models

from .conftest import Run


@contextmanager
def listening(signal: Any, sender: Any, receiver: Callable[..., None]) -> Iterator[None]:
    signal.connect(receiver, sender=sender)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=sender)


class TestReceivers:
    def test_hear_of_each_row_before_and_after(self, run: Run) -> None:
        heard: list[tuple[str, str, bool]] = []

        def note(word: str) -> Callable[..., None]:
            def hear(instance: Any, **kwargs: Any) -> None:
                there = models.Watched.objects.filter(pk=instance.pk).exists()
                heard.append((word, instance.name, there))

            return hear

        names = {run.make("watched").name for _ in range(3)}
        before, after = note("before"), note("after")
        with (
            listening(pre_delete, models.Watched, before),
            listening(post_delete, models.Watched, after),
        ):
            assert run.purge().success
        assert {each for each in heard if each[0] == "before"} == {("before", name, True) for name in names}
        assert {each for each in heard if each[0] == "after"} == {("after", name, False) for name in names}

    def test_are_told_with_few_queries_for_many_rows(self, run: Run, guarded: bool) -> None:
        from django.test.utils import CaptureQueriesContext

        heard: list[Any] = []

        def hear(instance: Any, **kwargs: Any) -> None:
            heard.append(instance.pk)

        def cost(rows: int) -> int:
            other = Run(f"{run.test_id}_{rows}")
            for _ in range(rows):
                other.make("watched")
            with CaptureQueriesContext(connection) as queries:
                assert other.purge().success
            return len(queries)

        with listening(post_delete, models.Watched, hear):
            assert cost(3) == cost(12)
        assert len(heard) == 15

    @pytest.mark.django_db(transaction=True)
    def test_what_they_leave_to_the_commit_is_in_the_runs_name_and_stops_no_purge(
        self, run: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        allowed: list[bool] = []

        def leave(instance: Any, **kwargs: Any) -> None:
            def later() -> None:
                allowed.append(outbound.allow("webhook", "https://partner.example.org"))
                raise ValueError("the partner is down")

            transaction.on_commit(later)

        rows = [run.make("watched") for _ in range(3)]
        with listening(post_delete, models.Watched, leave):
            assert run.purge(batch_size=1).success
        assert allowed == [False] * len(rows)
        assert caplog.text.count("what the product does after a commit has failed: ValueError") == len(rows)

    def test_one_that_fails_keeps_its_row_and_no_other(self, run: Run) -> None:
        first, second = run.make("watched"), run.make("watched")

        def fail(instance: Any, **kwargs: Any) -> None:
            if instance.pk == first.pk:
                raise RuntimeError("no")

        with listening(pre_delete, models.Watched, fail):
            outcome = run.purge()
        assert [each["reason"] for each in outcome.receipt["quarantined"]] == ["delete_failed"]
        assert run.entry(second).state == TestEntity.State.REMOVED
        assert models.Watched.objects.get().pk == first.pk

    @pytest.mark.parametrize(
        "harm",
        [
            lambda real: real.delete(),
            lambda real: type(real).objects.filter(pk=real.pk).delete(),
        ],
        ids=["delete()", "queryset.delete()"],
    )
    def test_one_that_deletes_a_real_row_is_undone(self, run: Run, harm: Callable[[Any], Any]) -> None:
        real = models.Voucher.objects.create(code="real", note="real")
        row = run.make("watched")

        def reach(instance: Any, **kwargs: Any) -> None:
            harm(real)

        with listening(post_delete, models.Watched, reach):
            outcome = run.purge()
        assert models.Voucher.objects.filter(code="real", note="real").exists()
        assert models.Watched.objects.filter(pk=row.pk).exists()
        assert not outcome.success

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM host_voucher WHERE code = 'real'",
            "UPDATE host_voucher SET note = 'changed' WHERE code = 'real'",
            "UPDATE host_voucher SET code = 'other' WHERE code = 'real'",
        ],
    )
    def test_one_that_harms_a_real_row_behind_the_orm_is_stopped_by_the_guards(
        self, run: Run, guarded: bool, sql: str
    ) -> None:
        if not guarded:
            pytest.skip("only the database sees it")
        models.Voucher.objects.create(code="real", note="real")
        row, free = run.make("watched"), run.make("author")

        def reach(instance: Any, **kwargs: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(sql)

        with listening(post_delete, models.Watched, reach):
            outcome = run.purge()
        assert list(models.Voucher.objects.values_list("code", "note")) == [("real", "real")]
        assert models.Watched.objects.filter(pk=row.pk).exists()
        assert [each["reason"] for each in outcome.receipt["quarantined"]] == ["refused_by_the_database"]
        assert run.entry(free).state == TestEntity.State.REMOVED

    def test_one_that_takes_a_row_of_the_run_along_closes_its_entry(self, run: Run) -> None:
        run.make("watched")
        voucher = run.make("voucher")

        def take_along(instance: Any, **kwargs: Any) -> None:
            models.Voucher.objects.filter(pk=voucher.pk).delete()

        with listening(post_delete, models.Watched, take_along):
            outcome = run.purge()
        assert outcome.receipt["removed"] == {"voucher": 1, "watched": 1}
        assert outcome.receipt["alreadyGone"] == {}


class Keeping(orm.QuerySet[Any]):
    """A queryset whose delete() minds more than the rows."""

    asked: list[int] = []

    def delete(self) -> Any:
        self.asked.extend(self.values_list("pk", flat=True))
        return 0, {}


def test_a_queryset_with_a_delete_of_its_own_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = orm.Manager.from_queryset(Keeping)()
    manager.model, manager.name = models.Watched, "objects"
    monkeypatch.setattr(models.Watched._meta, "default_manager", manager)
    Keeping.asked.clear()
    first, second = run.make("watched"), run.make("watched")
    assert run.purge().success
    assert sorted(Keeping.asked) == sorted([first.pk, second.pk])
    assert not models.Watched.objects.exists()


def test_a_test_user_goes_with_sessions_and_log_untouched(run: Run) -> None:
    real = User.objects.create_user("real", "real@example.org")
    run.make("user")
    assert run.purge().success
    assert list(User.objects.values_list("pk", flat=True)) == [real.pk]
