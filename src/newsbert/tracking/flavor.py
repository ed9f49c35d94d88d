"""Our MLflow flavor: one logged model that is both `pytorch` (a pickle-free pt2 graph) and `python_function`.

The bundle travels as `extra_files`; `python_function` loads it from there and takes raw text, so it needs neither
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
"""Where `mlflow.pytorch.save_model` puts extra files below the model."""

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
    # The graph's tensors are for who loads the pytorch flavor; a schema check stands only before python_function,
    # which takes text.
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
    """Write a logged model that mlflow-torchserve's own target can pack: `files` as they are, and `model.pth`.

    Its archiver wants a serialized file. Our handler reads none: it is the model's state dict, tensors only.

    Args:
        files: What the archive is to hold, by name: content, or the path of a file with it.
        weights: The model's weights, as safetensors.
        directory: Does not exist yet.

    Raises:
        UsageError: If `directory` exists.
        NewsbertError: If it cannot be written; nothing of it is left.
    """
    import torch
    from mlflow.models import Model as MlflowModel
    from safetensors.torch import load_file

    try:
        directory.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{directory} exists", "name a directory that does not: --output DIRECTORY") from error
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
    """What both flavors need, pinned: newsbert, what it serves with, and what the graph is loaded with."""
    more = versions("newsbert", "mlflow", "torch")
    return sorted({*pinned(), *(f"{name}=={version.partition('+')[0]}" for name, version in more.items())})


def _load_pyfunc(data_path: str) -> "_TextModel":
    """Load the `python_function` flavor from the bundle's directory; MLflow calls this."""
    return _TextModel(Path(data_path))


class _TextModel:
    """What `mlflow.pyfunc.load_model` wraps."""

    def __init__(self, path: Path) -> None:
        from newsbert.inference.model import Model

        self._model = Model.from_directory(path)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Classify texts.

        Args:
            model_input: A frame with `text` and perhaps `title`: MLflow makes one of a list of objects, and refuses
                what has no `text`. A list of texts, where MLflow has not looked at it.
            params: Not used.

        Returns:
            A frame with `label`, `score`, `review` and `probabilities`, a row for each text.
        """
        import pandas as pd

        if isinstance(model_input, pd.DataFrame):
            if "text" not in model_input.columns:
                raise ValueError(f"a frame needs a column 'text'; it has {', '.join(map(str, model_input.columns))}")
            named = [name for name in ("title", "text") if name in model_input.columns]
            items: Any = model_input[named].fillna("").to_dict("records")
        else:
            items = model_input
        predictions = self._model.predict(items)
        return pd.DataFrame([prediction.to_dict() for prediction in predictions])
