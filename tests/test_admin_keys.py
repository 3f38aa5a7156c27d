"""Access keys in the admin: made and shown once, rotated, revoked, and never to be read again."""

from __future__ import annotations

import datetime as dt
import logging
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from stagehand_testdata.access import keys
from stagehand_testdata.exceptions import NotAuthenticated
from stagehand_testdata.models import AccessKey

pytestmark = pytest.mark.django_db

KEY = re.compile(r"tdk_[0-9a-z]{12}_[0-9A-Za-z]{38}")
HOUR = dt.timedelta(hours=1)
FORM = {"name": "CI", "days": "30", "max_live_rows": "10000", "max_open_runs": "100"}


def url(page: str, *args: Any) -> str:
    return reverse(f"admin:stagehand_testdata_accesskey_{page}", args=args)


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("boss"))
    return client


def staff(*codenames: str) -> Client:
    user = get_user_model().objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def counts(text: str) -> bool:
    try:
        keys.verify(text, "127.0.0.1")
    except NotAuthenticated:
        return False
    return True


def shown(response: Any) -> str:
    assert response.status_code == 200, response.content
    [text] = KEY.findall(response.content.decode())
    return text


def act(client: Client, action: str, *made: AccessKey) -> Any:
    return client.post(url("changelist"), {"action": action, "_selected_action": [each.pk for each in made]})


class TestMaking:
    def test_the_key_is_on_the_answer_and_nowhere_after_it(
        self, boss: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            response = boss.post(url("add"), FORM)
        text = shown(response)
        assert counts(text)
        assert "no-store" in response.headers["Cache-Control"]
        secret = text.split("_")[2]
        key = AccessKey.objects.get()
        for page in (url("changelist"), url("change", key.pk), reverse("admin:index"), url("add")):
            assert secret not in boss.get(page).content.decode()
        assert secret not in str([each.get_decoded() for each in Session.objects.all()])
        assert secret not in str(list(LogEntry.objects.values()))
        assert secret not in str({name: morsel.value for name, morsel in boss.cookies.items()})
        assert secret not in caplog.text

    def test_it_is_what_the_form_says(self, boss: Client) -> None:
        boss.post(
            url("add"),
            FORM
            | {
                "holder": "QA",
                "operations": ["builders", "read"],
                "entity_types": ["builder"],
                "scopes": ["ephemeral"],
                "networks": "10.0.0.0/8, 2001:db8::/32",
                "max_minutes": "30",
                "max_live_rows": "",
            },
        )
        key = AccessKey.objects.get()
        assert (key.holder, key.operations, key.entity_types) == ("QA", ["builders", "read"], ["builder"])
        assert (key.scopes, key.networks) == (["ephemeral"], ["10.0.0.0/8", "2001:db8::/32"])
        assert (key.max_minutes, key.max_live_rows, key.max_open_runs) == (30, None, 100)
        assert (key.expires_at - key.created_at).days == 30

    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": ""},
            {"name": "two\nlines"},
            {"days": ""},
            {"days": "0"},
            {"days": "99999"},
            {"operations": ["nonsense"]},
            {"entity_types": ["nonsense"]},
            {"scopes": ["nonsense"]},
            {"networks": "nonsense"},
            {"networks": "10.0.0.1/8"},
            {"max_minutes": "0"},
            {"max_live_rows": "99999999999"},
        ],
        ids=str,
    )
    def test_what_makes_no_sense_is_said_on_the_form(self, boss: Client, wrong: dict[str, Any]) -> None:
        response = boss.post(url("add"), FORM | wrong)
        assert response.status_code == 200
        assert "errorlist" in response.content.decode()
        assert not AccessKey.objects.exists()

    def test_a_name_is_no_markup(self, boss: Client) -> None:
        response = boss.post(url("add"), FORM | {"name": "<script>alert(1)</script>"})
        shown(response)
        for page in (response.content.decode(), boss.get(url("changelist")).content.decode()):
            assert "<script>alert(1)" not in page


class TestChanging:
    def test_rotate_shows_another_secret_of_the_same_key(self, boss: Client) -> None:
        key, before = keys.create("CI", HOUR)
        text = shown(act(boss, "rotate", key))
        assert text.split("_")[1] == key.public_id
        assert counts(text)
        assert not counts(before)

    def test_rotate_is_for_one_key_that_counts(self, boss: Client) -> None:
        one, text = keys.create("CI", HOUR)
        two, _ = keys.create("CI", HOUR)
        assert not KEY.search(act(boss, "rotate", one, two).content.decode())
        assert counts(text)
        keys.revoke(one)
        assert act(boss, "rotate", one).status_code == 302

    def test_revoke_ends_them_at_once(self, boss: Client) -> None:
        one, first = keys.create("CI", HOUR)
        two, second = keys.create("CI", HOUR)
        act(boss, "revoke", one, two)
        assert not counts(first)
        assert not counts(second)
        assert LogEntry.objects.filter(change_message="Revoked.").count() == 2

    def test_nothing_else_can_be_changed_or_deleted(self, boss: Client) -> None:
        key, text = keys.create("CI", HOUR)
        assert boss.post(url("change", key.pk), {"name": "x"}).status_code == 403
        assert boss.post(url("delete", key.pk), {"post": "yes"}).status_code == 403
        assert counts(text)
        page = boss.get(url("change", key.pk)).content.decode()
        stored = AccessKey.objects.get()
        assert stored.secret_digest not in page


class TestPermissions:
    def test_making_needs_the_permission_to_add(self) -> None:
        assert staff("view_accesskey", "change_accesskey").post(url("add"), FORM).status_code == 403
        assert not AccessKey.objects.exists()

    def test_with_it_a_key_is_made(self) -> None:
        shown(staff("add_accesskey", "view_accesskey").post(url("add"), FORM))

    def test_revoking_and_rotating_need_the_permission_to_change(self) -> None:
        key, text = keys.create("CI", HOUR)
        viewer = staff("view_accesskey", "add_accesskey")
        for action in ("revoke", "rotate"):
            assert not KEY.search(act(viewer, action, key).content.decode())
        assert counts(text)

    def test_nobody_makes_one_without_the_forms_token(self) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(get_user_model().objects.create_superuser("boss"))
        assert client.post(url("add"), FORM).status_code == 403
        assert not AccessKey.objects.exists()
