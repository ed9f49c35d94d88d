"""`mlflow deployments` on TorchServes as users run them: our target, and the plugin's own."""

import ast
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle, files_of
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving import archive, handler, protocol
from newsbert.serving.mlflow_target.target import DeploymentError, NewsbertTarget
from tests.support.cli import Cli
from tests.support.torchserve import (
    NAME,
    Mlflow,
    Running,
    client,
    free_ports,
    guarded,
    mlflow_command,
    opened,
    torchserve,
)

__all__ = ["client", "guarded", "mlflow_command", "opened"]


def _succeeded(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def _failed(result: "subprocess.CompletedProcess[str]", code: int, *parts: str) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert "\nHint: " in result.stderr
    for part in parts:
        assert part in result.stderr


def test_the_whole_cycle_with_tokens(
    guarded: Running, mlflow_command: Mlflow, trained: tuple[newsbert.TrainResult, str], tmp_path: Path
) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"instances": ["goal team cup", {"title": "bank", "text": "stocks"}]}))
    keys = guarded.home / "key_file.json"
    at = ("-t", guarded.target, "--name", NAME)

    def run(*arguments: object) -> str:
        return _succeeded(mlflow_command(*arguments, NEWSBERT_KEY_FILE=str(keys)))

    def description() -> dict[str, str]:
        lines = run("get", *at).splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    created = run(
        "create", *at, "-m", "models:/TinyModel/1", "-C", "WORKERS=1", "-C", "batch_size=16", "-C", "BATCH_DELAY_MS=7",
        "-C", "REVIEW_THRESHOLD=1",
        "-C", f"EXPORT_PATH={guarded.store}", "-C", f"HANDLER={handler.__file__}",
    )  # fmt: skip
    assert f"deployment {NAME}/1.0 is created" in created
    (listed,) = ast.literal_eval(run("list", "-t", guarded.target).partition("\n")[2])
    assert listed["name"] == NAME
    described = description()
    assert described["name"] == f"{NAME}/1.0"
    assert (described["batchSize"], described["maxBatchDelay"], described["minWorkers"]) == ("16", "7", "1")

    answers = json.loads(run("predict", *at, "-I", tmp_path / "in.json"))["predictions"]
    expected = newsbert.load(trained[0].bundle).predict(["goal team cup", {"title": "bank", "text": "stocks"}])
    for answer, prediction in zip(answers, expected, strict=True):
        assert answer["label"] == prediction.label
        assert answer["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-3)
        assert answer["review"] is True
    explained = json.loads(run("explain", *at, "-I", tmp_path / "in.json"))["predictions"]
    assert [answer["label"] for answer in explained] == [answer["label"] for answer in answers]
    assert [word["text"] for word in explained[0]["explanation"]["words"]] == ["goal", "team", "cup"]

    run("update", *at, "-C", "WORKERS=2")
    assert description()["minWorkers"] == "2"
    run("update", *at, "-m", "models:/TinyModel/1", "-C", "BATCH_SIZE=3", "-C", f"EXPORT_PATH={guarded.store}")
    described = description()
    assert (described["name"], described["batchSize"], described["maxBatchDelay"], described["minWorkers"]) == (
        f"{NAME}/2.0", "3", "7", "2",
    )  # fmt: skip
    assert [name.startswith(f"{NAME}-2.0-") for name in guarded.archives()] == [True]
    run("predict", *at, "-I", tmp_path / "in.json", "-O", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["predictions"][0]["label"] == "Sport & loisirs"

    run("delete", *at, "-C", f"EXPORT_PATH={guarded.store}")
    assert ast.literal_eval(run("list", "-t", guarded.target).partition("\n")[2]) == []
    assert guarded.archives() == []
    run("delete", *at)  # what is gone need not be deleted


def test_without_the_right_token_nothing_is_done_and_the_error_names_it(
    guarded: Running, mlflow_command: Mlflow
) -> None:
    keys = json.loads((guarded.home / "key_file.json").read_text())
    management = keys["management"]["key"]
    message = "Token Authorization failed"
    _failed(mlflow_command("list", "-t", guarded.target), 1, message, "NEWSBERT_KEY_FILE", "NEWSBERT_MANAGEMENT_TOKEN")
    wrong = mlflow_command("list", "-t", guarded.target, NEWSBERT_MANAGEMENT_TOKEN="wrong-one-19")
    _failed(wrong, 1, message)
    assert "wrong-one-19" not in wrong.stderr
    create = ("create", "-t", guarded.target, "--name", NAME, "-m", "models:/TinyModel/1")
    _failed(mlflow_command(*create, NEWSBERT_MANAGEMENT_TOKEN=management), 1, message, "NEWSBERT_TOKEN")
    listed = mlflow_command("list", "-t", guarded.target, NEWSBERT_MANAGEMENT_TOKEN=management)
    assert _succeeded(listed).endswith("[]\n")
    assert guarded.archives() == []


def test_management_on_a_socket(
    tmp_path_factory: pytest.TempPathFactory, trained: tuple[newsbert.TrainResult, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with torchserve(tmp_path_factory.mktemp("socket"), tokens=True, on_socket=True) as running:
        monkeypatch.setenv("NEWSBERT_KEY_FILE", str(running.home / "key_file.json"))
        target = NewsbertTarget(running.by_socket)
        target.create_deployment(NAME, str(trained[0].bundle))
        assert [deployment["name"] for deployment in target.list_deployments()] == [NAME]
        assert target.predict(NAME, ["goal team"])["predictions"][0]["label"] == "Sport & loisirs"
        target.delete_deployment(NAME)
        assert target.list_deployments() == []


@pytest.mark.parametrize("form", ["models:/TinyModel/1", "runs:/", "logged model", "bundle", "fetched"])
def test_a_model_can_be_deployed_from_every_place(
    client: NewsbertTarget, trained: tuple[newsbert.TrainResult, str], form: str
) -> None:
    import mlflow

    result, _ = trained
    logged = Path(mlflow.artifacts.download_artifacts("models:/TinyModel/1"))
    uri, model = {
        "models:/TinyModel/1": ("models:/TinyModel/1", "TinyModel/1"),
        "runs:/": (f"runs:/{result.run_id}/model", f"run {result.run_id}"),
        "logged model": (str(logged), f"bundle {Bundle.read(result.bundle).digest[:12]}"),
        "bundle": (str(result.bundle), f"bundle {Bundle.read(result.bundle).digest[:12]}"),
        "fetched": (logged.as_uri(), f"bundle {Bundle.read(result.bundle).digest[:12]}"),
    }[form]
    client.create_deployment(NAME, uri)
    assert _served_model(client) == model


def _served_model(client: NewsbertTarget) -> str:
    request = urllib.request.Request(
        f"{client.inference_api}/predictions/{NAME}", b"goal", {"Content-Type": "text/plain"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return str(response.headers[protocol.MODEL_HEADER])


def test_what_is_packed_is_what_the_runtime_reads(client: NewsbertTarget, opened: Running) -> None:
    import zipfile

    options = {"EXPORT_PATH": opened.store, "RUNTIME": "torch", "MODEL": "My model/9"}
    client.create_deployment("other.name", "models:/TinyModel/1", config=options)
    (file,) = opened.archives()
    assert archive.served(opened.store / file) == archive.ArchiveInfo("My model/9", "torch")
    with zipfile.ZipFile(opened.store / file) as content:
        assert not {"model.onnx", "model.int8.onnx", "model.pth"} & set(content.namelist())
    assert client.predict("other.name", "stocks market")["predictions"][0]["label"] == "Économie"


def test_versions_beside_each_other(client: NewsbertTarget) -> None:
    assert client.create_deployment(NAME, "models:/TinyModel/1")["name"] == f"{NAME}/1.0"
    with pytest.raises(DeploymentError, match=r"news_classification/1\.0 exists"):
        client.create_deployment(NAME, "models:/TinyModel/1")
    client.create_deployment(NAME, "models:/TinyModel/1", config={"version": "3.0", "model": "the third"})
    assert _served_model(client) == "TinyModel/1"
    client.update_deployment(f"{NAME}/3.0", config={"set-default": "true"})
    assert _served_model(client) == "the third"
    assert client.get_deployment(NAME)["name"] == f"{NAME}/3.0"
    assert client.get_deployment(f"{NAME}/1.0")["name"] == f"{NAME}/1.0"
    client.delete_deployment(f"{NAME}/1.0")
    with pytest.raises(DeploymentError, match="does not exist"):
        client.get_deployment(f"{NAME}/1.0")
    assert client.update_deployment(NAME, "models:/TinyModel/1")["name"] == f"{NAME}/4.0"
    client.create_deployment(NAME, "models:/TinyModel/1", config={"version": "9.0"})
    client.delete_deployment(NAME)  # all of them, the default one too
    assert client.list_deployments() == []


def test_many_deployments_are_all_listed(
    client: NewsbertTarget, monkeypatch: pytest.MonkeyPatch, trained: tuple[newsbert.TrainResult, str]
) -> None:
    from newsbert.serving.torchserve import management

    monkeypatch.setattr(management, "PAGE_MODELS", 2)
    for number in range(3):
        client.create_deployment(f"model-{number}", str(trained[0].bundle))
    assert sorted(deployment["name"] for deployment in client.list_deployments()) == ["model-0", "model-1", "model-2"]


def test_a_bad_text_is_refused_in_the_servers_words(client: NewsbertTarget) -> None:
    client.create_deployment(NAME, "models:/TinyModel/1")
    with pytest.raises(DeploymentError, match="item 1"):
        client.predict(NAME, ["goal", " "])
    many = client.predict(NAME, ["goal team"] * 200)
    assert len(many["predictions"]) == 200


def test_what_an_altered_bundle_or_another_answer_gives_is_not_deployed(
    client: NewsbertTarget, opened: Running, trained: tuple[newsbert.TrainResult, str], tmp_path: Path
) -> None:
    """A bundle that is sound in itself, whose remembered answers are not what its graph gives."""
    import hashlib
    import shutil

    copy = Path(shutil.copytree(trained[0].bundle, tmp_path / "copy"))
    contract = json.loads((copy / "newsbert.json").read_text())
    contract["golden"][0]["probabilities"] = [0.1, 0.1, 0.8]
    for entry in contract["graphs"].values():
        entry["golden"] = []
    (copy / "newsbert.json").write_text(json.dumps(contract))
    with pytest.raises(DeploymentError, match="Failed to start workers"):  # they know it first
        client.create_deployment(NAME, str(copy), config={"EXPORT_PATH": opened.store})
    assert (client.list_deployments(), opened.archives()) == ([], [])
    graph = files_of(resolve_runtime(Bundle.read(copy)))[0]
    (copy / graph).write_bytes(b"altered")
    with pytest.raises(DeploymentError, match=r"model.*\.onnx was altered"):
        client.create_deployment(NAME, str(copy))
    contract["files"][graph] = hashlib.sha256(b"altered").hexdigest()
    (copy / "newsbert.json").write_text(json.dumps(contract))
    with pytest.raises(DeploymentError, match="Failed to start workers"):
        client.create_deployment(NAME, str(copy))
    assert (client.list_deployments(), opened.archives()) == ([], [])


@pytest.mark.parametrize(
    ("action", "options", "message"),
    [
        ("create", {"EXPORT_DIR": "x"}, "EXPORT_DIR"),
        ("create", {"WORKERS": "two"}, "-C WORKERS"),
        ("create", {"BATCH_SIZE": "0"}, "-C BATCH_SIZE"),
        ("create", {"VERSION": "latest"}, "-C VERSION"),
        ("create", {"RUNTIME": "tensorrt"}, "-C RUNTIME"),
        ("create", {"HANDLER": "my_handler.py"}, "-C HANDLER"),
        ("create", {"SET_DEFAULT": "true"}, "SET_DEFAULT"),
        ("update", {}, "nothing to update"),
        ("update", {"BATCH_SIZE": "8"}, "TorchServe sets batches"),
        ("update", {"SET_DEFAULT": "maybe"}, "-C SET_DEFAULT"),
        ("update", {"WORKERS": "2"}, "Model not found"),
        ("delete", {"WORKERS": "2"}, "WORKERS"),
    ],
)
def test_a_wrong_configuration_is_an_error(
    client: NewsbertTarget, action: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(DeploymentError, match=message) as caught:
        if action == "create":
            client.create_deployment(NAME, "models:/TinyModel/1", config=options)
        elif action == "update":
            client.update_deployment(NAME, config=options)
        else:
            client.delete_deployment(NAME, config=options)
    assert "\nHint: " in str(caught.value)


@pytest.mark.parametrize("uri", ["models:/Nobody/1", "models:/TinyModel/9", "file:///nowhere", "runs:/" + "0" * 32])
def test_a_model_that_is_not_there_is_an_error(client: NewsbertTarget, uri: str) -> None:
    with pytest.raises(DeploymentError, match="Hint: "):
        client.create_deployment(NAME, uri)


@pytest.mark.parametrize(
    "uri",
    ["newsbert://", "newsbert:relative", "newsbert://host:port", "newsbert://host/path", "newsbert:/s?port=1",
     "newsbert://host:1?inference_port=x"],
)  # fmt: skip
def test_a_target_that_is_no_address_is_an_error(uri: str) -> None:
    with pytest.raises(DeploymentError, match="the target"):
        NewsbertTarget(uri)


def test_wrong_names_flavors_and_endpoints_are_errors(client: NewsbertTarget) -> None:
    for call in (
        lambda: client.create_deployment("a b", "models:/TinyModel/1"),
        lambda: client.create_deployment(NAME, "models:/TinyModel/1", flavor="sklearn"),
        lambda: client.list_deployments(endpoint="x"),
        lambda: client.predict(inputs=["x"]),
        lambda: client.get_deployment("../models"),
    ):
        with pytest.raises(DeploymentError):
            call()


def test_a_server_that_is_down_and_a_wrong_key_are_errors_without_a_traceback(
    mlflow_command: Mlflow, opened: Running
) -> None:
    (port,) = free_ports(1)
    _failed(mlflow_command("list", "-t", f"newsbert://127.0.0.1:{port}"), 1, f"127.0.0.1:{port}", "refused")
    create = ("create", "-t", opened.target, "--name", NAME, "-m", "models:/TinyModel/1")
    _failed(mlflow_command(*create, "-C", "WORKRES=1"), 2, "WORKRES", "BATCH_SIZE")
    helped = _succeeded(mlflow_command("help", "-t", "newsbert"))
    for word in ("NEWSBERT_KEY_FILE", "EXPORT_PATH", "newsbert:/path/management.sock"):
        assert word in helped


def test_the_defaults_are_torchserves_and_those_of_its_configuration(
    opened: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeploymentError, match=r"http://127\.0\.0\.1:8081|InvalidKey|Token"):
        NewsbertTarget("newsbert").get_deployment("nobody-has-this-19")
    monkeypatch.setenv("CONFIG_PROPERTIES", str(opened.home / "config.properties"))
    assert NewsbertTarget("newsbert").list_deployments() == []


def test_run_local_serves_until_it_is_interrupted(
    mlflow_command: Mlflow, trained: tuple[newsbert.TrainResult, str]
) -> None:
    (port,) = free_ports(1)
    arguments = ["run-local", "-t", "newsbert", "--name", NAME, "-m", "models:/TinyModel/1", "-C", f"PORT={port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "deployments", *arguments],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "MLFLOW_TRACKING_URI": trained[1]},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"TinyModel/1 is ready on http://127.0.0.1:{port}; Ctrl+C stops it\n"
        request = urllib.request.Request(f"http://127.0.0.1:{port}/predictions/{NAME}", b"data=goal")
        with urllib.request.urlopen(request, timeout=10) as response:
            assert json.load(response)["label"] == newsbert.load(trained[0].bundle).predict(["goal"])[0].label
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()  # whatever became of it, it is not to be in the next tests' way
    assert process.returncode == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)


@pytest.mark.parametrize("with_torch", [True, False], ids=["torch", "no torch"])
def test_the_plugins_own_target_keeps_working(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    trained: tuple[newsbert.TrainResult, str],
    cli: Cli,
    mlflow_command: Mlflow,
    with_torch: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the command that `newsbert export archive --for-plugin` prints."""
    from mlflow.deployments import get_deploy_client

    written = cli(
        "export", "archive", "TinyModel/1", "--for-plugin", "--output-dir", tmp_path, "--tracking-uri", trained[1]
    )
    assert written.returncode == 0, written.stderr
    command = shlex.split(next(line for line in written.stderr.splitlines() if "mlflow deployments" in line))
    arguments = command[command.index("deployments") + 1 :]
    with torchserve(tmp_path_factory.mktemp("stock"), tokens=False, with_torch=with_torch) as running:
        properties = str(running.home / "config.properties")
        created = mlflow_command(
            *arguments, "-C", f"EXPORT_PATH={running.store}", "-C", "batch_size=8", CONFIG_PROPERTIES=properties
        )
        assert f"deployment {NAME}/1.0 is created" in _succeeded(created)
        described = mlflow_command("get", "-t", "torchserve", "--name", NAME, CONFIG_PROPERTIES=properties)
        assert '"status": "READY"' in _succeeded(described)
        monkeypatch.setenv("CONFIG_PROPERTIES", properties)
        client: Any = get_deploy_client("torchserve")
        answer = json.loads(client.predict(NAME, json.dumps({"data": "goal team"})))
        assert answer["label"] == "Sport & loisirs"
        # Ours sees what the plugin deployed, and answers for it where the plugin cannot parse what MLflow hands it.
        ours = NewsbertTarget(running.target)
        assert ours.predict(NAME, ["goal team"])["predictions"] == [answer]
        # With the runtime and the name that an archive of ours would have.
        request = urllib.request.Request(f"{ours.inference_api}/predictions/{NAME}", b"data=goal+team")
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.headers["X-Newsbert-Model"] == "TinyModel/1"
            assert json.load(response) == answer
        chosen = newsbert.load("TinyModel/1", tracking_uri=trained[1], runtime="auto")
        assert answer["probabilities"] == chosen.predict("goal team")[0].to_dict()["probabilities"]
        _succeeded(mlflow_command("delete", "-t", "torchserve", "--name", NAME, CONFIG_PROPERTIES=properties))
        assert ours.list_deployments() == []
