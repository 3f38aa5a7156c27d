"""Does each row of docs/security.md and docs/asvs.md name tests that exist? `python -m tests.security_links`

Exit status 0 where every row does, 1 where one does not; each fault is a line.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/security.md", "docs/asvs.md")

#: The form of a row's id on each page; rows of other tables have none of these.
_ID = re.compile(r"T[0-9]{2}|v5\.0\.0-[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}|API[0-9]{1,2}:2023")
_TEST = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")

#: What docs/security.md must have a row for.
THREATS = {f"T{number:02}" for number in range(1, 33)}
RISKS = {f"API{number}:2023" for number in range(1, 11)}


class Row(NamedTuple):
    page: str
    id: str
    cells: tuple[str, ...]

    @property
    def tests(self) -> list[str]:
        return _TEST.findall(self.cells[-1])


def rows(text: str, page: str) -> Iterator[Row]:
    """The rows that have an id; a row is one line."""
    for line in text.splitlines():
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
        if line.startswith("|") and _ID.fullmatch(cells[0]):
            yield Row(page, cells[0], cells[1:])


def faults(found: list[Row]) -> Iterator[str]:
    seen: set[str] = set()
    for row in found:
        if row.id in seen:
            yield f"{row.page}: {row.id} is there twice"
        seen.add(row.id)
        if not row.tests:
            yield f"{row.page}: {row.id} is linked to no test"
        if not all(row.cells[:-1]):
            yield f"{row.page}: {row.id} has an empty cell"
        for test in row.tests:
            if not exists(test):
                yield f"{row.page}: {row.id} is linked to {test}, which is not there"
    for missing in sorted((THREATS | RISKS) - seen):
        yield f"no page has a row for {missing}"
    if not any(each.startswith("v5.") for each in seen):
        yield "no page has a row of the ASVS"


def exists(test: str) -> bool:
    """Whether the file has a test of this name, as pytest would write it."""
    file, *names = test.split("::")
    path = ROOT / file
    if not path.exists() or not path.name.startswith("test_") or not names[-1].startswith("test_"):
        return False
    within: ast.AST = _tree(path)
    for name in names:
        body = {each.name: each for each in getattr(within, "body", ()) if hasattr(each, "name")}
        if name not in body:
            return False
        within = body[name]
    return True


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def all_rows() -> list[Row]:
    return [row for page in PAGES for row in rows((ROOT / page).read_text(), page)]


def main() -> int:
    found = all_rows()
    wrong = list(faults(found))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    links = sum(len(row.tests) for row in found)
    print(f"{len(found)} rows, {links} links, {len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
