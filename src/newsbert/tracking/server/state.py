"""The directory of a tracking server: its data unless they are elsewhere, its secrets, its log, and whether it runs."""

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from newsbert.core import processes, uris
from newsbert.errors import TrackingError

_HINT = "give another: --directory DIRECTORY"


@dataclass(frozen=True)
class ServerInfo:
    """A server that runs.

    Attributes:
        pid: Its process.
        started: When that started, in the kernel's ticks; a pid may have gone to another one.
        url: The base URL to reach it by from this machine.
        host: The address it listens on.
        database: Its database, without a password.
        artifacts: Where its artifacts are.
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
    """Where a server keeps its data.

    Attributes:
        database: The URL of its database, with the password.
        artifacts: A bucket's URI or a directory.
    """

    database: str
    artifacts: str


class ServerState:
    """The directory; it is made where it is missing, and is this user's alone.

    Raises:
        TrackingError: If it cannot be.
    """

    def __init__(self, directory: str) -> None:
        self.path = Path(directory).expanduser().absolute()

    def make(self) -> None:
        """Make the directory.

        Raises:
            TrackingError: If it cannot be.
        """
        with _errors(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def database(self) -> str:
        """The URL of the database in it."""
        return uris.sqlite_uri(self.path / "mlflow.db")

    @property
    def artifacts(self) -> str:
        """The artifacts in it."""
        return str(self.path / "artifacts")

    @property
    def log(self) -> Path:
        """What the server logs."""
        return self.path / "server.log"

    @property
    def auth_config(self) -> Path:
        """MLflow's settings of accounts, with the database's password."""
        return self.path / "auth.ini"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other server, and whoever restores into it, out of the directory during the block.

        Raises:
            TrackingError: If one is there.
        """
        with contextlib.ExitStack() as stack:
            with _errors(self.path):
                lock = stack.enter_context((self.path / "lock").open("a", encoding="utf-8"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TrackingError(
                    f"a tracking server runs in {self.path}", f"newsbert tracking down{self.option}"
                ) from error
            yield

    @property
    def option(self) -> str:
        """What a command needs to be told to find this directory again."""
        from shlex import quote

        return "" if self.path == Path("tracking").absolute() else f" --directory {quote(str(self.path))}"

    def secret_key(self) -> str:
        """The key of the server's forms; made once.

        Raises:
            TrackingError: If it cannot be read or written.
        """
        file = self.path / "secret_key"
        with _errors(file):
            if not file.exists():
                self.write(file, secrets.token_urlsafe(32))
            return file.read_text(encoding="utf-8")

    def write(self, file: Path, content: str) -> None:
        """Write a file that nobody else may read, whole or not at all.

        Raises:
            TrackingError: If it cannot be.
        """
        partial = file.with_name(f".{file.name}.partial")
        with self.private(partial) as stream:
            stream.write(content.encode("utf-8"))
        with _errors(file):
            partial.replace(file)

    def private(self, file: Path) -> BinaryIO:
        """Make a file anew that nobody else may read, to append to.

        Raises:
            TrackingError: If it cannot be made.
        """
        with _errors(file):
            file.unlink(missing_ok=True)
            return os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def keep(self, kept: StoreConfig) -> None:
        """Write down where the data are, for what is done to them without the server."""
        self.write(self.path / "data.json", json.dumps(dataclasses.asdict(kept)))

    def kept_before(self) -> StoreConfig | None:
        """Where the data are, if a server was started here."""
        try:
            return StoreConfig(**json.loads((self.path / "data.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def kept(self) -> StoreConfig:
        """Where the data are.

        Raises:
            TrackingError: If no server was started here.
        """
        found = self.kept_before()
        if found is None:
            raise self.never_started()
        return found

    def never_started(self) -> TrackingError:
        """What to say where no server was."""
        return TrackingError(f"no tracking server was started in {self.path}", f"newsbert tracking up{self.option}")

    def note(self, server: ServerInfo) -> None:
        """Write down that a server runs."""
        self.write(self.path / "server.json", json.dumps(dataclasses.asdict(server)))

    def forget(self) -> None:
        """Strike it out."""
        with contextlib.suppress(OSError):
            (self.path / "server.json").unlink()

    def noted(self) -> ServerInfo | None:
        """The server that runs here, if one does."""
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
    """Make what is made meanwhile this user's alone, whoever may enter the directory."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
