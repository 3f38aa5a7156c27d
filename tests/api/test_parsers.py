"""What the parser takes for a body, without a server around it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagehand_testdata.api.parsers import StrictJSONParser
from stagehand_testdata.exceptions import BodyTooLarge, InvalidInput


def parse(body: bytes) -> dict[str, Any]:
    return StrictJSONParser().parse(io.BytesIO(body))


def nested(levels: int, opening: bytes = b'{"a":', closing: bytes = b"}") -> bytes:
    return opening * levels + b"1" + closing * levels


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' {"a": 1}\n', {"a": 1}),
        ('{"a": "é\\u00e9 \\ud83d\\ude00 😀"}'.encode(), {"a": "éé 😀 😀"}),
        (b'{"a": -0, "b": 1e3, "c": 1.5, "d": 1e-999}', {"a": 0, "b": 1000.0, "c": 1.5, "d": 0.0}),
        (b'{"a": 9223372036854775807}', {"a": 2**63 - 1}),
        (b'{"a": -9223372036854775808}', {"a": -(2**63)}),
        (b'{"a": {"b": 1}, "b": {"b": 2}}', {"a": {"b": 1}, "b": {"b": 2}}),
        (b'{"": null, "__proto__": true}', {"": None, "__proto__": True}),
    ],
)
def test_an_object_is_taken(body: bytes, value: Any) -> None:
    assert parse(body) == value


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b" ", "not JSON"),
        (b"{", "not JSON"),
        (b"{}{}", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": "\n"}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": "\xe9"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"a": "é"}'.encode("utf-16"), "not UTF-8"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"5", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"true", "must be a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [Infinity]}', "Infinity"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b"NaN", "NaN"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": -1e999}', "out of range"),
        (b'{"a": 9223372036854775808}', "out of range"),
        (b'{"a": -9223372036854775809}', "out of range"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "out of range"),
        (b'{"a": 1' + b"0" * 100_000 + b".0}", "out of range"),
        (b'{"a": 1, "a": 1}', "same field twice"),
        (b'{"b": {"a": 1, "\\u0061": 2}}', "same field twice"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"a": ["x\\u0000"]}', "NUL"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": "\\udc00\\ud800"}', "surrogate"),
    ],
)
def test_anything_else_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse(body)


@pytest.mark.parametrize(("opening", "closing"), [(b'{"a":', b"}"), (b'{"a":[', b"]}")])
def test_the_depth_is_bounded(opening: bytes, closing: bytes) -> None:
    per_level = 1 + (b"[" in opening)
    assert parse(nested(20 // per_level - 1, opening, closing))
    with pytest.raises(InvalidInput, match="nested deeper than 20"):
        parse(nested(20 // per_level + 1, opening, closing))


@pytest.mark.parametrize("levels", [1_000, 10_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_the_deepest_nesting_is_refused_without_a_crash(levels: int, opening: bytes, closing: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse(b'{"x":' + nested(levels, opening, closing) + b"}")


def test_the_depth_is_the_hosts_to_choose(configure: Callable[..., None]) -> None:
    configure(MAX_BODY_DEPTH=2)
    assert parse(b'{"a": 1}') == {"a": 1}
    with pytest.raises(InvalidInput, match="deeper than 2"):
        parse(b'{"a": {"b": 1}}')


def test_the_size_is_bounded(configure: Callable[..., None]) -> None:
    configure(MAX_BODY_BYTES=10)
    assert parse(b'{"a":  10}') == {"a": 10}
    with pytest.raises(BodyTooLarge, match="10 bytes"):
        parse(b'{"a":   10}')


def test_no_more_is_read_than_may_be_sent(configure: Callable[..., None]) -> None:
    configure(MAX_BODY_BYTES=10)
    stream = io.BytesIO(b"x" * 1000)
    with pytest.raises(BodyTooLarge):
        StrictJSONParser().parse(stream)
    assert stream.tell() == 11


def is_plain(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


texts = st.text().filter(is_plain)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, max_size=5))
def test_what_is_json_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_parsed_or_refused(body: bytes) -> None:
    with suppress(InvalidInput):
        assert isinstance(parse(body), dict)
