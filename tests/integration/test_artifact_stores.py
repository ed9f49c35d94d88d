"""Artifacts in s3://, gs:// and wasbs://, with credentials at the client: nothing that fails there loses a model."""

import contextlib
import importlib
import json
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core import installation
from newsbert.core.events import Event, Note, Phase, Step
from newsbert.errors import NewsbertError, TrackingError
from newsbert.tracking import upload
from tests.support import stores
from tests.support.cli import Cli, long
from tests.support.stores import SECRETS, BucketStore

boto3 = pytest.importorskip("boto3", reason="needs newsbert[s3]")
KINDS = ("s3", "gs", "azure")
FAILURES = {
    "no library": ("is not installed", "INSTALL"),
    "no key": ("there are no credentials", "set "),
    "wrong key": ("the credentials are refused", "set those of an account"),
    "no bucket": ("there is no such bucket", "make it: "),
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], BucketStore]]:
    """Start the store of a kind when it is first needed; its bucket is there."""
    with contextlib.ExitStack() as stack:
        started: dict[str, BucketStore] = {}

        def start(kind: str) -> BucketStore:
            if kind not in started:
                context = stores.gs(tmp_path_factory.mktemp("gs")) if kind == "gs" else getattr(stores, kind)()
                started[kind] = stack.enter_context(context)
                started[kind].create()
            return started[kind]

        yield start


