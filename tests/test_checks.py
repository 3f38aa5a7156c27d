"""Every check, by its id: when it speaks, what it advises, and that it is silent otherwise."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import django
import factory
import pytest
from django.contrib.auth.models import Group
from django.core.checks import CheckMessage, run_checks
from django.db.models import DecimalField, Model
from django.test import override_settings
from django.test.utils import isolate_apps

from stagehand_testdata.checks import check_caches, check_registry, check_settings, check_visibility
from stagehand_testdata.conf import Settings
from stagehand_testdata.isolation.mail import TestDataEmailBackend
from stagehand_testdata.isolation.visibility import TestDataManager
from stagehand_testdata.registry import ExternalType, load_registry
from tests.host.factories import AuthorFactory, UserFactory
from tests.host.models import Author, Flyer, Poster, Ticket, Voucher
from tests.making import changed, registered


def settings_problems(**values: Any) -> list[CheckMessage]:
    with override_settings(STAGEHAND_TESTDATA=values):
        return check_settings(None)


def registry_problems(**factories: Any) -> list[CheckMessage]:
    with registered(**factories):
        return check_registry(None)


def ids(problems: list[CheckMessage]) -> list[str | None]:
    return [problem.id for problem in problems]


@pytest.mark.django_db
def test_the_host_product_has_no_problem() -> None:
    problems = [each for each in run_checks() if not each.is_silenced()]
    assert [each for each in problems if (each.id or "").startswith("stagehand")] == []


def test_a_host_that_sets_nothing_has_no_problem() -> None:
    assert settings_problems() == []
    with override_settings(STAGEHAND_TESTDATA={}):
        assert check_registry(None) == []


def test_every_problem_has_a_hint() -> None:
    problems = settings_problems(
        ENABELD=1, MAX_BODY_BYTES="x", ENABLED="nowhere", REFERENCE_MODELS=["nowhere"]
    )
    problems += registry_problems(bad={}, wrong="nowhere.at.all", builder=AuthorFactory)
    assert len(problems) >= 7
    assert all(problem.hint for problem in problems)


# --- the settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, [], "ENABLED", 1])
def test_stagehand_E001_the_setting_is_not_a_dict(value: Any) -> None:
    with override_settings(STAGEHAND_TESTDATA=value):
        assert ids(check_settings(None)) == ["stagehand.E001"]
        assert check_registry(None) == []


def test_stagehand_E002_an_unknown_key() -> None:
    [problem] = settings_problems(ENABELD=True)
    assert problem.id == "stagehand.E002"
    assert problem.hint == "Did you mean ENABLED?"
    [problem] = settings_problems(Q=True)
    assert "Known: " in str(problem.hint)
    assert ids(settings_problems(enabled=True)) == ["stagehand.E002"]


def test_stagehand_E002_a_key_that_is_no_text() -> None:
    with override_settings(STAGEHAND_TESTDATA={1: 2}):
        assert ids(check_settings(None)) == ["stagehand.E002"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENABLED", 1),
        ("ENABLED", None),
        ("REQUIRE_ACCESS_KEY", 0),
        ("REQUIRE_ACCESS_KEY", "no"),
        ("ENVIRONMENT", None),
        ("TEST_ID_PREFIX", 5),
        ("MAX_AGE_HOURS", "24"),
        ("MAX_AGE_HOURS", True),
        ("EMAIL_DOMAINS", "example.com"),
        ("ENTITY_TYPES", []),
        ("REFERENCE_MODELS", "app.Model"),
        ("MAX_BODY_BYTES", 1.5),
        ("MAX_BODY_BYTES", True),
        ("MAX_ROWS_PER_CALL", "many"),
    ],
)
def test_stagehand_E003_a_value_of_the_wrong_type(name: str, value: Any) -> None:
    [problem] = settings_problems(**{name: value})
    assert problem.id == "stagehand.E003"
    assert repr(name) in problem.msg


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENABLED", lambda: True),
        ("MAX_AGE_HOURS", 0.5),
        ("MAX_AGE_HOURS", {"ephemeral": 1}),
        ("MAX_AGE_HOURS", {"ephemeral": 0.5, "persistent_environment": 72}),
        ("EMAIL_DOMAINS", ("a.test", ".b.test", "localhost", "bücher.example")),
        ("TEST_ID_PREFIX", ""),
        ("MAX_TABLE_SHARE", 0),
        ("STATEMENT_TIMEOUT_SECONDS", 0),
        *((name, setting.default) for name, setting in Settings.all().items()),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_stagehand_E003_is_silent_about_a_value_of_the_right_type(name: str, value: Any) -> None:
    assert settings_problems(**{name: value}) == []


@pytest.mark.parametrize(
    ("name", "value", "names"),
    [
        ("MAX_AGE_HOURS", float("nan"), "is nan"),
        ("MAX_AGE_HOURS", float("inf"), "is inf"),
        ("MAX_AGE_HOURS", 0, "is 0"),
        ("MAX_AGE_HOURS", -1.5, "is -1.5"),
        ("MAX_AGE_HOURS", 1e9, "is 1000000000.0"),
        ("MAX_AGE_HOURS", {"ephemeral": "2"}, "['ephemeral'] is '2'"),
        ("MAX_AGE_HOURS", {"ephemeral": True}, "['ephemeral'] is True"),
        ("MAX_AGE_HOURS", {"ephemeral": None}, "['ephemeral'] is None"),
        ("MAX_AGE_HOURS", {"ephemral": 1}, "the scope 'ephemral'"),
        ("MAX_AGE_HOURS", {5: 1}, "the scope 5"),
        ("EMAIL_DOMAINS", [5], "names 5"),
        ("EMAIL_DOMAINS", ["gmail com"], "'gmail com'"),
        ("EMAIL_DOMAINS", ["*.foo.com"], "'*.foo.com'"),
        ("EMAIL_DOMAINS", ["a@foo.com"], "'a@foo.com'"),
        ("EMAIL_DOMAINS", [""], "''"),
        ("EMAIL_DOMAINS", ["."], "'.'"),
        ("DERIVED_TABLES", [None], "None"),
        ("DERIVED_TABLES", ["a table"], "'a table'"),
        ("TEST_ID_PREFIX", "has space_", "'has space_'"),
        ("TEST_ID_PREFIX", "ö_", "'ö_'"),
        ("TEST_ID_PREFIX", "x" * 101, "xxx"),
        ("AUDIT_DAYS", 10**6, "is 1000000"),
        ("PASS_MINUTES", float("nan"), "is nan"),
        ("STATEMENT_TIMEOUT_SECONDS", -1, "is -1"),
        ("MAX_TABLE_SHARE", 1.5, "is 1.5"),
        ("MAX_ROWS_PER_PURGE", -1, "is -1"),
        ("MAX_LIVE_ROWS", 2**63, str(2**63)),
        *(
            (name, value, f"is {value}")
            for name in ("MAX_BODY_BYTES", "MAX_BODY_DEPTH", "MAX_ROWS_PER_CALL", "MAX_ROWS_PER_RUN")
            for value in (0, -1)
        ),
        *((name, 0, "is 0") for name in ("MAX_LIVE_ROWS", "MAX_OPEN_RUNS", "PURGE_BATCH_SIZE", "AUDIT_DAYS")),
    ],
)
def test_stagehand_E052_a_value_that_cannot_be_meant(name: str, value: Any, names: str) -> None:
    (problem,) = settings_problems(**{name: value})
    assert problem.id == "stagehand.E052"
    assert name in problem.msg
    assert names in problem.msg
    assert problem.hint


@pytest.mark.parametrize(
    "flag", ["nowhere", "nowhere.at.all", "tests.settings.SECRET_KEY", "os.missing", "", ".flag", "..flag"]
)
def test_stagehand_E004_the_gates_path_leads_to_no_function(flag: str) -> None:
    assert ids(settings_problems(ENABLED=flag)) == ["stagehand.E004"]
    assert settings_problems(ENABLED="tests.access.test_gate.answers") == []


@pytest.mark.parametrize("flag", [True, lambda: True, "tests.access.test_gate.answers"])
def test_stagehand_W051_a_pass_would_count_for_nothing(flag: Any) -> None:
    ours = "stagehand_testdata.middleware.test_run_middleware"
    with override_settings(MIDDLEWARE=["django.middleware.common.CommonMiddleware"]):
        [problem] = settings_problems(ENABLED=flag)
        assert (problem.id, problem.is_serious()) == ("stagehand.W051", False)
        assert ours in str(problem.hint)
        assert settings_problems(ENABLED=False) == []
    with override_settings(MIDDLEWARE=[ours]):
        assert settings_problems(ENABLED=flag) == []


def test_stagehand_E031_a_fence_that_is_none() -> None:
    assert ids(settings_problems(FENCE="blok")) == ["stagehand.E031"]
    for fence in ("block", "report", "off"):
        assert ids(settings_problems(FENCE=fence)) == []


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("LEFT_ALONE", ["host.Label.text", "nothing", "host.Nothing", 5], ["host", "host.Label", "sessions"]),
        (
            "FENCE_EXEMPT",
            ["host", "host.Label.nothing", "host.Nothing", "nothing.Label"],
            ["host.Label", "host.Label.text"],
        ),
    ],
)
def test_stagehand_E032_names_that_are_not_there(name: str, wrong: list[Any], right: list[str]) -> None:
    assert ids(settings_problems(**{name: [*wrong, *right]})) == ["stagehand.E032"] * len(wrong)
    assert ids(settings_problems(**{name: right})) == []


@pytest.mark.parametrize("label", ["nowhere", "host.Missing", "nowhere.Model", "a.b.c", ""])
def test_stagehand_E005_a_reference_model_that_is_not_installed(label: str) -> None:
    assert ids(settings_problems(REFERENCE_MODELS=["host.Country", label])) == ["stagehand.E005"]


def test_stagehand_E005_a_label_that_is_no_text() -> None:
    assert ids(settings_problems(REFERENCE_MODELS=[5])) == ["stagehand.E005"]
    assert settings_problems(PRIVILEGE_FIELDS={"host.Member.rank": ["general"]}) == []
    wrong = [{"host.Member": []}, {"host.Member.nothing": []}, {"host.Member.rank": "general"}, {5: []}]
    for each in wrong:
        assert ids(settings_problems(PRIVILEGE_FIELDS=each)) == ["stagehand.E005"]


@pytest.mark.parametrize(
    ("path", "speaks"),
    [
        ("django.core.mail.backends.smtp.EmailBackend", True),
        ("django.core.mail.backends.console.EmailBackend", False),
        ("django.core.mail.backends.locmem.EmailBackend", False),
        ("django.core.mail.backends.dummy.EmailBackend", False),
        ("stagehand_testdata.isolation.mail.TestDataEmailBackend", False),
        ("nowhere.Backend", True),
    ],
)
@pytest.mark.parametrize("setting", ["EMAIL_BACKEND", "MAILERS"])
def test_stagehand_W024_mail_does_not_go_through_our_backend(setting: str, path: str, speaks: bool) -> None:
    if setting == "EMAIL_BACKEND" and django.VERSION >= (6, 1):
        pytest.skip("the host product has MAILERS there, and may not have both")
    value = path if setting == "EMAIL_BACKEND" else {"default": {"BACKEND": path}}
    with override_settings(**{setting: value}):
        assert ids(settings_problems(ENABLED=True)) == ["stagehand.W024"] * speaks
        assert settings_problems(ENABLED=False) == []


def test_stagehand_W024_a_mailer_without_a_backend_is_smtp() -> None:
    with override_settings(MAILERS={"default": {"OPTIONS": {"host": "mail.shop.com"}}}):
        assert ids(settings_problems(ENABLED=True)) == ["stagehand.W024"]


class _OurHeir(TestDataEmailBackend):
    pass


@pytest.mark.parametrize(
    "path",
    [
        "stagehand_testdata.isolation.mail.TestDataEmailBackend",
        "tests.test_checks._OurHeir",
        "nowhere.Backend",
        "tests.making.TEST_ID",
        "",
        ".x",
        "..x",
    ],
)
def test_stagehand_E025_a_backend_that_cannot_send(path: str) -> None:
    (problem,) = settings_problems(EMAIL_BACKEND=path)
    assert problem.id == "stagehand.E025"
    assert repr(path) in problem.msg
    assert ids(settings_problems(EMAIL_BACKEND=5)) == ["stagehand.E003"]


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ("nowhere.at.all", "'nowhere.at.all'"),
        (".allow", "'.allow'"),
        ("tests.making.TEST_ID", "'tests.making.TEST_ID'"),
        ({"webhook": "*.test"}, "no list under 'webhook'"),
        ({"webhook": ["*.test", "http://x.test/path"]}, "'http://x.test/path'"),
        ({"webhook": ["shop.*"]}, "'shop.*'"),
        ({"webhook": [None]}, "None"),
        ({"webhook": [""]}, "''"),
    ],
)
def test_stagehand_E029_a_rule_that_refuses_everything(rules: Any, names: str) -> None:
    (problem,) = settings_problems(OUTBOUND=rules)
    assert problem.id == "stagehand.E029"
    assert names in problem.msg
    assert ids(settings_problems(OUTBOUND=5)) == ["stagehand.E003"]


def test_stagehand_E029_is_silent_about_rules_that_can_agree() -> None:
    patterns = ["*", "*.shop.test", "hooks.shop.test:443", "http://127.0.0.1:*", "https://[::1]", "acct_1"]
    assert settings_problems(OUTBOUND={"webhook": patterns, "payment": ()}) == []
    assert settings_problems(OUTBOUND=lambda kind, target: True) == []
    assert settings_problems(OUTBOUND="stagehand_testdata.isolation.outbound.allow") == []


# --- the registrations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["nowhere.at.all", "tests.host.factories.Missing", "tests.host.models.Author", AuthorFactory._meta],
)
def test_stagehand_E010_a_path_that_leads_to_no_factory(path: Any) -> None:
    assert ids(registry_problems(product=path)) == ["stagehand.E010"]


def test_stagehand_E010_with_the_gate_shut_for_good_looks_for_the_module_alone() -> None:
    with changed(
        ENABLED=False,
        ENTITY_TYPES={
            "good": "tests.host.factories.AuthorFactory",
            "unseen": "tests.host.factories.Missing",
            "options": {"factory": "nowhere.at.all"},
            "bad": "nowhere.Factory",
            "pathless": "Factory",
            "deep": "tests.host.models.Author.Factory",
        },
    ):
        problems = check_registry(None)
    assert ids(problems) == ["stagehand.E010"] * 4
    assert [each.msg.split()[2].rstrip(":") for each in problems] == [
        "'options'",
        "'bad'",
        "'pathless'",
        "'deep'",
    ]


def test_stagehand_E011_two_registrations_of_one_name() -> None:
    assert ids(registry_problems(builder=AuthorFactory)) == ["stagehand.E011"]


@pytest.mark.parametrize("enabled", [True, False])
def test_stagehand_E012_types_that_are_no_dict(enabled: bool) -> None:
    with changed(ENABLED=enabled, ENTITY_TYPES=["author"]):
        assert "stagehand.E003" in ids(check_settings(None))
        assert ids(check_registry(None)) == ["stagehand.E012"] * enabled


@pytest.mark.parametrize("value", [{}, {"fields": ["name"]}, {"factory": AuthorFactory, "nonsense": 1}])
def test_stagehand_E012_a_registration_that_cannot_be_read(value: Any) -> None:
    assert ids(registry_problems(author=value)) == ["stagehand.E012"]


def test_stagehand_E012_a_name_that_cannot_be_one() -> None:
    assert ids(registry_problems(**{"a b": AuthorFactory})) == ["stagehand.E012"]


class GroupFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Group


class LedgerFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = "stagehand_testdata.TestRun"


@pytest.mark.parametrize("factory_class", [GroupFactory, LedgerFactory])
def test_stagehand_E013_rows_that_cannot_be_owned_safely(factory_class: Any) -> None:
    assert ids(registry_problems(thing=factory_class)) == ["stagehand.E013"]
    assert registry_problems(thing=AuthorFactory) == []


@pytest.mark.parametrize("name", ["password", "is_staff", "id", "groups"])
def test_stagehand_W014_a_field_that_no_client_may_set(name: str) -> None:
    [problem] = registry_problems(user={"factory": UserFactory, "fields": ["email", name]})
    assert problem.id == "stagehand.W014"
    assert name in problem.msg
    assert registry_problems(user={"factory": UserFactory, "fields": ["email"]}) == []


# --- who sees what they make ------------------------------------------------------------------------------


def factory_of(of: type[Model]) -> Any:
    class Factory(factory.django.DjangoModelFactory):
        class Meta:
            model = of

    return Factory


def visibility_problems(*models: type[Model], **settings: Any) -> list[CheckMessage]:
    factories = {f"thing{number}": factory_of(model) for number, model in enumerate(models)}
    with changed(ENTITY_TYPES=factories, **settings):
        return check_visibility(None)


def test_stagehand_W016_models_whose_test_rows_real_users_see() -> None:
    [problem] = visibility_problems(Voucher, Flyer, Author, Poster, Ticket, Author)
    assert problem.id == "stagehand.W016"
    assert "host.Author, host.Voucher." in problem.msg
    for hidden in ("host.Flyer", "host.Poster", "host.Ticket"):
        assert hidden not in problem.msg
    assert "docs/isolation.md" in str(problem.hint)


def test_stagehand_W016_looks_at_nothing_while_the_gate_is_shut_for_good() -> None:
    assert visibility_problems(Author, ENABLED=False) == []


def test_stagehand_W016_is_silent_about_what_cannot_be_imported() -> None:
    with registered(bad="nowhere.at.all", thing=factory_of(Voucher)):
        assert ids(check_visibility(None)) == ["stagehand.W016"]


def test_stagehand_W016_says_nothing_of_the_host_product() -> None:
    with registered(product="project.shop.factories.ProductFactory"):
        types = {each.name for each in load_registry().entity_types}
        assert types == {"builder", "client", "sessionType", "booking", "product"}
        assert check_visibility(None) == []


@isolate_apps("tests.host")
def test_stagehand_E017_a_manager_that_cannot_hide_the_models_rows() -> None:
    class Odd(Model):
        key = DecimalField(primary_key=True)
        objects = TestDataManager()

        class Meta:
            app_label = "host"

    problems = visibility_problems(Odd, Voucher)
    assert ids(problems) == ["stagehand.E017", "stagehand.W016"]
    assert "host.Odd" not in problems[1].msg
    assert problems[0].hint


# --- what they cost --------------------------------------------------------------------------------------


def test_with_the_gate_shut_for_good_no_factory_is_imported() -> None:
    code = (
        "import django, sys; django.setup()\n"
        "from django.conf import settings\n"
        "settings.STAGEHAND_TESTDATA['ENABLED'] = False\n"
        "from django.core.checks import run_checks\n"
        "assert not [each for each in run_checks() if (each.id or '').startswith('stagehand')]\n"
        "assert not {'factory', 'faker', 'tests.host.factories'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_are_not_needed_to_be_in_the_database() -> None:
    """Checks run before the first migration: none of them asks the database."""
    assert registry_problems(author=AuthorFactory, model_by_name=_ByName) == []


class _ByName(factory.django.DjangoModelFactory):
    class Meta:
        model = Author


@pytest.mark.parametrize("handler", ["nowhere.Handler", "tests.making.TEST_ID"])
def test_stagehand_E015_an_outside_type_without_a_handler(handler: str) -> None:
    load_registry().external_types.add(ExternalType("ghost", handler))
    (problem,) = check_registry(None)
    assert problem.id == "stagehand.E015"
    assert "ghost" in problem.msg


class TestCaches:
    """W026"""

    KEYS = "stagehand_testdata.isolation.caching.make_key"
    LOCAL = "django.core.cache.backends.locmem.LocMemCache"
    DUMMY = "django.core.cache.backends.dummy.DummyCache"

    @staticmethod
    def problems(**caches: dict[str, str]) -> list[CheckMessage]:
        with override_settings(CACHES={"default": {"BACKEND": TestCaches.DUMMY}, **caches}):
            return check_caches(None)

    def test_that_keep_what_a_run_sees_for_everybody_are_named(self) -> None:
        found = self.problems(pages={"BACKEND": self.LOCAL}, other={"BACKEND": self.LOCAL})
        assert ids(found) == ["stagehand.W026"]
        assert "CACHES other, pages" in found[0].msg
        assert self.KEYS in str(found[0].hint)

    def test_that_tell_runs_apart_or_keep_nothing_are_no_matter(self) -> None:
        assert not self.problems(pages={"BACKEND": self.LOCAL, "KEY_FUNCTION": self.KEYS})

    def test_are_no_matter_where_no_request_comes_under_a_run(self) -> None:
        with override_settings(MIDDLEWARE=[]):
            assert not self.problems(pages={"BACKEND": self.LOCAL})


@pytest.mark.parametrize(
    "listed",
    [
        {"nowhere.Model": {}},
        {5: {}},
        {"host.Author": None},
        {"host.Author": {"kept": []}},
        {"host.Author": {"keep": "name"}},
        {"host.Author": {"replace": ["name"]}},
        {"host.Author": {"keep": ["colour"]}},
        {"host.Author": {"replace": {"id": 1}}},
        {"auth.User": {"replace": {"is_staff": True}}},
        {"auth.User": {"keep": ["password"]}},
        {"auth.User": {"keep": ["username"]}},
    ],
)
def test_stagehand_E027_a_bad_rule_for_copies(listed: Any) -> None:
    [problem] = settings_problems(SHADOW_COPIES=listed)
    assert problem.id == "stagehand.E027"
    assert problem.hint


def test_stagehand_E027_not_for_good_rules() -> None:
    rules = {"host.Author": {"keep": ["name"]}, "auth.User": {"replace": {"first_name": "Ann"}}}
    assert settings_problems(SHADOW_COPIES=rules) == []


OIDC_ENTRY = {
    "name": "shop",
    "issuer": "https://token.actions.githubusercontent.com",
    "audience": "https://shop.test/api/test",
    "claims": {"repository": "octo-org/shop", "environment": "e2e"},
}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"claims": {"environment": "e2e"}}, "lets in every project"),
        ({"claims": {"sub": "environment:e2e"}}, "lets in every project"),
        ({"claims": {"repository": "*/shop"}}, "lets in every project"),
        ({"owner": ["environment"]}, "'owner'"),
        ({"issuer": "http://token.actions.githubusercontent.com"}, "is not https"),
        ({"minutes": 600}, "'minutes'"),
        ({"minutes": True}, "'minutes'"),
        ({"operations": "cleanup"}, "'operations'"),
        ({"networks": ["everywhere"]}, "'networks'"),
        ({"max_open_runs": 0}, "'max_open_runs'"),
        ({"name": "x" * 101}, "100 characters"),
        ({"colour": 1}, "unknown option 'colour'"),
    ],
)
def test_stagehand_E041_a_trust_that_trusts_too_many_or_nobody(changes: Any, names: str) -> None:
    [problem] = settings_problems(OIDC_TRUST=[OIDC_ENTRY, {**OIDC_ENTRY, **changes}])
    assert problem.id == "stagehand.E041"
    assert "entry 2" in problem.msg
    assert names in problem.msg


def test_stagehand_E041_is_silent_about_a_trust_that_names_a_project() -> None:
    allowed = {"minutes": 5.5, "operations": ["cleanup"], "networks": ["10.0.0.0/8", "::1"], "max_minutes": 9}
    assert settings_problems(OIDC_TRUST=[OIDC_ENTRY, {**OIDC_ENTRY, **allowed}]) == []
    assert ids(settings_problems(OIDC_TRUST=[None])) == ["stagehand.E041"]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"operations": ["raed"]}, "'raed' is none of"),
        ({"entity_types": ["nothing"]}, "'nothing' is none of"),
        ({"scopes": ["for ever"]}, "'for ever' is none of"),
        ({"name": "a\nb"}, "printable"),
    ],
)
def test_stagehand_E041_what_no_key_could_be_made_with(changes: Any, names: str) -> None:
    with changed(OIDC_TRUST=[{**OIDC_ENTRY, **changes}]):
        [problem] = check_settings(None)
        assert problem.id == "stagehand.E041"
        assert names in problem.msg
    with changed(OIDC_TRUST=[{**OIDC_ENTRY, "operations": ["read"], "entity_types": ["book"]}]):
        assert check_settings(None) == []


@pytest.mark.parametrize("name", ["name", "issuer", "audience", "claims", "owner", "jwks_uri", "networks"])
@pytest.mark.parametrize("value", [["https://x.test"], {"a": 1}, 5, None, [[]], [None]])
def test_stagehand_E041_looks_at_values_of_any_type(name: str, value: Any) -> None:
    entry = {**OIDC_ENTRY, "claims": {"sub": "repo:octo-org/shop:*"}, name: value}
    assert set(ids(settings_problems(OIDC_TRUST=[entry]))) <= {"stagehand.E041"}


def test_stagehand_E042_tokens_that_nothing_can_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    monkeypatch.setattr(sys, "path", [])
    assert ids(settings_problems(OIDC_TRUST=[OIDC_ENTRY])) == ["stagehand.E042"]
    assert settings_problems(OIDC_TRUST=[]) == []


def test_stagehand_E028_copies_that_cannot_be_owned() -> None:
    with changed(SHADOW_COPIES={"auth.Group": {}, "host.Author": {}}):
        [problem] = check_registry(None)
    assert problem.id == "stagehand.E028"
    assert "auth.Group" in problem.msg


CLERK = "stagehand_testdata.contrib.clerk.Clerk"


def identity_problems(**values: Any) -> list[CheckMessage]:
    options = {"secret_key": "sk_live_n0b0dy", "webhook_secret": "whsec_bm9ib2R5"}
    given = {"IDENTITY_PROVIDER": CLERK, "IDENTITY_OPTIONS": options, **values}
    found = [each for each in settings_problems(ENABLED=True, **given) if each.id != "stagehand.W024"]
    assert all(each.hint for each in found)
    assert not any("n0b0dy" in f"{each.msg} {each.hint}" for each in found)
    return found


def test_stagehand_E049_is_silent_about_a_provider_that_is_set_up() -> None:
    assert identity_problems() == []
    assert identity_problems(IDENTITY_FIELD="last_name", ENVIRONMENT="production") == []


@pytest.mark.parametrize(
    "values",
    [
        {"IDENTITY_PROVIDER": "nowhere.at.all"},
        {"IDENTITY_PROVIDER": "tests.outside.handlers.Account"},
        {"IDENTITY_PROVIDER": "django.contrib.auth.models.User"},
        {"IDENTITY_PROVIDER": ""},
        {"IDENTITY_OPTIONS": {}},
        {"IDENTITY_OPTIONS": {"secret_key": "pk_live_n0b0dy"}},
        {"IDENTITY_OPTIONS": {"secret_key": 17}},
        {"IDENTITY_OPTIONS": {"secret_key": "sk_live_n0b0dy", "webhook_secret": "n0b0dy"}},
        {"IDENTITY_OPTIONS": {"secret_key": "sk_live_n0b0dy", "webhook": "whsec_n0b0dy"}},
        {"IDENTITY_FIELD": "clerk_id"},
    ],
)
def test_stagehand_E049_a_provider_that_is_none_or_is_set_up_wrong(values: Any) -> None:
    assert ids(identity_problems(**values)) == ["stagehand.E049"]


def test_stagehand_E049_looks_at_nothing_while_the_gate_is_shut_for_good() -> None:
    assert settings_problems(ENABLED=False, IDENTITY_PROVIDER="nowhere.at.all") == []


def test_stagehand_E049_is_told_once() -> None:
    with changed(IDENTITY_PROVIDER="nowhere.at.all"):
        assert "stagehand.E015" not in ids(check_registry(None))


@pytest.mark.parametrize("environment", ["production", "Production", "prod", "live"])
def test_stagehand_E050_a_development_instance_where_users_are_real(environment: str) -> None:
    options = {"secret_key": "sk_test_n0b0dy"}
    [problem] = identity_problems(IDENTITY_OPTIONS=options, ENVIRONMENT=environment)
    assert problem.id == "stagehand.E050"
    assert "Test mode" in problem.msg
    assert "sk_live_" in (problem.hint or "")


@pytest.mark.parametrize("environment", ["", "staging", "development"])
def test_stagehand_E050_is_silent_elsewhere(environment: str) -> None:
    assert identity_problems(IDENTITY_OPTIONS={"secret_key": "sk_test_n0b0dy"}, ENVIRONMENT=environment) == []
