"""POST runs/{testId}/pass, and calls that carry a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stagehand_testdata.operations import passes
from tests.conftest import Wire
from tests.host import models
from tests.making import changed

pytestmark = pytest.mark.django_db


@pytest.fixture
def wire(new_wire: Callable[[], Wire]) -> Wire:
    wire = new_wire()
    wire.entity("voucher")
    return wire


def issue(wire: Wire) -> Any:
    response = wire.post(f"runs/{wire.test_id}/pass")
    assert response.status_code == 201, response.content
    return response.json()


def refused(response: Any, status: int, code: str) -> bool:
    body = response.json()
    return response.status_code == status and body["code"] == code and set(body) >= {"error", "message"}


class TestIssuing:
    def test_gives_the_token_as_a_header_and_as_a_cookie(self, wire: Wire) -> None:
        answer = issue(wire)
        assert answer["testId"] == wire.test_id
        assert answer["header"] == "X-Testdata-Pass"
        assert answer["cookie"] == {"name": "testdata_pass", "value": answer["token"]}
        run = passes.admit(answer["token"])
        assert run is not None
        assert run.test_id == wire.test_id
        assert answer["expiresAt"] <= wire.get(f"runs/{wire.test_id}").json()["expiresAt"]

    def test_of_an_unknown_run_is_404(self, wire: Wire) -> None:
        response = wire.post("runs/stagehand_test_nobody/pass", **{"X-Test-ID": None})
        assert refused(response, 404, "not_found")

    def test_of_a_closed_run_is_409(self, wire: Wire) -> None:
        assert wire.post("cleanup").status_code == 200
        assert refused(wire.post(f"runs/{wire.test_id}/pass"), 409, "run_closed")

    def test_with_the_gate_closed_is_403(self, wire: Wire) -> None:
        with changed(ENABLED=False):
            assert refused(wire.post(f"runs/{wire.test_id}/pass"), 403, "test_mode_disabled")

    def test_without_a_key_where_keys_are_asked_for_is_401(self, wire: Wire) -> None:
        with changed(REQUIRE_ACCESS_KEY=True):
            assert refused(wire.post(f"runs/{wire.test_id}/pass"), 401, "not_authenticated")

    def test_takes_no_other_method(self, wire: Wire) -> None:
        assert wire.get(f"runs/{wire.test_id}/pass").status_code == 405


class TestACallThatCarriesAPass:
    def test_of_its_own_run_goes_on(self, wire: Wire) -> None:
        token = issue(wire)["token"]
        assert wire.post("entities/voucher", {}, **{"X-Testdata-Pass": token}).status_code == 201

    @pytest.mark.parametrize("kind", ["another run's", "tampered", "truncated", "of a run that has closed"])
    def test_that_does_not_count_is_refused_and_makes_no_row(
        self, wire: Wire, new_wire: Callable[[], Wire], kind: str
    ) -> None:
        token = issue(wire)["token"]
        if kind == "another run's":
            other = new_wire()
            other.entity("voucher")
            token = issue(other)["token"]
        elif kind == "of a run that has closed":
            assert wire.post("cleanup").status_code == 200
        else:
            token = token[:-1] if kind == "truncated" else f"x{token[1:]}"
        before = models.Voucher.objects.count()
        assert refused(wire.post("entities/voucher", {}, **{"X-Testdata-Pass": token}), 400, "invalid_pass")
        assert models.Voucher.objects.count() == before

    def test_that_has_ended_cleans_up_all_the_same(self, wire: Wire) -> None:
        token = f"x{issue(wire)['token']}"
        assert wire.post("cleanup", {}, **{"X-Testdata-Pass": token}).status_code == 200
        assert not models.Voucher.objects.exists()
