"""The file of a backup: a tar archive, read as strictly as it is written."""

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


def read(stream: BinaryIO, file: Path) -> BackupManifest:
    """Return what a backup holds, every byte of it compared with what was written.

    Args:
        stream: The backup.
        file: Its path, for errors.

    Raises:
        TrackingError: If it is none, not whole, was changed, or could be put nowhere.
    """
    found: dict[str, str] = {}
    document = None
    with read_errors(file):
        for member, content in iterate_members(stream, file):
            if document is not None:
                raise broken(file, f"{member.name!r} stands behind its {_CONTENTS}")
            if member.name == _CONTENTS:
                if member.size > _MAX_CONTENTS_BYTES:
                    raise broken(file, f"its {_CONTENTS} is too large")
                document = content.read()
            elif member.name in found:
                raise broken(file, f"it holds {member.name!r} twice")
            else:
                found[member.name] = _digest(content)
    if document is None:
        raise broken(file, f"it has no {_CONTENTS}: it was cut off, or is none")
    contents = _parse(document, file)
    if contents.files != found or _DATABASE not in found:
        changed = sorted(
            name for name in contents.files.keys() | found.keys() if contents.files.get(name) != found.get(name)
        )
        raise broken(file, f"{', '.join(map(repr, changed[:3])) or _DATABASE} is not what was written")
    inside = {str(parent) for name in found for parent in PurePosixPath(name).parents}
    if inside & found.keys():
        raise broken(file, f"{min(inside & found.keys())!r} is a file and a directory")
    return contents


def iterate_members(stream: BinaryIO, file: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield the members of a backup, all of them plain files that `make` could have written.

    Raises:
        TrackingError: At the first that is none.
    """
    stream.seek(0)
    with read_errors(file), tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} else None
            if content is None or member.issparse() or not _is_safe(member.name):
                raise broken(file, f"it holds {member.name[:100]!r}, which is no plain file of a backup")
            yield member, content


def _parse(document: bytes, file: Path) -> BackupManifest:
    """Return the contents that a backup says it has.

    Raises:
        TrackingError: If it says nothing of the kind.
    """
    try:
        contents = BackupManifest(**json.loads(document))
    except (ValueError, TypeError, RecursionError) as error:
        raise broken(file, f"its {_CONTENTS} cannot be read") from error
    if type(contents.format) is not int or contents.format != _FORMAT:
        raise TrackingError(f"{file} is a backup of another newsbert (format {contents.format!r})", "use that one")
    words = (contents.database, contents.revision, contents.mlflow, contents.created)
    if (
        not all(isinstance(word, str) and re.fullmatch(r"[A-Za-z0-9.+:-]{1,64}", word) for word in words)
        or contents.database not in {"sqlite", "postgresql"}
        or not isinstance(contents.files, dict)
        or not all(isinstance(digest, str) for digest in contents.files.values())
    ):
        raise broken(file, f"its {_CONTENTS} cannot be read")
    return contents


def _is_safe(name: str) -> bool:
    """Tell whether a member is what a backup has, and inside of where it is put."""
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
    """Make the header of a member."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def extract(content: IO[bytes], target: Path, digest: str, file: Path) -> None:
    """Write a member to a new file, which is this user's alone.

    Raises:
        TrackingError: If it is not what was read before: somebody writes to the backup meanwhile.
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
    """Open a backup once, for all that is read of it.

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
    """Turn errors of writing a backup into ours."""
    try:
        yield
    except OSError as error:
        raise TrackingError(
            f"{file} cannot be written: {error.strerror or error}",
            f"make room, or give another place: df -h {shlex.quote(str(file.parent))}",
        ) from error


@contextlib.contextmanager
def read_errors(file: Path) -> Iterator[None]:
    """Turn errors of reading a backup into ours."""
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise broken(file, first_line(error)) from error
    except OSError as error:
        raise TrackingError(
            f"{file} cannot be read: {error.strerror or error}", "check its name and its rights"
        ) from error


def broken(file: Path, reason: str) -> NewsbertError:
    """Return the error of a file that is no backup, or none that is whole."""
    return TrackingError(f"{file} is no whole backup: {reason}", "take another backup")


CHUNK_BYTES, _MAX_CONTENTS_BYTES = 1 << 20, 1 << 28
