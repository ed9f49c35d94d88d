"""Logging of a training or evaluation run to MLflow."""

import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert.bundle.bundle import Bundle
from newsbert.core import temporary, uris, waiting
from newsbert.core.uris import mask_credentials
from newsbert.errors import first_line
from newsbert.evaluation.metrics import Scores
from newsbert.tracking import flavor

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.data.dataset import Dataset

MODEL_ID_TAG = "newsbert.model_id"
DIGEST_TAG = "newsbert.bundle_digest"
DATA_DIGEST_TAG = "newsbert.data_digest"
"""Tag that marks training runs; training sets it first, so that failed runs have it, too."""
STOPPED_EARLY_TAG = "newsbert.stopped_early"

_NOTE_TAG = "mlflow.note.content"
"""Tag that MLflow's pages show as a run's description."""

_PAUSES_S = (1, 2, 5, 10, 30)
_MAX_BATCH_METRICS = 1000
"""Maximum number of metrics that MLflow accepts in one request."""


class RunLogger:
    """Logger of an active run.

    A background thread delivers metrics: training neither waits for the server nor fails with it.

    Args:
        run_id: Its id.
        client: MLflow's client.
        errors: A context that translates MLflow's errors.
        pending: Undelivered metrics that `flush` returned in another process.
    """

    def __init__(
        self,
        run_id: str,
        client: "MlflowClient",
        errors: Callable[..., AbstractContextManager[None]],
        pending: Sequence[Sequence[Any]] = (),
    ) -> None:
        from mlflow.entities import Metric

        self.run_id = run_id
        self._client = client
        self._errors = errors
        self._pending: list[Metric] = [Metric(*values) for values in pending]
        self._changed = threading.Condition()
        self._flush_requested = threading.Event()
        self._last_error: str | None = None
        self._reported = False
        self._ended = False
        self._logged: dict[str, int] = {}
        self._thread = threading.Thread(target=self._deliver, daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Skip the steps that the run already has, when metrics are logged from now on."""
        with self._errors():
            for key in self._client.get_run(self.run_id).data.metrics:
                history = self._client.get_metric_history(self.run_id, key)
                self._logged[key] = max((metric.step for metric in history), default=0)

    def params(self, params: Mapping[str, Any]) -> None:
        """Log the resolved configuration, except for parameters that the run already has."""
        import mlflow

        with self._errors():
            # `mlflow run` logs values as typed: MLflow would reject 2e-05 as a change of 2e-5.
            logged = self._client.get_run(self.run_id).data.params
            new = {key: value for key, value in params.items() if key not in logged}
            mlflow.log_params({key: mask_credentials(str(value))[:6000] for key, value in new.items()})

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Queue metrics of a step or of the whole run; they are delivered if the server answers before `flush` ends."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self._changed:
            self._pending += [
                Metric(key, value, now, step) for key, value in metrics.items() if step > self._logged.get(key, -1)
            ]
            self._changed.notify()

    def evaluation(self, metrics: Mapping[str, float], model_id: str | None, dataset: "Dataset") -> None:
        """Log metrics at once.

        Args:
            metrics: Metrics by name.
            model_id: The logged model that they belong to.
            dataset: The data set of the evaluated rows, as returned by `dataset`.
        """
        import mlflow

        with self._errors():
            mlflow.log_metrics(dict(metrics), model_id=model_id, dataset=dataset)

    def news(self) -> str | None:
        """Return a message if delivery has begun to fail or works again since the last call, else `None`."""
        error = self._last_error
        if (error is not None) == self._reported:
            return None
        self._reported = error is not None
        if error is None:
            return "the tracking server answers again"
        reason = uris.mask_credentials(first_line(Exception(error)))
        return f"the tracking server does not answer: {reason}. Training goes on, and its metrics wait until it does"

    def flush(self, timeout_s: float = 0.0) -> list[list[Any]]:
        """Deliver all metrics within the timeout; return the undelivered ones as key, value, time and step."""
        self._flush_requested.set()
        waiting.poll(lambda: not self._pending, timeout_s, 0.02)
        return [[metric.key, metric.value, metric.timestamp, metric.step] for metric in list(self._pending)]

    def end(self) -> None:
        """Stop delivering metrics."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._flush_requested.set()

    def _deliver(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._ended)
                batch = self._pending[:_MAX_BATCH_METRICS]
            if self._ended:
                return
            try:
                self._client.log_batch(self.run_id, metrics=batch)
            except Exception as error:  # any error is reported by `news` and retried
                self._last_error = str(error)
                self._flush_requested.wait(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                self._flush_requested.clear()
                failures += 1
                continue
            failures, self._last_error = 0, None
            with self._changed:
                del self._pending[: len(batch)]

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        import mlflow

        with self._errors():
            mlflow.set_tags(dict(tags))

    def dataset(self, name: str, digest: str, rows: Mapping[str, int]) -> "list[Dataset]":
        """Log the data set and return the logged entry of every split, with its name, source and digest."""
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.filesystem_dataset_source import FileSystemDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        path = Path(name).expanduser()
        source: Any = CodeDatasetSource({"newsbert.data": name})
        if path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                resolved = mlflow.data.dataset_source_registry.resolve_dataset_source(str(path.resolve()))
            source = resolved if isinstance(resolved, FileSystemDatasetSource) else source
        logged: list[Dataset] = []
        for split, count in rows.items():
            # MLflow accepts 36 characters of a digest; the contract and the run's tags have all 64.
            entry = MetaDataset(  # type: ignore[abstract]
                source, name=f"{path.name} ({split}, {count} rows)"[:200], digest=digest[:32]
            )
            with self._errors():
                mlflow.log_input(entry, context=split)
            logged.append(entry)
        return logged

    def report(self, scores: Scores) -> None:
        """Log the scores per class."""
        import mlflow

        with self._errors():
            mlflow.log_text(scores.report(), "classification_report.json")

    def artifacts(self, files: Sequence[Path]) -> None:
        """Log files to the root of the run's artifacts."""
        import mlflow

        with self._errors():
            for file in files:
                mlflow.log_artifact(str(file))

    def bundle(self, bundle: Bundle) -> None:
        """Log a bundle as a model in both flavors, and tag the run with the model."""
        from mlflow.models import Model
        from transformers import AutoModelForSequenceClassification

        model = AutoModelForSequenceClassification.from_pretrained(
            str(bundle.path), use_safetensors=True, trust_remote_code=False
        ).eval()
        with self._errors("the model cannot be logged"), temporary.for_libraries():
            info = Model.log(
                artifact_path=None,
                name="model",
                flavor=flavor,
                bundle=bundle,
                model=model,
                model_type="text-classification",
                params={"max_length": str(bundle.contract.max_length)},
                tags={DIGEST_TAG: bundle.digest},
            )
        model_tags = {MODEL_ID_TAG: info.model_id, DIGEST_TAG: bundle.digest}
        self.tags({**model_tags, _NOTE_TAG: bundle.contract.description})
