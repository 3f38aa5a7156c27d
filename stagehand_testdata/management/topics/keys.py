from __future__ import annotations

import argparse
import datetime as dt
from typing import Any

from django.core.management.base import CommandParser
from django.db.models.functions import Now

from ...access import keys
from ...models import AccessKey
from ..base import DONE, TestDataCommand
from ..durations import duration

HELP = "access keys of the API: create, list, revoke, rotate"

#: Each option that restricts a key by a list, and the field that it fills.
_LISTS = {
    "operations": ("operations", "what it may do, as 'builders,read'"),
    "types": ("entity_types", "the entity types of which it may make rows"),
    "scopes": ("scopes", "the scopes of the runs that it may open"),
    "networks": ("networks", "where it may come from, as '10.0.0.0/8,2001:db8::/32'"),
}
#: A limit that is not said is the table's own default.
_UNSAID = object()
_LIMITS = {
    "max-minutes": "how long its runs may live",
    "max-live-rows": "how many rows its runs may have at a time (default: 10000; or 'none')",
    "max-open-runs": "how many runs it may have open at a time (default: 100; or 'none')",
}


def add_arguments(parser: CommandParser) -> None:
    parser.description = (
        "A key is shown once, when it is made or gets another secret; the database has a keyed hash alone."
        " A list that is not said restricts nothing. Exit status: 0 done, 2 misuse."
    )
    actions = parser.add_subparsers(dest="action", metavar="create|list|revoke|rotate", required=True)
    making = _action(actions, "create", "make a key and show it, this once")
    making.add_argument("name", metavar="NAME", help="what it is for")
    making.add_argument(
        "--expires",
        type=duration,
        required=True,
        metavar="DURATION",
        help="how long it counts, like 1h or 90d",
    )
    making.add_argument("--holder", default="", metavar="TEXT", help="who answers for it: a person, a team")
    for option, (field, text) in _LISTS.items():
        making.add_argument(f"--{option}", dest=field, type=_names, default=(), metavar="A,B", help=text)
    for option, text in _LIMITS.items():
        making.add_argument(f"--{option}", type=_limit, default=_UNSAID, metavar="N", help=text)
    listing = _action(actions, "list", "the keys, the newest first; their secrets are nowhere")
    listing.add_argument("--all", action="store_true", help="those that count no more, too")
    revoking = _action(actions, "revoke", "let a key count no more, at once")
    revoking.add_argument("id", metavar="ID")
    rotating = _action(actions, "rotate", "give a key another secret and show it; its runs stay its own")
    rotating.add_argument("id", metavar="ID")
    rotating.add_argument(
        "--grace",
        type=duration,
        default=dt.timedelta(0),
        metavar="DURATION",
        help="how long the secret before it still counts (default: not at all)",
    )


def run(command: TestDataCommand, options: dict[str, Any]) -> int:
    _ACTIONS[options["action"]](command, options)
    return DONE


def _create(command: TestDataCommand, options: dict[str, Any]) -> None:
    given = {field: options[field] for field, _ in _LISTS.values()}
    limits = (option.replace("-", "_") for option in _LIMITS)
    given |= {field: options[field] for field in limits if options[field] is not _UNSAID}
    _show_once(
        command, keys.create(options["name"], options["expires"], holder=options["holder"], **given), options
    )


def _list(command: TestDataCommand, options: dict[str, Any]) -> None:
    found = AccessKey.objects.annotate(now=Now())
    if not options["all"]:
        found = found.filter(revoked_at=None, expires_at__gt=Now())
    command.write_rows([_described(each) for each in found], as_json=options["json"])


def _revoke(command: TestDataCommand, options: dict[str, Any]) -> None:
    key = keys.find(options["id"])
    keys.revoke(key)
    if options["json"]:
        command.write_json({"id": key.public_id, "state": "revoked"})
    else:
        command.stdout.write(f"{key.public_id} ({key.name}) is revoked. Its runs end in their time.")


def _rotate(command: TestDataCommand, options: dict[str, Any]) -> None:
    _show_once(command, keys.rotate(keys.find(options["id"]), grace=options["grace"]), options)


_ACTIONS = {"create": _create, "list": _list, "revoke": _revoke, "rotate": _rotate}


def _show_once(command: TestDataCommand, made: keys.Made, options: dict[str, Any]) -> None:
    key = AccessKey.objects.annotate(now=Now()).get(pk=made.key.pk)
    if options["json"]:
        command.write_json({"id": key.public_id, "key": made.text, **_described(key)})
        return
    # The key alone on standard output, so that a pipe takes it and nothing else.
    command.stdout.write(made.text)
    until = key.expires_at.isoformat(sep=" ", timespec="seconds")
    command.stderr.write(f"{key.public_id} ({key.name}) counts until {until}. It is not shown again.")


def _described(key: Any) -> dict[str, Any]:
    return {
        "id": key.public_id,
        "name": key.name,
        "holder": key.holder,
        "owner": key.owner,
        "state": _state(key),
        "expiresAt": key.expires_at,
        "lastUsedAt": key.last_used_at or "",
        "operations": key.operations,
        "types": key.entity_types,
        "scopes": key.scopes,
        "networks": key.networks,
        "maxMinutes": key.max_minutes,
        "maxLiveRows": key.max_live_rows,
        "maxOpenRuns": key.max_open_runs,
    }


def _state(key: Any) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at <= key.now else "counts"


def _action(actions: Any, name: str, text: str) -> CommandParser:
    parser: CommandParser = actions.add_parser(name, help=text, description=text)
    # Without a default, so that one before the action is not forgotten.
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document on standard output"
    )
    return parser


def _names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"'{text}' names nothing; type names, or leave the option out")
    return names


def _limit(text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"'{text}' is no number; type one from 1 up, or 'none'")
    return int(text)
