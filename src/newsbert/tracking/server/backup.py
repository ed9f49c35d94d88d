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
import re
import shlex
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, BinaryIO

from newsbert.core import temporary
from newsbert.errors import NewsbertError, TrackingError, UsageError, first_line
from newsbert.tracking.server import artifacts, database
from newsbert.tracking.server.database_dump import dump, find_program, load, run
from newsbert.tracking.server.state import Home, Kept, private_umask

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_FORMAT = 1
_DATABASE, _ARTIFACTS, _CONTENTS = "database", "artifacts/", "contents.json"
_CHUNK, _MAX_CONTENTS_BYTES = 1 << 20, 1 << 28


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
    """Write a backup, and read it back before it gets its name; the server may run meanwhile.

    Raises:
        UsageError: If the file is there.
        TrackingError: If database or artifacts cannot be read, or the file cannot be written.
    """
    import mlflow

    if file.exists():
        raise UsageError(f"{file} is there already", "give another name; a backup replaces nothing")
    revision = database.revision(kept.database)
    files: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        with _disk_errors(file):
            work = stack.enter_context(temporary.directory(file.parent))
        partial = work / "backup"
        with (
            _disk_errors(file),
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream,
        ):
            # Two directories: an artifact may be called as the database is.
            dumped, fetched = work / "database" / _DATABASE, work / "artifacts"
            dumped.parent.mkdir()
            fetched.mkdir()
            with tarfile.open(fileobj=stream, mode="w|") as tar:
                dump(kept.database, dumped)
                files[_DATABASE] = _add(tar, _DATABASE, dumped)
                dumped.unlink()
                for path, found in _artifacts(kept.artifacts, fetched):
                    files[_ARTIFACTS + path] = _add(tar, _ARTIFACTS + path, found)
                kind = database.parse(kept.database).get_backend_name()
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                contents = Contents(kind, revision, mlflow.__version__, now, files)
                document = json.dumps(vars(contents)).encode()
                tar.addfile(_member(_CONTENTS, len(document)), io.BytesIO(document))
            stream.flush()
            os.fsync(stream.fileno())
        # What could not be restored is no backup: that is found out now, not on the day when it is needed.
        with _opened(partial) as stream:
            if read(stream, file) != contents:
                raise _broken(file, "it does not hold what was written to it")
            _stage_database(stream, file, contents, work / "read", lambda _: None)
        partial.replace(file)
    return contents


def restore(home: Home, kept: Kept, file: Path, on_log: Callable[[str], None]) -> Contents:
    """Put a backup into an empty database and where no artifacts are yet: all of it or nothing.

    Raises:
        UsageError: If the backup is of the other kind of database, or there are data already.
        TrackingError: If it is not whole, or cannot be put there.
    """
    with private_umask(), _opened(file) as stream, temporary.directory() as work:
        contents = read(stream, file)
        url = database.parse(kept.database)
        if url.get_backend_name() != contents.database:
            raise UsageError(
                f"{file} is of a {contents.database} database, and cannot be put into {database.shown(kept.database)}",
                "give one of that kind: --backend-store",
            )
        dumped = work / _DATABASE
        _stage_database(stream, file, contents, dumped, on_log)
        home.make()
        with home.locked():
            if not database.is_empty(kept.database):
                raise UsageError(f"the database {database.shown(kept.database)} is not empty", "give one that is")
            repository = artifacts.repository(kept.artifacts)
            with artifacts.errors(kept.artifacts):
                if repository.list_artifacts():
                    raise UsageError(
                        f"there are artifacts in {kept.artifacts} already", "give another place: --artifacts"
                    )
            try:
                _restore_artifacts(stream, file, contents, kept.artifacts, repository)
                on_log(f"{len(contents.artifacts)} artifacts are in {kept.artifacts}")
                # Last: what the database knows of is there by then.
                load(kept.database, dumped)
            except BaseException:
                _empty(repository)
                raise
            database.prepare(kept.database, on_log)
            home.keep(kept)
    return contents


def read(stream: BinaryIO, file: Path) -> Contents:
    """Return what a backup holds, every byte of it compared with what was written.

    Args:
        stream: The backup.
        file: Its path, for errors.

    Raises:
        TrackingError: If it is none, not whole, was changed, or could be put nowhere.
    """
    found: dict[str, str] = {}
    document = None
    with _read_errors(file):
        for member, content in _members(stream, file):
            if document is not None:
                raise _broken(file, f"{member.name!r} stands behind its {_CONTENTS}")
            if member.name == _CONTENTS:
                if member.size > _MAX_CONTENTS_BYTES:
                    raise _broken(file, f"its {_CONTENTS} is too large")
                document = content.read()
            elif member.name in found:
                raise _broken(file, f"it holds {member.name!r} twice")
            else:
                found[member.name] = _digest(content)
    if document is None:
        raise _broken(file, f"it has no {_CONTENTS}: it was cut off, or is none")
    contents = _parse(document, file)
    if contents.files != found or _DATABASE not in found:
        changed = sorted(
            name for name in contents.files.keys() | found.keys() if contents.files.get(name) != found.get(name)
        )
        raise _broken(file, f"{', '.join(map(repr, changed[:3])) or _DATABASE} is not what was written")
    inside = {str(parent) for name in found for parent in PurePosixPath(name).parents}
    if inside & found.keys():
        raise _broken(file, f"{min(inside & found.keys())!r} is a file and a directory")
    return contents


