"""The same scenario of six rows: real, as a shadow, and deep."""

from __future__ import annotations

from collections.abc import Callable

from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.marketplace import wire
from stagehand_testdata.models import TestRun
from stagehand_testdata.operations import shadow

from .creating import open_run


def tasks() -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    names = {
        "real": shadow.Mode.LIVE,
        "shadow": shadow.Mode.SHADOW,
        "deep: real, and rolled back": shadow.Mode.DEEP,
    }
    return {name: of(mode) for name, mode in names.items()}


def of(mode: shadow.Mode) -> tuple[Callable[[], None], Callable[[], None]]:
    opened: list[str] = []

    def prepare() -> None:
        open_run()
        opened[:] = [TestRun.objects.latest("pk").test_id]

    def timed() -> None:
        shadow.perform(mode, opened[0], "", lambda call: wire.create_booking_scenario(call, {}))

    return prepare, timed


def count_statements() -> str:
    """What one shadow call of a new run sends, as Django's own log of statements has it."""
    prepare, make = of(shadow.Mode.SHADOW)
    prepare()
    with CaptureQueriesContext(connection) as sent:
        make()
    tables = {
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.app_label != TestRun._meta.app_label
    }
    quoted = [connection.ops.quote_name(table) for table in tables]
    on_host = [each["sql"] for each in sent.captured_queries if any(name in each["sql"] for name in quoted)]
    return f"{len(sent.captured_queries)} statements, {len(on_host)} of them on the host's tables"
