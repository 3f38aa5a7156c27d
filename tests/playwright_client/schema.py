"""`python -m tests.playwright_client.schema` writes the Playwright client's types anew, from the OpenAPI that
the demo product serves; with `--check` it only says whether they are what they would be (exit 1: they are
not).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[2] / "clients" / "playwright"
TYPES = CLIENT / "src" / "schema.ts"


def main() -> int:
    types = generate()
    if "--check" in sys.argv[1:]:
        return int(types != TYPES.read_text())
    TYPES.write_text(types)
    return 0


def generate() -> str:
    """Needs the client's npm packages."""
    with tempfile.TemporaryDirectory() as directory:
        described, written = Path(directory) / "openapi.json", Path(directory) / "schema.ts"
        described.write_bytes(read_openapi())
        subprocess.run(
            ["npx", "--no-install", "openapi-typescript", described, "--output", written],
            cwd=CLIENT,
            check=True,
            capture_output=True,
            timeout=120,
        )
        return written.read_text()


def read_openapi() -> bytes:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DATABASE_URL": "sqlite://:memory:",
        "STAGEHAND_TESTDATA_ENABLED": "1",
        "STAGEHAND_TESTDATA_REQUIRE_ACCESS_KEY": "0",
    }
    import django
    from django.test import Client

    django.setup()
    answer = Client().get("/api/test/schema", headers={"Host": "localhost"})
    assert answer.status_code == 200, answer.content
    return answer.content


if __name__ == "__main__":
    sys.exit(main())
