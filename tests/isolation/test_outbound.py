"""What a product asks before it sends: yes in ordinary traffic, under a run only what OUTBOUND agrees to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from stagehand_testdata.context import CurrentRun, use_run
from stagehand_testdata.isolation.outbound import allow
from tests.making import TEST_ID, changed

asked: list[tuple[str, str]] = []


@pytest.fixture
def under_a_run() -> Iterator[None]:
    with use_run(CurrentRun(1, TEST_ID)):
        yield


def only_true(kind: str, target: str) -> Any:
    asked.append((kind, target))
    return {"yes": True, "truthy": 1, "no": False}[kind]


class TestInOrdinaryTraffic:
    @pytest.mark.parametrize("rules", [{}, {"webhook": []}, "nowhere.at.all", only_true, None])
    def test_everything_may_be_sent_and_the_setting_is_not_asked(
        self, rules: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked.clear()
        with changed(OUTBOUND=rules):
            assert allow("webhook", "https://hooks.partner.com/in?token=1") is True
        assert asked == []
        assert not caplog.records

    def test_again_once_the_run_is_over(self) -> None:
        with use_run(CurrentRun(1, TEST_ID)):
            assert allow("webhook", "https://hooks.partner.com") is False
        assert allow("webhook", "https://hooks.partner.com") is True


@pytest.mark.usefixtures("under_a_run")
class TestUnderARun:
    def test_nothing_may_be_sent_where_nothing_is_set(self) -> None:
        assert allow("webhook", "http://127.0.0.1/") is False
        with changed(OUTBOUND={"webhook": ["*"]}):
            assert allow("webhook", "http://127.0.0.1/") is True
            assert allow("payment", "http://127.0.0.1/") is False

    @pytest.mark.parametrize(
        ("pattern", "target", "agreed"),
        [
            ("*.test", "https://hooks.shop.test/in?x=1", True),
            ("*.test", "HTTPS://Hooks.Shop.TEST./in", True),
            ("*.test", "hooks.shop.test", True),
            ("*.test", "https://bücher.test", True),
            ("*.test", "https://test", False),
            ("*.test", "https://shoptest", False),
            ("*.test", "https://partner.com/?x=.test", False),
            ("*.test", "https://partner.com#.test", False),
            ("*.test", "https://x.test@partner.com/", False),
            ("*.test", "https://x.test:1@partner.com/", False),
            ("*.test", "https://a@x.test@partner.com", False),
            ("*.test", "https://partner.com\\.test", False),
            ("*.test", "https://partner.com\\@x.test", False),
            ("*.test", "https://partner.com\0.test", False),
            ("*.test", "https://partner.com\n.test", False),
            ("*.test", "https://partner.com .test", False),
            ("*.test", "https://partner.com%00.test", False),
            ("*.test", "https://x.test:eighty", False),
            ("*.test", "", False),
            ("http://127.0.0.1:*", "http://127.0.0.1:8000/x", True),
            ("http://127.0.0.1:*", "http://127.0.0.1", True),
            ("http://127.0.0.1:*", "https://127.0.0.1:8000", False),
            ("http://127.0.0.1:*", "127.0.0.1:8000", False),
            ("http://127.0.0.1:*", "http://127.0.0.1:80@partner.com/", False),
            ("http://127.0.0.1:*", "http://127.0.0.1.partner.com/", False),
            ("127.0.0.1:80", "http://127.0.0.1/x", True),
            ("127.0.0.1:80", "https://127.0.0.1/x", False),
            ("127.0.0.1:80", "127.0.0.1", False),
            ("[::1]:9000", "http://[::1]:9000/x", True),
            ("[::1]", "http://[::2]/", False),
            ("api.stripe.com", "https://api.stripe.com/v1/charges", True),
            ("api.stripe.com", "https://xapi.stripe.com/", False),
            ("acct_test_1", "acct_test_1", True),
            ("http", "http://a@b@partner.com", False),
            ("*", "https://anything.at.all/", True),
            ("https://*", "https://anything.at.all/", True),
        ],
    )
    def test_a_pattern_looks_at_scheme_host_and_port_alone(
        self, pattern: str, target: str, agreed: bool
    ) -> None:
        with changed(OUTBOUND={"webhook": ["unlike.this", pattern]}):
            assert allow("webhook", target) is agreed

    def test_a_target_may_be_anything_that_is_written_as_an_address(self) -> None:
        class Address:
            def __str__(self) -> str:
                return "https://hooks.shop.test/in"

        with changed(OUTBOUND={"webhook": ("*.shop.test",)}):
            assert allow("webhook", Address()) is True  # type: ignore[arg-type]

    @pytest.mark.parametrize("rules", [only_true, f"{__name__}.only_true"])
    def test_a_function_agrees_by_true_alone(self, rules: Any) -> None:
        asked.clear()
        with changed(OUTBOUND=rules):
            assert [allow(kind, "https://x.test/?y") for kind in ("yes", "truthy", "no", "unknown")] == [
                True,
                False,
                False,
                False,
            ]
        assert asked[0] == ("yes", "https://x.test/?y")

    @pytest.mark.parametrize(
        "rules",
        [None, "", "nowhere.at.all", 5, ["*"], {"webhook": "*"}, {"webhook": None}, {"webhook": [None, "*"]}],
    )
    def test_a_setting_that_is_wrong_refuses(self, rules: Any) -> None:
        with changed(OUTBOUND=rules):
            assert allow("webhook", "https://x.test") is False

    @pytest.mark.parametrize(
        ("target", "shown"),
        [
            ("https://user:secret@partner.com:444/secret?token=secret#secret", "https://partner.com:444"),
            ("partner.com/secret", "partner.com"),
            ("localhost", "localhost"),
            ("sk_live_secret", "no address"),
            ("https://partner.com/ secret\nforged line", "no address"),
        ],
    )
    def test_a_refusal_is_one_line_of_the_log_without_secrets(
        self, target: str, shown: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            allow("web\nhook", target)
        assert [each.getMessage() for each in caplog.records] == [
            f"{TEST_ID}: 'web\\nhook' to {shown} was refused"
        ]

    def test_what_is_agreed_to_is_no_line_of_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        with changed(OUTBOUND={"webhook": ["*.test"]}):
            allow("webhook", "https://x.test")
        assert not caplog.records
