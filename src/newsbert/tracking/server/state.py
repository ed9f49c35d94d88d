"""Directory of a tracking server: its data unless they are elsewhere, its secrets, its log and its status."""

import contextlib
import dataclasses
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from newsbert.core import files, locks, processes, uris
from newsbert.errors import TrackingError

_HINT = "give another: --directory DIRECTORY"


@dataclass(frozen=True)
class ServerInfo:
    """A running server.

    Attributes:
        pid: Its process id.
        started: The start time of the process in kernel ticks; a pid may be reused.
        url: The base URL to reach it by from this machine.
        host: The address it listens on.
        database: Its database, without a password.
        artifacts: The location of its artifacts.
        auth: Whether it asks for a name and a password.
        allowed_hosts: The names that it answers to.
        mlflow: MLflow's version.
    """

    pid: int
    started: int
    url: str
    host: str
    database: str
    artifacts: str
    auth: bool
    allowed_hosts: list[str]
    mlflow: str


@dataclass(frozen=True)
class StoreConfig:
    """Locations of a server's data.

    Attributes:
        database: The URL of its database, with the password.
        artifacts: A bucket's URI or a directory.
    """

    database: str
    artifacts: str


class ServerState:
    """Directory of a server; it is created if missing, for this user only.

    Raises:
        TrackingError: If it cannot be created.
    """

    def __init__(self, directory: str) -> None:
        self.path = Path(directory).expanduser().absolute()

    def make(self) -> None:
        """Create the directory.

        Raises:
            TrackingError: If it cannot be created.
        """
        with _errors(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def database(self) -> str:
        """The URL of the database in it."""
        return uris.sqlite_uri(self.path / "mlflow.db")

    @property
    def artifacts(self) -> str:
        """The path of the artifacts in it."""
        return str(self.path / "artifacts")

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.path / "server.log"

    @property
    def auth_config(self) -> Path:
        """MLflow's file of authentication settings, with the database's password."""
        return self.path / "auth.ini"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory against other servers and restorations during the block.

        Raises:
            TrackingError: If it is locked already.
        """
        with contextlib.ExitStack() as stack:
            with _errors(self.path):
                stream = stack.enter_context((self.path / "lock").open("a", encoding="utf-8"))
            locks.lock(
                stream,
                TrackingError(f"a tracking server runs in {self.path}", f"newsbert tracking down{self.option}"),
            )
            yield

    @property
    def option(self) -> str:
        """The option by which a command finds this directory again; empty for the default."""
        from shlex import quote

        return "" if self.path == Path("tracking").absolute() else f" --directory {quote(str(self.path))}"

    def secret_key(self) -> str:
        """Return the key of the server's forms, which is created once.

        Raises:
            TrackingError: If it cannot be read or written.
        """
        file = self.path / "secret_key"
        with _errors(file):
            if not file.exists():
                self.write(file, secrets.token_urlsafe(32))
            return file.read_text(encoding="utf-8")

    def write(self, file: Path, content: str) -> None:
        """Write a file that only this user can read, completely or not at all.

        Raises:
            TrackingError: If it cannot be written.
        """
        with _errors(file):
            files.write_atomically(file, content, mode=0o600)

    def private(self, file: Path) -> BinaryIO:
        """Create a new file that only this user can read, replacing an old one, and open it for appending.

        Raises:
            TrackingError: If it cannot be created.
        """
        with _errors(file):
            file.unlink(missing_ok=True)
            return os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def save_store(self, store: StoreConfig) -> None:
        """Record the locations of the data, for commands that run without the server."""
        self.write(self.path / "data.json", json.dumps(dataclasses.asdict(store)))

    def read_previous_store(self) -> StoreConfig | None:
        """Return the locations of the data, if a server was started here."""
        try:
            return StoreConfig(**json.loads((self.path / "data.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def read_store(self) -> StoreConfig:
        """Return the locations of the data.

        Raises:
            TrackingError: If no server was started here.
        """
        stores = self.read_previous_store()
        if stores is None:
            raise self.never_started()
        return stores

    def never_started(self) -> TrackingError:
        """Return the error for a directory where no server was started."""
        return TrackingError(f"no tracking server was started in {self.path}", f"newsbert tracking up{self.option}")

    def note(self, server: ServerInfo) -> None:
        """Record a running server."""
        self.write(self.path / "server.json", json.dumps(dataclasses.asdict(server)))

    def forget(self) -> None:
        """Delete the record of a running server."""
        with contextlib.suppress(OSError):
            (self.path / "server.json").unlink()

    def noted(self) -> ServerInfo | None:
        """Return the server that runs here, if there is one."""
        try:
            server = ServerInfo(**json.loads((self.path / "server.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return server if processes.started(server.pid) == server.started else None


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrackingError(f"{path} cannot be used: {error.strerror or error}", _HINT) from error


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """Restrict files that are created in the block to this user, even in a directory that others may enter."""
    previous = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(previous)
