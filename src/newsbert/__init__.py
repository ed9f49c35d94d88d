"""Train, register, package and serve a news classifier.

import newsbert

result = newsbert.train(data="sample", epochs=5)
model = newsbert.load("BertModel/2")
model.predict(["Stocks fall as oil rises"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newsbert.api import load, register, train
    from newsbert.evaluating import EvaluateResult, evaluate
    from newsbert.explanation import Explanation
    from newsbert.model import Model, Prediction
    from newsbert.tracking import Version
    from newsbert.training_run import TrainResult

    __version__: str

__all__ = [
    "EvaluateResult",
    "Explanation",
    "Model",
    "Prediction",
    "TrainResult",
    "Version",
    "__version__",
    "evaluate",
    "load",
    "register",
    "train",
]

_HOMES = {
    "TrainResult": "newsbert.training_run",
    "load": "newsbert.api",
    "register": "newsbert.api",
    "train": "newsbert.api",
    "EvaluateResult": "newsbert.evaluating",
    "evaluate": "newsbert.evaluating",
    "Explanation": "newsbert.explanation",
    "Model": "newsbert.model",
    "Prediction": "newsbert.model",
    "Version": "newsbert.tracking",
}


def __dir__() -> list[str]:
    """Return the public names, which are imported when they are first used."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `newsbert --help` should not wait for ONNX Runtime."""
    if name == "__version__":
        from importlib import metadata

        return metadata.version("newsbert")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'newsbert' has no attribute {name!r}")
