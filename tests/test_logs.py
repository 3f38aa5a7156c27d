"""No client writes a line of the log."""

from __future__ import annotations

import logging

import pytest

from stagehand_testdata.logs import keeping_out, log_error


def test_an_errors_text_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    forged = "x\n2030-01-01 INFO root all is well"
    try:
        raise RuntimeError(forged)
    except RuntimeError as error:
        log_error(logging.getLogger("stagehand_testdata.test"), "it failed", error)
    [record] = caplog.records
    assert repr(forged) in record.getMessage()
    assert not any(line.startswith("2030") for line in record.getMessage().splitlines())
    assert "test_logs.py" in record.getMessage()


def test_a_request_that_cannot_be_read_hides_the_whole_text(caplog: pytest.LogCaptureFixture) -> None:
    def sent() -> list[str]:
        raise ValueError

    with keeping_out(sent):
        log_error(logging.getLogger("stagehand_testdata.test"), "it failed", RuntimeError("a secret"))
    [record] = caplog.records
    assert "RuntimeError '(sent)'" in record.getMessage()
