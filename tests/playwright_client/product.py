"""`python -m tests.playwright_client.product DATABASE` runs the client's tests against the demo product, and
compares every row of the product's tables before and after.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from project import demo

from .schema import CLIENT


def main(path: Path) -> int:
    demo.prepare(path)
    before = demo.host_tables()
    with demo.running_server() as (url, _):
        command = ["npx", "--no-install", "playwright", "test", "--output", str(path.parent / "results")]
        done = subprocess.run(command, cwd=CLIENT, env={**os.environ, "PRODUCT_URL": url}, check=False)
    demo.compare(before, demo.host_tables())
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