def _members(stream: BinaryIO, file: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield the members of a backup, all of them plain files that `make` could have written.

    Raises:
        TrackingError: At the first that is none.
    """
    stream.seek(0)
    with _read_errors(file), tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} else None
            if content is None or member.issparse() or not _is_safe(member.name):
                raise _broken(file, f"it holds {member.name[:100]!r}, which is no plain file of a backup")
            yield member, content


def _parse(document: bytes, file: Path) -> Contents:
    """Return the contents that a backup says it has.

    Raises:
        TrackingError: If it says nothing of the kind.
    """
    try:
        contents = Contents(**json.loads(document))
    except (ValueError, TypeError, RecursionError) as error:
        raise _broken(file, f"its {_CONTENTS} cannot be read") from error
    if type(contents.format) is not int or contents.format != _FORMAT:
        raise TrackingError(f"{file} is a backup of another newsbert (format {contents.format!r})", "use that one")
    words = (contents.database, contents.revision, contents.mlflow, contents.created)
    if (
        not all(isinstance(word, str) and re.fullmatch(r"[A-Za-z0-9.+:-]{1,64}", word) for word in words)
        or contents.database not in {"sqlite", "postgresql"}
        or not isinstance(contents.files, dict)
        or not all(isinstance(digest, str) for digest in contents.files.values())
    ):
        raise _broken(file, f"its {_CONTENTS} cannot be read")
    return contents


def _is_safe(name: str) -> bool:
    """Tell whether a member is what a backup has, and inside of where it is put."""
    if name in {_DATABASE, _CONTENTS}:
        return True
    parts = name.removeprefix(_ARTIFACTS).split("/")
    return name.startswith(_ARTIFACTS) and "\0" not in name and not {"", ".", ".."} & set(parts)


def _stage_database(
    stream: BinaryIO, file: Path, contents: Contents, dumped: Path, on_log: Callable[[str], None]
) -> None:
    """Extract a backup's database and check that it is one of MLflow's; an older one is brought up to date.

    Raises:
        TrackingError: If it cannot be used.
    """
    for member, content in _members(stream, file):
        if member.name == _DATABASE:
            _extract(content, dumped, contents.files[_DATABASE], file)
            break
    if contents.database == "sqlite":
        try:
            database.check_file(dumped, on_log)
        except TrackingError as error:
            raise _broken(file, error.message.replace(str(dumped), _DATABASE)) from error
    else:
        run(find_program("pg_restore"), "--list", str(dumped))


def _restore_artifacts(
    stream: BinaryIO, file: Path, contents: Contents, where: str, repository: "ArtifactRepository"
) -> None:
    """Put a backup's artifacts into an empty place."""
    with temporary.directory() as work:
        for member, content in _members(stream, file):
            if not member.name.startswith(_ARTIFACTS):
                continue
            path = PurePosixPath(member.name.removeprefix(_ARTIFACTS))
            extracted = work / path.name
            _extract(content, extracted, contents.files[member.name], file)
            with artifacts.errors(where):
                if "://" in where:
                    repository.log_artifact(str(extracted), None if len(path.parts) == 1 else str(path.parent))
                    extracted.unlink()
                else:  # by ourselves: MLflow takes no directory called `..x`, which it has made before
                    target = Path(where, path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(extracted, target)


def _empty(repository: "ArtifactRepository") -> None:
    """Take back what was put into an empty place, as far as that is possible."""
    with contextlib.suppress(Exception):
        for entry in repository.list_artifacts():
            repository.delete_artifacts(entry.path)


def _artifacts(where: str, work: Path) -> Iterator[tuple[str, Path]]:
    """Yield the paths of all artifacts, and a file with what it holds.

    Args:
        where: Where they are.
        work: Where those of a bucket are put, one after the other.
    """
    repository = artifacts.repository(where)
    if "://" not in where:  # by ourselves: MLflow does not read all names that it writes
        for directory, _, names in os.walk(where, followlinks=True):
            for name in names:
                yield str(Path(directory, name).relative_to(where)), Path(directory, name)
        return
    directories: list[str | None] = [None]
    while directories:
        with artifacts.errors(where):
            entries = repository.list_artifacts(directories.pop())
        for entry in entries:
            if entry.is_dir:
                directories.append(entry.path)
                continue
            with artifacts.errors(where):
                found = Path(repository.download_artifacts(entry.path, str(work)))
            yield entry.path, found
            found.unlink()


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


def _extract(content: IO[bytes], target: Path, digest: str, file: Path) -> None:
    """Write a member to a new file, which is this user's alone.

    Raises:
        TrackingError: If it is not what was read before: somebody writes to the backup meanwhile.
    """
    with (
        _read_errors(file),
        _disk_errors(target),
        os.fdopen(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as stream,
    ):
        shutil.copyfileobj(content, stream, _CHUNK)
        stream.seek(0)
        if _digest(stream) != digest:
            raise _broken(file, "it is being written to")


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open a backup once, for all that is read of it.

    Raises:
        TrackingError: If it cannot be read, or is no file.
    """
    with _read_errors(file):
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _broken(file, "it is no file")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


@contextlib.contextmanager
def _disk_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrackingError(
            f"{file} cannot be written: {error.strerror or error}",
            f"make room, or give another place: df -h {shlex.quote(str(file.parent))}",
        ) from error


@contextlib.contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise _broken(file, first_line(error)) from error
    except OSError as error:
        raise TrackingError(
            f"{file} cannot be read: {error.strerror or error}", "check its name and its rights"
        ) from error


def _broken(file: Path, reason: str) -> NewsbertError:
    return TrackingError(f"{file} is no whole backup: {reason}", "take another backup")
