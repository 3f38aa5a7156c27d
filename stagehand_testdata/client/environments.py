"""Which server is meant: `stagehand-testdata.toml`, or `[tool.stagehand-testdata]` in pyproject.toml.

::

    [environments]
    staging = "https://staging.shop.example"
    production = "https://shop.example"
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .connection import API_PATH, read_path, read_url
from .errors import Misuse

URL_VARIABLE = "STAGEHAND_TESTDATA_URL"
ENVIRONMENT_VARIABLE = "STAGEHAND_TESTDATA_ENVIRONMENT"
PREFIX = "stagehand_test_"
FILE = "stagehand-testdata.toml"
PYPROJECT = "pyproject.toml"
TABLE = "stagehand-testdata"
_KNOWN = {"environments", "api_path", "prefix"}


class Server(NamedTuple):
    """A product's URL, where it includes the API, and what its test ids start with."""

    url: str
    api_path: str = API_PATH
    prefix: str = PREFIX


@dataclass(frozen=True)
class Configuration:
    """The environments by name, each a URL; where each includes the API, and its TEST_ID_PREFIX."""

    environments: Mapping[str, str] = field(default_factory=dict)
    api_path: str = API_PATH
    prefix: str = PREFIX
    #: The file that it came from; None where there is none.
    source: Path | None = None

    def having(self, url: str) -> Server:
        return Server(url, self.api_path, self.prefix)

    def server(self, name: str) -> Server:
        """Raises Misuse for an environment that is not configured."""
        if name in self.environments:
            return self.having(self.environments[name])
        if self.source is None:
            raise Misuse(
                f"No environment is configured, so there is no '{name}': write {FILE} with [environments]"
                f' and {name} = "https://…".'
            )
        known = ", ".join(self.environments) or "none"
        raise Misuse(f"{self.source} has no environment '{name}'. It has: {known}.")


def load(start: Path | None = None) -> Configuration:
    """The nearest configuration at or above the directory, or an empty one. Raises Misuse."""
    here = (start or Path.cwd()).resolve()
    for directory in (here, *here.parents):
        own, shared = directory / FILE, directory / PYPROJECT
        if own.is_file():
            return _read(own, _parse(own))
        if shared.is_file():
            table = _parse(shared).get("tool", {}).get(TABLE)
            if table is not None:
                return _read(shared, table)
    return Configuration()


def find_server() -> Server:
    """The one that the environment's variables name, or the only one configured. Raises Misuse."""
    configured = load()
    url, name = os.environ.get(URL_VARIABLE), os.environ.get(ENVIRONMENT_VARIABLE)
    if url:
        return configured.having(url)
    if name:
        return configured.server(name)
    if len(configured.environments) == 1:
        return configured.server(next(iter(configured.environments)))
    raise Misuse(f"No server is named: pass its URL, or set {URL_VARIABLE} or {ENVIRONMENT_VARIABLE}.")


def _parse(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misuse(f"{path} cannot be read: {error}") from None


def _read(path: Path, table: Any) -> Configuration:
    if not isinstance(table, dict) or table.keys() - _KNOWN:
        unknown = ", ".join(sorted(table.keys() - _KNOWN)) if isinstance(table, dict) else "no table"
        raise Misuse(f"{path}: unknown ({unknown}). Known: [environments], api_path, prefix.")
    environments = table.get("environments", {})
    api_path, prefix = table.get("api_path", API_PATH), table.get("prefix", PREFIX)
    if not isinstance(environments, dict) or not all(isinstance(each, str) for each in environments.values()):
        raise Misuse(f'{path}: each of [environments] is a name and a URL, as staging = "https://…".')
    if not isinstance(api_path, str) or not isinstance(prefix, str):
        raise Misuse(f'{path}: api_path and prefix are texts, as "{API_PATH}" and "{PREFIX}".')
    for name, url in environments.items():
        try:
            read_url(url)
        except Misuse as error:
            raise Misuse(f"{path}: environment '{name}': {error}") from None
    return Configuration(dict(environments), read_path(api_path), prefix, path)
