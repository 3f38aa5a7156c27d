"""`manage.py testdata TOPIC`: look at runs, receipts and what can be made."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from ..base import TestDataCommand
from ..topics import audit, guards, keys, log, receipts, rls, runs, types

TOPICS = {
    "runs": runs,
    "receipts": receipts,
    "types": types,
    "audit": audit,
    "guards": guards,
    "rls": rls,
    "keys": keys,
    "log": log,
}


class Command(TestDataCommand):
    help = "Look at test runs, at the receipts of their purges, and at what can be made here."

    def add_arguments(self, parser: CommandParser) -> None:
        topics = parser.add_subparsers(dest="topic", metavar="TOPIC", required=True)
        for name, topic in TOPICS.items():
            sub = topics.add_parser(name, help=topic.HELP, description=topic.HELP)
            sub.add_argument("--json", action="store_true", help="one JSON document on standard output")
            topic.add_arguments(sub)

    def run(self, options: dict[str, Any]) -> int:
        status: int = TOPICS[options["topic"]].run(self, options)
        return status
