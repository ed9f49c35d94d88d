"""Environments elsewhere: the real kubectl and gcloud, servers that store what they get, and models that answer.

No cluster and no Google are here: TorchServe answers for the pods of `fake_kubernetes` and the revisions of
`fake_cloud_run`.
"""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import ImageSettings, ServeSettings
from newsbert.images.build import DIGEST_TAG
from newsbert.images.contexts import DIGEST_LABEL, MODEL_LABEL, RUNTIME_LABEL
from newsbert.images.engine.engine import Engine
from newsbert.serving import archive
from newsbert.serving.torchserve import supervisor
from tests.support.cli import Cli
from tests.support.fake_cloud_run import CloudRunServer
from tests.support.fake_kubernetes import ApiServer
from tests.support.images import import_image, remove_image
from tests.support.servers import Registry

pytestmark = pytest.mark.engine
Trained = tuple[newsbert.TrainResult, str]


@dataclass(frozen=True)
class Models:
    """Versions 1 to 4 of TinyModel: two that answer, one whose image has another's model, one that was not pushed.

    Attributes:
        uri: The tracking server.
        repository: Where their images were pushed.
        images: These, by version.
        urls: Where they answer, by version.
        archives: What they should answer, by version.
    """

    uri: str
    repository: str
    images: dict[str, str]
    urls: dict[str, str]
    archives: dict[str, Path]

    def version_of(self, image: str) -> str:
        return next(version for version, name in self.images.items() if name == image)


@pytest.fixture(scope="module")
def models(
    trained: Trained,
    engine: Engine,
    registry: Registry,
    image_settings: ImageSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Models]:
    import mlflow

    directory = tmp_path_factory.mktemp("models")
    uri = f"sqlite:///{shutil.copy(trained[1].removeprefix('sqlite:///'), directory)}"
    mlflow.set_tracking_uri(uri)  # where the source of a version is looked up, whatever the client's
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    first = client.get_model_version("TinyModel", "1")
    assert first.source is not None
    for _ in ("2", "3", "4"):
        client.create_model_version("TinyModel", first.source, run_id=first.run_id)
    settings = ServeSettings(port=0, runtime="onnxruntime")
    bundle = Bundle.read(trained[0].bundle)
    repository = f"{image_settings.repository}/elsewhere"
    images = {}
    for version in ("1", "2", "3"):
        # Nothing runs it here: of an image only its labels are read.
        labels = {MODEL_LABEL: f"TinyModel/{version}", RUNTIME_LABEL: "onnxruntime", DIGEST_LABEL: bundle.digest}
        tag = import_image(f"{repository}/torchserve:{version}", labels)
        images[version] = f"{repository}/torchserve@{engine.push(tag, lambda *_: None)}"
        client.set_model_version_tag("TinyModel", version, DIGEST_TAG, images[version])
    archives = {number: archive.write(bundle, directory / number, f"TinyModel/{number}", settings) for number in "12"}
    with (
        supervisor.serving(archives["1"], settings, tmp_path_factory.mktemp("run"), print) as one,
        supervisor.serving(archives["2"], settings, tmp_path_factory.mktemp("run"), print) as two,
    ):
        assert one.wait_ready(60, threading.Event()) and two.wait_ready(60, threading.Event())
        urls = {"1": one.address.url, "2": two.address.url, "3": one.address.url}
        yield Models(uri, repository, images, urls, {**archives, "3": archives["2"]})
    for version in images:
        remove_image(f"{repository}/torchserve:{version}")


