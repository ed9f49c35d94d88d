"""The command that hints name: it installs newsbert from where it came, and pip takes it."""

import json
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from newsbert.core import installation

COMMIT = "c0ffee00" * 5


def _install(tmp_path: Path, origin: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a newsbert on the path that came from there."""
    info = tmp_path / "installed" / "newsbert-9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: newsbert\nVersion: 9\n")
    if origin is not None:
        (info / "direct_url.json").write_text(origin if isinstance(origin, str) else json.dumps(origin))
    monkeypatch.syspath_prepend(str(info.parent))


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'newsbert[all]'"),
        ({"url": "file:///nowhere/newsbert", "dir_info": {"editable": True}}, "pip install 'newsbert[all]'"),
        ({"url": "https://x.org/n-9.whl", "archive_info": {}}, "pip install 'newsbert[all] @ https://x.org/n-9.whl'"),
        (
            {"url": "https://x.org/n.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            f"pip install 'newsbert[all] @ git+https://x.org/n.git@{COMMIT}'",
        ),
        ({"url": "https://x.org/n.git", "vcs_info": {"vcs": "git"}}, "pip install 'newsbert[all]'"),
        ({"url": "http://x.org/n-9.whl"}, "pip install 'newsbert[all]'"),
        ("[]", "pip install 'newsbert[all]'"),
        ("{", "pip install 'newsbert[all]'"),
    ],
)
def test_the_command_names_the_source_of_newsbert(
    origin: object, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, origin, monkeypatch)
    assert installation.command("train") == command
    assert str(Requirement(shlex.split(command)[2])).startswith("newsbert[all]")
    assert installation.MissingExtraError("torch", "train").hint == command


def test_the_command_of_a_checkout_installs_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "a checkout; touch x"
    checkout.mkdir()
    _install(tmp_path, {"url": checkout.as_uri(), "dir_info": {"editable": True}}, monkeypatch)
    command = shlex.split(installation.command("ray", "--upgrade"))
    assert command == ["pip", "install", "--upgrade", "-e", f"{checkout}[ray]"]


def test_pip_takes_the_command_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "newsbert-9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as content:
        content.writestr(
            "newsbert-9.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: newsbert\nVersion: 9\nProvides-Extra: all\nProvides-Extra: ray\n",
        )
        content.writestr("newsbert-9.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        content.writestr("newsbert-9.dist-info/RECORD", "")
    _install(tmp_path, {"url": wheel.as_uri(), "archive_info": {}}, monkeypatch)
    for extra in ("train", "ray"):
        command = shlex.split(installation.command(extra, "--dry-run", "--no-index", "--no-deps"))
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Would install newsbert-9" in done.stdout
        assert "does not provide" not in done.stdout + done.stderr


def test_the_command_installs_all_or_an_extra_outside_of_it() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def included(name: str) -> set[str]:
        nested = [Requirement(line).extras for line in extras[name] if line.startswith("newsbert[")]
        return {name}.union(*(included(extra) for names in nested for extra in names))

    apart = set(extras) - included("all") - {"dev"}
    for extra in extras:
        assert ("[all]" in installation.command(extra)) == (extra not in apart), extra
