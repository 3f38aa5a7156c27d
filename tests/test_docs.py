"""The docs name what the code has, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

from stagehand_testdata.conf import Settings

ROOT = Path(__file__).resolve().parent.parent


def first_column(name: str) -> set[str]:
    return set(re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs" / name).read_text(), re.MULTILINE))


def test_every_setting_is_documented() -> None:
    assert first_column("settings.md") == set(Settings.all())


def test_every_check_is_documented() -> None:
    source = (ROOT / "stagehand_testdata" / "checks.py").read_text()
    assert first_column("checks.md") == set(re.findall(r'id="(stagehand\.[EW]\d+)"', source))


def test_every_error_code_is_in_the_tree_that_the_module_draws() -> None:
    from stagehand_testdata import exceptions

    drawn = set(re.findall(r"(\w+)\s+([a-z_]+)$", exceptions.__doc__ or "", re.MULTILINE))
    classes = {
        (name, each.code)
        for name, each in vars(exceptions).items()
        if isinstance(each, type) and issubclass(each, exceptions.TestDataError) and name != "TestDataError"
    }
    assert drawn == classes


def test_no_link_in_the_docs_is_broken() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page, target)


def test_what_the_soak_runs_exists() -> None:
    from benchmarks.soak import TESTS

    assert all((ROOT / test).exists() for test in TESTS)
