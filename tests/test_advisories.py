"""What pip-audit reports is taken for what it says: silence is no clean bill of health."""

from __future__ import annotations

from tests.advisories import verdict

SOUND = {"name": "attrs", "version": "26.1.0", "vulns": []}
WEAK = {"name": "pillow", "version": "1.0", "vulns": [{"id": "PYSEC-1"}, {"id": "GHSA-2"}]}
UNKNOWN = {
    "name": "vine",
    "skip_reason": "Dependency not found on PyPI and could not be audited: vine (5.1.0)",
}


def test_a_known_weakness_fails_and_is_named() -> None:
    assert verdict([SOUND, WEAK, UNKNOWN]) == (1, "pillow 1.0: PYSEC-1, GHSA-2")


def test_where_nobody_could_be_asked_it_says_so() -> None:
    for nothing in ([], [UNKNOWN]):
        status, said = verdict(nothing)
        assert status == 0
        assert said.startswith("SKIPPED")


def test_without_a_weakness_it_counts_and_names_what_it_does_not_know() -> None:
    assert verdict([SOUND]) == (0, "1 packages without a known weakness")
    assert verdict([SOUND, UNKNOWN]) == (0, "1 packages without a known weakness; not known there: ['vine']")
