"""The routes in a host: whatever its own settings and names are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse

from project import urls
from tests import urls_without
from tests.conftest import Wire


@pytest.mark.django_db(transaction=True)
def test_transactions_are_our_own_where_the_host_has_atomic_requests(
    new_wire: Callable[[], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    wire = new_wire()
    wire.entity("voucher")
    with CaptureQueriesContext(connection) as queries:
        wire.cleanup()
    statements = [query["sql"] for query in queries.captured_queries]
    assert sum(sql.startswith("COMMIT") for sql in statements) > 1
    assert not any(sql.startswith("SAVEPOINT") for sql in statements)


@pytest.mark.urls("tests.urls_without")
@pytest.mark.parametrize("path", ["verify-access", "runs", "schema", "docs", "tokens", "cleanup", ""])
def test_a_host_that_includes_no_urls_has_none(client: Client, path: str, db: None) -> None:
    assert len(urls_without.urlpatterns) == len(urls.urlpatterns) - 1
    for method in (client.get, client.post):
        assert method(f"/api/test/{path}").status_code == 404


def test_the_catch_all_leaves_the_hosts_names_alone() -> None:
    assert reverse("stagehand_testdata:run", kwargs={"testId": "x"}) == "/api/test/runs/x"
    assert reverse("admin:index")
    with pytest.raises(NoReverseMatch):
        reverse("no_such_name")
