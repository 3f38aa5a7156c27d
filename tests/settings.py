"""The host product's settings, with one more host app full of awkward models."""

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS, STAGEHAND_TESTDATA

INSTALLED_APPS = [*INSTALLED_APPS, "tests.host", "tests.outside"]
STAGEHAND_TESTDATA = {
    **STAGEHAND_TESTDATA,
    "ENABLED": True,
    "REQUIRE_ACCESS_KEY": False,
    "ENVIRONMENT": "test",
    "ENTITY_TYPES": {
        **STAGEHAND_TESTDATA["ENTITY_TYPES"],
        "author": "tests.host.factories.AuthorFactory",
        "book": "tests.host.factories.BookFactory",
        "chapter": "tests.host.factories.ChapterFactory",
        "voucher": "tests.host.factories.VoucherFactory",
        "restaurant": "tests.host.factories.RestaurantFactory",
        "person": "tests.host.factories.PersonFactory",
        "team": "tests.host.factories.TeamFactory",
        "note": "tests.host.factories.NoteFactory",
        "archived": "tests.host.factories.ArchivedFactory",
        "watched": "tests.host.factories.WatchedFactory",
        "user": "tests.host.factories.UserFactory",
        "staff": "tests.host.factories.StaffFactory",
        "country": "tests.host.factories.CountryFactory",
        "failing": "tests.host.factories.FailingFactory",
        "stall": "tests.host.factories.StallFactory",
        "bulk": "tests.host.factories.BulkFactory",
        "member": "tests.host.factories.MemberFactory",
        "profile": "tests.host.factories.ProfileFactory",
        "provenAddress": "tests.host.factories.ProvenAddressFactory",
        "raw": "tests.host.factories.RawFactory",
    },
}
# The awkward models hide nothing on purpose; the product's own are looked at by tests/test_checks.py.
SILENCED_SYSTEM_CHECKS = ["stagehand.W016"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
