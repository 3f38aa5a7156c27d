"""The product's switches in the environment: what is no word for yes or no turns nothing off."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from project.settings import switch

NAME = "STAGEHAND_TESTDATA_REQUIRE_ACCESS_KEY"


@pytest.mark.parametrize("word", ["1", "true", "True", "YES", "on", " on "])
def test_yes(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv(NAME, word)
    assert switch(NAME, default=False) is True


@pytest.mark.parametrize("word", ["0", "false", "FALSE", "No", "off"])
def test_no(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv(NAME, word)
    assert switch(NAME, default=True) is False


@pytest.mark.parametrize("default", [True, False])
def test_nothing_is_the_default(monkeypatch: pytest.MonkeyPatch, default: bool) -> None:
    for word in ("", "  "):
        monkeypatch.setenv(NAME, word)
        assert switch(NAME, default=default) is default
    monkeypatch.delenv(NAME)
    assert switch(NAME, default=default) is default


@pytest.mark.parametrize("word", ["ture", "enabled", "2", "None", "disabled"])
def test_anything_else_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv(NAME, word)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        switch(NAME, default=True)


@pytest.mark.parametrize("name", ["REQUIRE_ACCESS_KEY", "ENABLED", "FORCE_SHADOW"])
def test_the_product_does_not_start_with_a_word_that_is_none(name: str) -> None:
    name = f"STAGEHAND_TESTDATA_{name}"
    done = subprocess.run(
        [sys.executable, "-c", "import project.settings"],
        env={**os.environ, name: "ture"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert f"{name} is 'ture'" in done.stderr
