"""What the commands share: one clear line and exit status 2 for misuse, never a traceback."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseFault

from ..exceptions import TestDataError

DONE, LEFT, MISUSE = 0, 1, 2


class TestDataCommand(BaseCommand):
    """Exit 0 when all is done, 1 when something is left or failed, 2 for misuse."""

    __test__ = False

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            status = self.run(options)
        except TestDataError as error:
            self.misuse(error.message)
        except DatabaseFault as error:
            first = str(error).strip().split("\n", 1)[0]
            raise CommandError(f"The database refused: {first}", returncode=LEFT) from error
        if status != DONE:
            sys.exit(status)

    def run(self, options: dict[str, Any]) -> int:
        raise NotImplementedError

    def misuse(self, message: str) -> NoReturn:
        raise CommandError(message, returncode=MISUSE)

    def write_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, default=str))
