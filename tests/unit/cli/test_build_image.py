"""`newsbert build-image` without an engine: the images that it would build, and contexts for `docker build`."""

import itertools
import json
import shlex
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from tests.support.cli import Cli

GOLDEN = Path(__file__).parents[1] / "images" / "golden"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_dry_run_shows_all_images_and_no_credential(bundle: Bundle, cli: Cli, as_json: bool) -> None:
    secret = ["--pip-option", "index-url=https://user:S3c/r@et@host/simple", "--pip-option", "proxy=user:S3cret@host:1"]
    secret += ["--torch-index", "https://user:S3c/r@et@torch/simple"]
    result = cli(
        "build-image", bundle.path, "--dry-run", "--runtime", "onnxruntime", *secret, *(["--json"] if as_json else [])
    )
    assert result.returncode == 0, result.stderr
    assert "S3c" not in result.stdout + result.stderr
    assert "et@" not in result.stdout + result.stderr
    for dockerfile in ("base.Dockerfile", "trainer.Dockerfile", "torchserve.Dockerfile"):
        content = (GOLDEN / dockerfile).read_text(encoding="utf-8")
        assert (json.dumps(content)[1:-1] if as_json else content) in result.stdout
    if as_json:
        base, trainer, serving = json.loads(result.stdout)["images"]
        assert serving["aliases"] == [f"torchserve:{bundle.path.name}-{bundle.digest[:12]}"]
        assert serving["build_args"]["TRAINER_IMAGE"] == trainer["tag"]
        assert serving["build_args"]["BASE_IMAGE"] == base["tag"]
        assert set(serving["files"]) == {"Dockerfile", *json.loads((GOLDEN / "torchserve.json").read_text())["files"]}


def test_contexts_are_written_for_docker_build_whole_or_not_at_all(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    write = ("build-image", bundle.path, "--write-context", "my context", "--extra-host", "pypi.example:10.0.0.1")
    written = cli(*write, "--json")
    assert written.returncode == 0, written.stderr
    commands = json.loads(written.stdout)["commands"]
    shown = json.loads(cli("build-image", bundle.path, "--dry-run", "--json").stdout)["images"]
    for number, (command, image) in enumerate(zip(commands, shown, strict=True), 1):
        words = shlex.split(command)
        directory = tmp_path / "my context" / words[-1]
        assert directory.name.startswith(f"{number}-")
        assert words[:4] == ["docker", "build", "--add-host", "pypi.example:10.0.0.1"]
        pairs = list(itertools.pairwise(words))
        for tag in (image["tag"], *image["aliases"]):
            assert ("--tag", tag) in pairs
        for flag, values in (("--build-arg", image["build_args"]), ("--label", image["labels"])):
            assert [word for option, word in pairs if option == flag] == [f"{name}={values[name]}" for name in values]
        sizes = {
            str(file.relative_to(directory)): file.stat().st_size for file in directory.rglob("*") if file.is_file()
        }
        assert sizes == image["files"]
        assert directory.stat().st_mode & 0o077 == 0
    assert (tmp_path / "my context" / "build.sh").read_text().splitlines()[2:] == commands
    again = cli(*write)
    assert (again.returncode, "'my context' exists" in again.stderr) == (2, True)


def test_an_invalid_pip_option_is_refused_without_its_credential(bundle: Bundle, cli: Cli) -> None:
    result = cli("build-image", bundle.path, "--dry-run", "--pip-option", "INDEX-URL=https://user:S3cret@host/simple")
    assert result.returncode == 2
    assert "S3cret" not in result.stdout + result.stderr
    assert "INDEX-URL" in result.stderr
