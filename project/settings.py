"""The host product's settings, all of them from the environment. See README.md for the names."""

from pathlib import Path

import django
import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
environ.Env.DB_SCHEMES["mariadb"] = environ.Env.DB_SCHEMES["mysql"]

_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "y", "on", "ok"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def switch(name: str, *, default: bool) -> bool:
    """A word for yes or no. `env.bool` takes any other for no, a mistyped one too."""
    word = env.str(name, default="").strip().lower()
    if word and word not in _WORDS:
        raise ImproperlyConfigured(f"{name} is {word!r}: say one of {', '.join(_WORDS)}.")
    return _WORDS.get(word, default)


DEBUG = switch("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="only-for-the-demo-on-loopback-never-for-a-real-product")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]", "testserver"])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.sitemaps",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "stagehand_testdata",
    "stagehand_testdata.marketplace",
    "project.accounts",
    "project.shop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "stagehand_testdata.middleware.test_run_middleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "KEY_FUNCTION": "stagehand_testdata.isolation.caching.make_key",
    }
}

ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "project" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": env.db_url("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")}

match DATABASES["default"]["ENGINE"]:
    case "django.db.backends.sqlite3":
        DATABASES["default"]["OPTIONS"] = {
            "timeout": 30,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
        # A file, so that the threads of a live server see what the test sees.
        DATABASES["default"]["TEST"] = {"NAME": f"{DATABASES['default']['NAME']}.test"}
    case "django.db.backends.mysql":
        import pymysql

        pymysql.install_as_MySQLdb()
        DATABASES["default"].setdefault("OPTIONS", {})["charset"] = "utf8mb4"
        DATABASES["default"]["TEST"] = {"CHARSET": "utf8mb4"}

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "project" / "static"]
# The product hands out its own style sheets, unless a web server in front of it does.
SERVE_STATIC = switch("SERVE_STATIC", default=True)
LOGIN_URL = "admin:login"

REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
SPECTACULAR_SETTINGS = {
    "TITLE": "The demo marketplace",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
}

# Django 6.1 has MAILERS in the place of EMAIL_BACKEND.
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "stagehand_testdata.isolation.mail.TestDataEmailBackend"}}
else:
    EMAIL_BACKEND = "stagehand_testdata.isolation.mail.TestDataEmailBackend"

STAGEHAND_TESTDATA = {
    "ENABLED": switch("STAGEHAND_TESTDATA_ENABLED", default=False),
    "REQUIRE_ACCESS_KEY": switch("STAGEHAND_TESTDATA_REQUIRE_ACCESS_KEY", default=True),
    "ENVIRONMENT": env.str("STAGEHAND_TESTDATA_ENVIRONMENT", default="development"),
    "TEST_ID_PREFIX": env.str("STAGEHAND_TESTDATA_TEST_ID_PREFIX", default="stagehand_test_"),
    "MAX_AGE_HOURS": env.float("STAGEHAND_TESTDATA_MAX_AGE_HOURS", default=24),
    "EMAIL_DOMAINS": env.list("STAGEHAND_TESTDATA_EMAIL_DOMAINS", default=[]),
    "EMAIL_BACKEND": env.str(
        "STAGEHAND_TESTDATA_EMAIL_BACKEND", default="django.core.mail.backends.console.EmailBackend"
    ),
    "FORCE_SHADOW": switch("STAGEHAND_TESTDATA_FORCE_SHADOW", default=False),
    "REFERENCE_MODELS": env.list("STAGEHAND_TESTDATA_REFERENCE_MODELS", default=[]),
    "MAX_BODY_BYTES": env.int("STAGEHAND_TESTDATA_MAX_BODY_BYTES", default=1024 * 1024),
    "MAX_BODY_DEPTH": env.int("STAGEHAND_TESTDATA_MAX_BODY_DEPTH", default=20),
    "MAX_ROWS_PER_CALL": env.int("STAGEHAND_TESTDATA_MAX_ROWS_PER_CALL", default=1000),
    "MAX_ROWS_PER_RUN": env.int("STAGEHAND_TESTDATA_MAX_ROWS_PER_RUN", default=100_000),
    "MAX_LIVE_ROWS": env.int("STAGEHAND_TESTDATA_MAX_LIVE_ROWS", default=1_000_000),
    "MAX_OPEN_RUNS": env.int("STAGEHAND_TESTDATA_MAX_OPEN_RUNS", default=10_000),
    "RATE_PER_KEY": env.str("STAGEHAND_TESTDATA_RATE_PER_KEY", default="100/s"),
    "RATE_PER_ADDRESS": env.str("STAGEHAND_TESTDATA_RATE_PER_ADDRESS", default="200/s"),
    "STATEMENT_TIMEOUT_SECONDS": env.float("STAGEHAND_TESTDATA_STATEMENT_TIMEOUT_SECONDS", default=30),
    "PURGE_BATCH_SIZE": env.int("STAGEHAND_TESTDATA_PURGE_BATCH_SIZE", default=5000),
    "MAX_ROWS_PER_PURGE": env.int("STAGEHAND_TESTDATA_MAX_ROWS_PER_PURGE", default=100_000),
    "AUDIT_DAYS": env.int("STAGEHAND_TESTDATA_AUDIT_DAYS", default=365),
    "MAX_TABLE_SHARE": env.float("STAGEHAND_TESTDATA_MAX_TABLE_SHARE", default=1.0),
    "ENTITY_TYPES": {"product": "project.shop.factories.ProductFactory"},
}

LOG_LEVEL = env.str("LOG_LEVEL", default="WARNING")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    # Django gives its own logger a level of its own.
    "loggers": {"django": {"level": LOG_LEVEL}},
}
