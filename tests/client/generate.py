"""`python -m tests.client.generate`: the client's plain half, made from the one for asyncio."""

from __future__ import annotations

import tempfile
from pathlib import Path

import unasync

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "stagehand_testdata" / "client"
SOURCE, MADE = CLIENT / "_async", CLIENT / "_sync"

NAMES = {
    "AsyncTestDataManager": "TestDataManager",
    "AsyncWire": "Wire",
    "AsyncHeartbeat": "Heartbeat",
    "AsyncPage": "Page",
    "AsyncContext": "Context",
    "AsyncClient": "Client",
    "AsyncBaseTransport": "BaseTransport",
    "aclose": "close",
    "asleep": "sleep",
    "tasks": "threads",
    "_async": "_sync",
}
HEAD = "# Made from ../_async/{name} by `make client`: change that one.\n"


def generate() -> dict[str, str]:
    """The text of each file of `_sync`, by its name."""
    with tempfile.TemporaryDirectory() as directory:
        rule = unasync.Rule(str(SOURCE), directory, additional_replacements=NAMES)
        sources = sorted(SOURCE.glob("*.py"))
        unasync.unasync_files([str(each) for each in sources], [rule])
        made = {each.name: (Path(directory) / each.name).read_text(encoding="utf-8") for each in sources}
    return {name: HEAD.format(name=name) + text for name, text in made.items()}


if __name__ == "__main__":
    for name, text in generate().items():
        (MADE / name).write_text(text, encoding="utf-8")
