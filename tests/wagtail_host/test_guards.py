"""A Wagtail site whose database guards its rows while pages of a run are removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from wagtail.models import Page

from stagehand_testdata.models import TestEntity, TestRun
from stagehand_testdata.operations import guards
from tests.conftest import Wire
from tests.guarding import ALIAS, purging, refused

from .conftest import assert_trees_are_sound


@pytest.fixture(autouse=True)
def awake(home: Any) -> Iterator[None]:
    from stagehand_testdata.databases import database

    database(ALIAS).surface_broken_references()
    guards.install(ALIAS)
    yield
    if connection.vendor == "mysql":
        guards.remove(ALIAS)


def test_a_page_is_removed_and_the_tree_counts_on(wire: Wire, untouched_host: None, home: Page) -> None:
    wire.entity("published-article")
    wire.entity("article")
    children = Page.objects.get(pk=home.pk).numchild
    assert wire.cleanup()["success"]
    assert Page.objects.get(pk=home.pk).numchild == children - 2
    states = TestEntity.objects.filter(run__test_id=wire.test_id).values_list("state", flat=True)
    assert set(states) <= {"removed", "gone"}
    assert_trees_are_sound()


@pytest.mark.parametrize("type_name", ["page", "sub-article", "collection", "image", "document", "site"])
def test_every_other_type_is_removed_too(wire: Wire, untouched_host: None, type_name: str) -> None:
    wire.entity(type_name)
    assert wire.cleanup()["success"]


def test_a_real_page_may_have_its_place_counted_and_nothing_else(wire: Wire, home: Page) -> None:
    wire.entity("page")
    run = TestRun.objects.get(test_id=wire.test_id)
    with purging(run.test_id):
        Page.objects.filter(pk=home.pk).update(numchild=7)
    with refused(), purging(run.test_id):
        Page.objects.filter(pk=home.pk).update(title="changed")


def test_a_pages_tree_is_what_is_exempt() -> None:
    [page] = [each for each in guards.guardable() if each.table == "wagtailcore_page"]
    assert page.exempt == ("depth", "numchild", "path")
