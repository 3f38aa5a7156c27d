"""The gate fails closed."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from django.test import override_settings

from stagehand_testdata.access import gate
from tests.making import changed

ANSWER: Any = True


def answers() -> Any:
    if isinstance(ANSWER, BaseException):
        raise ANSWER
    return ANSWER


HERE = f"{__name__}.answers"


def test_it_is_closed_by_default() -> None:
    with override_settings(STAGEHAND_TESTDATA={}):
        assert not gate.is_open()


def readable(value: object) -> str:
    """A test's name without an address in it: parallel workers must agree on it."""
    return re.sub(r" at 0x\w+", "", str(value))


@pytest.mark.parametrize("flag", [True, lambda: True, HERE, answers], ids=readable)
def test_true_opens_it(flag: Any) -> None:
    with changed(ENABLED=flag):
        assert gate.is_open()


@pytest.mark.parametrize(
    "flag",
    [False, None, 0, 1, "", "true", "yes", "True", [True], {"ENABLED": True}, lambda: False, object()],
    ids=readable,
)
def test_anything_else_does_not(flag: Any) -> None:
    with changed(ENABLED=flag):
        assert not gate.is_open()


@pytest.mark.parametrize("answer", [1, "yes", None, [True], object(), {"on": True}], ids=readable)
def test_an_answer_that_is_merely_true_like_does_not(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ANSWER", answer)
    for flag in (HERE, answers):
        with changed(ENABLED=flag):
            assert not gate.is_open()


@pytest.mark.parametrize(
    "flag",
    ["nowhere.at_all", "tests.access.test_gate.missing", "tests.access.test_gate", "..", "os.path"],
    ids=readable,
)
def test_a_path_that_leads_to_no_function_does_not(flag: str) -> None:
    with changed(ENABLED=flag):
        assert not gate.is_open()


@pytest.mark.parametrize("error", [ValueError("down"), RuntimeError(), ConnectionError(), LookupError()])
def test_a_flag_that_raises_does_not_and_is_logged(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(f"{__name__}.ANSWER", error)
    with changed(ENABLED=HERE), caplog.at_level(logging.ERROR):
        assert not gate.is_open()
    assert "the gate stays closed" in caplog.text


def test_a_flag_that_needs_arguments_does_not() -> None:
    with changed(ENABLED=lambda request: True):
        assert not gate.is_open()


def test_it_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with changed(ENABLED=HERE):
        assert gate.is_open()
        monkeypatch.setattr(f"{__name__}.ANSWER", False)
        assert not gate.is_open()
