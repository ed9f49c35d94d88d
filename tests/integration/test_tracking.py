"""Runs, versions and bundles on a real MLflow server."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.data.dataset import load_dataset
from newsbert.errors import ModelError, NotFoundError, TrackingError
from newsbert.tracking import locate, registry
from newsbert.tracking.client import TrackingClient
from newsbert.training.baseline import NAME
from tests.support.cli import Cli
from tests.support.tiny_model import REVIEW_THRESHOLD


def test_everything_is_logged(trained: tuple[newsbert.TrainResult, str]) -> None:
    import mlflow

    result, uri = trained
    client = mlflow.MlflowClient(uri)
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "25.0"
    assert run.data.params["max_length"] == "48"
    assert {name: run.data.metrics[f"test_{name}"] for name in result.metrics} == result.metrics
    assert len(client.get_metric_history(result.run_id, "train_loss")) > 3
    assert len(client.get_metric_history(result.run_id, "validation_f1_macro")) > 3
    assert {name: run.data.metrics[f"baseline_{name}"] for name in result.baseline.metrics} == result.baseline.metrics
    assert run.data.metrics["texts_per_second"] == result.texts_per_second > 0
    assert run.data.metrics["suspected_label_errors"] == result.suspected_label_errors
    contract = Bundle.read(result.bundle).contract
    assert run.data.metrics["temperature"] == contract.temperature
    assert run.data.metrics["test_uncalibrated_error"] == contract.metrics["uncalibrated_error"]
    assert run.data.metrics["review_threshold"] == contract.review_threshold == REVIEW_THRESHOLD
    assert run.data.metrics["test_review_rate"] == result.review[0].test.review_rate
    assert run.data.metrics["test_selective_accuracy"] == result.review[0].test.accuracy
    assert run.data.tags["mlflow.note.content"] == contract.description
    assert client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    digest = contract.data["sha256"]
    assert run.inputs is not None
    assert {(used.tags[0].value, used.dataset.digest) for used in run.inputs.dataset_inputs} == {
        (split, digest[:32]) for split in ("train", "validation", "test")
    }
    names = {file.path for file in client.list_artifacts(result.run_id)}
    assert names >= {
        "confusion_matrix.png",
        "learning_curves.png",
        "reliability_diagram.png",
        "review.csv",
        "review.png",
        "classification_report.json",
        "model_summary.txt",
    }


def test_the_baseline_is_shown_and_planted_label_errors_are_in_the_run_alone(
    tiny_encoder: Path, labelled_file: Path, tmp_path: Path, cli: Cli
) -> None:
    dataset = load_dataset(str(labelled_file))
    labels = dataset.train.labels[:]
    planted = [3, 20, 41]
    for row in planted:
        labels[row] = (labels[row] + 1) % 3
    (tmp_path / "rows").mkdir()
    splits = {"train": (dataset.train.texts, labels)}
    splits |= {
        name: (split.texts, split.labels) for name in ("validation", "test") if (split := getattr(dataset, name))
    }
    wrong, tested = dataset.test.texts[0], len(dataset.test)
    relabelled = dataset.test.labels.copy()
    relabelled[0] = (relabelled[0] + 1) % 3
    splits["test"] = (dataset.test.texts, relabelled)
    for name, (texts, ids) in splits.items():
        lines = [
            json.dumps({"text": text, "label": dataset.label_names[label]})
            for text, label in zip(texts, ids, strict=True)
        ]
        (tmp_path / "rows" / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    train = cli(
        "train", "--data", "rows", "--base-model", tiny_encoder, "--epochs", 10, "--batch-size", 8,
        "--learning-rate", 3e-3, "--max-length", 48, "--output-dir", "out", timeout_s=590, NEWSBERT_MODEL_NAME="News",
    )  # fmt: skip
    assert train.returncode == 0, train.stderr
    assert "Next: newsbert register" in train.stderr.splitlines()  # which takes the same name
    right = f"{(tested - 1) / tested:.4f}"
    assert any(NAME in line and right in line for line in train.stdout.splitlines())
    assert "look mislabelled" not in train.stderr  # nine test rows are too few to trust the model's judgement
    assert f"| {NAME} | {right} | " in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    import mlflow

    run = locate.connect(f"sqlite:///{tmp_path / 'mlflow.db'}").latest_run()
    assert run is not None
    table = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/suspected_label_errors.json")
    suspected = {dataset.train.texts[row] for row in planted}
    assert table["columns"] == ["text", "label", "model_label", "model_probability", "label_probability"]
    flagged = {row[0] for row in table["data"]}
    assert len(flagged) >= 2  # the model may have learnt one
    assert flagged <= suspected
    errors = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/misclassified_examples.json")
    assert [row[0] for row in errors["data"]] == [wrong]
    for file in (tmp_path / "out").glob("*.*"):
        content = file.read_bytes()
        assert not any(text.encode() in content for text in (*suspected, wrong)), file


def test_the_logged_model_has_both_flavors_pins_and_no_pickle(trained: tuple[newsbert.TrainResult, str]) -> None:
    import mlflow

    result, uri = trained
    mlflow.set_tracking_uri(uri)
    info = mlflow.models.get_model_info(f"models:/{result.version}")
    assert {"pytorch", "python_function"} <= set(info.flavors)
    where = Path(mlflow.artifacts.download_artifacts(f"models:/{result.version}"))
    files = {str(file.relative_to(where)) for file in where.rglob("*") if file.is_file()}
    assert {"data/model.pt2", "extra_files/newsbert.json"} <= files
    assert not any(name.endswith((".pkl", ".pickle", ".pth", ".bin", "pickle_module_info.txt")) for name in files)
    assert all("==" in line for line in (where / "requirements.txt").read_text().splitlines() if line.strip())


def test_registering_twice_gives_the_same_version(trained: tuple[newsbert.TrainResult, str], cli: Cli) -> None:
    result, uri = trained
    again = cli("register", "--model-name", "TinyModel", "--tracking-uri", uri)
    assert (again.returncode, again.stdout.strip()) == (0, "TinyModel/1"), again.stderr
    other = cli("register", f"runs:/{result.run_id}/model", "--model-name", "Other", "--tracking-uri", uri, "--json")
    assert json.loads(other.stdout) == {
        "model": "Other/1", "run_id": result.run_id, "created": True, "alias": None, "choice": None,
        "signed_by": None,
    }  # fmt: skip


def test_a_version_records_where_it_comes_from(trained: tuple[newsbert.TrainResult, str]) -> None:
    import mlflow

    result, uri = trained
    version = mlflow.MlflowClient(uri).get_model_version("TinyModel", "1")
    bundle = Bundle.read(result.bundle)
    assert version.tags["newsbert.data_digest"] == bundle.contract.data["sha256"]
    assert version.tags["newsbert.bundle_digest"] == bundle.digest
    assert f"accuracy {result.metrics['accuracy']:.4f}" in str(version.description)


def test_registering_what_is_no_newsbert_model_names_what_is_missing(
    trained: tuple[newsbert.TrainResult, str], cli: Cli
) -> None:
    import mlflow

    client = mlflow.MlflowClient(trained[1])
    run = client.create_run(client.create_experiment("others"))
    client.set_terminated(run.info.run_id)
    refused = cli("register", run.info.run_id, "--model-name", "TinyModel", "--tracking-uri", trained[1])
    assert refused.returncode == 1
    assert "newsbert.json" in refused.stderr


@pytest.mark.parametrize("reference", ["Nobody/1", "Nobody", "TinyModel/99", "TinyModel@nobody", "0" * 32])
def test_unknown_models_are_errors(trained: tuple[newsbert.TrainResult, str], reference: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        newsbert.load(reference, tracking_uri=trained[1])
    assert caught.value.hint


def test_every_way_to_name_a_model_finds_it(trained: tuple[newsbert.TrainResult, str], cli: Cli) -> None:
    result, uri = trained
    cli("register", "--model-name", "TinyModel", "--alias", "champion", "--tracking-uri", uri)
    for reference in (
        "TinyModel/1", "TinyModel", "TinyModel@champion", "models:/TinyModel/1", "models:/TinyModel@champion",
        result.run_id, f"runs:/{result.run_id}/model", result.bundle,
    ):  # fmt: skip
        assert newsbert.load(reference, tracking_uri=uri).bundle.digest == Bundle.read(result.bundle).digest


def test_a_located_model_has_its_version_run_and_revision(trained: tuple[newsbert.TrainResult, str]) -> None:
    import mlflow

    result, uri = trained
    client = mlflow.MlflowClient(uri)
    commit = "0123456789abcdef0123456789abcdef01234567"
    client.set_tag(result.run_id, "mlflow.source.git.commit", commit)
    version = registry.register(locate.connect(uri), result.run_id, "Located")
    by_version = locate.locate("Located", tracking_uri=uri)
    by_run = locate.locate(result.run_id, tracking_uri=uri)
    assert (by_version.name, by_version.model_name, by_version.version) == (str(version), "Located", "1")
    assert (by_run.name, by_run.model_name, by_run.version) == (f"run {result.run_id}", None, None)
    assert by_version.path == by_run.path
    assert {(located.run_id, located.revision) for located in (by_version, by_run)} == {(result.run_id, commit)}
    by_directory = locate.locate(result.bundle, tracking_uri=uri)
    assert (by_directory.name, by_directory.path) == (result.bundle.name, result.bundle)
    assert (by_directory.run_id, by_directory.revision, by_directory.version) == (None, None, None)


def test_a_version_takes_tags_and_files(trained: tuple[newsbert.TrainResult, str], tmp_path: Path) -> None:
    import mlflow

    uri = trained[1]
    tracker = locate.connect(uri)
    registry.tag_version(tracker, "TinyModel", "1", "newsbert.image", "torchserve:TinyModel-1")
    assert (
        mlflow.MlflowClient(uri).get_model_version("TinyModel", "1").tags["newsbert.image"] == "torchserve:TinyModel-1"
    )
    (tmp_path / "sbom.json").write_text("{}")
    registry.add_artifact(tracker, "TinyModel", "1", tmp_path / "sbom.json")
    mlflow.set_tracking_uri(uri)
    where = Path(mlflow.artifacts.download_artifacts("models:/TinyModel/1"))
    assert (where / "sbom.json").read_text() == "{}"
    assert newsbert.load("TinyModel/1", tracking_uri=uri).bundle.digest == Bundle.read(trained[0].bundle).digest
    with pytest.raises(NotFoundError, match="no version 99"):
        registry.tag_version(tracker, "TinyModel", "99", "key", "value")
    with pytest.raises(NotFoundError, match="no version 99"):
        registry.add_artifact(tracker, "TinyModel", "99", tmp_path / "sbom.json")


def test_an_empty_tracking_store_is_an_error(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'empty.db'}"
    locate.connect(uri, create=True)
    with pytest.raises(NotFoundError, match="no finished training run"):
        newsbert.load(tracking_uri=uri)


def test_a_server_elsewhere_stores_and_returns_the_model(
    mlflow_server: str, tiny_encoder: Path, labelled_file: Path, tmp_path: Path, cli: Cli
) -> None:
    train = cli(
        "train", "--data", labelled_file, "--base-model", tiny_encoder, "--epochs", 1, "--max-length", 48,
        "--model-name", "Remote", "--json", MLFLOW_TRACKING_URI=mlflow_server,
    )  # fmt: skip
    assert train.returncode == 0, train.stderr
    document = json.loads(train.stdout)
    assert document["model"] == "Remote/1"
    assert not (tmp_path / "mlflow.db").exists()
    model = newsbert.load("Remote/1", tracking_uri=mlflow_server)
    assert (tmp_path / ".cache") in model.bundle.path.parents
    assert model.bundle.digest == Bundle.read(tmp_path / document["bundle"]).digest
    (tmp_path / "sbom.json").write_text("{}")
    registry.add_artifact(locate.connect(mlflow_server), "Remote", "1", tmp_path / "sbom.json")
    import mlflow

    assert Path(mlflow.artifacts.download_artifacts("models:/Remote/1/sbom.json")).read_text() == "{}"
    # The second time it comes from the cache; what was altered there, with its contract or without, is fetched again.
    onnx = (model.bundle.path / "model.onnx").read_bytes()
    (model.bundle.path / "model.onnx").write_bytes(b"altered")
    assert newsbert.load("Remote/1", tracking_uri=mlflow_server).bundle.path == model.bundle.path
    assert (model.bundle.path / "model.onnx").read_bytes() == onnx
    _rewrite(model.bundle.path)
    assert newsbert.load("Remote/1", tracking_uri=mlflow_server).bundle.digest == model.bundle.digest
    assert Bundle.read(model.bundle.path).digest == model.bundle.digest


def _rewrite(path: Path) -> None:
    """Change a file of a bundle and its contract so that both agree."""
    contract = json.loads((path / "newsbert.json").read_text(encoding="utf-8"))
    (path / "README.md").write_text("rewritten")
    contract["files"]["README.md"] = hashlib.sha256(b"rewritten").hexdigest()
    (path / "newsbert.json").write_text(json.dumps(contract), encoding="utf-8")
    Bundle.read(path).verify()


def test_a_bundle_rewritten_after_it_was_registered_is_refused(
    trained: tuple[newsbert.TrainResult, str], tmp_path: Path
) -> None:
    result, uri = trained
    stored = locate.locate("TinyModel/1", tracking_uri=uri).path
    backup = shutil.copytree(stored, tmp_path / "backup")
    try:
        _rewrite(stored)
        altered = Bundle.read(stored).digest
        for reference in ("TinyModel/1", "TinyModel", result.run_id, None):
            with pytest.raises(ModelError, match="was altered after it was registered") as caught:
                newsbert.load(reference, tracking_uri=uri)
            assert altered[:12] in caught.value.message
            assert Bundle.read(result.bundle).digest[:12] in caught.value.message
        with pytest.raises(ModelError, match="was altered"):
            registry.register(locate.connect(uri), result.run_id, "Rewritten")
    finally:
        shutil.rmtree(stored)
        backup.rename(stored)
    newsbert.load("TinyModel/1", tracking_uri=uri)


def test_a_tracking_uri_that_means_nothing_is_an_error() -> None:
    from newsbert.core.settings import TrackingSettings

    with pytest.raises(TrackingError, match="nonsense"):
        TrackingClient(TrackingSettings(tracking_uri="nonsense://host"))
