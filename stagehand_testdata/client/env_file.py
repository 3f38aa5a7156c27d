"""The file that hands a build's run from one CI step to the next: KEY=value lines, as every CI reads them.

# Note [A file that is whole]
A file that was cut short may name another run than it meant, and a clean-up of a run that nobody has opened
succeeds. So it is written to the side and put in its place in one step, and its last line is a checksum of
the others: without it nothing is read from the file.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from .errors import Misuse

CHECK = "TEST_ENV_CHECK"
_LINE = re.compile(r"(?:export )?([A-Z][A-Z0-9_]*)=([\x20-\x7e]*)")


def write(path: Path, values: Mapping[str, str]) -> None:
    """Readable to nobody else: it holds the pass. Raises OSError."""
    lines = _lines(values)
    text = "".join([*lines, f"{CHECK}={_checksum(lines)}\n"])
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = str(path)
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def append(path: Path, values: Mapping[str, str]) -> None:
    """To a file of the CI's own, such as $GITHUB_ENV, which others append to as well. Raises OSError."""
    with path.open("a", encoding="ascii") as file:
        file.write("".join(_lines(values)))


def read(path: Path) -> dict[str, str] | None:
    """None where there is no file; raises Misuse for one that is not whole, OSError."""
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise _not_whole(path) from None
    *lines, last = text.splitlines(keepends=True) or [""]
    if last != f"{CHECK}={_checksum(lines)}\n":
        raise _not_whole(path)
    found = [_LINE.fullmatch(line.rstrip("\n")) for line in lines]
    return {each[1]: each[2] for each in found if each}


def _lines(values: Mapping[str, str]) -> list[str]:
    lines = [f"{name}={value}" for name, value in values.items()]
    if not all(_LINE.fullmatch(line) for line in lines):
        raise Misuse("A value for the environment file is not one line of ASCII.")
    return [f"{line}\n" for line in lines]


def _checksum(lines: list[str]) -> str:
    return f"{zlib.crc32(''.join(lines).encode('ascii')):08x}"


def _not_whole(path: Path) -> Misuse:
    return Misuse(
        f"{path} is not whole, or was changed: run `stagehand-testdata prepare` again, or say which run it is"
        " with --test-id or --build-id."
    )
