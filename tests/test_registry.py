"""What can be made here: from the settings, from `testdata` modules, and what is wrong with either."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator
from typing import Any

import factory
import pytest
from django.apps import apps
from django.db import models

from stagehand_testdata import registry
from stagehand_testdata.exceptions import ConfigurationError, DuplicateName
from stagehand_testdata.registry import (
    BUILT_IN,
    Catalogue,
    EntityType,
    Registry,
    Scenario,
    WireOperation,
    get_registry,
    load_registry,
    resolve,
)
from tests.host.factories import AuthorFactory, UserFactory
from tests.host.models import Author
from tests.making import changed, registered


class TestCatalogue:
    @pytest.fixture
    def catalogue(self) -> Catalogue[Any]:
        found: Catalogue[Any] = Catalogue("an entity type", EntityType)
        found.add(EntityType("a", "x.A"))
        return found

    def test_keeps_the_order_of_registration(self, catalogue: Catalogue[Any]) -> None:
        for name in ("z", "b"):
            catalogue.add(EntityType(name, "x.Y"))
        assert [each.name for each in catalogue] == ["a", "z", "b"]
        assert len(catalogue) == 3
        assert "z" in catalogue
        assert "q" not in catalogue

    def test_a_duplicate_raises_and_changes_nothing(self, catalogue: Catalogue[Any]) -> None:
        with pytest.raises(DuplicateName, match="'a'"):
            catalogue.add(EntityType("a", "x.Other"))
        assert catalogue.get("a") == EntityType("a", "x.A")
        assert len(catalogue) == 1

    @pytest.mark.parametrize(
        "name", ["", "1a", "a b", "a/b", "é", "a" * 65, "../x", "a\n", "_a", None, 1, ("a",)]
    )
    def test_a_bad_name_raises_and_changes_nothing(self, catalogue: Catalogue[Any], name: Any) -> None:
        with pytest.raises(ConfigurationError):
            catalogue.add(EntityType(name, "x.A"))
        assert len(catalogue) == 1

    @pytest.mark.parametrize("name", ["a1", "sessionType", "shop.Product", "with-dash_and.dot", "A" * 64])
    def test_a_good_name_is_taken(self, catalogue: Catalogue[Any], name: str) -> None:
        catalogue.add(EntityType(name, "x.A"))
        assert name in catalogue

    @pytest.mark.parametrize("entry", [None, "product", object(), 5])
    def test_what_is_no_registration_raises_and_changes_nothing(
        self, catalogue: Catalogue[Any], entry: Any
    ) -> None:
        with pytest.raises(ConfigurationError):
            catalogue.add(entry)
        assert len(catalogue) == 1

    def test_says_what_it_holds(self, catalogue: Catalogue[Any]) -> None:
        assert repr(catalogue) == "<an entity type: a>"
        assert repr(Catalogue("a scenario", Scenario)) == "<a scenario: none>"


@pytest.mark.parametrize("kind", [EntityType, Scenario, WireOperation])
def test_a_registration_cannot_be_changed(kind: Any) -> None:
    assert kind.__dataclass_params__.frozen
    assert dataclasses.is_dataclass(kind)


class TestLoadingAFactory:
    class AbstractFactory(factory.django.DjangoModelFactory):
        class Meta:
            abstract = True

    class PlainFactory(factory.Factory):
        class Meta:
            model = dict

    class ByName(factory.django.DjangoModelFactory):
        class Meta:
            model = "host.Author"

    @pytest.mark.parametrize("path", [AuthorFactory, "tests.host.factories.AuthorFactory", ByName])
    def test_gives_the_class(self, path: Any) -> None:
        entity_type = EntityType("author", path)
        assert entity_type.load_factory().__name__ in ("AuthorFactory", "ByName")
        assert entity_type.model is Author

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "nowhere",
            "nowhere.at.all",
            "tests.host.factories.Missing",
            "tests.host.models.Author",
            "os.path.join",
            AbstractFactory,
            PlainFactory,
            None,
            5,
            "tests.host.broken_factories.Anything",
        ],
    )
    def test_says_which_type_is_wrong_where_it_cannot(
        self, path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ConfigurationError, match="'product'"):
            EntityType("product", path).load_factory()

    def test_says_so_where_the_hosts_module_fails(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "failing_factories.py").write_text("raise RuntimeError('at import')")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ConfigurationError, match="at import"):
            EntityType("product", "failing_factories.ProductFactory").load_factory()


class TestFromTheSettings:
    def test_a_path_is_enough(self) -> None:
        with registered(author="tests.host.factories.AuthorFactory"):
            assert get_registry().entity_types.get("author") == EntityType(
                "author", "tests.host.factories.AuthorFactory"
            )

    def test_a_dict_has_options(self) -> None:
        with registered(author={"factory": AuthorFactory, "plural": "authors", "fields": ["name"]}):
            found = get_registry().type_named("authors")
        assert found == EntityType("author", AuthorFactory, plural="authors", fields=["name"])

    @pytest.mark.parametrize(
        "value", [{}, {"fields": []}, {"factory": "x.Y", "unknown": 1}, {"factory": "x.Y", 5: 1}]
    )
    def test_wrong_options_are_a_problem_and_the_others_still_load(self, value: Any) -> None:
        with registered(bad=value, author=AuthorFactory):
            assert load_registry().entity_types.get("author")
            assert [type(problem) for problem in load_registry().problems] == [ConfigurationError]
            with pytest.raises(ConfigurationError, match="bad"):
                get_registry()

    @pytest.mark.parametrize("name", ["", "a b", 5, None])
    def test_a_wrong_name_is_a_problem_and_the_others_still_load(self, name: Any) -> None:
        with changed(ENTITY_TYPES={name: AuthorFactory, "author": AuthorFactory}):
            assert load_registry().entity_types.get("author")
            assert len(load_registry().problems) == 1

    @pytest.mark.parametrize("value", [None, ["author"], "author"])
    def test_what_is_no_dict_is_a_problem_and_the_apps_still_load(self, value: Any) -> None:
        with changed(ENTITY_TYPES=value):
            assert load_registry().entity_types.get("builder")
            assert len(load_registry().problems) == 1

    def test_a_change_of_the_settings_is_seen(self) -> None:
        with registered(one=AuthorFactory):
            assert "one" in get_registry().entity_types
        with registered(two=AuthorFactory):
            assert "one" not in get_registry().entity_types

    def test_nothing_is_imported_for_it(self) -> None:
        with registered(author="never_imported_at_all.Factory"):
            assert "author" in get_registry().entity_types
        assert "never_imported_at_all" not in sys.modules

    def test_a_name_that_an_app_uses_too_is_a_problem(self) -> None:
        with registered(builder=AuthorFactory):
            assert [type(problem) for problem in load_registry().problems] == [DuplicateName]
            assert load_registry().entity_types.get("builder").factory is AuthorFactory  # type: ignore[union-attr]


class TestFromApps:
    @pytest.fixture
    def module(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
        """A `testdata` module in the host's app."""
        module = types.ModuleType("tests.host.testdata")
        monkeypatch.setitem(sys.modules, "tests.host.testdata", module)
        plain = registry.module_has_submodule

        def has(package: Any, name: str) -> bool:
            return package.__name__ == "tests.host" or plain(package, name)

        monkeypatch.setattr(registry, "module_has_submodule", has)
        yield module
        load_registry.cache_clear()

    def test_all_three_kinds_are_found(self, module: Any) -> None:
        module.entity_types = [EntityType("writer", AuthorFactory)]
        module.scenarios = [Scenario("library", "x.library")]
        module.operations = [WireOperation("lend", "x.lend", request="x.R", response="x.A")]
        found = get_registry()
        assert "writer" in found.entity_types
        assert "library" in found.scenarios
        assert "lend" in found.operations
        assert "writer" in repr(found)

    @pytest.mark.parametrize("name", ["entity_types", "scenarios", "operations"])
    @pytest.mark.parametrize("value", [None, 5, [None], ["product"], [b"object"]])
    def test_what_is_no_registration_is_a_problem_and_the_urls_still_load(
        self, module: Any, name: str, value: Any
    ) -> None:
        setattr(module, name, value)
        assert load_registry().entity_types.get("builder")
        assert len(load_registry().problems) == 1

    def test_a_duplicate_across_apps_is_a_problem(self, module: Any) -> None:
        module.entity_types = [EntityType("builder", AuthorFactory)]
        assert [type(problem) for problem in load_registry().problems] == [DuplicateName]

    def test_a_plural_that_is_anothers_name_or_plural_is_a_problem(self, module: Any) -> None:
        module.entity_types = [EntityType("writer", AuthorFactory, plural="builders")]
        assert [type(problem) for problem in load_registry().problems] == [DuplicateName]

    def test_the_marketplace_is_found_like_any_other(self) -> None:
        found = get_registry()
        assert [each.name for each in found.scenarios] == ["marketplace", "booking", "payment"]
        assert found.type_named("builders") is found.entity_types.get("builder")
        assert found.type_named("builder") is found.entity_types.get("builder")
        assert found.type_named("nothing") is None


def test_an_app_whose_module_fails_is_a_problem_and_the_others_still_load(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    package = tmp_path / "failing_app"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "testdata.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(tmp_path)
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "failing_app"]
    assert apps.is_installed("failing_app")
    assert "failing_app.testdata" in load_registry().problems[0].message
    assert load_registry().entity_types.get("builder")


class TestResolving:
    def test_a_path_is_followed(self) -> None:
        import os.path

        assert resolve("os.path.join") is os.path.join

    def test_a_callable_is_itself(self) -> None:
        assert resolve(UserFactory) is UserFactory

    @pytest.mark.parametrize(
        "target", ["nowhere", "nowhere.at_all", "os.path.missing", "os.path", "sys.version"]
    )
    def test_anything_else_raises(self, target: str) -> None:
        with pytest.raises(ConfigurationError, match=target):
            resolve(target)


def test_models_are_what_is_made() -> None:
    for entity_type in get_registry().entity_types:
        assert issubclass(entity_type.model, models.Model)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_an_operation_of_a_hosts_own_takes_no_route_of_ours(name: str) -> None:
    operations = Registry().operations
    with pytest.raises(DuplicateName):
        operations.add(WireOperation(name, "x.make", request="x.Request", response="x.Response"))
    assert name not in operations