@pytest.fixture
def uri(models: Models, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", models.uri)
    return models.uri


@pytest.fixture
def unready() -> set[str]:
    """Images whose pods do not answer."""
    return set()


@pytest.fixture
def cluster(models: Models, unready: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl on this machine")

    def execute(pod: dict[str, Any], command: list[str]) -> tuple[int, str]:
        """What the image would run, with the model that the image would have."""
        version = models.version_of(pod["spec"]["containers"][0]["image"])
        assert command[:-2] == ["python", "-m", "newsbert.images.programs.verify", "--answers"], command
        arguments = [*command[1:-2], models.urls[version], str(models.archives[version])]
        ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        return ran.returncode, ran.stderr if ran.returncode else ran.stdout

    def answers(template: dict[str, Any]) -> bool:
        return template["spec"]["containers"][0]["image"] not in unready

    server = ApiServer(execute, answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    named = {"cluster": "c", "user": "u"}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "team", "context": named}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl caches what it knows of servers there
    (tmp_path / "newsbert.toml").write_text(
        f'[image]\nrepository = "{models.repository}"\n'
        '[environments.live]\ntarget = "kubernetes"\ncontext = "team"\ntimeout_s = 900\n'
    )
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cloud_run(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudRunServer]:
    if shutil.which("gcloud") is None:
        pytest.skip("there is no gcloud on this machine")
    server = CloudRunServer({f"TinyModel/{version}": url for version, url in models.urls.items()})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in server.environment(tmp_path / "gcloud").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "newsbert.toml").write_text(
        f'[image]\nrepository = "{models.repository}"\n'
        '[environments.live]\ntarget = "cloud-run"\nproject = "team"\nregion = "europe-west1"\n'
        'service_account = "news@team.iam.gserviceaccount.com"\nmin_instances = 1\n'
    )
    yield server
    server.shutdown()
    server.server_close()


def test_a_cluster_gets_a_model_another_and_the_first_again(
    cluster: ApiServer, models: Models, unready: set[str], uri: str, cli: Cli
) -> None:
    assert _environments(cli) == {"live": None}
    first = _run(cli, "deploy", "TinyModel/1", "--to", "live")
    assert (first["model"], first["image"], first["previous"]) == ("TinyModel/1", models.images["1"], None)
    assert "golden texts, alone and together: at most" in first["verification"]
    assert first["url"] == "http://newsbert-live.newsbert"
    assert cluster.objects["deployments", "newsbert-live"]["spec"]["progressDeadlineSeconds"] == 900
    second = _run(cli, "deploy", "TinyModel/2", "--to", "live")
    assert (second["model"], second["previous"]) == ("TinyModel/2", "TinyModel/1")
    assert (_alias(uri), _running(cluster)) == ("2", models.images["2"])

    # One whose pods give another model's answers, and one whose pods do not answer.
    refused = cli("deploy", "TinyModel/3", "--to", "live")
    assert refused.returncode == 1
    assert "'TinyModel/1' answers on" in refused.stderr and "Traceback" not in refused.stderr
    assert _running(cluster) == models.images["2"]
    unready.add(models.images["3"])
    refused = cli("deploy", "TinyModel/3", "--to", "live")
    assert refused.returncode == 1
    assert "not all pods answer" in refused.stderr and "it cannot" in refused.stderr, refused.stderr
    assert (_alias(uri), _running(cluster)) == ("2", models.images["2"])

    back = _run(cli, "rollback", "--to", "live")
    assert (back["model"], back["previous"]) == ("TinyModel/1", "TinyModel/2")
    assert (_alias(uri), _running(cluster)) == ("1", models.images["1"])
    assert _environments(cli)["live"] == {**back, "verification": None}


def test_a_first_model_that_a_cluster_does_not_take_leaves_nothing_there(
    cluster: ApiServer, uri: str, cli: Cli
) -> None:
    refused = cli("deploy", "TinyModel/3", "--to", "live", "--json")
    assert refused.returncode == 1
    assert "'TinyModel/1' answers on" in json.loads(refused.stdout)["error"]["message"]
    assert [key for key in cluster.objects if key[0] not in {"pods", "replicasets"}] == []
    nothing = cli("rollback", "--to", "live")
    assert (nothing.returncode, "there is no model before in live" in nothing.stderr) == (1, True)


def test_what_a_cluster_cannot_run_is_an_error_before_any_request(cluster: ApiServer, uri: str, cli: Cli) -> None:
    num_requests = len(cluster.requests)
    for arguments, environment, code, message in (
        (["registry.example/x@sha256:" + "0" * 64], {}, 2, "is an image, and here a version is needed"),
        (["TinyModel/1"], {"NEWSBERT_TOKEN_AUTH": "1"}, 2, "each pod has tokens of its own"),
        (["TinyModel/4"], {}, 1, "no registry is known to have the image of TinyModel/4"),
    ):
        refused = cli("deploy", *arguments, "--to", "live", **environment)
        assert (refused.returncode, message in refused.stderr) == (code, True), refused.stderr
    assert len(cluster.requests) == num_requests


def test_an_environment_that_cannot_be_reached_is_listed_with_its_error(
    cluster: ApiServer, uri: str, cli: Cli, tmp_path: Path
) -> None:
    with (tmp_path / "newsbert.toml").open("a") as file:
        file.write('[environments.away]\ntarget = "kubernetes"\ncontext = "nowhere"\n')
    listed = cli("environments", "--json")
    assert listed.returncode == 1
    environments = json.loads(listed.stdout)["environments"]
    assert environments["live"] is None
    assert 'context "nowhere" does not exist' in environments["away"]["error"]["message"]
    shown = cli("environments")
    assert (shown.returncode, "does not exist" in " ".join(shown.stdout.split())) == (1, True), shown.stdout
    empty = tmp_path / "bin"
    empty.mkdir()
    missing = cli("deploy", "TinyModel/1", "--to", "live", PATH=str(empty))
    assert (missing.returncode, "kubectl is not installed" in missing.stderr) == (1, True), missing.stderr


def test_attack_a_tag_of_the_registry_chooses_another_image(
    cluster: ApiServer, models: Models, engine: Engine, uri: str, cli: Cli
) -> None:
    import mlflow

    client = mlflow.MlflowClient(uri, registry_uri=uri)
    labels = {MODEL_LABEL: "TinyModel/2", RUNTIME_LABEL: "onnxruntime", DIGEST_LABEL: "0" * 64}
    altered = import_image(f"{models.repository}/torchserve:altered", labels)
    digest = engine.push(altered, lambda *_: None)
    attempts = {
        f"attacker.example/team/torchserve@sha256:{'0' * 64}": (2, "the registry names attacker.example/team"),
        models.images["1"]: (1, "holds another model than TinyModel/2: its label newsbert.model is 'TinyModel/1'"),
        f"{models.repository}/torchserve@{digest}": (1, "its label newsbert.bundle_digest is '00000000"),
    }
    try:
        for tag, (code, message) in attempts.items():
            client.set_model_version_tag("TinyModel", "2", DIGEST_TAG, tag)
            refused = cli("deploy", "TinyModel/2", "--to", "live")
            assert (refused.returncode, "Traceback" in refused.stderr) == (code, False), refused.stderr
            assert message in " ".join(refused.stderr.split()), refused.stderr
            if code == 2:
                manifests = cli("export", "kubernetes", "TinyModel/2")
                assert (manifests.returncode, manifests.stdout) == (2, ""), manifests.stderr
        assert cluster.objects == {}
    finally:
        client.set_model_version_tag("TinyModel", "2", DIGEST_TAG, models.images["2"])
        remove_image(altered)


def test_attack_a_pod_reports_good_answers_of_its_own(
    cluster: ApiServer, models: Models, uri: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed in the pod is compared here: words such as `verified` are no answers."""
    for printed in (
        "verified: 12 golden texts",
        "",
        "{}",
        '{"model": "TinyModel/1", "alone": [], "together": []}',
        "[" * 99_999,
    ):
        monkeypatch.setattr(cluster, "execute", lambda pod, command, printed=printed: (0, printed))
        refused = cli("deploy", "TinyModel/1", "--to", "live")
        assert (refused.returncode, "Traceback" in refused.stderr) == (1, False), refused.stderr
        assert [key for key in cluster.objects if key[0] not in {"pods", "replicasets"}] == []


def test_cloud_run_gets_a_model_another_and_the_first_again(
    cloud_run: CloudRunServer, models: Models, uri: str, cli: Cli
) -> None:
    refused = cli("deploy", "TinyModel/3", "--to", "live")
    assert refused.returncode == 1
    assert "'TinyModel/1' answers on" in refused.stderr and "Traceback" not in refused.stderr
    assert cloud_run.services == {}

    first = _run(cli, "deploy", "TinyModel/1", "--to", "live")
    assert (first["model"], first["image"], first["previous"]) == ("TinyModel/1", models.images["1"], None)
    assert first["verification"].endswith("golden texts")
    (service,) = cloud_run.services.values()
    template = service["spec"]["template"]
    assert template["spec"]["serviceAccountName"] == "news@team.iam.gserviceaccount.com"
    assert template["metadata"]["annotations"]["autoscaling.knative.dev/minScale"] == "1"
    second = _run(cli, "deploy", "TinyModel/2", "--to", "live")
    assert (second["model"], second["previous"]) == ("TinyModel/2", "TinyModel/1")

    refused = cli("deploy", "TinyModel/3", "--to", "live")
    assert refused.returncode == 1
    assert _environments(cli)["live"] == {**second, "verification": None}
    back = _run(cli, "rollback", "--to", "live")
    assert (back["model"], back["previous"], _alias(uri)) == ("TinyModel/1", "TinyModel/2", "1")


def _run(cli: Cli, *arguments: str) -> dict[str, Any]:
    done = cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _environments(cli: Cli) -> dict[str, Any]:
    environments: dict[str, Any] = _run(cli, "environments")["environments"]
    return environments


def _alias(uri: str) -> str:
    import mlflow

    return str(mlflow.MlflowClient(uri, registry_uri=uri).get_model_version_by_alias("TinyModel", "live").version)


def _running(cluster: ApiServer) -> str:
    """The image of the deployment's only pods."""
    deployment = cluster.objects["deployments", "newsbert-live"]
    image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    pods = [pod for (kind, _), pod in cluster.objects.items() if kind == "pods"]
    assert [pod["spec"]["containers"][0]["image"] for pod in pods] == [image]
    return image
