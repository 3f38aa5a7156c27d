"""What the commands share: one clear line and exit status 2 for misuse, never a traceback."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseFault

from ..access import trail
from ..access.trail import Act
from ..databases import driver_faults
from ..exceptions import TestDataError

DONE, LEFT, MISUSE = 0, 1, 2

_LONE = re.compile("[\ud800-\udfff]")


class TestDataCommand(BaseCommand):
    """Exit 0 when all is done, 1 when something is left or failed, 2 for misuse."""

    __test__ = False

    def handle(self, *args: Any, **options: Any) -> None:
        self._refuse_what_is_no_text(options)
        try:
            with trail.acting(self._act(options)):
                status = self.run(options)
            self.stdout.flush()
        except TestDataError as error:
            self.misuse(error.message)
        except BrokenPipeError:
            # Whoever read it has had enough (`| head -1`). What is not written yet goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(LEFT)
        except Exception as error:
            if not isinstance(error, (DatabaseFault, *driver_faults())):
                raise
            first = str(error).strip().split("\n", 1)[0]
            raise CommandError(f"The database refused: {first}", returncode=LEFT) from error
        if status != DONE:
            sys.exit(status)

    def _refuse_what_is_no_text(self, options: dict[str, Any]) -> None:
        for value in options.values():
            for each in value if isinstance(value, list | tuple) else (value,):
                # A byte of the command line that is no UTF-8 is half a character here.
                if isinstance(each, str) and _LONE.search(each):
                    self.misuse(f"{each!r} is no text: it is not UTF-8.")
        if options.get("run") == "":
            self.misuse("--run is empty, as an unset variable is: type the test ID of a run.")

    def _act(self, options: dict[str, Any]) -> Act:
        """What the audit says of it: the command, and the number of whoever types it, not the name."""
        name = type(self).__module__.rpartition(".")[2]
        words = (name, options.get("topic"), options.get("action"))
        by = f"uid:{os.getuid()}" if hasattr(os, "getuid") else ""
        return Act("command", " ".join(word for word in words if word), by)

    def run(self, options: dict[str, Any]) -> int:
        raise NotImplementedError

    def misuse(self, message: str) -> NoReturn:
        raise CommandError(message, returncode=MISUSE)

    def write_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, default=str))

    def write_rows(self, rows: Sequence[Mapping[str, Any]], *, as_json: bool = False) -> None:
        """A table with a column for each key, or a JSON array."""
        if as_json:
            self.write_json(rows)
            return
        if not rows:
            self.stdout.write("None.")
            return
        shown = [{name: _cell(value) for name, value in row.items()} for row in rows]
        widths = {name: max(len(name), *(len(row[name]) for row in shown)) for name in shown[0]}
        self.stdout.write("  ".join(name.ljust(width) for name, width in widths.items()).rstrip())
        for row in shown:
            self.stdout.write("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip())


def safe(text: str) -> str:
    """The text as it is, or escaped where it would steer a terminal or break the line."""
    return text if text.isprintable() else repr(text)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "nothing"
    if isinstance(value, list):
        return safe(", ".join(map(str, value)))
    return value.isoformat(sep=" ", timespec="seconds") if hasattr(value, "isoformat") else safe(str(value))
