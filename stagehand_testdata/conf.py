"""Every setting, one typed line each, read live from the host's `STAGEHAND_TESTDATA` dict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from django.conf import settings as django_settings

T = TypeVar("T")

#: More than that no database counts.
LARGEST_COUNT = 2**63 - 1
#: A hundred years: what is further away may be a moment that no database knows.
MOST_DAYS = 36_500

NAME = "STAGEHAND_TESTDATA"

OutboundRules = Mapping[str, Sequence[str]] | str | Callable[[str, str], bool]


class Setting(Generic[T]):
    """One key of the dict: its default, the types that its value may have, and of a number its range."""

    name: str

    def __init__(
        self, default: T, *types: type, least: float | None = None, most: float = LARGEST_COUNT
    ) -> None:
        self.default = default
        self.types = types or (type(default),)
        self.least = least
        self.most = most

    def __set_name__(self, owner: type[Settings], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[Settings]) -> Setting[T]: ...
    @overload
    def __get__(self, instance: Settings, owner: type[Settings]) -> T: ...
    def __get__(self, instance: Settings | None, owner: type[Settings]) -> Setting[T] | T:
        if instance is None:
            return self
        value: T = raw().get(self.name, self.default)
        return value if self.least is None or isinstance(value, Mapping) else self.as_number(value)

    def as_number(self, value: Any) -> Any:
        """The value if it is a number that can be reckoned with, else the default: a check tells of it."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return self.default
        value = min(value, self.most)
        return value if float in self.types else int(value)


def raw() -> Mapping[str, Any]:
    """The host's dict as it stands now; empty where there is none."""
    value = getattr(django_settings, NAME, None)
    return value if isinstance(value, Mapping) else {}


class Settings:
    """The settings by name; `docs/settings.md` says what each one is for."""

    ENABLED = Setting[bool | str | Callable[[], bool]](False, bool, str, Callable)  # type: ignore[arg-type]
    REQUIRE_ACCESS_KEY = Setting(True)
    OIDC_TRUST = Setting[Sequence[Mapping[str, Any]]]((), list, tuple)
    ENVIRONMENT = Setting("")
    TEST_ID_PREFIX = Setting("stagehand_test_")
    MAX_AGE_HOURS = Setting[float | Mapping[str, float]](
        24, int, float, Mapping, least=0.01, most=24 * MOST_DAYS
    )
    EMAIL_DOMAINS = Setting[Sequence[str]]((), list, tuple)
    PASS_MINUTES = Setting[float](60, int, float, least=0.01, most=60 * 24 * MOST_DAYS)
    EMAIL_BACKEND = Setting("django.core.mail.backends.smtp.EmailBackend")
    IDENTITY_PROVIDER = Setting("stagehand_testdata.operations.sign_in.DjangoUsers")
    IDENTITY_OPTIONS = Setting[Mapping[str, Any]]({}, Mapping)
    IDENTITY_FIELD = Setting("")
    OUTBOUND = Setting[OutboundRules]({}, Mapping, str, Callable)  # type: ignore[arg-type]
    ENTITY_TYPES = Setting[Mapping[str, Any]]({}, Mapping)
    FORCE_SHADOW = Setting(False)
    SHADOW_COPIES = Setting[Mapping[str, Any]]({}, Mapping)
    PRIVILEGE_FIELDS = Setting[Mapping[str, Sequence[Any]]]({}, Mapping)
    REFERENCE_MODELS = Setting[Sequence[str]]((), list, tuple)
    FENCE = Setting("block")
    FENCE_POINTERS = Setting("off")
    FENCE_EXEMPT = Setting[Sequence[str]]((), list, tuple)
    LEFT_ALONE = Setting[Sequence[str]](("sessions",), list, tuple)
    #: Wagtail's search index is filled with raw SQL on PostgreSQL, and cleared with its pages.
    DERIVED_TABLES = Setting[Sequence[str]](("wagtailsearch_indexentry",), list, tuple)
    MAX_BODY_BYTES = Setting(1024 * 1024, least=1)
    MAX_BODY_DEPTH = Setting(20, least=1)
    MAX_ROWS_PER_CALL = Setting(1000, least=1)
    MAX_ROWS_PER_RUN = Setting(100_000, least=1)
    MAX_LIVE_ROWS = Setting(1_000_000, least=1)
    MAX_OPEN_RUNS = Setting(10_000, least=1)
    RATE_PER_KEY = Setting("100/s")
    RATE_PER_ADDRESS = Setting("200/s")
    STATEMENT_TIMEOUT_SECONDS = Setting[float](30, int, float, least=0, most=2_000_000)
    PURGE_BATCH_SIZE = Setting(5000, least=1)
    #: With 0 of either each purge waits for somebody to confirm its plan.
    MAX_ROWS_PER_PURGE = Setting(100_000, least=0)
    AUDIT_DAYS = Setting(365, least=1, most=MOST_DAYS)
    MAX_TABLE_SHARE = Setting[float](1.0, int, float, least=0, most=1)

    @classmethod
    def all(cls) -> dict[str, Setting[Any]]:
        return {name: value for name, value in vars(cls).items() if isinstance(value, Setting)}


settings = Settings()
