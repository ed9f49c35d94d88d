"""Errors as they travel: between processes, and from another newsbert."""

import importlib
import pickle
import pkgutil

import pytest

import newsbert
from newsbert import errors
from newsbert.core import installation
from newsbert.errors import NewsbertError


@pytest.mark.parametrize(
    "error",
    [
        NewsbertError("it failed", "try again"),
        errors.DataError("line 3: no row"),
        errors.ModelError("altered", "train"),
        errors.DivergedError("the loss was nan"),
        installation.MissingExtraError("openvino", "openvino"),
    ],
)
def test_errors_can_be_pickled(error: NewsbertError) -> None:
    unpickled = pickle.loads(pickle.dumps(error))
    assert (type(unpickled), unpickled.message, unpickled.hint, str(unpickled)) == (
        type(error),
        error.message,
        error.hint,
        str(error),
    )


def test_no_error_outlives_its_handling() -> None:
    """An error that a module holds and raises again and again keeps the frames of all who raised it."""
    names = [module.name for module in pkgutil.walk_packages(newsbert.__path__, "newsbert.")]
    others = ("__main__", "mlserver_runtime")  # a program, and a module for another environment
    modules = [importlib.import_module(name) for name in names if not name.endswith(others)]
    assert len(modules) > 100
    for module in modules:
        held = [name for name, value in vars(module).items() if isinstance(value, BaseException)]
        assert held == [], module.__name__
