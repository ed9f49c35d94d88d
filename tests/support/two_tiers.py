"""A bundle whose companion answers some texts alone."""

import dataclasses
import shutil
from pathlib import Path

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE

THRESHOLD = 0.6
"""Of the tiny companion, which has few rows and is never very sure."""


def with_cascade(bundle: Bundle, directory: Path, threshold: float = THRESHOLD) -> Bundle:
    """Copy a bundle, and give its cascade a threshold, which the tests' few validation rows cannot bound."""
    shutil.copytree(bundle.path, directory)
    assert bundle.contract.companion is not None
    companion = dataclasses.replace(bundle.contract.companion, threshold=threshold)
    contract = dataclasses.replace(bundle.contract, companion=companion)
    (directory / CONTRACT_FILE).write_text(contract.to_json(), encoding="utf-8")
    return Bundle.read_unsigned(directory)
