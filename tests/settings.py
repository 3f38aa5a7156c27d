"""The host product's settings, with one more host app full of awkward models."""

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS, STAGEHAND_TESTDATA

INSTALLED_APPS = [*INSTALLED_APPS, "tests.host"]
STAGEHAND_TESTDATA = {**STAGEHAND_TESTDATA, "ENABLED": True, "REQUIRE_ACCESS_KEY": False, "ENVIRONMENT": "test"}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
