"""Our management commands, run in this process."""

from __future__ import annotations

import io

from django.core.management import CommandError, call_command


def run_testdata(*arguments: str) -> tuple[int, str]:
    """(exit status, output) of a topic of `manage.py testdata`."""
    return run_command("testdata", *arguments)


def run_command(*arguments: str) -> tuple[int, str]:
    """(exit status, output) of the command that comes first."""
    out = io.StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=out)
    except SystemExit as stopped:
        return int(stopped.code or 0), out.getvalue()
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return 0, out.getvalue()
