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
def test_errors_travel_between_processes(error: NewsbertError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), found.message, found.hint, str(found)) == (type(error), error.message, error.hint, str(error))
