"""Pages made over the wire on a Wagtail site; a clean-up leaves nothing of them, and a sound tree."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from wagtail.models import Page, PageLogEntry, ReferenceIndex, Revision, Site
from wagtail.search.models import IndexEntry

from stagehand_testdata.models import TestEntity
from tests.conftest import Wire

from .conftest import assert_trees_are_sound, host_rows
from .models import ArticlePage


def entries(wire: Wire) -> Any:
    return TestEntity.objects.filter(run__test_id=wire.test_id)


def article(title: str, **fields: Any) -> ArticlePage:
    return ArticlePage(title=title, slug=title.lower().replace(" ", "-"), **fields)


@pytest.mark.usefixtures("untouched_host")
class TestACleanupLeavesTheSiteAsItWas:
    @pytest.mark.parametrize(
        "type_name",
        ["page", "article", "sub-article", "published-article", "collection", "image", "document", "site"],
    )
    def test_after_one_row_of_the_type(self, wire: Wire, type_name: str) -> None:
        wire.entity(type_name)
        assert wire.cleanup()["success"]
        assert set(entries(wire).values_list("state", flat=True)) <= {"removed", "gone"}

    @pytest.mark.parametrize("type_name", ["page", "article", "sub-article", "published-article", "image"])
    def test_after_several_rows_of_the_type(self, wire: Wire, type_name: str) -> None:
        made = wire.make(f"entities/{type_name}", {"count": 3})
        assert len({each["id"] for each in made}) == 3
        wire.entity(type_name)
        assert_trees_are_sound()
        assert wire.cleanup()["success"]

    def test_after_a_section_whose_pages_hang_on_each_other(self, wire: Wire, home: Page) -> None:
        made = wire.make("scenarios/section")["entities"]["article"]
        assert Page.objects.get(pk=made[1]["id"]).get_parent().pk == int(made[0]["id"])
        assert_trees_are_sound()
        receipt = wire.cleanup()
        assert receipt["removed"]["article"] == 3

    def test_after_two_runs_that_made_pages_under_the_same_parent_in_turn(
        self, new_wire: Callable[[], Wire], home: Page
    ) -> None:
        first, second = new_wire(), new_wire()
        for wire in (first, second, first, second):
            wire.entity("article")
        assert first.cleanup()["removed"]["article"] == 2
        assert second.cleanup()["removed"]["article"] == 2

    def test_after_only_the_upper_page_of_a_section_is_listed(self, wire: Wire) -> None:
        made = wire.make("scenarios/section")["entities"]["article"]
        receipt = wire.cleanup(createdData=[{"type": "article", "id": made[0]["id"]}])
        assert receipt["success"]
        wire.cleanup()

    def test_after_a_purge_by_the_command_row_by_row(self, wire: Wire) -> None:
        wire.make("scenarios/section")
        wire.make("entities/published-article", {"count": 2})
        call_command("purge_test_data", run=wire.test_id, batch_size=1, stdout=StringIO())
        assert set(entries(wire).values_list("state", flat=True)) <= {"removed", "gone"}


class TestWhatIsMade:
    def test_a_page_is_served_at_its_place_on_the_real_site(self, wire: Wire, home: Page) -> None:
        made = wire.entity("article", title="Seen by visitors", slug="seen", intro="Hello.")
        assert made["fields"]["title"] == "Seen by visitors"
        response = Client(headers={"host": "localhost"}).get("/seen/")
        assert response.status_code == 200
        assert b"Hello." in response.content
        wire.cleanup()
        assert Client(headers={"host": "localhost"}).get("/seen/").status_code == 404

    def test_a_real_parent_counts_its_test_children_and_then_no_more(self, wire: Wire, home: Page) -> None:
        wire.make("entities/article", {"count": 2})
        home.refresh_from_db()
        assert home.numchild == 3
        wire.cleanup()
        home.refresh_from_db()
        assert home.numchild == 1

    def test_a_page_is_found_by_the_search_until_the_cleanup(self, wire: Wire, home: Page) -> None:
        made = wire.entity("article", title="Xylophone", slug="xylophone")
        assert [page.pk for page in Page.objects.search("xylophone")] == [int(made["id"])]
        wire.cleanup()
        assert list(Page.objects.search("xylophone")) == []

    def test_rows_that_wagtail_makes_along_with_a_page_are_the_runs(self, wire: Wire, home: Page) -> None:
        wire.entity("published-article")
        made = set(entries(wire).values_list("model", flat=True))
        assert {"wagtailcore.page", "wagtail_host.articlepage", "wagtailcore.revision"} <= made
        assert {"wagtailcore.pagelogentry", "wagtailcore.referenceindex"} <= made

    def test_no_client_chooses_the_place_in_the_tree(self, wire: Wire, home: Page) -> None:
        refused = wire.post("entities/article", {"fields": {"parent": home.pk}})
        assert refused.status_code == 400
        for name in ("path", "depth", "numchild"):
            refused = wire.post("entities/article", {"fields": {name: 1}})
            assert refused.status_code == 400
            assert refused.json()["details"] == {f"fields.{name}": ["Unknown field."]}
        assert_trees_are_sound()

    def test_a_slug_that_the_parent_has_already_is_refused_and_makes_nothing(
        self, wire: Wire, home: Page
    ) -> None:
        before = host_rows()
        response = wire.post("entities/article", {"fields": {"slug": "real"}})
        assert response.status_code == 400
        assert host_rows() == before


class TestAPlan:
    def test_says_what_would_go_and_changes_nothing(self, wire: Wire, home: Page) -> None:
        wire.make("scenarios/section")
        before = host_rows()
        out = StringIO()
        call_command("purge_test_data", run=wire.test_id, dry_run=True, stdout=out)
        assert "3 article" in out.getvalue()
        assert "stays" not in out.getvalue()
        assert host_rows() == before

    def test_says_what_a_real_row_would_keep(self, wire: Wire, home: Page) -> None:
        kept = int(wire.entity("page")["id"])
        Site.objects.create(hostname="second.example.com", root_page_id=kept)
        out = StringIO()
        with pytest.raises(SystemExit) as stopped:
            call_command("purge_test_data", run=wire.test_id, dry_run=True, stdout=out)
        assert stopped.value.code == 1
        assert f"stays: page {kept}" in out.getvalue()
        assert "1 wagtailcore.Site" in out.getvalue()


class TestARealRowThatNeedsATestPage:
    def test_below_it_keeps_it_until_the_real_page_is_gone(self, wire: Wire, home: Page) -> None:
        before = host_rows()
        made = wire.make("entities/article", {"count": 2})
        kept, removed = (int(each["id"]) for each in made)
        real = Page.objects.get(pk=kept).specific.add_child(instance=article("A real child"))
        real_before = ArticlePage.objects.filter(pk=real.pk).values().get()

        receipt = wire.cleanup(409)
        assert receipt["code"] == "residue"
        held = {(each["type"], each["id"]): each["blockedBy"] for each in receipt["quarantined"]}
        assert sum(held["article", str(kept)].values()) == 1
        assert "wagtail" in receipt["message"]
        assert ArticlePage.objects.filter(pk=real.pk).values().get() == real_before
        assert Page.objects.filter(pk=kept).exists()
        assert not Page.objects.filter(pk=removed).exists()
        assert_trees_are_sound()
        again = wire.cleanup(409)
        assert again["remaining"] == receipt["remaining"]

        Page.objects.get(pk=real.pk).delete()
        PageLogEntry.objects.filter(page_id=real.pk).delete()
        assert wire.cleanup()["success"]
        assert host_rows() == before
        assert_trees_are_sound()

    def test_below_a_page_at_the_root_keeps_it_too(self, wire: Wire, home: Page) -> None:
        before = host_rows()
        kept = int(wire.entity("page")["id"])
        real = Page.objects.get(pk=kept).add_child(instance=article("A real child"))
        assert wire.cleanup(409)["remaining"] >= 1
        assert Page.objects.filter(pk=real.pk).exists()
        Page.objects.get(pk=real.pk).delete()
        PageLogEntry.objects.filter(page_id=real.pk).delete()
        assert wire.cleanup()["success"]
        assert host_rows() == before

    def test_deep_below_it_keeps_every_page_above(self, wire: Wire, home: Page) -> None:
        made = wire.make("scenarios/section")["entities"]["article"]
        top, middle, leaf = (int(each["id"]) for each in made)
        Page.objects.get(pk=middle).specific.add_child(instance=article("A real child"))
        wire.cleanup(409)
        assert set(Page.objects.filter(pk__in=[top, middle, leaf]).values_list("pk", flat=True)) == {
            top,
            middle,
        }
        assert_trees_are_sound()

    def test_in_its_text_keeps_it(self, wire: Wire, home: Page) -> None:
        kept = int(wire.entity("article")["id"])
        link = f'<a linktype="page" id="{kept}">there</a>'
        real = home.add_child(instance=article("A real pointer", body=link))
        assert ReferenceIndex.get_references_to(Page.objects.get(pk=kept)).count() == 1
        wire.cleanup(409)
        assert ReferenceIndex.get_references_to(Page.objects.get(pk=kept)).count() == 1
        real.delete()
        assert wire.cleanup()["success"]

    def test_as_an_alias_of_it_is_not_let_go(self, wire: Wire, home: Page) -> None:
        kept = Page.objects.get(pk=wire.entity("article")["id"]).specific
        alias = kept.create_alias(parent=home, update_slug="alias")
        wire.cleanup(409)
        alias.refresh_from_db()
        assert alias.alias_of_id == kept.pk
        assert_trees_are_sound()

    def test_as_a_site_that_starts_there_keeps_it(self, wire: Wire, home: Page) -> None:
        kept = int(wire.entity("page")["id"])
        site = Site.objects.create(hostname="second.example.com", root_page_id=kept)
        receipt = wire.cleanup(409)
        assert {"wagtailcore.Site": 1} in [each["blockedBy"] for each in receipt["quarantined"]]
        site.refresh_from_db()
        site.delete()
        assert wire.cleanup()["success"]

    def test_as_an_editors_revision_keeps_it(self, wire: Wire, home: Page) -> None:
        kept = Page.objects.get(pk=wire.entity("article")["id"]).specific
        kept.save_revision(log_action=True)
        revisions = Revision.objects.count()
        wire.cleanup(409)
        assert Revision.objects.count() == revisions
        assert Page.objects.filter(pk=kept.pk).exists()


class TestFiles:
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("type_name", ["image", "document"])
    def test_go_with_their_rows(self, new_wire: Callable[[], Wire], media: Path, type_name: str) -> None:
        wire = new_wire()
        wire.entity(type_name)
        assert [path for path in media.rglob("*") if path.is_file()]
        assert wire.cleanup()["success"]
        assert [path for path in media.rglob("*") if path.is_file()] == []


def test_the_search_holds_no_entry_of_a_removed_page(wire: Wire, home: Page) -> None:
    before = IndexEntry.objects.count()
    wire.make("entities/article", {"count": 2})
    assert IndexEntry.objects.count() == before + 2
    wire.cleanup()
    assert IndexEntry.objects.count() == before
