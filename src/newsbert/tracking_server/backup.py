"""A tracking server's database and artifacts in one file, and back.

The database is copied as it is at one moment, the artifacts after it: whatever it knows of is there, since MLflow
writes of an artifact only when that is stored. The file is a tar, whose last member names all others with their
SHA-256.
"""

import contextlib
import datetime
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from newsbert import config, tracking_file
from newsbert.errors import NewsbertError, TrackingError, UsageError
from newsbert.tracking_server import artifacts, database
from newsbert.tracking_server.home import Home, Kept

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from sqlalchemy.engine import URL

_FORMAT = 1
_DATABASE, _ARTIFACTS, _CONTENTS = "database", "artifacts/", "contents.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Contents:
    """What a backup holds.

    Attributes:
        database: The kind of its database, `sqlite` or `postgresql`.
        revision: The revision of the database's tables.
        mlflow: MLflow's version.
        created: When it was made, in UTC.
        files: The SHA-256 of every member, by its name.
        format: The version of this format.
    """

    database: str
    revision: str
    mlflow: str
    created: str
    files: dict[str, str]
    format: int = _FORMAT

    @property
    def artifacts(self) -> list[str]:
        """The paths of the artifacts."""
        return [name.removeprefix(_ARTIFACTS) for name in self.files if name.startswith(_ARTIFACTS)]


def make(kept: Kept, file: Path) -> Contents:
    """Write a backup; the server may run meanwhile.

    Raises:
        UsageError: If the file is there.
        TrackingError: If database or artifacts cannot be read, or the file cannot be written.
    """
    import mlflow

    if file.exists():
        raise UsageError(f"{file} is there already", "give another name; a backup replaces nothing")
    revision = database.revision(kept.database)
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    files: dict[str, str] = {}
    try:
        with (
            _disk_errors(file),
            tempfile.TemporaryDirectory(prefix=f".{file.name}-", dir=file.parent) as work,
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream,
        ):
            with tarfile.open(fileobj=stream, mode="w|") as tar:
                dumped = Path(work, _DATABASE)
                _dump(kept.database, dumped)
                files[_DATABASE] = _add(tar, _DATABASE, dumped)
                dumped.unlink()
                repository = artifacts.repository(kept.artifacts)
                for path in _listed(repository, kept.artifacts):
                    with artifacts.errors(kept.artifacts):
                        found = Path(repository.download_artifacts(path, work))
                    files[_ARTIFACTS + path] = _add(tar, _ARTIFACTS + path, found)
                    found.unlink()
                kind = database.parse(kept.database).get_backend_name()
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                contents = Contents(kind, revision, mlflow.__version__, now, files)
                document = json.dumps(vars(contents)).encode()
                tar.addfile(_member(_CONTENTS, len(document)), io.BytesIO(document))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return contents


def restore(home: Home, kept: Kept, file: Path, on_log: Callable[[str], None]) -> Contents:
    """Put a backup into an empty database and where no artifacts are yet; nothing is written before it was all read.

    Raises:
        UsageError: If the backup is of the other kind of database, or there are data already.
        TrackingError: If it is not whole, or cannot be put there.
    """
    contents = read(file)
    url = database.parse(kept.database)
    if url.get_backend_name() != contents.database:
        raise UsageError(
            f"{file} is of a {contents.database} database, and cannot be put into {database.shown(kept.database)}",
            "give one of that kind: --backend-store",
        )
    home.make()
    with home.locked():
        if not database.is_empty(kept.database):
            raise UsageError(f"the database {database.shown(kept.database)} is not empty", "give one that is")
        repository = artifacts.repository(kept.artifacts)
        with artifacts.errors(kept.artifacts):
            if repository.list_artifacts():
                raise UsageError(f"there are artifacts in {kept.artifacts} already", "give another place: --artifacts")
        with tempfile.TemporaryDirectory(prefix="newsbert-") as work, _read_errors(file), tarfile.open(file) as tar:
            dumped = Path(work, _DATABASE)
            for member in tar:
                if member.name == _DATABASE:
                    _extract(tar, member, dumped)
                elif member.name.startswith(_ARTIFACTS):
                    path = PurePosixPath(member.name.removeprefix(_ARTIFACTS))
                    extracted = Path(work, path.name)
                    _extract(tar, member, extracted)
                    with artifacts.errors(kept.artifacts):
                        parent = str(path.parent)
                        repository.log_artifact(str(extracted), None if parent == "." else parent)
                    extracted.unlink()
            on_log(f"{len(contents.artifacts)} artifacts are in {kept.artifacts}")
            # Last: what the database knows of is there by then.
            _load(kept.database, dumped)
        database.prepare(kept.database, on_log)
        home.keep(kept)
    return contents


