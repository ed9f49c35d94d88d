"""Backups from elsewhere: restored whole, or refused with nothing written."""

import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from newsbert.core import uris
from newsbert.core.settings import TrackingServerSettings
from newsbert.errors import NewsbertError, UsageError
from newsbert.tracking.server import backup, database, process
from newsbert.tracking.server.state import ServerState, StoreConfig

_NAMES = (
    "database", "contents.json", "artifacts", "1/run/artifacts/model/database", "a%20b/x", "a%2Fb", "a#b?c=d",
    "ü ö/日本", "line\nbreak", "..x/y", "-rf", ".hidden", "a:b@c", "\\", "d" * 120 + "/" + "e" * 120,
)  # fmt: skip


@dataclass
class Hostile:
    """A backup as somebody made it: members in their order, with their content."""

    database: bytes
    files: dict[str, bytes] = field(default_factory=lambda: {"artifacts/1/x.txt": b"good"})
    members: list[tuple[tarfile.TarInfo, bytes]] = field(default_factory=list)
    behind: list[tuple[tarfile.TarInfo, bytes]] = field(default_factory=list)
    contents: dict[str, Any] = field(default_factory=dict)
    document: bytes | None = None
    change: Callable[[bytes], bytes] = bytes

    def write(self, file: Path) -> None:
        """Write it, with digests that are right for what is in it."""
        plain = {"database": self.database, **self.files}
        members = [(_make_member(name), content) for name, content in plain.items()] + self.members
        digests = {info.name: hashlib.sha256(content).hexdigest() for info, content in members}
        contents = {
            "database": "sqlite", "revision": "x", "mlflow": "3.0", "created": "2026-01-01T00:00:00+00:00",
            "files": digests, "format": 1, **self.contents,
        }  # fmt: skip
        document = json.dumps(contents).encode() if self.document is None else self.document
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for info, content in [*members, (_make_member("contents.json"), document), *self.behind]:
                if info.isreg():
                    info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        file.write_bytes(self.change(stream.getvalue()))


def _make_member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", pax: dict[str, str] | None = None
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, link, pax or {}
    return info


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's."""
    file = tmp_path_factory.mktemp("original") / "mlflow.db"
    database.prepare(uris.sqlite_uri(file), lambda _: None)
    return file


@pytest.fixture(scope="module")
def changed(original: Path) -> Callable[[str], bytes]:
    """That database after SQL."""

    def change(sql: str) -> bytes:
        file = original.with_name("changed.db")
        shutil.copyfile(original, file)
        with sqlite3.connect(file) as connection:
            connection.executescript(sql)
        connection.close()
        return file.read_bytes()

    return change


