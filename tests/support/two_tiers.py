"""A bundle whose companion answers no text alone."""

import dataclasses
import shutil
from pathlib import Path

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE


def without_cascade(bundle: Bundle, directory: Path) -> Bundle:
    """Copy a bundle, and take the threshold of its cascade away."""
    shutil.copytree(bundle.path, directory)
    assert bundle.contract.companion is not None
    companion = dataclasses.replace(bundle.contract.companion, threshold=None)
    contract = dataclasses.replace(bundle.contract, companion=companion)
    (directory / CONTRACT_FILE).write_text(contract.to_json(), encoding="utf-8")
    return Bundle.read_unsigned(directory)
