"""The strategy document's client works against this server as it stands in the document."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stagehand_testdata.marketplace.models import Booking, Builder, Client, SessionType
from stagehand_testdata.models import TestEntity, TestRun

from .conftest import host_rows

Drive = Callable[..., dict[str, Any]]

PREFIX = "stagehand_test_"
SESSIONS = [
    {"name": "Deep Dive", "duration": 90, "price": 120.5, "calendlyUrl": "https://calendly.com/test/90min"},
    {"name": f"{PREFIX}Code Review", "duration": 30, "price": 0, "currency": "EUR", "description": "Short."},
    {"name": "Architecture", "duration": 120, "price": 200, "isTest": True},
]


def states(test_id: str) -> set[str]:
    return set(TestEntity.objects.filter(run__test_id=test_id).values_list("state", flat=True))


@pytest.mark.usefixtures("untouched_host")
class TestTheWholeLifeCycle:
    @pytest.fixture
    def told(self, drive: Drive, real_rows: Any) -> dict[str, Any]:
        return drive("lifeCycle", sessionTypes=SESSIONS, options={})

    def test_gives_back_what_was_asked_for(self, told: dict[str, Any]) -> None:
        test_id = told["testId"]
        first, second = told["builders"]
        assert first["id"] != second["id"]
        for builder in (first, second):
            assert isinstance(builder["id"], str)
            assert builder["testId"] == test_id
            assert builder["name"].startswith(f"{PREFIX}Test Builder ")
            assert builder["expertise"] == ["React", "Node.js"]
            assert builder["hourlyRate"] == 85
            assert builder["availability"] is True
            assert builder["isTest"] is True
        assert first["email"] == f"{test_id}@example.com"
        assert second["email"] == f"{test_id}+2@example.com"
        emails = [client["email"] for client in told["clients"]]
        assert emails == [f"{test_id}_client@example.com", f"{test_id}_client+2@example.com"]
        assert all(client["name"].startswith(f"{PREFIX}Test Client ") for client in told["clients"])

    def test_makes_session_types_in_the_order_asked_for(self, told: dict[str, Any]) -> None:
        [session] = told["defaultSessions"]
        assert session["name"] == f"{PREFIX}Initial Consultation"
        assert (session["duration"], session["price"]) == (60, 75)
        assert session["calendlyUrl"] == "https://calendly.com/test/60min"
        assert session["builderId"] == told["builders"][0]["id"]
        own = told["ownSessions"]
        assert [each["name"] for each in own] == [
            f"{PREFIX}Deep Dive",
            f"{PREFIX}Code Review",
            f"{PREFIX}Architecture",
        ]
        assert [(each["duration"], each["price"]) for each in own] == [(90, 120.5), (30, 0), (120, 200)]
        assert {each["builderId"] for each in own} == {told["builders"][1]["id"]}

    def test_makes_booking_scenarios_with_all_that_they_need(self, told: dict[str, Any]) -> None:
        scenario, paid = told["scenario"], told["paid"]
        assert (scenario["status"], scenario["paymentStatus"]) == ("PENDING", "PENDING")
        assert (paid["status"], paid["paymentStatus"]) == ("CONFIRMED", "PAID")
        for each in (scenario, paid):
            assert list(each["entities"]) == ["builder", "sessionType", "client", "booking"]
            assert [booking["id"] for booking in each["entities"]["booking"]] == [each["id"]]
            assert all(row["id"] for rows in each["entities"].values() for row in rows)

    def test_makes_builders_that_the_public_page_shows_to_the_run(self, told: dict[str, Any]) -> None:
        assert told["pages"] == [{"status": 200, "showsTheName": True}] * 3
        assert told["pagesOfOthers"] == [{"status": 404, "showsTheName": False}] * 3
        assert [page["status"] for page in told["pagesAfterwards"]] == [404, 404]

    def test_ends_with_everything_gone_and_no_complaint(self, told: dict[str, Any]) -> None:
        assert told["said"] == {"log": [], "warn": [], "error": []}
        assert states(told["testId"]) == {"removed"}
        run = TestRun.objects.get(test_id=told["testId"])
        assert (run.state, run.scope) == ("closed", told["defaultScope"])


@pytest.mark.usefixtures("untouched_host")
class TestOneClient:
    @pytest.mark.parametrize("scope", ["ephemeral", "persistent_session", "persistent_environment"])
    def test_works_in_every_scope_of_the_document(self, drive: Drive, real_rows: Any, scope: str) -> None:
        told = drive("lifeCycle", sessionTypes=[], options={"scope": scope, "maxAgeMinutes": 24 * 60})
        assert told["said"]["error"] == []
        run = TestRun.objects.get(test_id=told["testId"])
        assert (run.scope, run.state) == (scope, "closed")

    def test_gets_its_own_options_back(self, drive: Drive, real_rows: Any) -> None:
        options = {
            "name": "Grace",
            "email": "Grace.H@example.com",
            "expertise": ["COBOL"],
            "hourlyRate": 99.5,
            "availability": False,
        }
        told = drive("named", builder=options, client={"name": "Ida", "email": "ida@example.com"})
        builder = told["builder"]
        assert builder["name"] == f"{PREFIX}Grace"
        assert builder["email"].lower() == "grace.h@example.com"
        assert (builder["expertise"], builder["hourlyRate"]) == (["COBOL"], 99.5)
        assert builder["availability"] is False
        assert (told["client"]["name"], told["client"]["email"]) == (f"{PREFIX}Ida", "ida@example.com")
        assert told["said"]["error"] == []

    def test_that_makes_nothing_leaves_nothing(self, drive: Drive, real_rows: Any) -> None:
        told = drive("nothingMade")
        assert states(told["testId"]) == set()
        assert told["said"]["error"] == []

    @pytest.mark.parametrize("email", ["ada.okafor@marketplace.example", "someone@gmail.com"])
    def test_reads_why_an_address_was_refused(self, drive: Drive, real_rows: Any, email: str) -> None:
        told = drive("refused", options={"email": email})
        assert told["message"].startswith("Failed to create test builder: ")
        assert not told["message"].endswith("undefined")
        assert told["said"]["error"] == []

    def test_reads_that_test_mode_is_off(self, drive: Drive, real_rows: Any, settings: Any) -> None:
        settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, "ENABLED": False}
        told = drive("initializeOnly")
        assert told["message"] == (
            "Test environment initialization failed: Test mode is not enabled in this environment"
        )


@pytest.mark.usefixtures("untouched_host")
class TestCi:
    def test_is_prepared_by_one_process_and_cleaned_up_by_another(
        self, drive: Drive, real_rows: dict[str, Any], tmp_path: Path
    ) -> None:
        prepared = drive("prepareCi", environment="staging", buildId="4711")
        assert prepared["said"] == {
            "log": ["Created CI test accounts for build 4711"],
            "warn": [],
            "error": [],
        }
        test_id = prepared["variables"]["TEST_ID"]
        assert (tmp_path / "staging.env").read_text() == f"TEST_ID={test_id}\nTEST_BUILD_ID=4711\n"
        run = TestRun.objects.get(test_id=test_id)
        assert (run.scope, run.state) == ("persistent_environment", "open")
        builder = Builder.all_rows.get(display_name=f"{PREFIX}CI Builder 4711")
        client = Client.all_rows.get(display_name=f"{PREFIX}CI Client 4711")
        assert builder.user.email == "ci-builder-4711@example.com"
        assert client.user.email == "ci-client-4711@example.com"
        sessions = builder.session_types(manager="all_rows").all()
        assert [session.title for session in sessions] == [f"{PREFIX}Initial Consultation"]

        cleaned = drive("cleanupCi", environment="staging", buildId="4711")
        assert cleaned["said"] == {
            "log": ["Cleaned up CI/CD test data for build 4711"],
            "warn": [],
            "error": [],
        }
        assert states(test_id) == {"removed"}
        run.refresh_from_db()
        assert run.state == "closed"

    def test_makes_no_row_in_production(self, drive: Drive, real_rows: dict[str, Any]) -> None:
        prepared = drive("prepareCi", environment="production", buildId="4712")
        assert prepared["said"]["log"] == ["Set up production shadow test mode for build 4712"]
        assert prepared["said"]["error"] == []
        assert host_rows() == real_rows
        run = TestRun.objects.get(test_id=prepared["variables"]["TEST_ID"])
        assert run.scope == "persistent_environment"
        cleaned = drive("cleanupCi", environment="production", buildId="4712")
        assert cleaned["said"]["error"] == []
        run.refresh_from_db()
        assert run.state == "closed"

    def test_that_was_never_prepared_has_nothing_to_clean_up(self, drive: Drive, real_rows: Any) -> None:
        cleaned = drive("cleanupCi", environment="staging", buildId="4713")
        assert cleaned["said"]["log"] == ["No test data to clean up"]

    def test_of_two_builds_at_a_time_cleans_up_its_own(self, drive: Drive, real_rows: Any) -> None:
        drive("prepareCi", environment="staging", buildId="1")
        drive("prepareCi", environment="development", buildId="2")
        drive("cleanupCi", environment="staging", buildId="1")
        left = Builder.all_rows.filter(display_name__startswith=PREFIX)
        assert [builder.display_name for builder in left] == [f"{PREFIX}CI Builder 2"]
        drive("cleanupCi", environment="development", buildId="2")


class TestTwoClientsSideBySide:
    def test_do_not_touch_each_others_rows(self, drive: Drive, real_rows: dict[str, Any]) -> None:
        told = drive("sideBySide")
        assert told["said"] == {"log": [], "warn": [], "error": []}
        first, second = told["testIds"]
        assert states(first) == {"removed"}
        assert states(second) == {"live"}
        assert [page["status"] for page in told["pages"]] == [404, 200]
        scenario = told["made"][1]["scenario"]
        kept = {name: {row["id"] for row in rows} for name, rows in scenario["entities"].items()}
        for name, model in {
            "builder": Builder,
            "sessionType": SessionType,
            "client": Client,
            "booking": Booking,
        }.items():
            assert {
                str(pk) for pk in model.all_rows.filter(pk__in=kept[name]).values_list("pk", flat=True)
            } == kept[name]
        after_both = {name: len(rows) for name, rows in host_rows().items()}
        before = {name: len(rows) for name, rows in real_rows.items()}
        made = TestEntity.objects.filter(run__test_id=second, state="live").count()
        assert sum(after_both.values()) - sum(before.values()) == made
