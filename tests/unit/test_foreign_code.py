"""Nobody's Python is run: not a base model's, and not what lies in the working directory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from tests.support.cli import Cli

NEWSBERT = str(Path(sys.executable).with_name("newsbert"))
MARKER = "was-run"


def _write_program(directory: Path, *names: str) -> None:
    """Write programs that leave a marker when they are run."""
    for name in names:
        text = f"from pathlib import Path\nPath({str(directory / MARKER)!r}).touch()\nclass X: pass\n"
        (directory / f"{name}.py").write_text(text)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_attack_code_of_a_base_model_does_not_run(
    tiny_encoder: Path, labelled_file: Path, tmp_path: Path, cli: Cli, file: str
) -> None:
    model = Path(shutil.copytree(tiny_encoder, tmp_path / "model"))
    _write_program(model, "code")
    values = json.loads((model / file).read_text())
    auto_map = dict.fromkeys(("AutoConfig", "AutoModelForSequenceClassification", "AutoTokenizer"), "code.X")
    auto_map["AutoTokenizer"] = ["code.X", "code.X"]  # type: ignore[assignment]
    (model / file).write_text(json.dumps({**values, "model_type": "evil", "auto_map": auto_map}))
    done = cli("train", "--data", labelled_file, "--base-model", model, stdin="y\n" * 100)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert f"({file}: auto_map)" in " ".join(done.stderr.split())
    assert not (model / MARKER).exists()
    assert "[y/N]" not in done.stdout + done.stderr


def test_attack_modules_of_the_working_directory_are_not_imported(bundle: Bundle, tmp_path: Path) -> None:
    """Of what a server in the background imports, and of what that starts."""
    _write_program(tmp_path, "rich", "numpy", "json", "typer", "ts", "onnxruntime", "tokenizers")
    started = subprocess.run(
        [NEWSBERT, "serve", "locally", str(bundle.path), "--detach", "--port", "0", "--json"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    try:
        assert started.returncode == 0, started.stderr
        url = json.loads(started.stdout)["url"]
    finally:
        subprocess.run([NEWSBERT, "serve", "stop"], capture_output=True, timeout=120, check=False)
    assert url.startswith("http://127.0.0.1:")
    assert not (tmp_path / MARKER).exists()
