"""`stagehand-testdata`: what a CI does with test data, on a machine that has no Django.

Exit status: 0 done; 1 something is left, or stands against it; 2 misuse, or the server cannot be asked.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from ._sync.manager import TestDataManager
    from .environments import Server
    from .models import Access

PROGRAM = "stagehand-testdata"
ENV_FILE = Path(".env.test")
PRODUCTION = "production"
NOTHING = "No test data to clean up"
#: The whole of what a build may live, in minutes: the document's.
_DAY = 24 * 60
#: As often may one build be prepared anew after its run was ended.
_TIMES = 100

#: Where a CI says which build it is; the first that is set counts.
_BUILD_IDS = ("GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILD_ID", "BUILD_NUMBER")
_BUILD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def main(argv: list[str] | None = None) -> int:
    """The exit status; whatever goes wrong is told in one line, without a secret."""
    options = _parsed(argv)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return _tell("interrupted", 130)
    except BrokenPipeError:
        # Whoever read has seen enough; nothing is to be flushed to it at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _tell(f"{error.filename or 'the file'}: {error.strerror or error}", 2)
    except Exception as error:  # noqa: BLE001 - a traceback shows what a CI's log must not hold
        return _tell(*_explained(error))
    return status


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """What is meant; argparse itself takes no field that stands behind an option."""
    parser = _parser()
    options, others = parser.parse_known_args(argv)
    fields = getattr(options, "fields", None)
    if fields is None or any(word.startswith("-") for word in others):
        if others:
            parser.error(f"unrecognized arguments: {' '.join(others)}")
    else:
        fields += others
    return options


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-e", "--environment", metavar="NAME", help="one of those configured")
    shared.add_argument("--url", help="of the product, in the place of an environment's")
    shared.add_argument(
        "--env-file", type=Path, default=ENV_FILE, metavar="FILE", help=f"of the build's run ({ENV_FILE})"
    )
    shared.add_argument("--json", action="store_true", help="what the server answered, as JSON")
    run = argparse.ArgumentParser(add_help=False)
    run.add_argument("--test-id", metavar="ID", help="of the run; else the file's, else $TEST_ID")
    build = argparse.ArgumentParser(add_help=False)
    build.add_argument("--build-id", metavar="ID", help="of the build; what the CI calls it, if left out")

    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, work: Callable[[Any], int], text: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[shared, *parents])
        command.set_defaults(run=work)
        return command

    add("prepare", prepare, "Open a build's run, or join it, and write it into the file.", build)
    add("cleanup", clean_up, "Remove what a build made; exit 1 where something had to stay.", run, build)
    add("status", status, "What the run is, and how many rows it has.", run)
    add("receipt", receipt, "What the last clean-up did.", run)
    add("types", types, "What can be made there.")
    create_parser = add("create", create, "Make rows of a type in the run.", run)
    create_parser.add_argument("type")
    create_parser.add_argument("--count", type=int, help="how many; one if left out")
    _add_fields(create_parser)
    scenario_parser = add("scenario", scenario, "Make all rows of a scenario in the run.", run)
    scenario_parser.add_argument("name")
    _add_fields(scenario_parser)
    return parser


def _add_fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fields", nargs="*", metavar="NAME=TEXT", help="or NAME:=JSON")


# --- the commands -----------------------------------------------------------------------------------------


def prepare(options: Any) -> int:
    from . import env_file
    from .environments import ENVIRONMENT_VARIABLE
    from .errors import Misuse

    build = _build_id(options)
    name, server = _server(options)
    if not options.env_file.parent.is_dir():
        raise Misuse(f"{options.env_file} cannot be written: there is no such directory.")
    run, access = _open(server, name, build)
    shadow = PRODUCTION in {name, access.environment} or access.shadow
    values = {"TEST_ID": run.test_id, "TEST_BUILD_ID": build, "TEST_SHADOW": "1" if shadow else "0"}
    if name:
        values["TEST_ENVIRONMENT"] = values[ENVIRONMENT_VARIABLE] = name
    # Whatever happens from here on, a clean-up knows the run.
    env_file.write(options.env_file, values)
    made = not shadow and _make_accounts(run, build)
    granted = run.pass_()
    values |= {
        "TEST_PASS": granted.token,
        "TEST_PASS_HEADER": granted.header,
        "TEST_PASS_COOKIE": granted.cookie.name,
    }
    env_file.write(options.env_file, values)
    if os.environ.get("GITHUB_ENV"):
        # GitHub takes it for a command wherever it is written, and hides the pass from then on.
        print(f"::add-mask::{granted.token}", file=sys.stderr)
        env_file.append(Path(os.environ["GITHUB_ENV"]), values)
    if shadow:
        text = f"Set up production shadow test mode for build {build}"
    elif made:
        text = f"Created CI test accounts for build {build}"
    else:
        text = (
            f"Opened the run of build {build}, without accounts: the server has no operation that makes them"
        )
    _show(options, {**access.raw, "buildId": build, "shadow": shadow}, [text, f"TEST_ID={run.test_id}"])
    return 0


def clean_up(options: Any) -> int:
    from .errors import Residue

    test_ids = list(_runs_to_clean(options))
    if not test_ids:
        _show(options, [], [NOTHING])
        return 0
    left = False
    answers, lines = [], []
    for test_id in test_ids:
        try:
            found = _manager(options, test_id).cleanup()
        except Residue as residue:
            left, found = True, residue.receipt
            lines += [str(residue), *(f"  {each}" for each in found.quarantined)]
        else:
            removed = ", ".join(f"{count} {name}" for name, count in found.removed.items())
            lines.append(f"Cleaned up {test_id}: removed {removed or 'nothing'}")
        answers.append(dict(found.raw))
    _show(options, answers[0] if len(answers) == 1 else answers, lines)
    return 1 if left else 0


def status(options: Any) -> int:
    found = _manager(options, _test_id(options)).status()
    counts = ", ".join(f"{count} {state}" for state, count in found.entities.items() if count) or "no rows"
    state = "expired" if found.expired and found.state == "open" else found.state
    _show(
        options,
        found.raw,
        [
            f"{found.test_id}: {state}, {counts}",
            f"seed {found.seed}, ends {found.expires_at.isoformat()}, build {found.build_id or '-'}",
        ],
    )
    return 0


def receipt(options: Any) -> int:
    found = _manager(options, _test_id(options)).last_receipt()
    lines = [f"{count} {name} removed" for name, count in found.removed.items()]
    lines += [f"{count} {name} were gone already" for name, count in found.already_gone.items()]
    lines += [str(each) for each in found.quarantined]
    _show(options, found.raw, [*lines, f"{found.remaining} left, the run is {found.state}"])
    return 0


def types(options: Any) -> int:
    found = _manager(options, None).entity_types()
    width = max((len(each.name) for each in found), default=0)
    _show(
        options,
        [dict(each.raw) for each in found],
        [f"{each.name:{width}}  {', '.join(field.name for field in each.fields)}" for each in found],
    )
    return 0


def create(options: Any) -> int:
    run = _manager(options, _test_id(options))
    made = run.create(options.type, count=options.count, fields=_fields(options.fields))
    rows = made if isinstance(made, list) else [made]
    raw = [dict(each.raw) for each in rows]
    _show(options, raw if options.count is not None else raw[0], [f"{each.type} {each.id}" for each in rows])
    return 0


def scenario(options: Any) -> int:
    made = _manager(options, _test_id(options)).scenario(options.name, **_fields(options.fields))
    lines = [f"{name} {row['id']}" for name, rows in made.entities.items() for row in rows]
    _show(options, made.raw, lines)
    return 0


# --- which run, on which server ---------------------------------------------------------------------------


def _server(options: Any) -> tuple[str, Server]:
    """The environment's name, empty for a URL that was given, and the server. Raises Misuse."""
    from .environments import ENVIRONMENT_VARIABLE, find_server, load

    if options.url:
        return options.environment or "", load().having(options.url)
    name = (
        options.environment or os.environ.get(ENVIRONMENT_VARIABLE) or _file(options).get("TEST_ENVIRONMENT")
    )
    if name:
        return name, load().server(name)
    return "", find_server()


