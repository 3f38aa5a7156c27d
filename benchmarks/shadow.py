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
    return {
        "real": (open_run, lambda: make(shadow.Mode.LIVE)),
        "shadow": (open_run, lambda: make(shadow.Mode.SHADOW)),
        "deep: real, and rolled back": (open_run, lambda: make(shadow.Mode.DEEP)),
    }


def make(mode: shadow.Mode) -> None:
    test_id = TestRun.objects.latest("pk").test_id
    shadow.perform(mode, test_id, "", lambda call: wire.create_booking_scenario(call, {}))


def count_statements() -> str:
    """What one shadow call of a new run sends, as Django's own log of statements has it."""
    open_run()
    with CaptureQueriesContext(connection) as sent:
        make(shadow.Mode.SHADOW)
    tables = {
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.app_label != TestRun._meta.app_label
    }
    quoted = [connection.ops.quote_name(table) for table in tables]
    on_host = [each["sql"] for each in sent.captured_queries if any(name in each["sql"] for name in quoted)]
    return f"{len(sent.captured_queries)} statements, {len(on_host)} of them on the host's tables"
