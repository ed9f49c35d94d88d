"""The workflows call newsbert as it is, in a directory whose configuration it reads."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from newsbert.cli.app import app
from newsbert.core import config

yaml = pytest.importorskip("yaml", reason="needs PyYAML")
ROOT = Path(__file__).parents[2]
WORKFLOWS = [file for file in sorted((ROOT / ".github" / "workflows").glob("*.yml")) if file.stem != "ci"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_call_existing_commands(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()
    monkeypatch.chdir(ROOT / job["defaults"]["run"]["working-directory"])
    calls = [shlex.split(step["run"]) for step in job["steps"] if step.get("run", "").startswith("newsbert ")]
    assert calls
    commands: Any = typer.main.get_command(app)
    for _, name, *arguments in calls:
        context = commands.commands[name].make_context(name, arguments)
        assert context.params["to"] in config.environments()
    assert config.model_name() == "BertModel"