def read(file: Path) -> Contents:
    """What a backup holds, every byte of it compared with what was written.

    Raises:
        TrackingError: If it is none, not whole, or was changed.
    """
    found: dict[str, str] = {}
    document = None
    with _read_errors(file), tarfile.open(file) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() and _is_safe(member.name) else None
            if stream is None:
                raise _broken(file, f"it holds {member.name!r}")
            if member.name == _CONTENTS:
                document = stream.read()
            else:
                found[member.name] = _digest(stream)
    if document is None:
        raise _broken(file, f"it has no {_CONTENTS}: it was cut off, or is none")
    try:
        contents = Contents(**json.loads(document))
    except (ValueError, TypeError) as error:
        raise _broken(file, f"its {_CONTENTS} cannot be read") from error
    if contents.format != _FORMAT:
        raise TrackingError(f"{file} is a backup of another newsbert (format {contents.format})", "use that one")
    if contents.files != found or _DATABASE not in found:
        changed = sorted(
            name for name in contents.files.keys() | found.keys() if contents.files.get(name) != found.get(name)
        )
        raise _broken(file, f"{', '.join(changed[:3]) or _DATABASE} is not what was written")
    return contents


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _listed(repository: "ArtifactRepository", where: str) -> Iterator[str]:
    """The paths of all artifacts."""
    directories: list[str | None] = [None]
    while directories:
        with artifacts.errors(where):
            found = repository.list_artifacts(directories.pop())
        for each in found:
            if each.is_dir:
                directories.append(each.path)
            else:
                yield each.path


def _add(tar: tarfile.TarFile, name: str, file: Path) -> str:
    with file.open("rb") as stream:
        digest = _digest(stream)
        stream.seek(0)
        tar.addfile(_member(name, file.stat().st_size), stream)
    return digest


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> None:
    stream = tar.extractfile(member)
    assert stream is not None  # it was read before
    with file.open("wb") as target:
        shutil.copyfileobj(stream, target, _CHUNK)


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _dump(url: str, file: Path) -> None:
    source = tracking_file.path_of(url)
    if source is None:
        _run_postgres(
            "pg_dump", database.parse(url), "--format=custom", "--no-owner", "--no-privileges", f"--file={file}"
        )
        return
    try:
        with (
            contextlib.closing(tracking_file.opened(source, timeout_s=30)) as one,
            contextlib.closing(sqlite3.connect(file)) as other,
        ):
            one.backup(other)
    except sqlite3.Error as error:
        raise TrackingError(f"the database {database.shown(url)} cannot be read: {error}", "check the file") from error


def _load(url: str, file: Path) -> None:
    target = tracking_file.path_of(url)
    if target is None:
        whole = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
        _run_postgres("pg_restore", database.parse(url), *whole, str(file))
        return
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, partial)
        partial.replace(target)
    except OSError as error:
        raise TrackingError(f"{target} cannot be written: {error.strerror}", "make room, or give another") from error
    finally:
        partial.unlink(missing_ok=True)


def _run_postgres(program: str, url: "URL", *arguments: str) -> None:
    """Run a program of PostgreSQL's on a database; what it is told of it stands in no command line.

    Raises:
        TrackingError: If it is missing or fails.
    """
    found = shutil.which(program)
    if found is None:
        raise TrackingError(f"{program} is not installed", "apt install postgresql-client, of the server's version")
    address = url._replace(drivername="postgresql", password=None).render_as_string()
    given = {
        "PGCONNECT_TIMEOUT": str(database.CONNECT_TIMEOUT_S),
        **({"PGPASSWORD": url.password} if url.password else {}),
    }
    ran = subprocess.run(
        [found, "--no-password", f"--dbname={address}", *arguments],
        env=config.child_environment(**given), capture_output=True, text=True, check=False, encoding="utf-8",
        errors="replace",
    )  # fmt: skip
    if ran.returncode != 0:
        said = next(iter(ran.stderr.strip().splitlines()), f"exit code {ran.returncode}")
        raise TrackingError(
            f"{program}: {said.replace(url.password or chr(0), '***')}", "check the database, and the version of both"
        )


@contextlib.contextmanager
def _disk_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrackingError(
            f"{file} cannot be written: {error.strerror or error}",
            f"make room, or give another place: df -h {file.parent}",
        ) from error


@contextlib.contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise _broken(file, str(error)) from error
    except OSError as error:
        raise TrackingError(
            f"{file} cannot be read: {error.strerror or error}", "check its name and its rights"
        ) from error


def _broken(file: Path, reason: str) -> NewsbertError:
    return TrackingError(f"{file} is no whole backup: {reason}", "take another backup")
