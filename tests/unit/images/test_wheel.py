"""Newsbert's own wheel, as it goes into an image: the same bytes every time, and all that it needs."""

import base64
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.images import wheel

SOURCE = Path(newsbert.__file__).parent
DOCKER = Path(__file__).parents[3] / "docker"


def _run(*command: object, **options: Any) -> str:
    arguments = list(map(str, command))
    result = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120, **options)
    return str(result.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.write(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which pip has installed the wheel, and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    _run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", target, made)
    return target


def test_wheels_are_reproducible(made: Path, tmp_path: Path) -> None:
    again = wheel.write(tmp_path)
    assert again.name == made.name == f"newsbert-{newsbert.__version__}-py3-none-any.whl"
    assert again.read_bytes() == made.read_bytes()


def test_the_wheel_has_the_package_and_the_dockerfiles(made: Path) -> None:
    with zipfile.ZipFile(made) as content:
        names = content.namelist()
    assert len(set(names)) == len(names)
    modules = {f"newsbert/{file.relative_to(SOURCE).as_posix()}" for file in SOURCE.rglob("*.py")}
    assert modules <= set(names)
    others = {
        "serving/assets/grafana.json",
        "serving/assets/metrics.yaml",
        "data/sample.csv",
        "serving/assets/log4j2.xml",
        "py.typed",
        "docker/base.Dockerfile",
        "docker/torchserve.Dockerfile",
    }
    assert {f"newsbert/{name}" for name in others} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_record_has_every_file_with_hash_and_size(made: Path) -> None:
    with zipfile.ZipFile(made) as content:
        info = f"newsbert-{newsbert.__version__}.dist-info"
        record = list(csv.reader(io.StringIO(content.read(f"{info}/RECORD").decode())))
        assert {row[0] for row in record} == set(content.namelist())
        for name, digest, size in record:
            if name == f"{info}/RECORD":
                assert (digest, size) == ("", "")
                continue
            data = content.read(name)
            encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={encoded}", str(len(data))), name


def test_pip_installs_the_wheel_with_its_files(installed: Path, tmp_path: Path) -> None:
    script = """
import json, sys
sys.path.insert(0, sys.argv[1])
from importlib import metadata, resources
import newsbert, newsbert.cli.app
files = resources.files("newsbert")
names = ("docker/base.Dockerfile", "docker/torchserve.Dockerfile", "serving/assets/grafana.json",
         "serving/assets/metrics.yaml", "data/sample.csv")
from newsbert.core import package_files
print(json.dumps({
    "home": newsbert.__file__,
    "version": newsbert.__version__,
    "sizes": {name: len(files.joinpath(name).read_bytes()) for name in names},
    "dockerfiles": sorted(file.name for file in package_files.find("docker").iterdir() if file.is_file()),
    "extras": sorted(metadata.metadata("newsbert").get_all("Provides-Extra")),
}))
"""
    installation = json.loads(_run(sys.executable, "-c", script, installed, cwd=tmp_path))
    assert installation["home"] == str(installed / "newsbert" / "__init__.py")
    assert installation["version"] == newsbert.__version__
    for name, size in installation["sizes"].items():
        file = DOCKER.parent / name if name.startswith("docker/") else SOURCE / name
        assert size == file.stat().st_size
    assert installation["dockerfiles"] == sorted(file.name for file in DOCKER.iterdir() if file.is_file())
    assert {"train", "serve", "image", "all"} <= set(installation["extras"])


def test_the_command_of_the_wheel_runs(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin" / "newsbert"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    assert _run(command, "--version", cwd=tmp_path, env=environment) == f"newsbert {newsbert.__version__}\n"


def test_an_installed_wheel_makes_the_same_wheel(made: Path, installed: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from newsbert.images import wheel; print(wheel.write(Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    again = Path(_run(sys.executable, "-c", script, tmp_path, cwd=tmp_path, env=environment).strip())
    assert again.read_bytes() == made.read_bytes()
