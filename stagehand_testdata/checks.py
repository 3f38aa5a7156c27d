"""System checks: what is wrong with the settings or a registration, before the first request.

Each has an id and a hint that names the fix; `docs/checks.md` lists them.
"""

from __future__ import annotations

import datetime as dt
import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from .access import keys, oidc
from .conf import LARGEST_COUNT, NAME, Setting, Settings, raw, settings
from .databases import database
from .exceptions import ConfigurationError, DuplicateName, InvalidInput
from .identity import is_production, load_provider
from .isolation.mail import OUR_BACKEND, TestDataEmailBackend, is_held_back
from .isolation.outbound import is_pattern
from .isolation.statements import FENCES
from .isolation.visibility import HidesTestData, unhidable
from .models import AccessKey, Guard, TestEntity, TestRun
from .operations import copies, guards
from .operations.entities import settable_fields, unownable
from .operations.runs import ledger_alias
from .registry import EntityType, ExternalType, identity_type, load_registry

Messages = Iterator[CheckMessage]

_SECURITY = "django.middleware.security.SecurityMiddleware"
#: A key that counts for longer is one that nobody looks after.
_LONG = dt.timedelta(days=366)
#: As Django REST framework reads it.
_RATE = re.compile(r"[1-9][0-9]{0,8}/[smhd][a-z]*")
_DOMAIN = re.compile(r"\.?[\w-]+(\.[\w-]+)*\.?")
_TABLE = re.compile(r"[^\s\0]+")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,100}")
#: So many tables are named, and no more.
_NAMED = 5
_MIDDLEWARE = "stagehand_testdata.middleware.test_run_middleware"


@register(Tags.compatibility)
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001 to E005, W024, E025, E027, E029, E031, E032, E041 to E043, E052: the settings by themselves.

    E049 and E050 too: the identity provider is imported only where it is not the default. W051: how runs get
    into the product's own requests.
    """
    if not isinstance(getattr(django_settings, NAME, {}), dict):
        return [Error(f"{NAME} is not a dict.", hint=f"{NAME} = {{'ENABLED': …}}", id="stagehand.E001")]
    by_themselves = (
        _unknown_or_mistyped,
        _numbers,
        _items,
        _gate,
        _passes,
        _labels,
        _fence,
        _mail,
        _outbound,
        _copies,
        _oidc,
        _rates,
        _identities,
    )
    return [problem for check in by_themselves for problem in check()]


@register(Tags.caches)
def check_caches(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W026: what a run sees may be kept for everybody. Only where requests can come under a run at all."""
    if _MIDDLEWARE not in django_settings.MIDDLEWARE:
        return []
    shared = [
        alias
        for alias in django_settings.CACHES
        if not isinstance(caches[alias], DummyCache)
        and not getattr(caches[alias].key_func, "separates_runs", False)
    ]
    if not shared:
        return []
    return [
        checks.Warning(
            f"What is cached under a run is found by real users too: CACHES {', '.join(sorted(shared))}.",
            hint='Set "KEY_FUNCTION" to "stagehand_testdata.isolation.caching.make_key", or to its'
            " per_run(…) around the function that is there.",
            id="stagehand.W026",
        )
    ]


