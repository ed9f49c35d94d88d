"""Bearer tokens of the native server: a file with the hash of every valid token.

A line is a token's name, a blank and `sha256:` with the hexadecimal hash. Tokens have 256 random bits, so a plain hash
protects them. The file can be changed while the server runs: add the new token, give it to the clients, and remove the
old one.
"""

import hashlib
import logging
import re
import secrets
import shlex
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from newsbert.core import files, locks
from newsbert.errors import ServingError, UsageError

RELOAD_S = 1.0
"""Time after which a change of the file takes effect."""

_TOKEN_BYTES = 32
_MAX_FILE_BYTES = 1024 * 1024
_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63}) sha256:(?P<hash>[0-9a-f]{64})")
_NAME_HINT = "give one of letters, digits, '.', '_' and '-': --name ci-2027"
_log = logging.getLogger(__name__)


def read(file: Path) -> dict[str, str]:
    """Return the names of all tokens by their hash.

    Raises:
        ServingError: If the file cannot be read, or a line is invalid.
    """
    command = ["newsbert", "serve", "token", "--token-file", str(file), "--name", "NAME"]
    hint = f"{shlex.join(command)} adds a token"
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        lines = content.decode("ascii").splitlines()
    except OSError as error:
        raise ServingError(f"the token file {file} cannot be read: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise ServingError(f"{file} is no token file: byte {error.start} is not ASCII", hint) from error
    if len(content) > _MAX_FILE_BYTES:
        raise ServingError(f"{file} is no token file: it has more than {_MAX_FILE_BYTES} bytes", hint)
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ServingError(f"{file}, line {number}: expected a name and 'sha256:' with 64 digits", hint)
        names[match["hash"]] = match["name"]
    return names


def add(file: Path, name: str) -> str:
    """Make a new token, add its hash to the file, and return it. The file is created if it does not exist.

    Raises:
        UsageError: If the name is invalid, or a token has it already.
        ServingError: If the file is invalid, or cannot be written.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    line = f"{name} sha256:{_hash(token)}"
    if not _LINE.fullmatch(line):
        raise UsageError(f"{name!r} is no name of a token", _NAME_HINT)
    try:
        file.touch(mode=0o600)
        with file.open("a+", encoding="ascii") as stream:
            locks.lock(stream)
            if name in read(file).values():
                raise UsageError(f"{file} has a token {name!r} already", "give another name: --name NAME")
            stream.seek(0)
            content = stream.read()
            stream.write(("" if not content or content.endswith("\n") else "\n") + line + "\n")
    except OSError as error:
        raise ServingError(f"{file} cannot be written: {error.strerror}", "give another --token-file") from error
    return token


class Authenticator:
    """A check of requests' tokens against a file that may change.

    Args:
        file: The file.

    Raises:
        ServingError: If the file cannot be read, or a line is invalid.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp = files.read_stamp(file)
        self._names: Mapping[str, str] = read(file)
        self._checked_s = time.monotonic()
        self._lock = threading.Lock()

    def accepts(self, authorization: str | None) -> bool:
        """Return whether the value of the header `Authorization` has a valid token."""
        self._reload()
        scheme, _, token = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and _hash(token.strip()) in self._names

    def _reload(self) -> None:
        """Read the file again if it has changed; an invalid one changes nothing."""
        now = time.monotonic()
        with self._lock:
            if now - self._checked_s < RELOAD_S:
                return
            self._checked_s = now
        stamp = files.read_stamp(self._file)
        if stamp == self._stamp:
            return
        try:
            self._names, self._stamp = read(self._file), stamp
        except ServingError as error:
            _log.error("%s; the tokens before are valid still", error.message)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
