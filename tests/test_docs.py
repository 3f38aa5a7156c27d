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


def routes_of_docs() -> dict[str, str]:
    """Each route of docs/api.md, and what it says of its body."""
    rows = re.findall(
        r"^\| `([A-Z]+ [^`]+)` \|(.*?)\|.*\|$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    return dict(rows)


def test_every_route_is_documented() -> None:
    from stagehand_testdata.urls import _routes

    there = {
        f"{method.upper()} {route}".replace("<str:", "{").replace(">", "}")
        for route, _, actions, _ in _routes()
        for method in actions
    }
    assert set(routes_of_docs()) == there


def test_every_field_of_a_body_is_documented() -> None:
    from stagehand_testdata.api import serializers as api
    from stagehand_testdata.marketplace import serializers as marketplace

    bodies = {
        "POST verify-access": api.VerifyAccessSerializer,
        "POST entities/{type}": api.CreateEntitiesSerializer,
        "POST shadow-copies": api.ShadowCopySerializer,
        "POST cleanup": api.CleanupSerializer,
        "PATCH runs/{testId}": api.RenewSerializer,
        "POST runs/{testId}/sessions": api.SessionRequestSerializer,
        "POST tokens": api.TokenSerializer,
        "POST builders": marketplace.BuilderRequest,
        "POST session-types": marketplace.SessionTypesRequest,
        "POST clients": marketplace.ClientRequest,
        "POST booking-scenarios": marketplace.BookingRequest,
    }
    frame = set(api.FrameSerializer().fields)
    documented = routes_of_docs()
    for route, serializer in bodies.items():
        assert set(serializer().fields) - frame <= set(re.findall(r"\w+", documented[route])), route
    page = (ROOT / "docs" / "api.md").read_text()
    assert all(f"`{name}`" in page for name in frame)


def test_nothing_is_installed_from_where_the_package_is_not() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for command in re.findall(r"pip install [^`\n]*stagehand-testdata[^`\n]*", page.read_text()):
            assert " @ git+https://" in command, (page, command)


def test_no_link_in_the_docs_is_broken() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page, target)


def test_what_the_soak_runs_exists() -> None:
    from benchmarks.soak import TESTS

    assert all((ROOT / test).exists() for test in TESTS)
