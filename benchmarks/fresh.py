"""A database of a benchmark's own, beside the tests' and those of other benchmarks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def database(suffix: str, *, level: str = "ERROR") -> Iterator[str]:
    """Django is set up, and DATABASE_URL's database has an empty twin of that name's end: its vendor.

    `level` is what is logged at least, where the environment does not say.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ.setdefault("LOG_LEVEL", level)
    import django

    django.setup()
    from django.db import connection
    from django.test.utils import (
        setup_databases,
        setup_test_environment,
        teardown_databases,
        teardown_test_environment,
    )

    test = connection.settings_dict["TEST"]
    name = test.get("NAME") or f"test_{connection.settings_dict['NAME']}"
    test["NAME"] = f"{name}_{suffix}"
    setup_test_environment(debug=False)
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        yield connection.vendor
    finally:
        teardown_databases(databases, verbosity=0)
        teardown_test_environment()


def is_postgresql() -> bool:
    """Whether DATABASE_URL names one; says so on standard error where it does not."""
    if os.environ.get("DATABASE_URL", "").startswith("postgres"):
        return True
    print("This needs PostgreSQL: set DATABASE_URL=postgres:///NAME", file=sys.stderr)
    return False
