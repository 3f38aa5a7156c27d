"""The document's client as a plain JavaScript module, made from its TypeScript by taking the types away."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parents[2] / "shared" / "reference" / "production-test-data-strategy.txt"
TYPESCRIPT = "5.9.3"
#: The enum and the manager, and the CI integration; section 3 is the server.
SECTIONS = ("1", "2", "4")


@pytest.fixture(scope="session")
def client_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, transpiled; skips where the document, Node or npm is missing."""
    if not DOCUMENT.is_file():
        pytest.skip("the strategy document is not beside the repository (../shared/reference)")
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    sections = re.split(r"(?m)^  (\d)\. .*$", DOCUMENT.read_text(encoding="utf-8"))
    text = dict(zip(sections[1::2], sections[2::2], strict=True))
    transpiled = subprocess.run(
        ["node", HERE / "build.mjs", _typescript()],
        input="\n".join(text[number] for number in SECTIONS),
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert transpiled.returncode == 0, transpiled.stderr
    module = tmp_path_factory.mktemp("document_client") / "client.mjs"
    module.write_text(transpiled.stdout, encoding="utf-8")
    return module


def _typescript() -> Path:
    """The pinned compiler, installed once into a directory that git ignores."""
    installed = HERE / "node_modules" / f"typescript-{TYPESCRIPT}"
    if not installed.is_dir():
        fresh = installed.with_name(f"{installed.name}.{os.getpid()}")
        done = subprocess.run(
            [
                "npm",
                "install",
                "--prefix",
                fresh,
                "--no-save",
                "--no-audit",
                "--no-fund",
                f"typescript@{TYPESCRIPT}",
            ],
            capture_output=True,
            check=False,
            text=True,
            timeout=300,
        )
        if done.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            pytest.skip(f"npm could not install typescript {TYPESCRIPT}")
        try:
            fresh.rename(installed)
        except OSError:  # another worker was first
            shutil.rmtree(fresh)
    return installed / "node_modules" / "typescript"


@pytest.fixture
def drive(client_module: Path, live_server: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Play one of the stories in `drive.mjs`, in a process of its own; what the client was told."""

    def play(story: str, **parameters: Any) -> dict[str, Any]:
        given = {"baseUrl": live_server.url, "directory": str(tmp_path), **parameters}
        done = subprocess.run(
            ["node", HERE / "drive.mjs", client_module, story, json.dumps(given)],
            capture_output=True,
            check=False,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        assert "thrown" not in answer, answer
        return answer

    return play


def host_rows() -> dict[str, list[Any]]:
    """Every row of every table of the host, in full."""
    return {
        model._meta.label: list(model._base_manager.order_by("pk").values())
        for model in apps.get_models(include_auto_created=True)
        if model._meta.app_label != "stagehand_testdata" and not model._meta.proxy
    }


@pytest.fixture
def real_rows(transactional_db: None) -> dict[str, list[Any]]:
    """A marketplace that is in use."""
    from project.seed import seed

    seed()
    return host_rows()


@pytest.fixture
def untouched_host(real_rows: dict[str, list[Any]]) -> Iterator[None]:
    """The story must leave every row of the host exactly as it was."""
    yield
    assert host_rows() == real_rows
