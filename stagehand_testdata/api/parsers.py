"""JSON, and nothing else: no form, no file, nothing that two parsers would read differently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.parsers import BaseParser

from ..conf import settings
from ..exceptions import BodyTooLarge, InvalidInput

_LARGEST = 2**63


class StrictJSONParser(BaseParser):
    """One JSON object in UTF-8 of bounded size and depth, without NaN, NUL, lone surrogates or double keys.

    Raises BodyTooLarge, InvalidInput.
    """

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        limit = settings.MAX_BODY_BYTES
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise BodyTooLarge(f"The request body is larger than {limit} bytes (MAX_BODY_BYTES).")
        try:
            parsed = json.loads(
                body.decode("utf-8"),
                parse_constant=_refuse_constant,
                parse_float=_finite,
                parse_int=_bounded,
                object_pairs_hook=_without_doubles,
            )
        except RecursionError as error:
            raise InvalidInput("The request body is nested too deeply.") from error
        except UnicodeDecodeError as error:
            raise InvalidInput("The request body is not UTF-8.") from error
        except json.JSONDecodeError as error:
            raise InvalidInput(f"The request body is not JSON: {error}.") from error
        if not isinstance(parsed, dict):
            raise InvalidInput("The request body must be a JSON object.")
        _check(parsed)
        return parsed


def _check(parsed: Any) -> None:
    """Depth and texts; a loop, because the depth is the sender's."""
    level = [parsed]
    for _ in range(settings.MAX_BODY_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                for key in value:
                    _check_text(key)
                below += value.values()
            elif isinstance(value, list):
                below += value
        if not below:
            return
        level = below
    raise InvalidInput(f"The request body is nested deeper than {settings.MAX_BODY_DEPTH} levels.")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise InvalidInput("The request body holds a NUL character.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput("The request body holds half a surrogate pair.")


def _refuse_constant(name: str) -> Any:
    raise InvalidInput(f"The request body holds {name}, which is not JSON.")


def _finite(text: str) -> float:
    """JSON does not tell a whole number from a fraction: 5.0 is 5."""
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise InvalidInput("The request body holds a number that is out of range.")
    return int(number) if number.is_integer() and -_LARGEST <= number < _LARGEST else number


def _bounded(text: str) -> int:
    if len(text) > 20 or not -_LARGEST <= int(text) < _LARGEST:
        raise InvalidInput("The request body holds a number that is out of range.")
    return int(text)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInput("The request body names the same field twice.")
    return found
