"""A scenario of six rows: the plain ORM, factory_boy without a ledger, and ours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from itertools import count

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from stagehand_testdata.marketplace import factories, wire
from stagehand_testdata.marketplace.models import Booking, Builder, Client, SessionType
from stagehand_testdata.models import TestRun
from stagehand_testdata.operations import entities, runs

_numbers = count()


def tasks() -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    def nothing() -> None:
        return None

    return {
        "the ORM, no factory, no ledger": (nothing, plain),
        "factory_boy, no ledger": (nothing, untracked),
        "ours: the run's values, every row in the ledger": (open_run, ours),
    }


@transaction.atomic
def open_run() -> None:
    runs.open_or_join(f"stagehand_test_bench{next(_numbers)}")


def _user() -> User:
    user = User(username=f"plain{next(_numbers)}", email="plain@example.com")
    user.set_unusable_password()
    user.save()
    return user


@transaction.atomic
def plain() -> None:
    builder = Builder.objects.create(user=_user(), display_name="x", hourly_rate=85, top_skills=["React"])
    session = SessionType.objects.create(builder=builder, title="x", price=75)
    client = Client.objects.create(user=_user(), display_name="x")
    start = timezone.now()
    Booking.objects.create(
        builder=builder,
        session_type=session,
        client=client.user,
        title="x",
        start_time=start,
        end_time=start + dt.timedelta(hours=1),
    )


@transaction.atomic
def untracked() -> None:
    client = factories.ClientFactory(user__address=f"untracked{next(_numbers)}@example.com")
    builder = factories.BuilderFactory(user__address=f"untracked{next(_numbers)}@example.com")
    session = factories.SessionTypeFactory(builder=builder)
    factories.BookingFactory(session_type=session, client=client.user)


def ours() -> None:
    test_id = TestRun.objects.latest("pk").test_id
    entities.perform(test_id, "", lambda call: wire.create_booking_scenario(call, {}))
