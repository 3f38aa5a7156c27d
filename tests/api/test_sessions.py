"""POST runs/{testId}/sessions, and the link that it gives."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.models import Session
from django.db.models.functions import Now
from django.test import Client, override_settings
from django.utils import timezone

from stagehand_testdata.access import keys, trail
from stagehand_testdata.context import current_run
from stagehand_testdata.models import AuditEntry, RunSession, TestEntity, TestRun
from stagehand_testdata.operations import passes, sign_in
from tests.conftest import Wire, error_of
from tests.guarding import guards_up
from tests.host.models import Book, Label
from tests.making import changed

from .conftest import expire

pytestmark = pytest.mark.django_db

User = get_user_model()
PAGE = "/marketplace/builders"


@pytest.fixture
def user(wire: Wire) -> Any:
    """The account of a client of the run."""
    wire.make("clients")
    [found] = wire.get(f"runs/{wire.test_id}/entities?type=auth.user").json()["results"]
    return User.objects.get(pk=found["id"])


def ask(wire: Wire, user: Any, *, headers: Mapping[str, str] | None = None, **body: Any) -> Any:
    path, user_id = f"runs/{wire.test_id}/sessions", getattr(user, "pk", user)
    return wire.post(path, {"userId": user_id, **body}, **(headers or {}))


def opened(wire: Wire, user: Any, **body: Any) -> Any:
    response = ask(wire, user, **body)
    assert response.status_code == 201, response.content
    return response.json()


def visit(link: str, browser: Client | None = None, **headers: str) -> Any:
    path = link.removeprefix("http://testserver")
    return (browser or Client(raise_request_exception=False)).get(path, headers=headers)


def name_on_page(browser: Client) -> str | None:
    text = browser.get(PAGE).content.decode()
    return text.partition("Signed in as ")[2].partition("</p>")[0] or None


def browser_with(answer: Any) -> Client:
    browser = Client()
    for cookie in answer["storageState"]["cookies"]:
        browser.cookies[cookie["name"]] = cookie["value"]
    return browser


class TestTheStorageState:
    def test_signs_in_as_the_runs_user(self, wire: Wire, user: Any) -> None:
        answer = opened(wire, user)
        assert answer["testId"] == wire.test_id
        assert answer["userId"] == str(user.pk)
        assert name_on_page(browser_with(answer)) == user.get_username()

    def test_puts_the_browser_under_the_run(self, wire: Wire, user: Any) -> None:
        page = browser_with(opened(wire, user)).get(PAGE)
        assert page.headers["X-Testdata-Run"] == wire.test_id

    def test_has_what_playwright_asks_of_a_cookie(self, wire: Wire, user: Any) -> None:
        state = opened(wire, user)["storageState"]
        assert state["origins"] == []
        assert [each["name"] for each in state["cookies"]] == ["sessionid", "testdata_pass"]
        for cookie in state["cookies"]:
            assert set(cookie) == {
                "name", "value", "domain", "path", "expires", "httpOnly", "secure", "sameSite",
            }  # fmt: skip
            assert (cookie["domain"], cookie["path"], cookie["sameSite"]) == ("testserver", "/", "Lax")
            assert (cookie["httpOnly"], cookie["secure"]) == (True, False)
            assert cookie["expires"] > timezone.now().timestamp()

    def test_follows_the_products_cookie_settings(self, wire: Wire, user: Any) -> None:
        with override_settings(
            SESSION_COOKIE_NAME="sid",
            SESSION_COOKIE_DOMAIN="example.org",
            SESSION_COOKIE_PATH="/shop",
            SESSION_COOKIE_SECURE=True,
            SESSION_COOKIE_HTTPONLY=False,
            SESSION_COOKIE_SAMESITE="None",
        ):
            session, granted = opened(wire, user)["storageState"]["cookies"]
        assert session["name"] == "sid"
        for cookie in (session, granted):
            assert (cookie["domain"], cookie["path"], cookie["sameSite"]) == (".example.org", "/shop", "None")
            assert (cookie["httpOnly"], cookie["secure"]) == (False, True)

    def test_ends_when_the_run_does(self, wire: Wire, user: Any) -> None:
        answer = opened(wire, user)
        session = Session.objects.get(session_key=answer["storageState"]["cookies"][0]["value"])
        end = dt.datetime.fromisoformat(wire.get(f"runs/{wire.test_id}").json()["expiresAt"])
        assert abs(session.expire_date - end) < dt.timedelta(seconds=2)
        assert abs(dt.datetime.fromisoformat(answer["expiresAt"]) - end) < dt.timedelta(seconds=2)


class TestTheLink:
    def test_signs_the_browser_in_and_puts_it_under_the_run(self, wire: Wire, user: Any) -> None:
        browser = Client()
        response = visit(opened(wire, user)["link"], browser)
        assert (response.status_code, response.headers["Location"]) == (302, "/")
        assert name_on_page(browser) == user.get_username()
        assert browser.get(PAGE).headers["X-Testdata-Run"] == wire.test_id

    def test_leads_where_it_was_asked_to(self, wire: Wire, user: Any) -> None:
        link = opened(wire, user, next="/shop/?q=a%20b#top")["link"]
        assert visit(link).headers["Location"] == "/shop/?q=a%20b#top"

    @pytest.mark.parametrize(
        "path",
        [
            "", "shop", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example",
            "https://evil.example/", "javascript:alert(1)", "/\t/evil.example", "/\n/evil.example",
            "/x\r\nSet-Cookie: a=b", " //evil.example", "/\x00", "/\u202e", "/" + "a" * 2000,
        ],
    )  # fmt: skip
    def test_leads_to_no_other_site(self, wire: Wire, user: Any, path: str) -> None:
        assert error_of(ask(wire, user, next=path)) == (400, "invalid_body")
        assert not RunSession.objects.exists()

    def test_counts_once(self, wire: Wire, user: Any) -> None:
        link = opened(wire, user)["link"]
        assert visit(link).status_code == 302
        second = Client()
        assert error_of(visit(link, second)) == (404, "invalid_link")
        assert name_on_page(second) is None

    def test_counts_for_five_minutes(self, wire: Wire, user: Any) -> None:
        link = opened(wire, user)["link"]
        RunSession.objects.update(link_until=Now())
        assert error_of(visit(link)) == (404, "invalid_link")
        assert dt.timedelta(minutes=5) == sign_in.LINK_LIFE

    def test_counts_where_it_was_made_alone(self, wire: Wire, user: Any) -> None:
        link = opened(wire, user)["link"]
        with changed(ENVIRONMENT="another"):
            assert error_of(visit(link)) == (404, "invalid_link")
        with override_settings(SECRET_KEY="another"):
            assert error_of(visit(link)) == (404, "invalid_link")
        assert visit(link).status_code == 302

    @pytest.mark.parametrize("how", ["closed", "expired", "cut short"])
    def test_ends_with_its_run(self, wire: Wire, user: Any, how: str) -> None:
        link = opened(wire, user)["link"]
        if how == "closed":
            wire.cleanup()
        elif how == "expired":
            expire(wire.test_id)
        else:
            wire.send("patch", f"runs/{wire.test_id}", {"maxAgeMinutes": 1})
        assert error_of(visit(link)) == (404, "invalid_link")

    def test_is_stopped_by_the_gate_and_not_used_up(self, wire: Wire, user: Any) -> None:
        link = opened(wire, user)["link"]
        with changed(ENABLED=False):
            assert error_of(visit(link)) == (403, "test_mode_disabled")
        assert visit(link).status_code == 302

    def test_needs_no_key_and_no_test_id(self, wire: Wire, user: Any) -> None:
        link = opened(wire, user)["link"]
        with changed(REQUIRE_ACCESS_KEY=True):
            assert visit(link).status_code == 302

    def test_says_the_same_whatever_is_wrong_with_it(self, wire: Wire, user: Any) -> None:
        used, tampered = opened(wire, user)["link"], opened(wire, user)["link"]
        visit(used)
        too_long = f"{tampered.rpartition('/')[0]}/{'x' * 9000}"
        wrong = (used, tampered[:-1], f"{tampered[:-3]}xyz", too_long)
        answers = [visit(link).content for link in wrong]
        assert len(set(answers)) == 1

    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec-Purpose": "prefetch"},
            {"Sec-Purpose": "prefetch;prerender"},
            {"Purpose": "prefetch"},
            {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
            {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        ],
    )
    def test_is_not_used_up_by_what_is_no_visit(self, wire: Wire, user: Any, headers: dict[str, str]) -> None:
        link = opened(wire, user)["link"]
        response = visit(link, **headers)
        assert error_of(response) == (404, "invalid_link")
        assert not response.cookies
        assert visit(link, **{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}).status_code == 302

    @pytest.mark.parametrize("method", ["head", "post", "put", "options", "delete"])
    def test_takes_no_other_method_and_is_not_used_up_by_one(
        self, wire: Wire, user: Any, method: str
    ) -> None:
        link = opened(wire, user)["link"]
        response = getattr(Client(), method)(link.removeprefix("http://testserver"))
        assert (response.status_code, response.headers["Allow"]) == (405, "GET")
        assert visit(link).status_code == 302

    def test_is_kept_by_no_cache_and_told_to_no_page(self, wire: Wire, user: Any) -> None:
        link = opened(wire, user)["link"]
        for response in (visit(link), visit(link)):
            assert "no-store" in response.headers["Cache-Control"]
            assert response.headers["Referrer-Policy"] == "no-referrer"

    def test_leaves_a_visitors_own_session_where_it_is(self, wire: Wire, user: Any) -> None:
        real = User.objects.create_user("real", "real@shop.example", "secret")
        browser = Client()
        browser.force_login(real)
        key = browser.session.session_key
        with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
            visit(opened(wire, user)["link"], browser)
        assert name_on_page(browser) == user.get_username()
        browser.cookies["sessionid"] = key
        assert name_on_page(browser) == "real"

    def test_replaces_a_cookie_that_means_nothing_any_more(self, wire: Wire, user: Any) -> None:
        browser = Client()
        browser.cookies["sessionid"] = "gone"
        visit(opened(wire, user)["link"], browser)
        assert name_on_page(browser) == user.get_username()

    def test_carries_no_key_and_no_account_in_its_text(self, wire: Wire, user: Any) -> None:
        answer = opened(wire, user)
        assert answer["storageState"]["cookies"][0]["value"] not in answer["link"]
        assert wire.test_id not in answer["link"]


class TestARefusedVisit:
    """A link that was not used up counts still: nothing may keep it."""

    @pytest.fixture(autouse=True)
    def fresh_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trail, "_refusals", trail._Refusals())

    @pytest.fixture(params=["head", "post", "prefetch", "closed gate", "slash", "newline", "failing"])
    def refused(self, request: Any, wire: Wire, user: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """(link, answer): one that was not used up."""
        link, how = opened(wire, user)["link"], request.param
        browser, path = Client(raise_request_exception=False), link.removeprefix("http://testserver")
        if how in ("head", "post"):
            return link, getattr(browser, how)(path)
        if how == "closed gate":
            with changed(ENABLED=False):
                return link, browser.get(path)
        if how == "failing":
            with monkeypatch.context() as patch:
                patch.setattr(sign_in, "redeem", fail_with)
                return link, browser.get(path)
        if how == "prefetch":
            return link, browser.get(path, headers={"Sec-Purpose": "prefetch"})
        return link, browser.get(f"{path}/" if how == "slash" else f"{path}%0A")

    def test_leaves_no_link_in_the_log(self, refused: Any, caplog: pytest.LogCaptureFixture) -> None:
        link, response = refused
        assert response.status_code >= 400
        token = link.rpartition("/")[2]
        for record in caplog.get_records("setup"):
            assert token not in record.getMessage()
            assert token not in repr(vars(record).get("args"))
        assert visit(link).status_code == 302

    @pytest.mark.parametrize("headers", [{"Sec-Purpose": "prefetch"}, {"Sec-Fetch-Mode": "no-cors"}])
    def test_is_in_the_audit(self, wire: Wire, user: Any, headers: dict[str, str]) -> None:
        link = opened(wire, user)["link"]
        visit(link, **headers)
        entry = AuditEntry.objects.order_by("pk").last()
        assert entry is not None
        assert (entry.via, entry.asked, entry.address) == ("api", "sign-in", "127.0.0.1")
        assert (entry.operation, entry.result) == ("refused", "invalid_link")
        assert link.rpartition("/")[2] not in repr(AuditEntry.objects.values())

    def test_is_in_the_audit_so_often_and_no_more(self, wire: Wire, user: Any) -> None:
        link = opened(wire, user)["link"].removeprefix("http://testserver")
        browser = Client()
        for _ in range(trail.PER_ADDRESS + 5):
            browser.head(link)
        assert AuditEntry.objects.filter(operation="refused").count() == trail.PER_ADDRESS

    def test_at_a_closed_gate_writes_nothing(self, wire: Wire, user: Any) -> None:
        link = opened(wire, user)["link"]
        with changed(ENABLED=False):
            visit(link)
        assert not AuditEntry.objects.filter(operation="refused").exists()

    def test_one_that_counts_is_in_the_audit_as_the_apis(self, wire: Wire, user: Any) -> None:
        visit(opened(wire, user)["link"])
        entry = AuditEntry.objects.get(operation="session.sign_in")
        assert (entry.via, entry.asked, entry.address) == ("api", "sign-in", "127.0.0.1")


def fail_with(token: str) -> Any:
    raise RuntimeError(f"cannot use {token}")


class TestWhoIsSignedIn:
    def test_nobody_real_and_nobody_of_another_run(
        self, wire: Wire, user: Any, new_wire: Callable[[], Wire]
    ) -> None:
        real = User.objects.create_user("real", "real@shop.example", "secret")
        other = new_wire()
        stranger = other.entity("user")["id"]
        answers = [ask(wire, each) for each in (real.pk, stranger, 2**40, "nonsense")]
        assert {error_of(each) for each in answers} == {(404, "not_in_run")}
        assert len({each.content for each in answers}) == 1
        assert not RunSession.objects.exists()

    def test_not_a_real_account_under_the_key_of_one_that_is_gone(self, wire: Wire, user: Any) -> None:
        joined = user.date_joined - dt.timedelta(days=300)
        User.objects.filter(pk=user.pk).update(username="real", email="real@shop.example", date_joined=joined)
        assert error_of(ask(wire, user)) == (404, "not_in_run")

    @pytest.mark.parametrize("right", ["is_staff", "is_superuser", "group", "permission"])
    def test_nobody_with_rights(self, wire: Wire, user: Any, right: str) -> None:
        if right == "group":
            user.groups.add(Group.objects.create(name="editors"))
        elif right == "permission":
            user.user_permissions.add(Permission.objects.all()[0])
        else:
            User.objects.filter(pk=user.pk).update(**{right: True})
        assert error_of(ask(wire, user)) == (403, "not_allowed")
        assert not Session.objects.exists()

    def test_no_inactive_account(self, wire: Wire, user: Any) -> None:
        User.objects.filter(pk=user.pk).update(is_active=False)
        assert error_of(ask(wire, user)) == (409, "cannot_sign_in")

    def test_of_an_unknown_run_is_404(self, wire: Wire, user: Any) -> None:
        response = wire.post(
            "runs/stagehand_test_nobody/sessions", {"userId": user.pk}, **{"X-Test-ID": None}
        )
        assert error_of(response) == (404, "not_found")

    def test_of_a_closed_run_is_409(self, wire: Wire, user: Any) -> None:
        wire.cleanup()
        assert error_of(ask(wire, user)) == (409, "run_closed")

    def test_of_a_run_past_its_end_is_400(self, wire: Wire, user: Any) -> None:
        expire(wire.test_id)
        assert error_of(ask(wire, user)) == (400, "test_too_old")

    def test_with_the_gate_closed_is_403(self, wire: Wire, user: Any) -> None:
        with changed(ENABLED=False):
            assert error_of(ask(wire, user)) == (403, "test_mode_disabled")

    def test_nobody_under_a_host_that_is_refused(self, wire: Wire, user: Any, settings: Any) -> None:
        settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "CommonMiddleware" not in each]
        wire.client = Client()
        response = ask(wire, user, headers={"Host": "evil.example"})
        assert error_of(response) == (400, "invalid_body")
        assert not RunSession.objects.exists()
        assert not AuditEntry.objects.filter(operation="session.open").exists()

    def test_without_a_key_where_keys_are_asked_for_is_401(self, wire: Wire, user: Any) -> None:
        with changed(REQUIRE_ACCESS_KEY=True):
            assert error_of(ask(wire, user)) == (401, "not_authenticated")

    def test_a_key_must_be_allowed_to(self, wire: Wire, user: Any) -> None:
        with changed(REQUIRE_ACCESS_KEY=True):
            key = keys.create("reads", dt.timedelta(hours=1), operations=["read"])
            response = ask(wire, user, headers={"Authorization": f"Bearer {key.text}"})
        assert error_of(response) == (403, "not_allowed")

    @pytest.mark.parametrize(
        "body", [{}, {"userId": None}, {"userId": True}, {"userId": []}, {"userId": 1, "password": "x"}]
    )
    def test_a_body_that_is_wrong_is_400(self, wire: Wire, user: Any, body: Any) -> None:
        assert error_of(wire.post(f"runs/{wire.test_id}/sessions", body)) == (400, "invalid_body")


class TestARowThatHasAnAccount:
    def test_stands_for_it(self, wire: Wire, user: Any) -> None:
        account, profile = wire.entity("user"), wire.entity("profile")
        book = wire.entity("book", owner=str(user.pk))
        assert opened(wire, profile["id"], type="profile")["userId"] == str(profile["fields"]["user"])
        assert opened(wire, book["id"], type="book")["userId"] == str(user.pk)
        assert opened(wire, account["id"], type="user")["userId"] == account["id"]

    def test_of_a_model_without_accounts_is_refused_and_told_what_to_give(self, wire: Wire) -> None:
        response = ask(wire, wire.entity("person")["id"], type="person")
        assert error_of(response) == (400, "invalid_body")
        [text] = response.json()["details"]["userId"]
        assert text == "Give the key of an account of the run: a 'person' has 0 columns for accounts."

    def test_that_has_none_right_now_is_told(self, wire: Wire) -> None:
        response = ask(wire, wire.entity("book")["id"], type="book")
        assert error_of(response) == (400, "invalid_body")
        assert response.json()["details"] == {
            "userId": ["Give the key of an account of the run: the owner of this 'book' is empty."]
        }

    def test_signs_nobody_real_in(self, wire: Wire) -> None:
        book = wire.entity("book")
        real = User.objects.create_user("real", "real@shop.example", "secret")
        Book.objects.filter(pk=book["id"]).update(owner=real)
        assert error_of(ask(wire, book["id"], type="book")) == (404, "not_in_run")
        assert error_of(ask(wire, real, type="user")) == (404, "not_in_run")
        assert not RunSession.objects.exists()

    def test_is_the_runs_own(self, wire: Wire, user: Any, new_wire: Callable[[], Wire]) -> None:
        other = new_wire()
        strange = other.entity("profile")
        real = Book.objects.create(title="real", author_id=wire.entity("author")["id"], owner=user)
        answers = [
            ask(wire, key, type=name)
            for key, name in (
                (strange["id"], "profile"),
                (real.pk, "book"),
                (2**40, "book"),
                (user.pk, "nothing"),
                (user.pk, "profile"),
            )
        ]
        assert {error_of(each) for each in answers} == {(404, "not_in_run")}
        assert len({each.content for each in answers}) == 1

    @pytest.mark.parametrize(
        ("model", "origin"),
        [
            ("external.mailbox", TestEntity.Origin.EXTERNAL),
            ("shadow.auth.user", TestEntity.Origin.SHADOW),
            ("uninstalled.thing", TestEntity.Origin.REQUESTED),
        ],
    )
    def test_is_a_row_of_a_model_that_is_there(self, wire: Wire, user: Any, model: str, origin: str) -> None:
        run = TestRun.objects.get()
        TestEntity.objects.create(
            run=run, type="thing", origin=origin, model=model, database="default", key_text="k"
        )
        assert error_of(ask(wire, "k", type="thing")) == (404, "not_in_run")

    @pytest.mark.parametrize("name", [None, "", 1, "x\0", "x" * 129])
    def test_a_type_that_is_none_is_400(self, wire: Wire, user: Any, name: Any) -> None:
        assert error_of(ask(wire, user, type=name)) == (400, "invalid_body")


class TestTheProductsOwnPart:
    def test_no_password_is_set_and_none_is_hashed(
        self, wire: Wire, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = user.password
        monkeypatch.setattr("django.contrib.auth.hashers.MD5PasswordHasher.encode", None)
        opened(wire, user)
        user.refresh_from_db()
        assert user.password == before
        assert not user.has_usable_password()

    def test_the_login_is_told_to_the_product_under_the_run(self, wire: Wire, user: Any) -> None:
        told = []

        def note(request: Any, user: Any, **kwargs: Any) -> None:
            run = current_run()
            assert run is not None
            told.append((user.pk, run.test_id, run.captured, run.fenced, request.META["REMOTE_ADDR"]))
            assert "HTTP_AUTHORIZATION" not in request.META

        user_logged_in.connect(note)
        try:
            opened(wire, user)
        finally:
            user_logged_in.disconnect(note)
        assert told == [(user.pk, wire.test_id, True, True, "127.0.0.1")]
        user.refresh_from_db()
        assert user.last_login is not None

    @pytest.mark.django_db(transaction=True)
    def test_what_the_product_writes_at_a_login_is_the_runs_and_the_session_is_not(
        self, wire: Wire, user: Any
    ) -> None:
        def write(request: Any, user: Any, **kwargs: Any) -> None:
            Label.objects.create(text=f"login of {user.pk}")

        user_logged_in.connect(write)
        try:
            with guards_up():
                opened(wire, user)
                captured = TestEntity.objects.filter(origin="captured").values_list("model", flat=True)
                assert list(captured) == ["host.label"]
                wire.cleanup()
        finally:
            user_logged_in.disconnect(write)
        assert not Label.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_a_login_that_would_touch_a_real_row_is_refused_and_leaves_nothing(
        self, wire: Wire, user: Any
    ) -> None:
        Label.objects.create(text="real")

        def touch(request: Any, user: Any, **kwargs: Any) -> None:
            Label.objects.update(text=f"seen by {user.pk}")

        user_logged_in.connect(touch)
        try:
            with guards_up():
                assert error_of(ask(wire, user)) == (409, "real_row_touched")
        finally:
            user_logged_in.disconnect(touch)
        assert Label.objects.get().text == "real"
        assert not RunSession.objects.exists()
        assert not Session.objects.exists()

    def test_of_several_backends_the_first_that_gives_the_account_back_is_taken(
        self, wire: Wire, user: Any
    ) -> None:
        backends = [f"{__name__}.GivesNobody", f"{__name__}.HasNoUsers", f"{__name__}.GivesAll"]
        with override_settings(AUTHENTICATION_BACKENDS=backends):
            browser = browser_with(opened(wire, user))
            assert browser.session["_auth_user_backend"] == backends[2]
            assert name_on_page(browser) == user.get_username()

    @pytest.mark.parametrize(
        "engine",
        [
            "django.contrib.sessions.backends.db",
            "django.contrib.sessions.backends.cached_db",
            "django.contrib.sessions.backends.cache",
        ],
    )
    def test_works_with_each_store_that_can_end_a_session(
        self, wire: Wire, user: Any, engine: str, django_capture_on_commit_callbacks: Any
    ) -> None:
        with override_settings(SESSION_ENGINE=engine):
            answer = opened(wire, user)
            by_link, by_state = Client(), browser_with(answer)
            visit(answer["link"], by_link)
            assert name_on_page(by_link) == name_on_page(by_state) == user.get_username()
            with django_capture_on_commit_callbacks(execute=True):
                wire.cleanup()
            assert name_on_page(by_link) is None
            assert name_on_page(by_state) is None
        assert not Session.objects.exists()

    def test_sessions_in_cookies_cannot_be_ended_so_none_is_opened(self, wire: Wire, user: Any) -> None:
        with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
            response = ask(wire, user)
        assert error_of(response) == (409, "cannot_sign_in")
        assert "SESSION_ENGINE" in response.json()["message"]

    def test_the_pass_is_the_runs(self, wire: Wire, user: Any) -> None:
        _, granted = opened(wire, user)["storageState"]["cookies"]
        run = passes.admit(granted["value"])
        assert run is not None
        assert run.test_id == wire.test_id


class HasNoUsers:
    def authenticate(self, request: Any, **credentials: Any) -> None:
        return None


class GivesNobody(HasNoUsers):
    def get_user(self, user_id: Any) -> Any:
        return None


class GivesAll(HasNoUsers):
    def get_user(self, user_id: Any) -> Any:
        return User.objects.get(pk=user_id)
