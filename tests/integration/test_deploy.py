"""Environments: a model takes over from another without a request lost, and goes back."""

import contextlib
import http.client
import io
import json
import shutil
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.core.settings import ServeSettings
from newsbert.serving import archive
from tests.support.calls import free_port
from tests.support.cli import Cli
from tests.support.environments import environment_toml, remove_environment
from tests.support.images import remove_image

pytestmark = pytest.mark.engine
Trained = tuple[newsbert.TrainResult, str]


@pytest.fixture(scope="module")
def other_images(tiny_image: str, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The tiny model's image as TinyModel/2, and one of a model that answers otherwise than it promises."""
    directory = tmp_path_factory.mktemp("models")
    second = archive.write(Bundle.read(trained[0].bundle), directory / "2", "TinyModel/2", ServeSettings())
    bundle = shutil.copytree(trained[0].bundle, directory / "bundle")
    contract = json.loads((bundle / CONTRACT_FILE).read_text())
    for graph in [contract, *contract["graphs"].values()]:
        for golden in graph.get("golden") or []:
            probabilities = golden["probabilities"] if isinstance(golden, dict) else golden
            probabilities.reverse()
    (bundle / CONTRACT_FILE).write_text(json.dumps(contract))
    third = archive.write(Bundle.read(bundle), directory / "3", "TinyModel/3", ServeSettings())
    names = [
        _with_archive(tiny_image, file, model, Bundle.read(made).digest)
        for file, model, made in ((second, "TinyModel/2", trained[0].bundle), (third, "TinyModel/3", bundle))
    ]
    yield names
    for name in names:
        remove_image(name)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """An environment's name, and its port."""
    name, port = "trial", free_port()
    (tmp_path / "newsbert.toml").write_text(environment_toml(name, port))
    yield name, port
    remove_environment(name)


def test_a_model_takes_over_under_load_and_goes_back(
    trial: tuple[str, int], tiny_image: str, other_images: list[str], cli: Cli, trained: Trained
) -> None:
    import mlflow

    name, port = trial
    uri = {"MLFLOW_TRACKING_URI": trained[1]}
    first = cli("deploy", tiny_image, "--to", name, "--json", timeout_s=180, **uri)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert (document["model"], document["previous"]) == ("TinyModel/1", None)
    assert document["url"] == f"http://127.0.0.1:{port}"
    assert "golden texts, alone and together" in document["verification"]
    client = mlflow.MlflowClient(trained[1])
    assert int(client.get_model_version_by_alias("TinyModel", name).version) == 1
    with _load(port) as answers:
        second = cli("deploy", other_images[0], "--to", name, timeout_s=180, **uri)
        assert second.returncode == 0, second.stderr
        assert f"TinyModel/2 answers in {name} on http://127.0.0.1:{port}\n  previous  TinyModel/1\n" in second.stdout
        at_first = Counter(answers)
        back = cli("rollback", "--to", name, "--json", timeout_s=180, **uri)
        assert back.returncode == 0, back.stderr
        assert json.loads(back.stdout)["previous"] == "TinyModel/2"
        # The same model again: an answer does not show whether the proxy has taken it in.
        again = cli("deploy", tiny_image, "--to", name, timeout_s=180, **uri)
        assert again.returncode == 0, again.stderr
        time.sleep(1)
    assert at_first["TinyModel/1"] > 20 and at_first["TinyModel/2"] > 20
    assert set(answers) == {"TinyModel/1", "TinyModel/2"}, answers  # and not one error
    listed = json.loads(cli("environments", "--json").stdout)["environments"]
    assert (listed[name]["model"], listed[name]["previous"]) == ("TinyModel/1", "TinyModel/1")
    assert _containers(name) == {"proxy": ["running"], "model": ["exited", "running"]}


def test_what_does_not_give_its_own_answers_changes_nothing(
    trial: tuple[str, int], tiny_image: str, other_images: list[str], cli: Cli
) -> None:
    name, port = trial
    nothing = cli("rollback", "--to", name)
    assert nothing.returncode == 1
    assert f"there is no model before in {name}" in nothing.stderr
    assert cli("deploy", tiny_image, "--to", name, timeout_s=180).returncode == 0
    with _load(port) as answers:
        refused = cli("deploy", other_images[1], "--to", name, timeout_s=180)
        assert refused.returncode == 1
        assert f"{other_images[1]} is not taken: it ended by itself while starting" in refused.stderr
        assert "is answered otherwise than in training" in refused.stderr
    assert set(answers) == {"TinyModel/1"}, answers
    assert _containers(name) == {"proxy": ["running"], "model": ["running"]}
    # A deployment that was killed has left its candidate.
    _leave_behind(name, tiny_image)
    assert cli("deploy", other_images[0], "--to", name, timeout_s=180).returncode == 0
    assert _containers(name) == {"proxy": ["running"], "model": ["exited", "running"]}


_OTHER_SERVER = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        answer = {"label": "Sport & loisirs", "score": 1.0, "probabilities": {"Sport & loisirs": 1.0}}
        if "json" in self.headers["Content-Type"]:
            items = json.loads(content)
            answer = [answer] * len(items["instances"] if isinstance(items, dict) else items)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("X-Newsbert-Model", "TinyModel%2F2")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def test_attack_an_image_vouches_for_itself(
    trial: tuple[str, int], tiny_image: str, trained: Trained, cli: Cli, tmp_path: Path
) -> None:
    """Labels, archive, and a proof program that prints what is hoped for: but the server answers otherwise."""
    name, port = trial
    bundle = Bundle.read(trained[0].bundle)
    second = archive.write(bundle, tmp_path / "2", "TinyModel/2", ServeSettings())
    lie = """import newsbert.images.programs.verify as p; open(p.__file__, "w").write('print("verified: all")')"""
    lie = f"RUN {json.dumps(['python', '-c', lie])}"
    server = f"USER root\n{lie}\nUSER newsbert\nENTRYPOINT {json.dumps(['python', '-c', _OTHER_SERVER])}\n"
    image = _with_archive(tiny_image, second, "TinyModel/2", bundle.digest, server, tag="lies")
    wrong = _with_archive(tiny_image, second, "TinyModel/3", "0" * 64, tag="mislabelled")
    try:
        assert cli("deploy", tiny_image, "--to", name, timeout_s=180).returncode == 0
        with _load(port) as answers:
            refused = cli("deploy", image, "--to", name, timeout_s=180)
            assert refused.returncode == 1, refused.stdout
            assert f"{image} is not taken" in refused.stderr and "otherwise than in training" in refused.stderr
            mislabelled = cli("deploy", wrong, "--to", name)
            assert mislabelled.returncode == 1, mislabelled.stdout
            assert "holds another model than its label newsbert.bundle_digest names" in mislabelled.stderr
        assert set(answers) == {"TinyModel/1"}, answers
        assert _containers(name) == {"proxy": ["running"], "model": ["running"]}
    finally:
        remove_image(image)
        remove_image(wrong)


def test_what_cannot_be_deployed_is_an_error(trial: tuple[str, int], tiny_image: str, cli: Cli, tmp_path: Path) -> None:
    unknown = cli("deploy", tiny_image, "--to", "prod")
    assert unknown.returncode == 2
    assert "there is no environment 'prod'" in unknown.stderr and "there are: trial" in unknown.stderr
    missing = cli("deploy", "registry.invalid/x:1", "--to", "trial")
    assert missing.returncode == 1
    assert "registry.invalid/x:1" in missing.stderr
    tokens = cli("deploy", tiny_image, "--to", "trial", NEWSBERT_TOKEN_AUTH="1")
    assert tokens.returncode == 2
    assert "tokens of its own" in tokens.stderr
    assert "model" not in _containers("trial")
    content = (tmp_path / "newsbert.toml").read_text()
    for wrong in (content + "ports = 1\n", content.replace("trial", "Dev_1"), "[environments]\ntrial = 1\n"):
        (tmp_path / "newsbert.toml").write_text(wrong)
        refused = cli("environments")
        assert refused.returncode == 2
        assert "newsbert.toml" in refused.stderr


@contextlib.contextmanager
def _load(port: int) -> Iterator[list[str]]:
    """Send requests all the time, on persistent and on new connections; list which model answered, or what failed."""
    answers: list[str] = []
    ended = threading.Event()

    def ask(keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not ended.is_set():
            try:
                connection.request("POST", "/predictions/news_classification", "goal", {"Content-Type": "text/plain"})
                response = connection.getresponse()
                response.read()
                answers.append(response.headers["X-Newsbert-Model"] if response.status == 200 else str(response.status))
            except (OSError, http.client.HTTPException) as error:
                answers.append(repr(error))
                connection.close()
            if not keep:
                connection.close()
            time.sleep(0.01)
        connection.close()

    threads = [threading.Thread(target=ask, args=(keep,)) for keep in (True, True, False, False)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _containers(environment: str) -> dict[str, list[str]]:
    """The states of an environment's containers, by role."""
    import docker

    states_by_role: dict[str, list[str]] = {}
    with contextlib.closing(docker.from_env()) as client:
        for container in client.containers.list(all=True, filters={"label": f"newsbert.environment={environment}"}):
            states_by_role.setdefault(container.labels["newsbert.role"], []).append(container.status)
    return {role: sorted(states) for role, states in states_by_role.items()}


def _leave_behind(environment: str, image: str) -> None:
    import docker

    labels = {"newsbert.environment": environment, "newsbert.role": "model"}
    with contextlib.closing(docker.from_env()) as client:
        client.containers.run(image, detach=True, read_only=True, tmpfs={"/tmp": ""}, labels=labels)


def _with_archive(image: str, file: Path, model: str, digest: str, more: str = "", tag: str = "") -> str:
    """Make an image with another model archive, and more lines of a Dockerfile; return its name."""
    import docker

    name = f"newsbert-test/torchserve:{tag or model.replace('/', '-')}"
    dockerfile = f"FROM {image}\nCOPY news_classification.mar /opt/model/\nLABEL newsbert.model={model}\n"
    dockerfile += f"LABEL newsbert.bundle_digest={digest}\n{more}"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for entry, content in (("Dockerfile", dockerfile.encode()), ("news_classification.mar", file.read_bytes())):
            member = tarfile.TarInfo(entry)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    context.seek(0)
    with contextlib.closing(docker.from_env()) as client:
        built: Any = client.images.build(fileobj=context, custom_context=True, tag=name, rm=True)
    assert built
    return name
