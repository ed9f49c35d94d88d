"""A tracking server's database and artifacts in one file, and back.

The database is copied as it is at one moment, the artifacts after it: whatever it knows of is there, since MLflow
writes of an artifact only when that is stored. The file is a tar, whose last member names all others with their
SHA-256.
"""

import contextlib
import datetime
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from newsbert.core import temporary
from newsbert.errors import TrackingError, UsageError
from newsbert.tracking.server import artifacts, database
from newsbert.tracking.server.backup_file import (
    _ARTIFACTS,
    _CONTENTS,
    _DATABASE,
    BackupManifest,
    add,
    broken,
    disk_errors,
    extract,
    iterate_members,
    make_member,
    opened,
    read,
)
from newsbert.tracking.server.database_dump import dump, find_program, load, run
from newsbert.tracking.server.state import ServerState, StoreConfig, private_umask

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


def make(kept: StoreConfig, file: Path) -> BackupManifest:
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
        with disk_errors(file):
            work = stack.enter_context(temporary.directory(file.parent))
        partial = work / "backup"
        with (
            disk_errors(file),
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream,
        ):
            # Two directories: an artifact may be called as the database is.
            dumped, fetched = work / "database" / _DATABASE, work / "artifacts"
            dumped.parent.mkdir()
            fetched.mkdir()
            with tarfile.open(fileobj=stream, mode="w|") as tar:
                dump(kept.database, dumped)
                files[_DATABASE] = add(tar, _DATABASE, dumped)
                dumped.unlink()
                for path, found in _artifacts(kept.artifacts, fetched):
                    files[_ARTIFACTS + path] = add(tar, _ARTIFACTS + path, found)
                kind = database.parse(kept.database).get_backend_name()
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                contents = BackupManifest(kind, revision, mlflow.__version__, now, files)
                document = json.dumps(vars(contents)).encode()
                tar.addfile(make_member(_CONTENTS, len(document)), io.BytesIO(document))
            stream.flush()
            os.fsync(stream.fileno())
        # What could not be restored is no backup: that is found out now, not on the day when it is needed.
        with opened(partial) as stream:
            if read(stream, file) != contents:
                raise broken(file, "it does not hold what was written to it")
            _stage_database(stream, file, contents, work / "read", lambda _: None)
        partial.replace(file)
    return contents


def restore(home: ServerState, kept: StoreConfig, file: Path, on_log: Callable[[str], None]) -> BackupManifest:
    """Put a backup into an empty database and where no artifacts are yet: all of it or nothing.

    Raises:
        UsageError: If the backup is of the other kind of database, or there are data already.
        TrackingError: If it is not whole, or cannot be put there.
    """
    with private_umask(), opened(file) as stream, temporary.directory() as work:
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


def _stage_database(
    stream: BinaryIO, file: Path, contents: BackupManifest, dumped: Path, on_log: Callable[[str], None]
) -> None:
    """Extract a backup's database and check that it is one of MLflow's; an older one is brought up to date.

    Raises:
        TrackingError: If it cannot be used.
    """
    for member, content in iterate_members(stream, file):
        if member.name == _DATABASE:
            extract(content, dumped, contents.files[_DATABASE], file)
            break
    if contents.database == "sqlite":
        try:
            database.check_file(dumped, on_log)
        except TrackingError as error:
            raise broken(file, error.message.replace(str(dumped), _DATABASE)) from error
    else:
        run(find_program("pg_restore"), "--list", str(dumped))


def _restore_artifacts(
    stream: BinaryIO, file: Path, contents: BackupManifest, where: str, repository: "ArtifactRepository"
) -> None:
    """Put a backup's artifacts into an empty place."""
    with temporary.directory() as work:
        for member, content in iterate_members(stream, file):
            if not member.name.startswith(_ARTIFACTS):
                continue
            path = PurePosixPath(member.name.removeprefix(_ARTIFACTS))
            extracted = work / path.name
            extract(content, extracted, contents.files[member.name], file)
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
