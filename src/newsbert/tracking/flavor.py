"""MLflow flavor of newsbert: one logged model that is both `pytorch` (a pickle-free pt2 graph) and `python_function`.

The bundle is stored as `extra_files`. `python_function` loads it from there and takes raw text, so it needs neither
torch nor transformers.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.pins import pinned, versions
from newsbert.errors import NewsbertError, UsageError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import Model as MlflowModel
    from transformers import PreTrainedModel

BUNDLE_SUBPATH = "extra_files"
"""Directory below the model where `mlflow.pytorch.save_model` puts extra files."""

PLUGIN_WEIGHTS = "model.pth"


def save_model(path: str, mlflow_model: "MlflowModel", *, bundle: Bundle, model: "PreTrainedModel") -> None:
    """Write the model in both flavors to `path`; `mlflow.models.Model.log` calls this.

    Args:
        path: A directory that does not exist yet.
        mlflow_model: The model that the flavors are added to.
        bundle: The finished bundle.
        model: The PyTorch model that the bundle was made from.
    """
    import mlflow.pytorch
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import Map

    from newsbert.inference.torch_module import LogitsOnly, example_inputs

    ids = np.dtype(np.int64)
    tensors = Schema([TensorSpec(ids, (-1, -1), "input_ids"), TensorSpec(ids, (-1, -1), "attention_mask")])
    logits = Schema([TensorSpec(np.dtype(np.float32), (-1, len(bundle.contract.labels)))])
    mlflow.pytorch.save_model(
        LogitsOnly(model),
        path,
        mlflow_model=mlflow_model,
        signature=ModelSignature(tensors, logits),
        input_example=[tensor.numpy() for tensor in example_inputs(model)],
        serialization_format="pt2",
        extra_files=[str(file) for file in sorted(bundle.path.iterdir())],
        pip_requirements=requirements(),
    )
    pyfunc.add_to_model(
        mlflow_model,
        loader_module="newsbert.tracking.flavor",
        data=BUNDLE_SUBPATH,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    # MLflow checks inputs for python_function only, which takes text; the graph's tensors concern the pytorch flavor.
    mlflow_model.signature = ModelSignature(
        Schema([ColSpec(DataType.string, "text"), ColSpec(DataType.string, "title", required=False)]),
        Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "score"),
                ColSpec(DataType.boolean, "review"),
                ColSpec(Map(DataType.double), "probabilities"),
            ]
        ),
    )
    mlflow_model.save(str(Path(path) / "MLmodel"))


def write_for_plugin(files: Mapping[str, Path | bytes], weights: Path, directory: Path) -> None:
    """Write a logged model that mlflow-torchserve's own target can archive: `files` unchanged, and `model.pth`.

    The archiver requires a serialized file. It is the model's state dict, tensors only; newsbert's handler ignores it.

    Args:
        files: The archive's files by name: content, or the path of a file to copy.
        weights: The model's weights, as safetensors.
        directory: The target directory, which must not exist yet.

    Raises:
        UsageError: If `directory` exists.
        NewsbertError: If it cannot be written; it is then removed.
    """
    import torch
    from mlflow.models import Model as MlflowModel
    from safetensors.torch import load_file

    try:
        directory.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{directory} exists", "name a directory that does not: --output-dir DIRECTORY") from error
    except OSError as error:
        raise NewsbertError(f"{directory} cannot be made: {error.strerror}", "check its parent's rights") from error
    try:
        for name, content in files.items():
            if isinstance(content, Path):
                shutil.copyfile(content, directory / name)
            else:
                (directory / name).write_bytes(content)
        torch.save(load_file(weights), directory / PLUGIN_WEIGHTS)
        logged = MlflowModel()
        logged.add_flavor("pytorch", model_data=PLUGIN_WEIGHTS, extra_files=[{"path": name} for name in files])
        logged.save(str(directory / "MLmodel"))
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise NewsbertError(f"{directory} cannot be written: {error}", "check the disk: df -h .") from error
        raise


def requirements() -> list[str]:
    """Return the pinned requirements of both flavors: newsbert, its serving packages, MLflow and torch."""
    extra = versions("newsbert", "mlflow", "torch")
    return sorted({*pinned(), *(f"{name}=={version.partition('+')[0]}" for name, version in extra.items())})


def _load_pyfunc(data_path: str) -> "_TextModel":
    """Load the `python_function` flavor from the bundle's directory; MLflow calls this."""
    return _TextModel(Path(data_path))


class _TextModel:
    """Model that `mlflow.pyfunc.load_model` wraps."""

    def __init__(self, path: Path) -> None:
        from newsbert.inference.model import Model

        self._model = Model.from_directory(path)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Classify texts.

        Args:
            model_input: A data frame with `text` and optionally `title`. MLflow converts a list of objects to one, and
                rejects input without `text`. A list of texts if MLflow has not checked the input.
            params: Not used.

        Returns:
            A data frame with `label`, `score`, `review` and `probabilities`, one row per text.
        """
        import pandas as pd

        if isinstance(model_input, pd.DataFrame):
            if "text" not in model_input.columns:
                raise ValueError(f"a frame needs a column 'text'; it has {', '.join(map(str, model_input.columns))}")
            columns = [name for name in ("title", "text") if name in model_input.columns]
            items: Any = model_input[columns].fillna("").to_dict("records")
        else:
            items = model_input
        predictions = self._model.predict(items)
        return pd.DataFrame([prediction.to_dict() for prediction in predictions])
