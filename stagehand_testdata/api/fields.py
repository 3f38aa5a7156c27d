"""Serializer fields that take a JSON type and no lookalike of it."""

from __future__ import annotations

import math
import re
from typing import Any

from rest_framework import serializers

#: What ends a line, and what XML has no way to write; as a class of characters also in the schema's dialect.
CONTROL_CHARACTERS = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\ufffe\uffff"
_CONTROL = re.compile(f"[{CONTROL_CHARACTERS}]")


class Text(serializers.CharField):
    """A text, never a number or a flag."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Line(Text):
    """A text of one line: a product puts names into subjects, feeds and logs."""

    default_error_messages = {"control": "One line, without control characters."}

    def run_validation(self, data: Any = serializers.empty) -> Any:
        # Before it is trimmed: what the schema refuses is refused.
        if isinstance(data, str) and _CONTROL.search(data):
            self.fail("control")
        return super().run_validation(data)


class Flag(serializers.BooleanField):
    """true or false, never "true" or 1."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Whole(serializers.IntegerField):
    """A whole number, never a text or a flag."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class Number(serializers.FloatField):
    """A finite number, never a text or a flag."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float) or not math.isfinite(data):
            self.fail("invalid")
        return data


class Amount(serializers.DecimalField):
    """An amount of money: a number in JSON, a decimal here."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            **{"max_digits": 10, "decimal_places": 2, "min_value": 0, "coerce_to_string": False, **kwargs}
        )

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return super().to_internal_value(data)

    def to_representation(self, value: Any) -> Any:
        if value is None:
            return None
        number = float(value)
        return int(number) if number.is_integer() else number


class Identifier(serializers.CharField):
    """The id of a row: a text, or a whole number as its text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 255, **kwargs})

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, bool) or not isinstance(data, str | int):
            self.fail("invalid")
        return super().to_internal_value(data)  # type: ignore[arg-type]


class AlwaysTrue(Flag):
    """The test flag: accepted because the document's client sends it, and true whatever anybody sends."""

    default_error_messages = {"untrue": "Everything made here is test data: isTest is always true."}

    def to_internal_value(self, data: Any) -> bool:
        if super().to_internal_value(data) is not True:
            self.fail("untrue")
        return True
