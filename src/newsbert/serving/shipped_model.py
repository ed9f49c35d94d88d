"""The model in a serving image, as the programs in it find it."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.core import config, zip_files
from newsbert.core.settings import NATIVE, TORCHSERVE, ServeSettings
from newsbert.errors import ModelError
from newsbert.serving import archive

_MAX_CONTRACT_BYTES = 2**20


@dataclass(frozen=True)
class ShippedModel:
    """The model in an image.

    Attributes:
        contract: Text of its contract.
        name: Its name in answers.
        runtime: Name of the runtime that serves it.
        server: The server in the image.
    """

    contract: bytes
    name: str
    runtime: str
    server: str


def read(path: Path) -> ShippedModel:
    """Read the model of an archive, of the archive in a directory, or of a bundle's directory.

    The name and the runtime of a directory are those that the environment sets for its server.

    Raises:
        ModelError: If there is no model.
    """
    file = path / archive.ARCHIVE_NAME if path.is_dir() else path
    try:
        if path.is_dir() and not file.exists():
            settings = config.resolve(ServeSettings)
            contract = (path / CONTRACT_FILE).read_bytes()
            return ShippedModel(contract, settings.name or path.name, settings.runtime, NATIVE)
        with zipfile.ZipFile(file) as content:
            contract = zip_files.read_entry(content, CONTRACT_FILE, _MAX_CONTRACT_BYTES)
    except (*zip_files.READ_ERRORS, OSError) as error:
        raise ModelError(f"{path} has no model: {error}", "build the image again") from error
    served = archive.served(file)
    return ShippedModel(contract, served.model, served.runtime, TORCHSERVE)