@pytest.fixture(params=KINDS)
def store(
    request: pytest.FixtureRequest,
    opened: Callable[[str], BucketStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> BucketStore:
    """A store, the environment that lets one in, and an experiment that has its artifacts there."""
    bucket_store = opened(request.param)
    monkeypatch.setenv("HOME", str(tmp_path))
    # MLflow caches what it knows of a database by its name, also of one that is gone.
    uri = f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    use(bucket_store.good, monkeypatch)
    mlflow.MlflowClient(uri).create_experiment("newsbert", bucket_store.root)
    return bucket_store


def use(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give these credentials to the clients of a store, in this process and in those that it starts."""
    from mlflow.store.artifact import s3_artifact_repo

    for name in stores.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@contextlib.contextmanager
def failing(failure: str, store: BucketStore) -> Iterator[None]:
    """Have a store fail, and work again afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        if failure == "no library":
            for module in [name for name in sys.modules if name == store.module or name.startswith(f"{store.module}.")]:
                patch.delitem(sys.modules, module)
            patch.setitem(sys.modules, store.module, None)
            for parent, _, child in [store.module.rpartition(".")]:
                if parent:
                    patch.delattr(importlib.import_module(parent), child, raising=False)
        use({"no key": store.no_key, "wrong key": store.wrong_key}.get(failure, store.good), patch)
        if failure == "no bucket":
            store.delete()
        try:
            yield
        finally:
            if failure == "no bucket":
                store.create()
    use_again(store)


def use_again(store: BucketStore) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use(store.good, patch)


def check_error(error: NewsbertError, failure: str, store: BucketStore) -> None:
    message, hint = FAILURES[failure]
    assert message in error.message
    assert hint.replace("INSTALL", installation.command(store.extra)) in (error.hint or "")
    assert not any(secret in f"{error.message} {error.hint}" for secret in SECRETS)


@pytest.fixture
def finished(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that a training could not deliver."""
    copy = tmp_path / "finished"
    shutil.copytree(bundle.path, copy)
    upload.write(Bundle.read(copy), "0" * 32, {"best_step": 3.0}, {"newsbert.precision": "fp32"})
    return copy


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_upload_to_any_store_leaves_the_bundle_and_names_the_fix(
    failure: str, store: BucketStore, finished: Path, tmp_path: Path
) -> None:
    files = {path: path.read_bytes() for path in sorted(tmp_path.rglob("finished/*"))}
    record = {path: path.read_bytes() for path in sorted(upload.record_of(finished).rglob("*"))}
    assert files
    assert record
    with failing(failure, store), pytest.raises(NewsbertError) as caught:
        newsbert.register(str(finished), "Finished")
    check_error(caught.value, failure, store)
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("finished/*"))} == files
    assert {path: path.read_bytes() for path in sorted(upload.record_of(finished).rglob("*"))} == record


Train = Callable[..., "newsbert.TrainResult"]


@pytest.fixture
def train(tiny_encoder: Path, labelled_file: Path) -> Train:
    def run(**more: object) -> "newsbert.TrainResult":
        settings = {"max_steps": 4, "batch_size": 8, "max_length": 32, "output_dir": "out", **more}
        return newsbert.train(data=str(labelled_file), base_model=str(tiny_encoder), **settings)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize(
    "store", ["s3", *(pytest.param(kind, marks=long) for kind in KINDS if kind != "s3")], indirect=True
)
def test_a_bucket_that_goes_in_the_middle_costs_no_training_and_what_is_in_it_is_fetched_or_the_error_names_the_mend(
    store: BucketStore, train: Train, tmp_path: Path
) -> None:
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, Phase) and event.name == "exporting":
            store.delete()

    with pytest.raises(TrackingError) as caught:
        train(on_event=on_event)
    store.create()
    assert "the model is finished and in out, but could not be logged" in caught.value.message
    check_error(caught.value, "no bucket", store)
    assert not [event for event in events if isinstance(event, Note) and "trying again" in event.message]
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("log and register it: newsbert register out --model-name NAME")
    assert not list(tmp_path.glob(".*.partial-*"))
    version = newsbert.register("out", "Mended")
    assert str(version) == "Mended/1"
    assert not upload.record_of(Path("out")).exists()
    run = mlflow.MlflowClient().get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert {"training_seconds", "test_accuracy", "train_loss"} <= set(run.data.metrics)
    for failure in ("no library", "no key", "wrong key"):
        shutil.rmtree(tmp_path / ".cache")
        with failing(failure, store), pytest.raises(NewsbertError) as caught_too:
            newsbert.load("Mended/1")
        check_error(caught_too.value, failure, store)
    assert newsbert.load("Mended/1").predict(["goal team cup"])
    shutil.rmtree(tmp_path / ".cache")
    store.delete()
    with pytest.raises(TrackingError) as gone:
        newsbert.load("Mended/1")
    store.create()
    check_error(gone.value, "no bucket", store)


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_store_is_tried_before_training_and_has_the_model_afterwards(
    store: BucketStore, tiny_encoder: Path, labelled_file: Path, cli: Cli, tmp_path: Path
) -> None:
    options = (
        "--data", labelled_file, "--base-model", tiny_encoder, "--max-steps", "2", "--max-length", "32", "--json",
    )  # fmt: skip
    refusing = tmp_path / "refusing"
    refusing.mkdir()
    (refusing / "boto3.py").write_text("raise ModuleNotFoundError(\"No module named 'boto3'\", name='boto3')\n")
    for environment, failure in (
        ({"PYTHONPATH": str(refusing)}, "no library"),
        ({"AWS_SECRET_ACCESS_KEY": "planted-bucket-secret"}, "wrong key"),
    ):
        refused = cli("train", *options, **environment)
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr
        assert "step" not in refused.stderr
        error = json.loads(refused.stdout)["error"]
        check_error(NewsbertError(error["message"], error["hint"]), failure, store)
        assert not list(tmp_path.glob("bundles/*"))
    done = cli("train", *options, "--model-name", "Straight")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "Straight/1"
    predicted = cli("predict", "--model", "Straight", "goal team cup")
    assert predicted.returncode == 0, predicted.stderr
    looked = json.loads(cli("doctor", "--json", AWS_SECRET_ACCESS_KEY="planted-bucket-secret").stdout)
    (tracked,) = [check for check in looked["checks"] if check["check"] == "tracking"]
    assert tracked["state"] == "failed"
    check_error(NewsbertError(tracked["result"], tracked["fix"]), "wrong key", store)


@pytest.mark.parametrize("store", ["s3"], indirect=True)
@pytest.mark.parametrize(
    "raised",
    [
        KeyboardInterrupt(),
        RuntimeError("of a client's"),
        pytest.param(MemoryError(), marks=long),
        pytest.param(OSError(5, "Input/output error"), marks=long),
        pytest.param(ImportError("a broken one"), marks=long),
    ],
)
def test_any_exception_while_a_finished_training_is_logged_leaves_its_bundle(
    raised: BaseException, store: BucketStore, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

    plain = S3ArtifactRepository.log_artifacts
    notes: list[str] = []

    def fail(*_: object, **__: object) -> None:
        raise raised

    def on_event(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.message)
        if isinstance(event, Step):
            monkeypatch.setattr(S3ArtifactRepository, "log_artifacts", fail)
            monkeypatch.setattr(upload, "RETRY_PAUSES_S", ())

    with pytest.raises(type(raised) if isinstance(raised, KeyboardInterrupt) else NewsbertError) as caught:
        train(on_event=on_event)
    message = (
        notes[-1] if isinstance(raised, KeyboardInterrupt) else f"{caught.value} {getattr(caught.value, 'hint', '')}"
    )
    assert "the model is finished and in out, but" in message
    assert "newsbert register out --model-name NAME" in message
    monkeypatch.setattr(S3ArtifactRepository, "log_artifacts", plain)
    assert upload.record_of(Path("out")).is_dir()
    if isinstance(raised, KeyboardInterrupt):
        assert str(newsbert.register("out", "Mended")) == "Mended/1"
