"""The plain half of the client is what its source makes."""

from __future__ import annotations

import re

import pytest

from .generate import MADE, generate


def test_the_plain_half_is_up_to_date() -> None:
    assert generate() == {each.name: each.read_text(encoding="utf-8") for each in MADE.glob("*.py")}, (
        "make client"
    )


@pytest.mark.parametrize("word", ["async", "await", "asyncio", "Async"])
def test_nothing_of_the_other_half_is_left_in_it(word: str) -> None:
    for name in ("manager.py", "wire.py", "job_tokens.py"):
        code = generate()[name].partition("\n")[2]
        assert word not in re.findall(r"[a-z]+|[A-Z][a-z]*", code), name
