"""Backup of a tracking server's database and artifacts in one file, and its restoration.

The database is copied first, as of one moment, and the artifacts after it. So all artifacts that the database refers
to are there: MLflow records an artifact only once it is stored. The file is a tar archive, whose last member lists
all others with their SHA-256.
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


def make(store: StoreConfig, file: Path) -> BackupManifest:
    """Write a backup, and verify it before it gets its final name; the server may run meanwhile.

    Raises:
        UsageError: If the file exists.
        TrackingError: If database or artifacts cannot be read, or the file cannot be written.
    """
    import mlflow

    if file.exists():
        raise UsageError(f"{file} is there already", "give another name; a backup replaces nothing")
    revision = database.revision(store.database)
    files: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        with disk_errors(file):
            work = stack.enter_context(temporary.directory(file.parent))
        partial = work / "backup"
        with (
            disk_errors(file),
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream,
        ):
            # Two directories: an artifact may have the same name as the database.
            dumped, fetched = work / "database" / _DATABASE, work / "artifacts"
            dumped.parent.mkdir()
            fetched.mkdir()
            with tarfile.open(fileobj=stream, mode="w|") as tar:
                dump(store.database, dumped)
                files[_DATABASE] = add(tar, _DATABASE, dumped)
                dumped.unlink()
                for path, artifact in _iterate_artifacts(store.artifacts, fetched):
                    files[_ARTIFACTS + path] = add(tar, _ARTIFACTS + path, artifact)
                kind = database.parse(store.database).get_backend_name()
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                contents = BackupManifest(kind, revision, mlflow.__version__, now, files)
                document = json.dumps(vars(contents)).encode()
                tar.addfile(make_member(_CONTENTS, len(document)), io.BytesIO(document))
            stream.flush()
            os.fsync(stream.fileno())
        # Check that the backup can be restored now, not on the day when it is needed.
        with opened(partial) as stream:
            if read(stream, file) != contents:
                raise broken(file, "it does not hold what was written to it")
            _stage_database(stream, file, contents, work / "read", lambda _: None)
        partial.replace(file)
    return contents


def restore(home: ServerState, store: StoreConfig, file: Path, on_log: Callable[[str], None]) -> BackupManifest:
    """Restore a backup into an empty database and an empty artifact location, completely or not at all.

    Raises:
        UsageError: If the backup is of the other kind of database, or data exist already.
        TrackingError: If it is incomplete, or cannot be restored.
    """
    with private_umask(), opened(file) as stream, temporary.directory() as work:
        contents = read(stream, file)
        url = database.parse(store.database)
        if url.get_backend_name() != contents.database:
            raise UsageError(
                f"{file} is of a {contents.database} database, and cannot be put into {database.shown(store.database)}",
                "give one of that kind: --backend-store",
            )
        dumped = work / _DATABASE
        _stage_database(stream, file, contents, dumped, on_log)
        home.make()
        with home.locked():
            if not database.is_empty(store.database):
                raise UsageError(f"the database {database.shown(store.database)} is not empty", "give one that is")
            repository = artifacts.repository(store.artifacts)
            with artifacts.errors(store.artifacts):
                if repository.list_artifacts():
                    raise UsageError(
                        f"there are artifacts in {store.artifacts} already", "give another place: --artifacts"
                    )
            try:
                _restore_artifacts(stream, file, contents, store.artifacts, repository)
                on_log(f"{len(contents.artifacts)} artifacts are in {store.artifacts}")
                # The database comes last: the artifacts that it refers to are there by then.
                load(store.database, dumped)
            except BaseException:
                _delete_artifacts(repository)
                raise
            database.prepare(store.database, on_log)
            home.save_store(store)
    return contents


def _stage_database(
    stream: BinaryIO, file: Path, contents: BackupManifest, dumped: Path, on_log: Callable[[str], None]
) -> None:
    """Extract a backup's database and check that it is one of MLflow's; an older one is migrated.

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
    """Restore a backup's artifacts into an empty location."""
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
                else:  # not by MLflow: it rejects directories such as `..x`, which it has created before
                    target = Path(where, path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(extracted, target)


def _delete_artifacts(repository: "ArtifactRepository") -> None:
    """Delete the artifacts of a failed restoration, as far as possible."""
    with contextlib.suppress(Exception):
        for entry in repository.list_artifacts():
            repository.delete_artifacts(entry.path)


def _iterate_artifacts(where: str, work: Path) -> Iterator[tuple[str, Path]]:
    """Yield the path of every artifact, and a file with its content.

    Args:
        where: The artifact location.
        work: The directory for files of a bucket, which are downloaded one after the other.
    """
    repository = artifacts.repository(where)
    if "://" not in where:  # not by MLflow: it cannot read all names that it writes
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
                downloaded = Path(repository.download_artifacts(entry.path, str(work)))
            yield entry.path, downloaded
            downloaded.unlink()
