"""Train, register, package and serve a news classifier.

import newsbert

result = newsbert.train(data="sample", epochs=5)
model = newsbert.load("BertModel/2")
model.predict(["Stocks fall as oil rises"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newsbert.api.evaluate import EvaluateResult, evaluate
    from newsbert.api.models import load, register
    from newsbert.api.train import train
    from newsbert.inference.explanation import Explanation
    from newsbert.inference.model import Model
    from newsbert.inference.prediction import Prediction
    from newsbert.tracking.registry import ModelVersionRef
    from newsbert.training.result import TrainResult

    __version__: str

__all__ = [
    "EvaluateResult",
    "Explanation",
    "Model",
    "ModelVersionRef",
    "Prediction",
    "TrainResult",
    "__version__",
    "evaluate",
    "load",
    "register",
    "train",
]

_MODULES = {
    "TrainResult": "newsbert.training.run",
    "load": "newsbert.api.models",
    "register": "newsbert.api.models",
    "train": "newsbert.api.train",
    "EvaluateResult": "newsbert.api.evaluate",
    "evaluate": "newsbert.api.evaluate",
    "Explanation": "newsbert.inference.explanation",
    "Model": "newsbert.inference.model",
    "Prediction": "newsbert.inference.model",
    "ModelVersionRef": "newsbert.tracking.registry",
}


def __dir__() -> list[str]:
    """Return the public names, which are imported on first use."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `newsbert --help` does not wait for ONNX Runtime."""
    if name == "__version__":
        return import_module("newsbert.core.version").__version__
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'newsbert' has no attribute {name!r}")
