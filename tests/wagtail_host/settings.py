"""A Wagtail site as its project template makes one, and the few lines that add this app to it.

Run its tests with `pytest --ds=tests.wagtail_host.settings tests/wagtail_host`.
"""

import tempfile
from pathlib import Path

import environ

BASE_DIR = Path(__file__).resolve().parent

env = environ.Env()

SECRET_KEY = "only-for-the-tests"
ALLOWED_HOSTS = ["localhost", "testserver"]

INSTALLED_APPS = [
    "tests.wagtail_host",
    "wagtail.contrib.forms",
    "wagtail.contrib.redirects",
    "wagtail.embeds",
    "wagtail.sites",
    "wagtail.users",
    "wagtail.snippets",
    "wagtail.documents",
    "wagtail.images",
    "wagtail.search",
    "wagtail.admin",
    "wagtail",
    "modelcluster",
    "taggit",
    "django_filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "stagehand_testdata",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "wagtail.contrib.redirects.middleware.RedirectMiddleware",
]

ROOT_URLCONF = "tests.wagtail_host.urls"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
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

DATABASES = {"default": env.db_url("DATABASE_URL", default="sqlite://:memory:")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {"timeout": 30, "transaction_mode": "IMMEDIATE"}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
STATIC_URL = "static/"
MEDIA_URL = "media/"
MEDIA_ROOT = Path(tempfile.gettempdir()) / "stagehand_testdata_wagtail_host"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

WAGTAIL_SITE_NAME = "A site"
WAGTAILADMIN_BASE_URL = "http://localhost"
WAGTAIL_ENABLE_UPDATE_CHECK = False

STAGEHAND_TESTDATA = {
    "ENABLED": True,
    "REQUIRE_ACCESS_KEY": False,
    "ENVIRONMENT": "test",
    "ENTITY_TYPES": {
        "page": "wagtail_factories.PageFactory",
        "collection": "wagtail_factories.CollectionFactory",
        "image": "wagtail_factories.ImageFactory",
        "document": "wagtail_factories.DocumentFactory",
        "site": "wagtail_factories.SiteFactory",
        "article": "tests.wagtail_host.factories.ArticleFactory",
        "sub-article": "tests.wagtail_host.factories.SubArticleFactory",
        "published-article": "tests.wagtail_host.factories.PublishedArticleFactory",
    },
}
