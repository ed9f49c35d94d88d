"""What a run, of training or evaluation, logs to MLflow."""

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert import mlflow_model
from newsbert.bundle import Bundle
from newsbert.evaluation import Scores

if TYPE_CHECKING:
    from mlflow.data.dataset import Dataset
    from transformers import PreTrainedModel

MODEL_ID_TAG = "newsbert.model_id"
DIGEST_TAG = "newsbert.bundle_digest"
DATA_DIGEST_TAG = "newsbert.data_digest"
"""Training sets it before anything else: a run that has it is a training, whatever became of it."""


class RunLog:
    """An active run.

    Args:
        run_id: Its id.
        errors: A context that turns MLflow's errors into ours.
    """

    def __init__(self, run_id: str, errors: Callable[..., AbstractContextManager[None]]) -> None:
        self.run_id = run_id
        self._errors = errors

    def params(self, params: Mapping[str, Any]) -> None:
        """Log the resolved configuration."""
        import mlflow

        with self._errors():
            mlflow.log_params({key: str(value)[:6000] for key, value in params.items()})

    def metrics(
        self,
        metrics: Mapping[str, float],
        step: int | None = None,
        model_id: str | None = None,
        dataset: "Dataset | None" = None,
    ) -> None:
        """Log numbers, at a step or for the whole run.

        Args:
            metrics: By name.
            step: The step.
            model_id: The logged model whose they are, if not the run's own.
            dataset: What `dataset` returned, if they are of these rows.
        """
        import mlflow

        with self._errors():
            mlflow.log_metrics(dict(metrics), step=step, model_id=model_id, dataset=dataset)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        import mlflow

        with self._errors():
            mlflow.set_tags(dict(tags))

    def dataset(self, name: str, digest: str, rows: Mapping[str, int]) -> "list[Dataset]":
        """Log the data set and return what was logged, for every split: its name, where it came from, its digest."""
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
            # MLflow takes 36 characters of a digest; the contract and the run's tags have all 64.
            entry = MetaDataset(  # type: ignore[abstract]
                source, name=f"{path.name} ({split}, {count} rows)"[:200], digest=digest[:32]
            )
            with self._errors():
                mlflow.log_input(entry, context=split)
            logged.append(entry)
        return logged

    def report(self, scores: Scores) -> None:
        """Log the scores of each class."""
        import mlflow

        per_class = {name: dataclasses.asdict(each) for name, each in scores.per_class.items()}
        with self._errors():
            mlflow.log_text(json.dumps(per_class, indent=2, ensure_ascii=False), "classification_report.json")

    def artifacts(self, files: Sequence[Path]) -> None:
        """Log files at the top of the run's artifacts."""
        import mlflow

        with self._errors():
            for file in files:
                mlflow.log_artifact(str(file))

    def model(self, bundle: Bundle, model: "PreTrainedModel") -> None:
        """Log the model in both flavors with the bundle in it, and mark the run as a newsbert model's."""
        from mlflow.models import Model

        with self._errors("the model cannot be logged"):
            info = Model.log(
                artifact_path=None,
                name="model",
                flavor=mlflow_model,
                bundle=bundle,
                model=model,
                model_type="text-classification",
                params={"max_length": str(bundle.contract.max_length)},
                tags={DIGEST_TAG: bundle.digest},
            )
        self.tags({MODEL_ID_TAG: info.model_id, DIGEST_TAG: bundle.digest})
