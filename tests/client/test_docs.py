"""What docs/ci.md and docs/client.md say is so."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.shop.models import Product
from stagehand_testdata.client import TestDataManager, environments, errors
from stagehand_testdata.client.command import _parser, main
from stagehand_testdata.models import TestRun

ROOT = Path(__file__).resolve().parents[2]
CI = (ROOT / "docs" / "ci.md").read_text()
CLIENT = (ROOT / "docs" / "client.md").read_text()
GITHUB, GITLAB = re.findall(r"^```yaml\n(.*?)^```", CI, re.MULTILINE | re.DOTALL)


def commands(found: Any) -> list[str]:
    """Each line of ours in the steps, wherever it stands."""
    if isinstance(found, dict):
        return [line for each in found.values() for line in commands(each)]
    if isinstance(found, list):
        return [line for each in found for line in commands(each)]
    return [found] if isinstance(found, str) and found.startswith("stagehand-testdata ") else []


@pytest.mark.parametrize(
    ("steps", "schema"), [(GITHUB, "vendor.github-workflows"), (GITLAB, "vendor.gitlab-ci")]
)
def test_the_steps_are_valid_where_they_are_meant_for(tmp_path: Path, steps: str, schema: str) -> None:
    (tmp_path / "steps.yml").write_text(steps)
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(tmp_path / "steps.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("steps", [GITHUB, GITLAB], ids=["GitHub", "GitLab"])
def test_the_commands_of_the_steps_do_their_work(
    steps: str, product: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stagehand-testdata.toml").write_text(f'[environments]\nstaging = "{product}"\n')
    prepare, cleanup = commands(yaml.safe_load(steps))
    states = []
    for line in (prepare, cleanup):
        words = shlex.split(re.sub(r"\$\w+", "4711", line))
        assert main(words[1:]) == 0
        states.append(TestRun.objects.get().state)
    assert states == ["open", "closed"]
    if steps is GITLAB:
        dotenv = yaml.safe_load(steps)["prepare"]["artifacts"]["reports"]["dotenv"]
        assert "TEST_ID=" in Path(dotenv).read_text()


def test_every_command_is_named() -> None:
    shown = _parser().format_help()
    for name in ("prepare", "cleanup", "status", "create", "scenario", "receipt", "types"):
        assert name in shown
        assert f"`{name}" in CI


def test_each_command_of_the_table_does_its_work(
    product: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stagehand-testdata.toml").write_text(f'[environments]\nstaging = "{product}"\n')
    assert main(["prepare", "-e", "staging", "--build-id", "77"]) == 0
    [table] = re.findall(r"^\| \| \|\n\|---\|---\|\n((?:\|.*\n)+)", CI, re.MULTILINE)
    lines = re.findall(r"`([^`]+)`", "".join(row.split("|")[1] for row in table.splitlines()))
    lines.remove("--json")
    # There is a receipt once something was cleaned up.
    lines.append(lines.pop(lines.index("receipt")))
    assert len(lines) == 5
    for line in lines:
        if line == "receipt":
            assert main(["cleanup"]) == 0
        capsys.readouterr()
        assert main([*shlex.split(line), "--json"]) == 0, line
        assert json.loads(capsys.readouterr().out), line
        if line.startswith("create"):
            assert Product._base_manager.filter(title="Lamp", price="9.5").count() == 3


def test_the_configuration_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"^```toml\n(.*?)^```", CI, re.MULTILINE | re.DOTALL)
    (tmp_path / environments.FILE).write_text(text)
    assert set(environments.load(tmp_path).environments) == {"staging", "production"}


def test_every_method_is_one() -> None:
    for name in re.findall(r"`run\.(\w+)", CLIENT) + re.findall(r"^    run\.(\w+)", CLIENT, re.MULTILINE):
        assert hasattr(TestDataManager, name) or name == "test_id", name


def test_every_error_of_the_tree_is_there() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    kinds = {
        name
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, errors.TestDataError) and name != "TestDataError"
    }
    assert drawn == kinds
