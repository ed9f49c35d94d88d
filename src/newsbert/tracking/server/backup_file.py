"""File of a backup: a tar archive, which is validated strictly when it is read."""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, BinaryIO

from newsbert.errors import NewsbertError, TrackingError, first_line

if TYPE_CHECKING:
    pass

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

_FORMAT = 1


_DATABASE, _ARTIFACTS, _CONTENTS = "database", "artifacts/", "contents.json"


@dataclass(frozen=True)
class BackupManifest:
    """Manifest of a backup.

    Attributes:
        database: The kind of its database, `sqlite` or `postgresql`.
        revision: The revision of the database's tables.
        mlflow: MLflow's version.
        created: Its creation time in UTC.
        files: The SHA-256 of every member, by its name.
        format: The version of the format.
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


def read(stream: BinaryIO, file: Path) -> BackupManifest:
    """Return a backup's manifest, after comparing all content with its digests.

    Args:
        stream: The backup.
        file: Its path, for errors.

    Raises:
        TrackingError: If it is no backup, is incomplete, was changed, or cannot be restored anywhere.
    """
    digests: dict[str, str] = {}
    document = None
    with read_errors(file):
        for member, content in iterate_members(stream, file):
            if document is not None:
                raise broken(file, f"{member.name!r} stands behind its {_CONTENTS}")
            if member.name == _CONTENTS:
                if member.size > _MAX_CONTENTS_BYTES:
                    raise broken(file, f"its {_CONTENTS} is too large")
                document = content.read()
            elif member.name in digests:
                raise broken(file, f"it holds {member.name!r} twice")
            else:
                digests[member.name] = _digest(content)
    if document is None:
        raise broken(file, f"it has no {_CONTENTS}: it was cut off, or is none")
    contents = _parse(document, file)
    if contents.files != digests or _DATABASE not in digests:
        changed = sorted(
            name for name in contents.files.keys() | digests.keys() if contents.files.get(name) != digests.get(name)
        )
        raise broken(file, f"{', '.join(map(repr, changed[:3])) or _DATABASE} is not what was written")
    directories = {str(parent) for name in digests for parent in PurePosixPath(name).parents}
    if directories & digests.keys():
        raise broken(file, f"{min(directories & digests.keys())!r} is a file and a directory")
    return contents


def iterate_members(stream: BinaryIO, file: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield the members of a backup, which must be plain files with names as `backup.make` writes them.

    Raises:
        TrackingError: At the first other member.
    """
    stream.seek(0)
    with read_errors(file), tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} else None
            if content is None or member.issparse() or not _is_safe(member.name):
                raise broken(file, f"it holds {member.name[:100]!r}, which is no plain file of a backup")
            yield member, content


def _parse(document: bytes, file: Path) -> BackupManifest:
    """Parse a backup's manifest.

    Raises:
        TrackingError: If it is invalid.
    """
    try:
        contents = BackupManifest(**json.loads(document))
    except (ValueError, TypeError, RecursionError) as error:
        raise broken(file, f"its {_CONTENTS} cannot be read") from error
    if type(contents.format) is not int or contents.format != _FORMAT:
        raise TrackingError(f"{file} is a backup of another newsbert (format {contents.format!r})", "use that one")
    fields = (contents.database, contents.revision, contents.mlflow, contents.created)
    if (
        not all(isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9.+:-]{1,64}", value) for value in fields)
        or contents.database not in {"sqlite", "postgresql"}
        or not isinstance(contents.files, dict)
        or not all(isinstance(digest, str) for digest in contents.files.values())
    ):
        raise broken(file, f"its {_CONTENTS} cannot be read")
    return contents


def _is_safe(name: str) -> bool:
    """Return whether a member's name belongs to a backup and stays inside the target directory."""
    if name in {_DATABASE, _CONTENTS}:
        return True
    parts = name.removeprefix(_ARTIFACTS).split("/")
    return name.startswith(_ARTIFACTS) and "\0" not in name and not {"", ".", ".."} & set(parts)


def add(tar: tarfile.TarFile, name: str, file: Path) -> str:
    """Add a file as a member, and return its SHA-256."""
    with file.open("rb") as stream:
        digest = _digest(stream)
        stream.seek(0)
        tar.addfile(make_member(name, file.stat().st_size), stream)
    return digest


def make_member(name: str, size: int) -> tarfile.TarInfo:
    """Create the header of a member."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def extract(content: IO[bytes], target: Path, digest: str, file: Path) -> None:
    """Write a member to a new file that only this user can access.

    Raises:
        TrackingError: If it differs from the first reading: another process is writing to the backup.
    """
    with (
        read_errors(file),
        disk_errors(target),
        os.fdopen(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as stream,
    ):
        shutil.copyfileobj(content, stream, CHUNK_BYTES)
        stream.seek(0)
        if _digest(stream) != digest:
            raise broken(file, "it is being written to")


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a backup once, for all reads.

    Raises:
        TrackingError: If it cannot be read, or is no file.
    """
    with read_errors(file):
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise broken(file, "it is no file")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


@contextlib.contextmanager
def disk_errors(file: Path) -> Iterator[None]:
    """Translate errors of writing a backup."""
    try:
        yield
    except OSError as error:
        raise TrackingError(
            f"{file} cannot be written: {error.strerror or error}",
            f"make room, or give another place: df -h {shlex.quote(str(file.parent))}",
        ) from error


@contextlib.contextmanager
def read_errors(file: Path) -> Iterator[None]:
    """Translate errors of reading a backup."""
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise broken(file, first_line(error)) from error
    except OSError as error:
        raise TrackingError(
            f"{file} cannot be read: {error.strerror or error}", "check its name and its rights"
        ) from error


def broken(file: Path, reason: str) -> NewsbertError:
    """Return the error for a file that is no backup, or an incomplete one."""
    return TrackingError(f"{file} is no whole backup: {reason}", "take another backup")


CHUNK_BYTES, _MAX_CONTENTS_BYTES = 1 << 20, 1 << 28
