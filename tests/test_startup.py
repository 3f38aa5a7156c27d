"""What starting the host costs, in a process of its own: nothing but the checks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    "As if these were not installed."
    def __init__(self, *names):
        self.names = names
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def hide(*names):
    sys.meta_path.insert(0, Hidden(*names))

def start(**changes):
    import django
    from django.conf import settings
    settings.STAGEHAND_TESTDATA = {**settings.STAGEHAND_TESTDATA, **changes}
    django.setup()

def visit():
    "Load every URL, ask the gate, run every check; the statuses of a few requests."
    from django.core.checks import run_checks
    from django.test import Client
    from django.urls import get_resolver
    get_resolver().url_patterns
    problems = [each.id for each in run_checks() if each.is_serious()]
    client = Client(raise_request_exception=False)
    headers = {"X-Test-ID": "stagehand_test_startup"}
    statuses = [
        client.post("/api/test/builders", "{}", content_type="application/json", headers=headers).status_code,
        client.get("/api/test/schema").status_code,
        client.get("/api/test/docs").status_code,
    ]
    return problems, statuses
"""


def run(code: str, **environment: str) -> str:
    """What the code prints, in a fresh process that has the test settings."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", PRELUDE + textwrap.dedent(code)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": "sqlite://:memory:"}
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_with_the_gate_off_no_factory_library_is_imported() -> None:
    code = """
        start(ENABLED=False)
        problems, statuses = visit()
        print(problems, statuses[0], sorted({"factory", "faker"} & set(sys.modules)))
    """
    assert run(code) == "[] 403 []"


def test_with_a_flag_that_says_no_a_request_imports_no_factory_library() -> None:
    code = """
        start(ENABLED=lambda: False)
        from django.test import Client
        response = Client().post("/api/test/builders", "{}", content_type="application/json",
                                 headers={"X-Test-ID": "stagehand_test_startup"})
        print(response.status_code, sorted({"factory", "faker"} & set(sys.modules)))
    """
    assert run(code) == "403 []"


def test_starting_imports_no_module_of_factories_even_with_the_gate_open() -> None:
    """A production worker runs no checks."""
    code = """
        start(ENABLED=True)
        import project.wsgi
        from django.urls import get_resolver
        get_resolver().url_patterns
        print(sorted(name for name in sys.modules if name.partition(".")[0] in ("factory", "faker")
                     or name.endswith(".factories")))
    """
    assert run(code) == "[]"


def test_what_looks_at_tokens_is_imported_by_the_first_one() -> None:
    code = """
        entry = {"name": "a", "issuer": "https://gitlab.com", "audience": "b", "claims": {"project_id": "1"}}
        start(ENABLED=True, OIDC_TRUST=[entry])
        problems, statuses = visit()
        print(problems, sorted({"jwt", "cryptography"} & set(sys.modules)))
    """
    assert run(code) == "[] []"


def test_where_pyjwt_is_not_installed_only_tokens_are_refused() -> None:
    code = """
        hide("jwt", "cryptography")
        entry = {"name": "a", "issuer": "https://gitlab.com", "audience": "b", "claims": {"project_id": "1"}}
        start(ENABLED=True, OIDC_TRUST=[entry])
        from django.core.management import call_command
        from django.test import Client
        call_command("migrate", verbosity=0)
        problems, statuses = visit()
        client = Client(raise_request_exception=False)
        refused = client.post("/api/test/tokens", '{"token": "x"}', content_type="application/json")
        print(problems, statuses, refused.json()["code"])
    """
    assert run(code, LOG_LEVEL="CRITICAL") == "['stagehand.E042'] [201, 200, 200] misconfigured"


CLERK = """
        options = {"secret_key": "sk_live_x", "webhook_secret": "whsec_eA==", "server_url": "http://127.0.0.1:9"}
        provider = "stagehand_testdata.contrib.clerk.Clerk"
        start(ENABLED=True, IDENTITY_PROVIDER=provider, IDENTITY_OPTIONS=options)
