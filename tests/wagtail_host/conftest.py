"""Nothing here is collected unless the settings are this host's own."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command

collect_ignore_glob = [] if settings.ROOT_URLCONF == "tests.wagtail_host.urls" else ["test_*.py"]


def host_rows() -> dict[str, list[Any]]:
    """Every row of every table of the host, in full; of the tables that the search keeps, the number."""
    rows: dict[str, list[Any]] = {}
    for model in apps.get_models(include_auto_created=True):
        if model._meta.app_label == "stagehand_testdata" or model._meta.proxy:
            continue
        found = model._base_manager.order_by("pk")
        derived = model._meta.db_table.startswith("wagtailsearch_indexentry")
        rows[model._meta.label] = [found.count()] if derived else list(found.values())
    return rows


def fixtree(**options: Any) -> str:
    """What Wagtail's own doctor has to say about the trees of pages and collections."""
    out = StringIO()
    call_command("fixtree", interactive=False, stdout=out, **options)
    return out.getvalue()


def assert_trees_are_sound() -> None:
    assert fixtree().count("No problems found.") == 2
    before = host_rows()
    told = fixtree(full=True)
    assert "Incorrect" not in told
    assert "Orphaned" not in told
    assert "Remaining problems" not in told
    assert host_rows() == before


@pytest.fixture(autouse=True)
def media(tmp_path: Path, settings: Any) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    return Path(settings.MEDIA_ROOT)


@pytest.fixture
def untouched_host(home: Any) -> Iterator[None]:
    """The test must leave every row of the host exactly as it was, and the trees sound."""
    before = host_rows()
    yield
    assert host_rows() == before
    assert_trees_are_sound()


@pytest.fixture
def home(db: None) -> Any:
    """The real front page of the real site, with a real article below it."""
    from wagtail.models import Site

    from .models import ArticlePage

    page = Site.objects.get(is_default_site=True).root_page
    page.add_child(instance=ArticlePage(title="A real article", slug="real", body="<p>Real.</p>"))
    page.refresh_from_db()
    return page