def _manager(options: Any, test_id: str | None) -> TestDataManager:
    from ._sync.manager import TestDataManager

    _, server = _server(options)
    shadow = os.environ.get("TEST_SHADOW") or _file(options).get("TEST_SHADOW")
    return TestDataManager(
        server.url,
        api_path=server.api_path,
        prefix=server.prefix,
        test_id=test_id,
        keep=True,
        shadow=shadow == "1",
        retries=_patience(),
    )


def _patience() -> Any:
    from .retries import Retries

    return Retries(attempts=5)


def _open(server: Server, name: str, build: str) -> tuple[TestDataManager, Access]:
    """The build's run, opened or joined, and what the server said: every shard comes to the same one.

    A build that is prepared anew after its run was ended gets another.
    """
    from ._sync.manager import TestDataManager
    from .errors import Conflict, RunClosed, TooOld

    spelt = re.sub(r"[^A-Za-z0-9-]", "-", f"{name or 'ci'}_{build}".replace("_", "-"))
    for number in range(1, _TIMES + 1):
        run = TestDataManager(
            server.url,
            api_path=server.api_path,
            test_id=f"{server.prefix}build_{spelt}" + (f"_{number}" if number > 1 else ""),
            scope="persistent_environment",
            max_age_minutes=_DAY,
            label=f"CI build {build}",
            build_id=build,
            test_user_email=f"ci-{build.lower()}@example.com",
            retries=_patience(),
        )
        try:
            return run, run.initialize()
        except (RunClosed, TooOld):
            continue
        finally:
            run.close()
    raise Conflict(f"Build {build} was prepared {_TIMES} times: give it another --build-id.")