_EVIL = b"ssh-ed25519 planted"
_MEMBERS: dict[str, dict[str, Any]] = {
    "absolute": {"files": {"/tmp/planted": _EVIL}},
    "absolute artifact": {"files": {"artifacts//tmp/planted": _EVIL}},
    "up": {"files": {"artifacts/../../planted": _EVIL}},
    "up at the top": {"files": {"../planted": _EVIL}},
    "dot": {"files": {"artifacts/./planted": _EVIL}},
    "no name": {"files": {"artifacts/": _EVIL}},
    "other name": {"files": {".ssh/authorized_keys": _EVIL}},
    "path in a pax header": {"members": [(_make_member("artifacts/x", pax={"path": "../planted"}), _EVIL)]},
    "symbolic link": {
        "members": [(_make_member("artifacts/l", tarfile.SYMTYPE, "/tmp"), b""), (_make_member("artifacts/l/x"), _EVIL)]
    },
    "hard link": {"members": [(_make_member("artifacts/l", tarfile.LNKTYPE, "/etc/passwd"), b"")]},
    "hard link to a member": {"members": [(_make_member("artifacts/l", tarfile.LNKTYPE, "database"), b"")]},
    "device": {"members": [(_make_member("artifacts/d", tarfile.CHRTYPE), b"")]},
    "pipe": {"members": [(_make_member("artifacts/p", tarfile.FIFOTYPE), b"")]},
    "directory": {"members": [(_make_member("artifacts/d", tarfile.DIRTYPE), b"")]},
    "contiguous": {"members": [(_make_member("artifacts/c", tarfile.CONTTYPE), b"")]},
    "sparse": {"members": [(_make_member("artifacts/s", pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
        "GNU.sparse.name": "artifacts/s", "GNU.sparse.realsize": str(1 << 40)}), b"1\n0\n0\n".ljust(512, b"\0"))]},
    "member twice": {"members": [(_make_member("artifacts/1/x.txt"), b"good")]},
    "database twice": {"members": [(_make_member("database"), b"other")]},
    "behind the contents": {"behind": [(_make_member("artifacts/late"), _EVIL)]},
    "contents twice": {"behind": [(_make_member("contents.json"), b"{}")]},
    "file and directory": {"files": {"artifacts/a": b"file", "artifacts/a/b": b"below"}},
    "no list": {"contents": {"files": []}},
    "digest of another": {"contents": {"files": {"database": "0" * 64}}},
    "format": {"contents": {"format": 2}},
    "true is no format": {"contents": {"format": True}},
    "terminal": {"contents": {"mlflow": "3\x1b]0;planted\x07"}},
    "other kind": {"contents": {"database": "mysql"}},
    "unknown key": {"contents": {"planted": 1}},
    "no json": {"document": b"\xff{"},
    "deep json": {"document": b"[" * 100_000},
    "compressed": {"change": gzip.compress},
    "cut": {"change": lambda whole: whole[: len(whole) // 2]},
    "cut in a header": {"change": lambda whole: whole[:700]},
    "byte": {"change": lambda whole: whole.replace(b"good", b"evil", 1)},
    "size": {"change": lambda whole: whole[:124] + b"77777777777\0" + whole[136:]},
    "no database": {"database": b"no database" * 100},
    "empty database": {"database": b""},
}  # fmt: skip
_DATABASES = {
    "trigger": "CREATE TRIGGER planted AFTER INSERT ON runs BEGIN DELETE FROM runs; END;",
    "trigger that seems to refuse": "CREATE TRIGGER p BEFORE UPDATE ON runs FOR EACH ROW WHEN (SELECT 1) BEGIN"
    " SELECT RAISE(ABORT, 'x'); END;",
    "view": "DROP TABLE metrics; CREATE VIEW metrics AS SELECT * FROM runs;",
    "virtual table": "CREATE VIRTUAL TABLE planted USING fts5(x);",
    "newer": "UPDATE alembic_version SET version_num = 'planted';",
    "no tables": "DROP TABLE experiments;",
}


@pytest.mark.parametrize("kind", [*_MEMBERS, *_DATABASES])
def test_attack_a_hostile_backup_is_refused_and_nothing_is_written(
    kind: str, original: Path, changed: Callable[[str], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    members = {"database": changed(_DATABASES[kind]) if kind in _DATABASES else original.read_bytes()}
    Hostile(**{**members, **_MEMBERS.get(kind, {})}).write(tmp_path / "hostile.tar")
    _assert_refused(tmp_path)


def test_attack_the_unchanged_backup_is_restored(original: Path, tmp_path: Path) -> None:
    Hostile(original.read_bytes()).write(tmp_path / "good.tar")
    home = ServerState(str(tmp_path / "new"))
    backup.restore(home, StoreConfig(home.database, home.artifacts), tmp_path / "good.tar", lambda _: None)
    assert (tmp_path / "new" / "artifacts" / "1" / "x.txt").read_bytes() == b"good"


@pytest.mark.parametrize("kind", ["directory", "pipe", "nothing", "/dev/zero"])
def test_attack_a_special_file_is_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "hostile.tar"
    if kind == "directory":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "nothing":
        file.symlink_to(kind)
    _assert_refused(tmp_path)


def _assert_refused(directory: Path) -> None:
    before = sorted(directory.rglob("*"))
    home = ServerState(str(directory / "new"))
    with pytest.raises(NewsbertError) as caught:
        backup.restore(home, StoreConfig(home.database, home.artifacts), directory / "hostile.tar", lambda _: None)
    assert "hostile.tar" in caught.value.message
    assert caught.value.message.isprintable()
    assert sorted(directory.rglob("*")) == before
    assert not Path("/tmp/planted").exists()


def test_attack_a_failed_restore_leaves_nothing(original: Path, tmp_path: Path) -> None:
    files = {"artifacts/1/first": b"x", f"artifacts/{'n' * 300}": b"x"}
    Hostile(original.read_bytes(), files).write(tmp_path / "long.tar")
    home = ServerState(str(tmp_path / "new"))
    with pytest.raises(NewsbertError):
        backup.restore(home, StoreConfig(home.database, home.artifacts), tmp_path / "long.tar", lambda _: None)
    assert [file.name for file in (tmp_path / "new").rglob("*") if file.is_file()] == ["lock"]
    assert list((tmp_path / "new" / "artifacts").iterdir()) == []


def test_attack_artifacts_of_any_name_are_restored_privately(original: Path, tmp_path: Path) -> None:
    original_store = StoreConfig(uris.sqlite_uri(original), str(tmp_path / "old"))
    for name in _NAMES:
        file = tmp_path / "old" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    before = os.umask(0)  # whatever the shell's is
    try:
        made = backup.make(original_store, tmp_path / "all.tar")
        home = ServerState(str(tmp_path / "new"))
        backup.restore(home, StoreConfig(home.database, home.artifacts), tmp_path / "all.tar", lambda _: None)
    finally:
        os.umask(before)
    assert sorted(made.artifacts) == sorted(_NAMES)
    for name in _NAMES:
        assert (tmp_path / "new" / "artifacts" / name).read_text() == name
    assert [path for path in (tmp_path / "new").rglob("*") if path.stat().st_mode & 0o077] == []
    assert (tmp_path / "all.tar").stat().st_mode & 0o077 == 0
    connection = sqlite3.connect(tmp_path / "new" / "mlflow.db")
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(made.revision,)]
    connection.close()


def test_attack_an_unrestorable_backup_is_not_written(changed: Callable[[str], bytes], tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(changed(_DATABASES["view"]))
    (tmp_path / "artifacts").mkdir()
    with pytest.raises(NewsbertError, match="view 'metrics'"):
        backup.make(
            StoreConfig(uris.sqlite_uri(tmp_path / "mlflow.db"), str(tmp_path / "artifacts")), tmp_path / "one.tar"
        )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["artifacts", "mlflow.db"]


@pytest.mark.parametrize("name", ["team%20a", "a#b", "a?b"])
def test_attack_a_directory_with_url_syntax_is_refused(name: str, tmp_path: Path) -> None:
    for settings in (
        TrackingServerSettings(directory=str(tmp_path / name)),
        TrackingServerSettings(directory="x", artifacts=str(tmp_path / name)),
        TrackingServerSettings(directory="x", backend_store=uris.sqlite_uri(tmp_path / name / "mlflow.db")),
    ):
        with pytest.raises(UsageError, match="cannot hold a tracking server's data"):
            process.places(settings)
    assert list(tmp_path.iterdir()) == []
