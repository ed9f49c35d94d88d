"""The built wheel in an environment: train, register, serve, predict, build the image, serve that."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from newsbert.core.settings import ImageSettings
from tests.support.images import Images, image_toml, remove_image

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., str]
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def empty_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True, timeout=900)
    (wheel,) = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def newsbert_command(wheel: Path) -> Path:
    """`newsbert` from the wheel, in a new environment that takes all other packages from that of the tests."""
    environment = wheel.parent / "venv"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
    # Behind those of the environment itself; the tests' own newsbert is not in there, but in a .pth, which is not read.
    Path(packages, "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--ignore-installed", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True, timeout=900)
    return environment / "bin" / "newsbert"


def test_what_the_wheel_requires_is_what_is_locked(wheel: Path) -> None:
    report = wheel.with_name("report.json")
    install = ["install", "--quiet", "--dry-run", "--report", str(report), f"newsbert[all] @ {wheel.as_uri()}"]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True, timeout=900)
    installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    assert [package["metadata"]["name"] for package in installed] == ["newsbert"]


def test_the_command_is_that_of_the_wheel(newsbert_command: Path) -> None:
    where = [str(newsbert_command.with_name("python")), "-P", "-c", "import newsbert; print(newsbert.__file__)"]
    printed = subprocess.run(where, check=True, capture_output=True, text=True, timeout=60).stdout
    assert Path(printed.strip()).is_relative_to(newsbert_command.parents[1])


@pytest.fixture(scope="module")
def run(newsbert_command: Path, empty_directory: Path) -> Iterator[Run]:
    """Run `newsbert ARGUMENTS` in the empty directory and return what it printed; it must succeed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NEWSBERT_", "MLFLOW_", "PYTHON", "VIRTUAL_ENV"))
    }
    environment |= {"NEWSBERT_STATE_DIR": str(empty_directory / ".state"), "NO_COLOR": "1"}

    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [str(newsbert_command), *arguments],
            cwd=empty_directory,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    subprocess.run([str(newsbert_command), "serve", "stop", "--all"], env=environment, capture_output=True, check=False)


@pytest.fixture(scope="module")
def version(run: Run) -> str:
    """The sample's model, trained and registered."""
    trained = json.loads(run("train", "--epochs", "2", "--json"))
    assert trained["metrics"]["accuracy"] > 0.5  # four classes: chance is 0.25
    registered = json.loads(run("register", "--model-name", "BertModel", "--json"))
    assert registered["run_id"] == trained["run_id"]
    return str(registered["model"])


def _answers(printed: str) -> list[dict[str, float]]:
    return [prediction["probabilities"] for prediction in json.loads(printed)["predictions"]]


TEXTS = ("Stocks fall as oil rises", "Striker scores twice in cup final", "New chip doubles battery life of phones")


def test_trains_registers_serves_and_predicts(run: Run, version: str, empty_directory: Path) -> None:
    assert version == "BertModel/1"
    here = _answers(run("predict", "--json", *TEXTS))
    served = json.loads(run("serve", "locally", "--detach", "--port", "0", "--json"))
    assert served["model"] == version
    there = _answers(run("predict", "--json", "--url", served["url"], stdin="\n".join(TEXTS)))
    for mine, its in zip(here, there, strict=True):
        assert its == pytest.approx(mine, abs=1e-3)
    (empty_directory / "in.csv").write_text('id,text\n7,"Stocks fall, oil rises"\n8,Cup final\n', encoding="utf-8")
    run("predict", "--model", version, "--file", "in.csv", "--output", "out.csv")
    lines = (empty_directory / "out.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id,text,label,score,review,probabilities"
    assert [line.split(",")[0] for line in lines[1:]] == ["7", "8"]
    run("serve", "stop")


@pytest.mark.engine
def test_builds_the_image_and_serves_it(
    run: Run, version: str, empty_directory: Path, images: Images, image_settings: ImageSettings
) -> None:
    (empty_directory / "newsbert.toml").write_text(image_toml(image_settings), encoding="utf-8")
    built = json.loads(run("build-image", version, "--json"))
    base, trainer, serving = built["images"]
    assert serving["tag"] == f"{image_settings.repository}/torchserve:BertModel-1"
    # The same sources and versions, installed in another way, are the same images.
    assert [base["content_tag"], trainer["content_tag"]] == [images.base.tag, images.trainer.tag]
    assert base["cached"]
    assert trainer["cached"]
    assert serving["size_bytes"] <= 600_000_000
    try:
        served = json.loads(run("serve", "container", version, "--detach", "--port", "0", "--json"))
        here = _answers(run("predict", "--json", *TEXTS))
        there = _answers(run("predict", "--json", "--url", served["url"], *TEXTS))
        for mine, its in zip(here, there, strict=True):
            assert its == pytest.approx(mine, abs=1e-3)
    finally:
        run("serve", "stop")
        for tag in (serving["tag"], serving["content_tag"]):
            remove_image(tag)
