"""Signed models in a registry: who may write to it may not make one that is loaded where keys are trusted."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from newsbert.api import models
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE, SIGNATURE_FILE
from newsbert.errors import ModelError
from newsbert.tracking import flavor, locate
from newsbert.tracking.runs import DIGEST_TAG, MODEL_ID_TAG
from tests.support.calls import free_port
from tests.support.cli import Cli
from tests.support.servers import tracking_server
from tests.support.signed import sign, write_bundle, write_key


@pytest.fixture(scope="module", params=["server", "directory"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server, and a database beside a directory of artifacts."""
    directory = tmp_path_factory.mktemp("tracking")
    if request.param == "directory":
        yield f"sqlite:///{directory / 'mlflow.db'}"
        return
    with tracking_server(directory, free_port()) as url:
        yield url


class Registry:
    """A colleague's access to a registry, which holds a bundle as a training logs it."""

    def __init__(self, uri: str, bundle: Bundle, experiment: str) -> None:
        self._client = mlflow.MlflowClient(uri, registry_uri=uri)
        existing = self._client.get_experiment_by_name(experiment)
        self._experiment = existing.experiment_id if existing else self._client.create_experiment(experiment)
        self.run_id = self._client.create_run(self._experiment).info.run_id
        model = self._client.create_logged_model(
            self._experiment, name="model", source_run_id=self.run_id, tags={DIGEST_TAG: bundle.digest}
        )
        self.model_id = model.model_id
        self._client.log_model_artifacts(self.model_id, str(bundle.path), flavor.BUNDLE_SUBPATH)
        self._client.finalize_logged_model(self.model_id, "READY")
        for tag, value in {MODEL_ID_TAG: self.model_id, DIGEST_TAG: bundle.digest}.items():
            self._client.set_tag(self.run_id, tag, value)
        self._client.set_terminated(self.run_id)

    def replace(self, file: Path) -> None:
        """Put another file in the place of one, and the digest with it where that is the contract."""
        self._client.log_model_artifact(self.model_id, str(file), flavor.BUNDLE_SUBPATH)
        if file.name == CONTRACT_FILE:
            digest = Bundle.read_unsigned(file.parent).digest
            self._client.set_tag(self.run_id, DIGEST_TAG, digest)
            self._client.set_logged_model_tags(self.model_id, {DIGEST_TAG: digest})


def _forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing in the cache."""
    monkeypatch.setenv("NEWSBERT_CACHE_DIR", str(tmp_path / f"cache-{len(list(tmp_path.iterdir()))}"))


def test_attack_a_registry_with_signed_models(
    uri: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, other = write_key(tmp_path, "release"), write_key(tmp_path, "other")
    bundle = write_bundle(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    registry = Registry(uri, bundle, "signed")
    settings = f'tracking_uri = "{uri}"\nexperiment = "signed"\n'
    Path("newsbert.toml").write_text(f'{settings}trusted_keys = ["release.pub"]\n')

    # What nobody has signed may be registered, and is not loaded. The hint has it signed, whatever was fetched before.
    assert str(models.register(registry.run_id, "Victim")) == "Victim/1"
    with pytest.raises(ModelError, match="Victim/1 is not signed, and trusted_keys is set") as unsigned:
        models.load("Victim/1")
    command = (unsigned.value.hint or "").partition("newsbert ")[2].replace("KEY.pem", str(release))
    done = cli(*shlex.split(command), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["model"], document["created"]) == ("Victim/1", False)
    for reference in ("Victim/1", registry.run_id):
        located = locate.locate(reference)
        assert Bundle.read(located.path).signed_by == f"release.pub (SHA-256 {document['signed_by']})"

    # A user who may write there has no key.
    _forget(tmp_path, monkeypatch)
    good = (located.path / SIGNATURE_FILE).read_bytes()
    sign(bundle.path, other)
    registry.replace(bundle.path / SIGNATURE_FILE)
    with pytest.raises(ModelError, match="is of another key"):
        models.load("Victim/1")
    (bundle.path / SIGNATURE_FILE).write_bytes(good)
    registry.replace(bundle.path / SIGNATURE_FILE)
    contract = bundle.path / CONTRACT_FILE
    original = contract.read_bytes()
    contract.write_bytes(original.replace(b'"max_length": 8', b'"max_length": 9'))
    registry.replace(contract)
    for reference in ("Victim/1", registry.run_id):
        with pytest.raises(ModelError, match=r"is of another newsbert\.json, or the model was altered"):
            models.load(reference)
    contract.write_bytes(original)
    registry.replace(contract)
    assert locate.locate("Victim/1")


def test_a_directory_that_is_registered_is_signed(
    uri: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = write_key(tmp_path, "release")
    bundle = write_bundle(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    Registry(uri, bundle, "directories")
    monkeypatch.setenv("NEWSBERT_TRUSTED_KEYS", "release.pub")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("NEWSBERT_EXPERIMENT", "directories")
    version = models.register(str(bundle.path), "Directory", sign=release)
    for path in (bundle.path, locate.locate(str(version)).path):
        signed = Bundle.read(path)
        signed.verify()
        assert signed.signed_by == f"release.pub (SHA-256 {version.signed_by})"
