"""TorchServe's tokens: reading its key file, and requesting new tokens.

TorchServe writes the key file into its working directory, readable by its own user only. The file has a token for
inference and a token for management, which expire. Its API key authorizes requests for new tokens, and does not expire.
"""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from newsbert.core import environment, loopback
from newsbert.errors import ServingError, UsageError

KEY_FILE = "key_file.json"
MANAGEMENT_SOCKET = "management.sock"
NOT_TAKEN = "InvalidKeyException"
"""TorchServe's error type for an invalid token."""

_TIMEOUT_S = 10
_TRIES = 5


@dataclass(frozen=True)
class TokenFile:
    """The content of a key file.

    Attributes:
        inference: The token for predictions.
        management: The token for the management interface.
        expires: Time when the inference token expires.
        api: The key that authorizes requests for new tokens.
    """

    inference: str
    management: str
    expires: datetime
    api: str

    @property
    def expired(self) -> bool:
        """True if the inference token has expired."""
        return datetime.now(UTC) >= self.expires


def header(token: str) -> tuple[str, str]:
    """Return name and value of the request header for a token.

    Raises:
        UsageError: If a header cannot hold the token.
    """
    if not (token.isascii() and token.isprintable()):
        raise UsageError("the token holds what no HTTP header can", f"copy it again from {KEY_FILE}")
    return "Authorization", f"Bearer {token}"


def configured() -> Path | None:
    """Return the key file that the environment names, or the one in the run directory that it names."""
    if key_file := environment.key_file():
        return key_file
    directory = environment.run_dir()
    server_file = directory / KEY_FILE if directory else None
    return server_file if server_file is not None and server_file.exists() else None


def read(key_file: Path) -> TokenFile:
    """Read a key file.

    Raises:
        ServingError: If it is missing or invalid.
    """
    for attempt in range(_TRIES):
        try:
            content = json.loads(key_file.read_text(encoding="utf-8"))
            inference = content["inference"]
            return TokenFile(
                str(inference["key"]),
                str(content["management"]["key"]),
                datetime.fromisoformat(str(inference["expiration time"])).astimezone(UTC),
                str(content["API"]["key"]),
            )
        except OSError as error:
            hint = "newsbert serve locally --token-auth makes one and says where"
            raise ServingError(f"the key file {key_file} cannot be read: {error.strerror}", hint) from error
        except (ValueError, LookupError, TypeError) as error:
            if attempt == _TRIES - 1:
                raise ServingError(f"{key_file} is no key file of TorchServe's", "give another one") from error
            time.sleep(0.02)  # TorchServe writes it in place, so it may be incomplete
    raise AssertionError


def rotate(key_file: Path, kind: str = "inference") -> TokenFile:
    """Request a new token from the server of a key file; it replaces the old one.

    Args:
        key_file: The key file.
        kind: The interface of the token, `inference` or `management`.

    Raises:
        ServingError: If the server does not answer, or refuses.
    """
    import httpx2  # here, since the probe of a container imports this module

    keys = read(key_file)
    try:
        with loopback.make_client(f"unix:{key_file.with_name(MANAGEMENT_SOCKET)}") as http:
            response = http.get("/token", params={"type": kind}, headers=dict([header(keys.api)]), timeout=_TIMEOUT_S)
    except httpx2.HTTPError as error:
        raise ServingError(
            f"no server answers beside {key_file}: {error}", "newsbert serve locally --token-auth"
        ) from error
    if not response.is_success:
        raise ServingError(
            f"the server beside {key_file} refuses to make a token ({response.status_code})", "start it again"
        )
    return read(key_file)


def valid(key_file: Path) -> str:
    """Return a valid inference token: the one in the file, or a new one if it has expired.

    Raises:
        ServingError: If there is no valid token.
    """
    keys = read(key_file)
    return (rotate(key_file) if keys.expired else keys).inference
