"""TorchServe's tokens: reading the file that it keeps them in, and having it make a new one.

It writes the file into the directory that it runs in, for its own user alone: a token for inference, one for
management, both of which expire, and the key that a new token is asked for with, which does not.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from newsbert.core import environment, loopback
from newsbert.errors import ServingError, UsageError

KEY_FILE = "key_file.json"
MANAGEMENT_SOCKET = "management.sock"
NOT_TAKEN = "InvalidKeyException"
"""What TorchServe calls a token that it does not take."""

_TIMEOUT_S = 10
_TRIES = 5


@dataclass(frozen=True)
class TokenFile:
    """What the file holds of use.

    Attributes:
        inference: The token that requests are sent with.
        management: The token for its management interface.
        expires: When the one for inference ends.
        api: The key that a new token is asked for with.
    """

    inference: str
    management: str
    expires: datetime
    api: str

    @property
    def expired(self) -> bool:
        """Whether the token is no longer taken."""
        return datetime.now(UTC) >= self.expires


def header(token: str) -> tuple[str, str]:
    """Name and value of the request header that carries a token.

    Raises:
        UsageError: If no header can.
    """
    if not (token.isascii() and token.isprintable()):
        raise UsageError("the token holds what no HTTP header can", f"copy it again from {KEY_FILE}")
    return "Authorization", f"Bearer {token}"


def configured() -> Path | None:
    """The key file that is named in the environment, or that of the server whose directory is."""
    if named := environment.key_file():
        return named
    directory = environment.run_dir()
    beside = directory / KEY_FILE if directory else None
    return beside if beside is not None and beside.exists() else None


def read(key_file: Path) -> TokenFile:
    """Read the file.

    Raises:
        ServingError: If there is none, or it is of another form.
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
            time.sleep(0.02)  # TorchServe writes it in place: it may be half written
    raise AssertionError


def rotate(key_file: Path, kind: str = "inference") -> TokenFile:
    """Have the server whose key file this is make a new token; the one before is no longer taken.

    Args:
        key_file: The file.
        kind: What the token is for, `inference` or `management`.

    Raises:
        ServingError: If it does not answer, or refuses.
    """
    keys = read(key_file)
    request = urllib.request.Request(f"http://localhost/token?type={kind}", headers=dict([header(keys.api)]))
    try:
        loopback.unix_urlopen(str(key_file.with_name(MANAGEMENT_SOCKET)), request, _TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        raise ServingError(
            f"the server beside {key_file} refuses to make a token ({error.code})", "start it again"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(
            f"no server answers beside {key_file}: {getattr(error, 'reason', error)}",
            "newsbert serve locally --token-auth",
        ) from error
    return read(key_file)


def valid(key_file: Path) -> str:
    """Return a token that is taken now: the one in the file, or a new one if that has expired.

    Raises:
        ServingError: If there is none to be had.
    """
    keys = read(key_file)
    return (rotate(key_file) if keys.expired else keys).inference
