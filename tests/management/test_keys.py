"""`manage.py testdata keys`: made, shown once, listed, rotated, revoked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stagehand_testdata.access import keys
from stagehand_testdata.exceptions import NotAuthenticated
from stagehand_testdata.models import AccessKey

from .running import run_testdata

pytestmark = pytest.mark.django_db


def created(*options: str) -> Any:
    status, output = run_testdata("keys", "create", "CI", "--expires", "1h", "--json", *options)
    assert status == 0, output
    return json.loads(output)


def counts(text: str) -> bool:
    try:
        keys.verify(text, "127.0.0.1")
    except NotAuthenticated:
        return False
    return True


def test_create_prints_the_key_and_its_id_once() -> None:
    made = created()
    assert made["key"].startswith(f"tdk_{made['id']}_")
    assert counts(made["key"])
    _, listed = run_testdata("keys", "list", "--json")
    assert made["key"].split("_")[2] not in listed
    assert [each["id"] for each in json.loads(listed)] == [made["id"]]


def test_create_without_json_prints_the_key_on_a_line_of_its_own() -> None:
    status, output = run_testdata("keys", "create", "CI", "--expires", "90d", "--holder", "QA team")
    first, second = output.strip().split("\n")
    assert status == 0
    assert counts(first)
    assert "not shown again" in second
    assert AccessKey.objects.get().holder == "QA team"


def test_create_takes_what_restricts_a_key() -> None:
    made = created(
        *("--operations", "builders, read", "--types", "builder", "--scopes", "ephemeral"),
        *("--networks", "10.0.0.0/8,2001:db8::/32"),
        *("--max-minutes", "30", "--max-live-rows", "20", "--max-open-runs", "2"),
    )
    assert {name: made[name] for name in ("operations", "types", "scopes", "networks")} == {
        "operations": ["builders", "read"],
        "types": ["builder"],
        "scopes": ["ephemeral"],
        "networks": ["10.0.0.0/8", "2001:db8::/32"],
    }
    assert (made["maxMinutes"], made["maxLiveRows"], made["maxOpenRuns"]) == (30, 20, 2)


def test_a_limit_that_is_not_said_is_the_default_and_none_lifts_it() -> None:
    made = created()
    assert (made["maxMinutes"], made["maxLiveRows"], made["maxOpenRuns"]) == (None, 10_000, 100)
    made = created("--max-live-rows", "none", "--max-open-runs", "none")
    assert (made["maxLiveRows"], made["maxOpenRuns"]) == (None, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "CI", "--expires", "1h", "--operations", "nonsense"),
        ("create", "CI", "--expires", "1h", "--types", "nonsense"),
        ("create", "CI", "--expires", "1h", "--scopes", "for_ever"),
        ("create", "CI", "--expires", "1h", "--networks", "10.0.0.1/8"),
        ("create", "CI", "--expires", "1h", "--max-live-rows", "0"),
        ("create", "CI", "--expires", "0s"),
        ("create", "", "--expires", "1h"),
        ("revoke", "nobody"),
        ("rotate", "nobody"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_status_2(arguments: tuple[str, ...]) -> None:
    status, output = run_testdata("keys", *arguments)
    assert status == 2
    assert len(output.strip().split("\n")) == 1
    assert not AccessKey.objects.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "CI"),
        ("create", "CI", "--expires", "soon"),
        ("create", "CI", "--expires", "1h", "--operations", ""),
        ("create", "CI", "--expires", "1h", "--networks", "10.0.0.0/8,"),
        ("create", "CI", "--expires", "1h", "--max-minutes", "many"),
        ("create",),
        ("make", "CI"),
        (),
    ],
    ids=" ".join,
)
def test_what_the_parser_refuses_makes_no_key(arguments: tuple[str, ...]) -> None:
    status, _ = run_testdata("keys", *arguments)
    assert status != 0
    assert not AccessKey.objects.exists()


def test_revoke_ends_a_key_at_once() -> None:
    made = created()
    status, output = run_testdata("keys", "revoke", made["id"])
    assert (status, made["id"] in output) == (0, True)
    assert not counts(made["key"])
    assert json.loads(run_testdata("keys", "list", "--json")[1]) == []
    [listed] = json.loads(run_testdata("keys", "list", "--all", "--json")[1])
    assert listed["state"] == "revoked"


def test_rotate_gives_the_same_key_another_secret() -> None:
    made = created("--operations", "read")
    status, output = run_testdata("keys", "rotate", made["id"], "--json")
    again = json.loads(output)
    assert (status, again["id"], again["operations"]) == (0, made["id"], ["read"])
    assert counts(again["key"])
    assert not counts(made["key"])


def test_rotate_may_leave_the_former_secret_some_grace() -> None:
    made = created()
    run_testdata("keys", "rotate", made["id"], "--grace", "10m")
    assert counts(made["key"])


def test_a_revoked_key_gets_no_other_secret() -> None:
    made = created()
    run_testdata("keys", "revoke", made["id"])
    status, output = run_testdata("keys", "rotate", made["id"])
    assert status == 2
    assert "make another one" in output


def test_the_list_is_a_table_without_json() -> None:
    assert run_testdata("keys", "list") == (0, "None.\n")
    made = created()
    _, output = run_testdata("keys", "list")
    assert made["id"] in output
    assert output.startswith("id")