"""


def test_clerks_library_is_imported_by_the_first_call_to_clerk() -> None:
    code = f"""{CLERK}
        import tests.contrib.urls_clerk
        from django.core.checks import run_checks
        problems = [each.id for each in run_checks() if each.is_serious()]
        print(problems, sorted({{"clerk_backend_api", "svix", "httpx"}} & set(sys.modules)))
    """
    assert run(code) == "[] []"


def test_where_clerks_library_is_not_installed_the_host_starts_and_makes_no_account() -> None:
    code = f"""
        hide("clerk_backend_api", "svix"){CLERK}
        from django.core.management import call_command
        from django.test import Client
        call_command("migrate", verbosity=0)
        problems, statuses = visit()
        headers = {{"X-Test-ID": "stagehand_test_startup"}}
        refused = Client().post("/api/test/clients", "{{}}", content_type="application/json", headers=headers)
        print(problems, statuses, refused.json()["code"], "clerk]" in refused.json()["message"])
    """
    assert run(code, LOG_LEVEL="CRITICAL") == "['stagehand.E049'] [500, 200, 200] misconfigured True"


def test_starting_asks_the_database_nothing() -> None:
    code = """
        start(ENABLED=True)
        from django.db import connection
        from django.urls import get_resolver
        get_resolver().url_patterns
        print(connection.connection)
    """
    assert run(code) == "None"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_host_starts_where_factory_boy_is_not_installed(enabled: bool) -> None:
    code = f"""
        hide("factory", "faker")
        start(ENABLED={enabled})
        problems, statuses = visit()
        print(sorted(set(problems)))
    """
    assert run(code) == ("['stagehand.E010']" if enabled else "[]")


def test_where_factory_boy_is_not_installed_a_creating_request_says_so_and_no_more() -> None:
    code = """
        hide("factory", "faker")
        start(ENABLED=True)
        from django.core.management import call_command
        from django.test import Client
        call_command("migrate", verbosity=0)
        headers = {"X-Test-ID": "stagehand_test_startup"}
        client = Client(raise_request_exception=False)
        post = lambda path: client.post(path, "{}", content_type="application/json", headers=headers)
        made, cleaned = post("/api/test/builders"), post("/api/test/cleanup")
        print(made.status_code, set(made.json()) == {"error", "message", "code"}, cleaned.status_code)
    """
    assert run(code, LOG_LEVEL="CRITICAL") == "500 True 200"


@pytest.mark.parametrize("how", ["not installed", "not in INSTALLED_APPS"])
def test_without_drf_spectacular_all_else_works(how: str) -> None:
    code = f"""
        from django.conf import settings
        apps = settings.INSTALLED_APPS
        settings.INSTALLED_APPS = [app for app in apps if not app.startswith("drf_spectacular")]
        if {how!r} == "not installed":
            hide("drf_spectacular", "drf_spectacular_sidecar")
            settings.REST_FRAMEWORK = {{}}
        start(ENABLED=True)
        from django.core.management import call_command
        call_command("migrate", verbosity=0)
        print(*visit())
    """
    assert run(code, LOG_LEVEL="CRITICAL") == "[] [201, 400, 400]"


def test_with_drf_spectacular_the_schema_is_served() -> None:
    code = """
        start(ENABLED=True)
        from django.core.management import call_command
        call_command("migrate", verbosity=0)
        print(*visit())
    """
    assert run(code, LOG_LEVEL="CRITICAL") == "[] [201, 200, 200]"


def test_importing_the_package_imports_nothing() -> None:
    code = """
        before = set(sys.modules)
        import stagehand_testdata
        print(sorted(set(sys.modules) - before))
    """
    assert run(code) == "['stagehand_testdata']"


@pytest.mark.parametrize(
    "module",
    ["conf", "exceptions", "context", "seeding", "registry", "checks", "urls", "operations.entities"],
)
def test_no_module_but_the_one_that_makes_rows_imports_factories(module: str) -> None:
    code = f"""
        start(ENABLED=True)
        import stagehand_testdata.{module}
        print(sorted({{"factory", "faker"}} & set(sys.modules)))
    """
    assert run(code) == "[]"