@register(Tags.models)
def check_registry(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E010 to E013, W014, E015, E028: the registrations. Factories are imported only where the gate opens."""
    if settings.ENABLED is False:
        return list(_paths_only())
    registry = load_registry()
    found: list[CheckMessage] = [_problem(problem) for problem in registry.problems]
    for entity_type in registry.entity_types:
        found += _entity_type(entity_type)
    for external_type in registry.external_types:
        if external_type.name != identity_type():  # E049 tells of that one
            found += _external_type(external_type)
    return [*found, *_uncopiable()]


@register(Tags.models)
def check_visibility(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W016, E017: whose test rows real users would see. As with registrations, not with the gate shut."""
    return list(_visibility()) if settings.ENABLED is not False else []


@register(Tags.database)
def check_guards(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W020 to W022: the guards in the database. They ask it, so only where Django was told to.

    No errors among them: `migrate` would stop at one, and it is `migrate` that puts guards up again.
    """
    alias = ledger_alias()
    if alias not in (databases or ()) or not guards.can_tell(alias):
        return []
    return list(_guards(alias))


@register(Tags.security, deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E044 to W046, E050: how the API is exposed, where it can be open at all."""
    return list(_deployment()) if settings.ENABLED is not False else []


@register(Tags.database)
def check_keys(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W047: keys that outlive whoever made them. It asks the database, as `check_guards` does."""
    alias = ledger_alias()
    if alias not in (databases or ()) or not guards.can_tell(alias):
        return []
    return list(_long_keys(alias))


@register(Tags.database, deploy=True)
def check_role(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W048: a role of the database's that could take the guards down."""
    alias = ledger_alias()
    if settings.ENABLED is False or alias not in (databases or ()) or not guards.can_tell(alias):
        return []
    return list(_role(alias))


def _deployment() -> Messages:
    if not settings.REQUIRE_ACCESS_KEY:
        yield Error(
            "Test data can be made here by whoever reaches the API: REQUIRE_ACCESS_KEY is False.",
            hint="Set it to True, and make keys with 'manage.py testdata keys create'; see docs/access.md.",
            id="stagehand.E044",
        )
    if django_settings.DEBUG:
        yield Error(
            "Test data can be made here, and DEBUG is on: an error page shows settings and code to anybody.",
            hint="Set DEBUG to False, or ENABLED.",
            id="stagehand.E045",
        )
    redirects = django_settings.SECURE_SSL_REDIRECT and _SECURITY in django_settings.MIDDLEWARE
    if not redirects:
        yield checks.Warning(
            "Access keys can be sent over plain HTTP: nothing here redirects to HTTPS.",
            hint="Set SECURE_SSL_REDIRECT, with SecurityMiddleware and, behind a proxy,"
            " SECURE_PROXY_SSL_HEADER; where the proxy itself takes no plain HTTP, silence this check.",
            id="stagehand.W046",
        )
    if not is_production():  # where it is, every check says so
        yield from _identities_in_production()


def _long_keys(alias: str) -> Messages:
    standing = AccessKey.objects.using(alias).filter(revoked_at=None)
    found = standing.filter(expires_at__gt=Now() + _LONG).values_list("public_id", flat=True)
    if found:
        yield checks.Warning(
            f"Access keys that count for more than {_LONG.days} days from now: {', '.join(found)}.",
            hint="Make keys that expire sooner, and revoke these: 'manage.py testdata keys revoke ID'.",
            id="stagehand.W047",
        )


def _role(alias: str) -> Messages:
    engine = database(alias)
    role = engine.passing_role()
    guarded = Guard.objects.using(alias).values_list("table", flat=True)
    owned = [] if role else engine.owned_tables([TestEntity._meta.db_table, *guarded])
    if role:
        what = f"is a superuser, or passes row-level security by ({role})"
    elif owned:
        what = f"owns {', '.join(owned[:_NAMED])}{' and more' if owned[_NAMED:] else ''}"
    else:
        return
    yield checks.Warning(
        f"The product's role in the database {what}: it could take the guards and policies down.",
        hint="Let one role migrate and install the guards, and the product use another, which may only read"
        " and write rows; see docs/guards.md.",
        id="stagehand.W048",
    )


def _uncopiable() -> Messages:
    for rules in copies.allowed().values():
        reason = unownable(rules.model)
        if reason is not None:
            yield Error(
                f"SHADOW_COPIES lists a model whose copies cannot be owned safely: {reason}",
                hint="Take it off the list.",
                id="stagehand.E028",
            )


def _visibility() -> Messages:
    shown = set()
    for model in _registered_models():
        reason = unhidable(model)
        if not isinstance(model._default_manager, HidesTestData):
            shown.add(model._meta.label)
        elif reason is not None:
            yield Error(
                reason,
                hint="Let the model inherit from TestDataModel; see docs/isolation.md.",
                id="stagehand.E017",
            )
    if shown:
        yield checks.Warning(
            f"Real users see the test rows of {', '.join(sorted(shown))}.",
            hint="Let the models inherit from TestDataModel, or give them a TestDataManager as their default"
            " manager; see docs/isolation.md.",
            id="stagehand.W016",
        )


def _registered_models() -> set[type[Model]]:
    found = set()
    for entity_type in load_registry().entity_types:
        with suppress(ConfigurationError):  # E010 tells of it
            found.add(entity_type.model._meta.concrete_model or entity_type.model)
    return found


def _guards(alias: str) -> Messages:
    found = guards.status(alias)
    installed = [each for each in found if each.recorded]
    if settings.ENABLED is not False and not installed:
        yield checks.Warning(
            "No guards are installed in the database: the purge proves its rows by their fingerprints alone,"
            " and what the product itself writes under a pass is not captured.",
            hint="Type 'manage.py testdata guards install' once migrations are through; see docs/guards.md.",
            id="stagehand.W020",
        )
    broken = [each for each in installed if each.broken]
    if broken:
        named = ", ".join(f"{each.table} ({each.state.value})" for each in broken)
        yield checks.Warning(
            f"Guards that were installed in the database are not awake: {named}. No purge runs.",
            hint="Type 'manage.py testdata guards install', and find out who changed them.",
            id="stagehand.W021",
        )
    if installed and not database(alias).closes_entries:
        yield checks.Warning(
            "The guards of this database do not see its own cascades, nor TRUNCATE.",
            hint="Let no foreign key of yours have ON DELETE CASCADE or SET NULL in the database itself.",
            id="stagehand.W022",
        )


def _unknown_or_mistyped() -> Messages:
    known = Settings.all()
    for name, value in raw().items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(sorted(known))}."
            yield Error(f"{NAME} has an unknown key {name!r}.", hint=hint, id="stagehand.E002")
        elif not isinstance(value, known[name].types) or (
            isinstance(value, bool) and bool not in known[name].types
        ):
            wanted = " or ".join(kind.__name__ for kind in known[name].types)
            yield Error(
                f"{NAME}[{name!r}] is {type(value).__name__}, not {wanted}.",
                hint=f"The default is {known[name].default!r}.",
                id="stagehand.E003",
            )


def _gate() -> Messages:
    flag = settings.ENABLED
    if not isinstance(flag, str):
        return
    if not callable(_imported(flag)):
        yield Error(
            f"ENABLED names {flag!r}, which is not a function that can be imported.",
            hint="Give the dotted path of a function that returns True while test data may be made.",
            id="stagehand.E004",
        )


def _passes() -> Messages:
    if settings.ENABLED is False or _MIDDLEWARE in django_settings.MIDDLEWARE:
        return
    yield checks.Warning(
        "Test data can be made here, and no pass counts: the product's own requests never come under a run:"
        " a browser under test sees none of its rows, and what it writes counts as real.",
        hint=f"Put {_MIDDLEWARE!r} into MIDDLEWARE, before whatever asks the database; where no browser is to"
        " come under a run, silence this check; see docs/passes.md.",
        id="stagehand.W051",
    )


def _labels() -> Messages:
    labels = settings.REFERENCE_MODELS
    for label in labels if isinstance(labels, list | tuple) else ():
        try:
            apps.get_model(label)
        except (LookupError, ValueError, AttributeError):
            yield Error(
                f"REFERENCE_MODELS names {label!r}, and no such model is installed.",
                hint="Write 'app_label.ModelName'.",
                id="stagehand.E005",
            )
    rights: Any = settings.PRIVILEGE_FIELDS
    for label, values in rights.items() if isinstance(rights, Mapping) else ():
        if not _is_there(label, (3,)) or not isinstance(values, list | tuple):
            yield Error(
                f"PRIVILEGE_FIELDS says {label!r}: {values!r}, which is no column and those of its"
                " values that are rights.",
                hint="Write 'app_label.ModelName.column': [values], or [] for any value that is not empty.",
                id="stagehand.E005",
            )


def _fence() -> Messages:
    for name, mode in (("FENCE", settings.FENCE), ("FENCE_POINTERS", settings.FENCE_POINTERS)):
        if mode not in FENCES:
            yield Error(
                f"{name} is {mode!r}, which it cannot be.",
                hint=f"Write one of {', '.join(map(repr, FENCES))}.",
                id="stagehand.E031",
            )
    for name, parts in (("LEFT_ALONE", (1, 2)), ("FENCE_EXEMPT", (2, 3))):
        listed = getattr(settings, name)
        for each in listed if isinstance(listed, list | tuple) else ():
            if not _is_there(each, parts):
                forms = {1: "'app_label'", 2: "'app_label.ModelName'", 3: "'app_label.ModelName.field'"}
                yield Error(
                    f"{name} names {each!r}, which is not there.",
                    hint=f"Write {' or '.join(forms[count] for count in parts)}.",
                    id="stagehand.E032",
                )


def _is_there(name: Any, parts: Sequence[int]) -> bool:
    if not isinstance(name, str) or name.count(".") + 1 not in parts:
        return False
    app, *rest = name.split(".")
    try:
        config = apps.get_app_config(app)
        if rest:
            model = config.get_model(rest[0])
            if rest[1:]:
                model._meta.get_field(rest[1])
    except (LookupError, FieldDoesNotExist):
        # A default names what a host need not have installed.
        return name in Settings.LEFT_ALONE.default
    return True


def _mail() -> Messages:
    if settings.ENABLED is not False and not is_held_back():
        yield checks.Warning(
            "Test data can be made here, and e-mail does not go through TestDataEmailBackend: mails to test"
            " addresses, and from test runs to anybody, leave.",
            hint=f"Make {OUR_BACKEND!r} the e-mail backend, and name the real one in EMAIL_BACKEND of {NAME};"
            " see docs/mail.md.",
            id="stagehand.W024",
        )
    wrapped: Any = settings.EMAIL_BACKEND
    if not isinstance(wrapped, str):
        return
    found = _imported(wrapped)
    if not isinstance(found, type) or issubclass(found, TestDataEmailBackend):
        yield Error(
            f"EMAIL_BACKEND of {NAME} is {wrapped!r}: no other e-mail backend that can be imported.",
            hint="Give the dotted path of the backend that really sends.",
            id="stagehand.E025",
        )


def _copies() -> Messages:
    listed: Any = settings.SHADOW_COPIES
    for label, options in listed.items() if isinstance(listed, Mapping) else ():
        for fault in copies.faults(label, options):
            yield Error(
                f"SHADOW_COPIES: {fault}.",
                hint='Write {"app.Model": {"keep": ["column"], "replace": {"column": value}}};'
                " see docs/shadow.md.",
                id="stagehand.E027",
            )


def _outbound() -> Messages:
    rules: Any = settings.OUTBOUND
    if isinstance(rules, str):
        if not callable(_imported(rules)):
            yield _refusing_outbound(f"names {rules!r}, which is not a function that can be imported")
    elif isinstance(rules, Mapping):
        for kind, patterns in rules.items():
            if not isinstance(patterns, list | tuple):
                yield _refusing_outbound(f"has no list under {kind!r}")
                continue
            for pattern in patterns:
                if not is_pattern(pattern):
                    yield _refusing_outbound(f"has {pattern!r} under {kind!r}, which nothing would match")


def _rates() -> Messages:
    for name in ("RATE_PER_KEY", "RATE_PER_ADDRESS"):
        rate: Any = getattr(settings, name)
        if isinstance(rate, str) and rate and not _RATE.fullmatch(rate):
            yield Error(
                f"{name} is {rate!r}, which is no rate: no request is counted.",
                hint="Write a number and a time, like '100/s', '3000/m'; '' where nothing is to be counted.",
                id="stagehand.E043",
            )


def _oidc() -> Messages:
    listed: Any = settings.OIDC_TRUST
    for number, entry in enumerate(listed if isinstance(listed, list | tuple) else (), 1):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        for fault in list(oidc.faults(entry)) or _faults_of_a_key(entry):
            yield Error(
                f"OIDC_TRUST: entry {number} ({name!r}) {fault}. It lets nobody in.",
                hint="Name the issuer, the audience, and a claim that tells the project; see docs/oidc.md.",
                id="stagehand.E041",
            )
    if listed and not _module_exists("jwt"):
        yield Error(
            "OIDC_TRUST is set, and PyJWT is not installed: no token can be looked at.",
            hint="Install the extra: pip install 'stagehand-testdata[oidc]'.",
            id="stagehand.E042",
        )


def _faults_of_a_key(entry: Mapping[str, Any]) -> Iterator[str]:
    """What no key could be made with. Names are looked up where the registrations are looked at."""
    if settings.ENABLED is False:
        return
    trust = oidc.Trust.read(entry)
    try:
        keys.fields(trust.name, dt.timedelta(minutes=trust.minutes), **trust.allowances)
    except InvalidInput as fault:
        yield f"has {fault.message.rstrip('.')}"
    except ConfigurationError:  # E010 to E012 tell of it
        return


def _numbers() -> Messages:
    for name, setting in Settings.all().items():
        value = raw().get(name, setting.default)
        if setting.least is None or not isinstance(value, setting.types) or isinstance(value, bool):
            continue  # E003 tells of the type
        most = " up" if setting.most == LARGEST_COUNT else f" to {setting.most:,}"
        by_scope = value if isinstance(value, Mapping) else {"": value}
        for scope, each in by_scope.items():
            if not _is_within(each, setting):
                what = f"{name}[{scope!r}]" if scope != "" else name
                yield _cannot_be(f"{what} is {each!r}", f"a number from {setting.least:g}{most}")


def _is_within(value: Any, setting: Setting[Any]) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and setting.least is not None and setting.least <= value <= setting.most


def _items() -> Messages:
    hours: Any = settings.MAX_AGE_HOURS
    for scope in hours if isinstance(hours, Mapping) else ():
        if scope not in TestRun.Scope.values:
            yield _cannot_be(f"MAX_AGE_HOURS names the scope {scope!r}", ", ".join(TestRun.Scope.values))
    for name, pattern, form in (
        ("EMAIL_DOMAINS", _DOMAIN, "a domain, like 'qa.shop.example', or with a leading dot all below it"),
        ("DERIVED_TABLES", _TABLE, "a table's name"),
    ):
        listed = getattr(settings, name)
        for each in listed if isinstance(listed, list | tuple) else ():
            if not isinstance(each, str) or not pattern.fullmatch(each):
                yield _cannot_be(f"{name} names {each!r}", form)
    prefix: Any = settings.TEST_ID_PREFIX
    if isinstance(prefix, str) and not _PREFIX.fullmatch(prefix):
        yield _cannot_be(
            f"TEST_ID_PREFIX is {prefix!r}",
            "up to 100 letters and digits of ASCII, '-' and '_'",
        )


def _cannot_be(what: str, form: str) -> CheckMessage:
    return Error(f"{what}, which cannot be meant.", hint=f"Write {form}.", id="stagehand.E052")


def _identities() -> Messages:
    if identity_type() is None or settings.ENABLED is False:
        return
    try:
        provider = load_provider()
    except ConfigurationError as problem:
        yield Error(
            problem.message,
            hint="Give the dotted path of a subclass of IdentityProvider in stagehand_testdata.identity; see"
            " docs/identity.md.",
            id="stagehand.E049",
        )
        return
    for fault in provider.faults():
        yield Error(fault.what, hint=fault.advice, id="stagehand.E049")
    field = settings.IDENTITY_FIELD
    if field and not _is_there(f"{get_user_model()._meta.label}.{field}", (3,)):
        yield Error(
            f"IDENTITY_FIELD is {field!r}, and {get_user_model()._meta.label} has no such column.",
            hint="Name the column in which the product keeps what the provider calls its user, or none.",
            id="stagehand.E049",
        )
    if is_production():
        yield from _identities_in_production()


def _identities_in_production() -> Messages:
    if identity_type() is None:
        return
    with suppress(ConfigurationError):  # E049 tells of it
        for fault in load_provider().faults_in_production():
            yield Error(fault.what, hint=fault.advice, id="stagehand.E050")


def _refusing_outbound(what: str) -> CheckMessage:
    return Error(
        f"OUTBOUND {what}.",
        hint="Write 'hooks.shop.test', '*.shop.test', 'http://127.0.0.1:*' or '*' in a list for each kind,"
        " or give the dotted path of a function (kind, target) that returns True; see docs/outbound.md.",
        id="stagehand.E029",
    )


def _paths_only() -> Messages:
    """With the gate shut for good nothing is imported: only whether the module is there."""
    types: Any = settings.ENTITY_TYPES
    for name, value in types.items() if isinstance(types, Mapping) else ():
        target = value.get("factory") if isinstance(value, Mapping) else value
        if isinstance(target, str) and not _module_exists(target.rpartition(".")[0]):
            yield _unknown_path(f"Entity type '{name}': cannot import {target!r}.")


def _imported(path: str) -> Any:
    """What the path leads to; None where it leads nowhere, or is no path ('.x' has no module's name)."""
    try:
        return import_string(path)
    except (ImportError, ValueError, TypeError):
        return None


def _module_exists(path: str) -> bool:
    try:
        return bool(path) and importlib.util.find_spec(path) is not None
    except (ImportError, ValueError):
        return False


def _problem(problem: ConfigurationError) -> CheckMessage:
    if isinstance(problem, DuplicateName):
        return Error(
            problem.message,
            hint="Rename one: names in ENTITY_TYPES and in all `testdata` modules share one space.",
            id="stagehand.E011",
        )
    return Error(problem.message, hint="Correct the registration.", id="stagehand.E012")


def _unknown_path(message: str) -> CheckMessage:
    return Error(
        message,
        hint="Give the path of a factory_boy DjangoModelFactory; install the extra 'factories'.",
        id="stagehand.E010",
    )


def _external_type(external_type: ExternalType) -> Messages:
    try:
        external_type.load_handler()
    except ConfigurationError as problem:
        yield Error(
            problem.message,
            hint="Give the path of a class like ExternalHandler in stagehand_testdata.registry.",
            id="stagehand.E015",
        )


def _entity_type(entity_type: EntityType) -> Messages:
    try:
        model = entity_type.model
    except ConfigurationError as problem:
        yield _unknown_path(problem.message)
        return
    reason = unownable(model)
    if reason is not None:
        yield Error(
            f"Entity type '{entity_type.name}' cannot be owned safely: {reason}",
            hint="Register a factory of another model, or leave this one to the product.",
            id="stagehand.E013",
        )
    refused = set(entity_type.fields or ()) - set(settable_fields(entity_type))
    if refused:
        yield checks.Warning(
            f"Entity type '{entity_type.name}' lists what no client may set: {', '.join(sorted(refused))}.",
            hint="Keys, passwords and privileges are never settable; take them off `fields`.",
            id="stagehand.W014",
        )
