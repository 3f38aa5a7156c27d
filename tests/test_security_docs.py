"""Each threat, and each requirement that we claim to meet, names tests that are there."""

from __future__ import annotations

import pytest

from tests.security_links import RISKS, THREATS, Row, all_rows, exists, faults, main, rows

HERE = "tests/test_security_docs.py::test_a_link_is_a_test_that_is_there"


def test_every_row_is_linked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().out


def test_there_are_the_rows_that_there_must_be() -> None:
    found = {row.id for row in all_rows()}
    assert found > THREATS | RISKS
    assert sum(each.startswith("v5.0.0-") for each in found) >= 60


def test_a_row_of_the_asvs_says_its_level() -> None:
    for row in all_rows():
        if row.id.startswith("v5."):
            assert row.cells[0] in {"1", "2", "3"}, row


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("| T01 | a | b | |", "linked to no test"),
        ("| T01 | a | b | `tests/test_docs.py` |", "linked to no test"),
        ("| T01 | a | b | `tests/test_docs.py::test_of_nothing` |", "which is not there"),
        ("| T01 | a | b | `tests/test_nothing.py::test_of_nothing` |", "which is not there"),
        ("| T01 | a | b | `tests/test_checks.py::TestCaches::test_of_nothing` |", "which is not there"),
        (f"| T01 | a | b | `tests/conftest.py::wire` `{HERE}` |", "linked to tests/conftest.py::wire"),
        (f"| T01 | a | | `{HERE}` |", "empty cell"),
    ],
)
def test_a_row_that_is_not_as_it_must_be_is_told(line: str, fault: str) -> None:
    assert any(fault in each for each in faults(list(rows(line, "page"))))


def test_a_row_that_is_missing_or_there_twice_is_told() -> None:
    row = Row("page", "T01", ("a", "b", f"`{HERE}`"))
    told = list(faults([row, row]))
    assert "page: T01 is there twice" in told
    assert "no page has a row for T02" in told
    assert "no page has a row for API10:2023" in told
    assert "no page has a row of the ASVS" in told


def test_a_link_is_a_test_that_is_there() -> None:
    assert exists(HERE)
    assert not exists(HERE + "_not")
    assert not exists("tests/test_security_docs.py::rows")
    assert not exists("tests/security_links.py::test_nothing")


def test_what_is_no_row_is_passed_by() -> None:
    text = "| Id | Threat |\n|---|---|\n| `W020` | x |\nT01 | x\n| T1 | x |\n"
    assert list(rows(text, "page")) == []
