"""Has any pinned package a known weakness? `python -m tests.advisories` asks with pip-audit.

Exit status 0 where none has, or where nobody could be asked, which is said; 1 where one has.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PINS = Path(__file__).resolve().parent.parent / "constraints.txt"
COMMAND = (
    "-m",
    "pip_audit",
    "--disable-pip",
    "--no-deps",
    "--progress-spinner=off",
    "--format=json",
    "--timeout=20",
)


def verdict(packages: list[dict[str, Any]]) -> tuple[int, str]:
    """The exit status and what to say, from pip-audit's own report; an empty one is no report at all."""
    known = [
        f"{each['name']} {each['version']}: {', '.join(found['id'] for found in each['vulns'])}"
        for each in packages
        if each.get("vulns")
    ]
    if known:
        return 1, "\n".join(known)
    asked = [each for each in packages if "vulns" in each]
    if not asked:
        return 0, "SKIPPED: the advisory service cannot be reached from here; no package was looked up"
    left = sorted(each["name"] for each in packages if "vulns" not in each)
    return 0, f"{len(asked)} packages without a known weakness" + (
        f"; not known there: {left}" if left else ""
    )


def main() -> int:
    done = subprocess.run(
        [sys.executable, *COMMAND, "--requirement", str(PINS)], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        packages = []
    status, said = verdict(packages)
    print(f"pip-audit: {said}")
    return status


if __name__ == "__main__":
    sys.exit(main())