def _make_accounts(run: TestDataManager, build: str) -> bool:
    """The document's accounts, made by whichever shard comes first: each has a key that all of them send.

    False where the product has no operations for them: it does without the marketplace kit.
    """
    from .errors import InvalidRequest

    try:
        builder = run.builder(
            name=f"CI Builder {build}",
            email=f"ci-builder-{build.lower()}@example.com",
            once=f"prepare:{run.test_id}:builder",
        )
    except InvalidRequest as error:
        if error.code == "unknown_operation":
            return False
        raise
    run.session_types(builder, once=f"prepare:{run.test_id}:session-types")
    run.client(
        name=f"CI Client {build}",
        email=f"ci-client-{build.lower()}@example.com",
        once=f"prepare:{run.test_id}:client",
    )
    return True


def _build_id(options: Any) -> str:
    from .errors import Misuse

    given = options.build_id or next((os.environ[name] for name in _BUILD_IDS if os.environ.get(name)), "")
    if not given:
        raise Misuse("Which build is it? Give --build-id.")
    if not _BUILD_ID.fullmatch(given):
        raise Misuse(
            "A build id is up to 64 letters, digits, '.', '_' and '-', and begins with one of the first two."
        )
    return str(given)


def _runs_to_clean(options: Any) -> Iterable[str]:
    if options.test_id or not options.build_id:
        found = _known_test_id(options)
        return [found] if found else []
    build = _build_id(options)
    runs = _manager(options, None).runs()
    return [each.test_id for each in runs if each.build_id == build and each.state != "closed"]


def _test_id(options: Any) -> str:
    from .errors import Misuse

    found = _known_test_id(options)
    if not found:
        raise Misuse(
            f"Which run? Give --test-id, or run `{PROGRAM} prepare` first: there is no {options.env_file}."
        )
    return found


def _known_test_id(options: Any) -> str | None:
    return options.test_id or _file(options).get("TEST_ID") or os.environ.get("TEST_ID")


def _file(options: Any) -> Mapping[str, str]:
    """What the environment file says. Nothing is asked of it where the call says which run is meant."""
    from . import env_file

    if options.run is prepare or getattr(options, "test_id", None) or getattr(options, "build_id", None):
        return {}
    return env_file.read(options.env_file) or {}


def _fields(words: list[str]) -> dict[str, Any]:
    """`title=Lamp` is a text, `price:=3.5` is JSON. Raises Misuse."""
    from .errors import Misuse

    found: dict[str, Any] = {}
    for word in words:
        name, given, text = word.partition("=")
        if not given or not name.rstrip(":"):
            raise Misuse(f"'{word}' is no field: NAME=TEXT, or NAME:=JSON.")
        try:
            found[name.removesuffix(":")] = json.loads(text) if name.endswith(":") else text
        except ValueError:
            raise Misuse(f"'{word}': what follows := is no JSON.") from None
    return found


# --- what is said -----------------------------------------------------------------------------------------


def _show(options: Any, answer: Any, lines: list[str]) -> None:
    if options.json:
        print(json.dumps(dict(answer) if isinstance(answer, Mapping) else answer, indent=2))
    else:
        print("\n".join(_printable(line) for line in lines))
    sys.stdout.flush()


def _explained(error: Exception) -> tuple[str, int]:
    """The line, and the exit status."""
    from . import errors

    if not isinstance(error, errors.TestDataError):
        return f"unexpected {type(error).__name__}: please report it", 2
    hints: dict[type[errors.TestDataError], str] = {
        errors.GateClosed: "Switch ENABLED in STAGEHAND_TESTDATA on there.",
        errors.NotAuthenticated: "Set STAGEHAND_TESTDATA_KEY to one of `manage.py testdata keys create`.",
    }
    hint = next((text for kind, text in hints.items() if isinstance(error, kind)), "")
    stands_against = (errors.Conflict, errors.NotFound, errors.TooOld, errors.ServerFailed)
    said = error.message if error.message.endswith((".", "?")) else f"{error.message}."
    return f"{said} {hint}".rstrip(), 1 if isinstance(error, stands_against) else 2


def _tell(line: str, status: int) -> int:
    print(f"{PROGRAM}: {' '.join(_printable(line).split())}", file=sys.stderr)
    return status


def _printable(text: str) -> str:
    """Without what would command a terminal, or a CI that reads its log."""
    return "".join(each if each.isprintable() else " " for each in text)
