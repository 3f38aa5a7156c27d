"""Settings are read live, each with its default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import override_settings

from stagehand_testdata import conf
from stagehand_testdata.conf import Setting, Settings, settings
from tests.making import changed


def test_every_setting_has_a_default_of_its_own_type() -> None:
    for name, setting in Settings.all().items():
        assert setting.name == name
        assert isinstance(setting.default, setting.types)


@override_settings(STAGEHAND_TESTDATA={})
def test_the_defaults_are_the_safe_ones() -> None:
    assert settings.ENABLED is False
    assert settings.REQUIRE_ACCESS_KEY is True
    assert settings.MAX_AGE_HOURS == 24
    assert settings.TEST_ID_PREFIX == "stagehand_test_"
    assert list(settings.EMAIL_DOMAINS) == []
    assert settings.ENTITY_TYPES == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "5", None, [], True])
def test_what_is_no_number_counts_as_the_default(value: Any) -> None:
    for name, setting in Settings.all().items():
        if setting.least is not None:
            with changed(**{name: value}):
                assert getattr(settings, name) == setting.default


def test_a_number_beyond_all_reckoning_is_the_largest_there_may_be() -> None:
    for name, setting in Settings.all().items():
        if setting.least is not None:
            with changed(**{name: 10**300}):
                assert getattr(settings, name) == setting.most
            with changed(**{name: 2.5}):
                assert getattr(settings, name) in (2, 2.5, setting.most)


def test_a_change_is_seen_at_once() -> None:
    with changed(MAX_ROWS_PER_CALL=3):
        assert settings.MAX_ROWS_PER_CALL == 3
    assert settings.MAX_ROWS_PER_CALL == 1000


def test_a_change_of_the_hosts_dict_itself_is_seen_at_once(settings: Any) -> None:
    settings.STAGEHAND_TESTDATA = {"ENVIRONMENT": "one"}
    settings.STAGEHAND_TESTDATA["ENVIRONMENT"] = "two"
    assert conf.settings.ENVIRONMENT == "two"


@pytest.mark.parametrize("value", [None, "ENABLED", ["ENABLED"], 1])
def test_what_is_no_dict_leaves_the_gate_shut(value: Any) -> None:
    with override_settings(STAGEHAND_TESTDATA=value):
        assert settings.ENABLED is False
        assert conf.raw() == {}


def test_a_host_without_the_dict_gets_the_defaults() -> None:
    with override_settings():
        del django_settings.STAGEHAND_TESTDATA
        assert settings.ENABLED is False


def test_the_class_gives_the_setting_itself() -> None:
    assert isinstance(Settings.ENABLED, Setting)
    assert Callable in Settings.ENABLED.types


def test_all_lists_the_settings_and_nothing_else() -> None:
    assert "all" not in Settings.all()
    assert "ENABLED" in Settings.all()
