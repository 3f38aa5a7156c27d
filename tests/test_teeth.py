"""The seeded bugs can still be seeded: each fits the code as it is, and names tests that are there."""

from __future__ import annotations

import ast

import pytest

from tests.teeth import BUGS, MISUSE, PACKAGE, ROOT, Bug, main


def test_there_are_enough_of_them() -> None:
    assert len(BUGS) >= 40
    assert len({bug.name for bug in BUGS}) == len({(bug.file, bug.old, bug.new) for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_fits_the_code_once_and_leaves_it_python(bug: Bug) -> None:
    whole = (ROOT / PACKAGE / bug.file).read_text()
    assert whole.count(bug.old) == 1
    assert bug.new != bug.old
    compile(whole.replace(bug.old, bug.new), bug.file, "exec")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_names_tests_that_are_there(bug: Bug) -> None:
    assert bug.tests
    for test in bug.tests:
        file, *names = test.split("::")
        within: ast.AST = ast.parse((ROOT / "tests" / file).read_text())
        for name in names:
            body = {each.name: each for each in within.body if hasattr(each, "name")}  # type: ignore[attr-defined]
            assert name in body, test
            within = body[name]


@pytest.mark.parametrize("url", ["", "sqlite:///file", "mysql://root@127.0.0.1/name"])
def test_without_postgresql_it_says_what_to_type(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert main([]) == 2
    assert capsys.readouterr().err.splitlines() == [MISUSE]
