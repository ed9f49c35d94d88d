"""Errors as they travel: between processes, and from another newsbert."""

import pickle

import pytest

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
