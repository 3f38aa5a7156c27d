"""What no schema can say of a body that is right: put right in the cases that are meant to be.

schemathesis generates what the schema allows; a test ID in the body must be the header's all the same, an
address one that nobody can own, a moment not long ago. Cases that are meant to be wrong are left as they are.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Mapping
from itertools import count
from typing import Any

import schemathesis

#: No round uses what an earlier one has used up on the same server.
ROUND = os.environ["FUZZ_ROUND"]
TYPES = ("builder", "client", "sessionType", "product")
#: So many test IDs at a time, each for so many cases: a run that was cleaned up takes nothing more.
RUNS_AT_A_TIME = 4
CASES_OF_A_RUN = 60
MOST_ROWS = 3

_LEFT_OUT = {"testId"}
_LEFT_OUT_OF = {
    "verify_access": {"shadow"},
    "create_entities": {"fields"},
    "batch": {"builders", "clients", "sessionTypes", "bookings"},  # each under one of its two names
}
_ROWS = {"builderId", "clientId", "sessionTypeId"}
_NAMES_A_ROW = _ROWS | {"userId"}

_cases = count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Mapping[str, Any]) -> None:
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    number = next(_cases)
    parameters = repr((case.method, case.path, case.body, case.path_parameters)).encode()
    chosen = zlib.crc32(parameters)
    test_id = f"stagehand_test_{ROUND}_{number // CASES_OF_A_RUN}_{chosen % RUNS_AT_A_TIME}"
    if "X-Test-ID" in (case.headers or {}):
        case.headers["X-Test-ID"] = test_id
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"fuzz-{ROUND}-{number}"  # not another body's
    path = case.path_parameters or {}
    # A run that an earlier round's answers told of may have come to its end by now.
    if "testId" in path and (chosen % 4 or _is_of_another_round(path["testId"])):
        path["testId"] = test_id
    if "type" in path and chosen % 8:
        path["type"] = TYPES[chosen % len(TYPES)]
    if isinstance(case.body, dict):
        _put_right(case.operation.definition.raw["operationId"], case.body, chosen)


def _is_of_another_round(test_id: str) -> bool:
    return test_id.startswith("stagehand_test_") and not test_id.startswith(f"stagehand_test_{ROUND}_")


def _put_right(operation: str, body: dict[str, Any], chosen: int) -> None:
    for name in _LEFT_OUT | _LEFT_OUT_OF.get(operation, set()):
        body.pop(name, None)
    # A shadow call names no real row, and only a shadow call is deep.
    if _ROWS & set(body):
        body.pop("shadow", None)
    if not body.get("shadow"):
        body.pop("deep", None)
    if "testCreationTime" in body:
        body["testCreationTime"] = time.time() * 1000 - min(body.get("maxAgeMinutes", 60), 60) * 1000
    for item in (body, *body.get("sessionTypes", ())):
        for name, value in item.items():
            item[name] = _plain(operation, name, value, chosen)


def _plain(operation: str, name: str, value: Any, chosen: int) -> Any:
    if name in ("email", "testUserEmail"):
        return f"fuzz{chosen}@example.com"
    if name in _NAMES_A_ROW:
        return str(value).removeprefix("shadow-")  # one that was told of before is for shadow calls alone
    if name == "startTime":
        return "2030-01-01T10:00:00Z"
    if name == "next":
        return "/marketplace/builders"
    if name == "calendlyUrl":
        return "https://calendly.test/x"
    if name in ("amount", "hourlyRate", "price"):
        return round(value % 10_000, 2)
    if name == "maxAgeMinutes":
        return max(value, 5)  # for a run to outlive the next few cases
    counts = name == "count" or (operation == "batch" and name != "testCreationTime")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return min(value, MOST_ROWS) if counts and number else value
