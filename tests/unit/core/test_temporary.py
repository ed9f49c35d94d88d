"""Temporary directories: gone at the end, and after a `kill -9` with the next command; others stay untouched."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from newsbert.core import temporary
from tests.support.cli import Cli

HOLD = """
import sys
from pathlib import Path
from newsbert.core import temporary
with temporary.directory(Path(sys.argv[1])) as made:
    (made / "large").write_bytes(bytes(1000))
    (made / "below").mkdir()
    print(made, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def hold(parent: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process that holds a directory, and that directory."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())


def test_the_directory_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    with temporary.directory(tmp_path) as first, temporary.directory(tmp_path) as second:
        assert first != second
        assert list(first.iterdir()) == list(second.iterdir()) == []
        assert [path.stat().st_mode & 0o777 for path in (first, first.parent)] == [0o700, 0o700]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), temporary.directory(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_next_command_removes_leftovers_of_killed_processes_only(tmp_path: Path, cli: Cli) -> None:
    cache = tmp_path / "cache" / "models"
    cache.mkdir(parents=True)
    with hold(tmp_path) as (killed, left), hold(cache) as (fetching, partial), hold(tmp_path) as (_, living):
        for process in (killed, fetching):
            process.kill()
            process.wait()
        assert (left / "large").exists() and (partial / "large").exists()
        done = cli("config", TMPDIR=str(tmp_path), NEWSBERT_CACHE_DIR=str(cache.parent))
        assert done.returncode == 0, done.stderr
        assert list(tmp_path.glob(".newsbert-*")) == [living.parent]
        assert (living / "large").exists()
        assert list(cache.iterdir()) == []
    assert list(tmp_path.glob(".newsbert-*")) == []


@pytest.mark.parametrize("files", [[], ["lock"], ["lock", "files/x"]], ids=str)
def test_partial_leftovers_are_removed(tmp_path: Path, files: list[str]) -> None:
    left = tmp_path / ".newsbert-tmp-abcdefgh"
    left.mkdir()
    for name in files:
        (left / name).parent.mkdir(exist_ok=True)
        (left / name).touch()
    with temporary.directory(tmp_path) as made:
        assert list(tmp_path.iterdir()) == [made.parent]


def test_attack_a_link_is_not_followed_and_other_things_stay(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "files").mkdir(parents=True)
    (tmp_path / "elsewhere" / "lock").touch()
    (tmp_path / "files").mkdir()
    (tmp_path / ".newsbert-tmp-aaaaaaaa").symlink_to(tmp_path / "elsewhere")
    for name in ("newsbert-results", ".newsbert-tmp-bbbbbbbb", ".newsbert-tmp-cccccccc"):
        (tmp_path / name).mkdir()
    (tmp_path / ".newsbert-tmp-bbbbbbbb" / "thesis.txt").touch()
    (tmp_path / ".newsbert-tmp-cccccccc" / "lock").symlink_to(tmp_path / "elsewhere" / "lock")
    (tmp_path / ".newsbert-tmp-cccccccc" / "files").symlink_to(tmp_path / "elsewhere" / "files")
    before = sorted(tmp_path.rglob("*"))
    with temporary.directory(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory somebody else's")
def test_attack_another_users_directory_stays(tmp_path: Path) -> None:
    other = tmp_path / ".newsbert-tmp-abcdefgh"
    other.mkdir()
    (other / "lock").touch()
    os.chown(other, 12_345, 12_345)
    with temporary.directory(tmp_path):
        pass
    assert (other / "lock").exists()


def test_concurrent_directories_do_not_affect_one_another(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(30):
            with temporary.directory(tmp_path) as made:
                (made / "file").write_text(str(number), encoding="utf-8")
                temporary.sweep(tmp_path)
                assert (made / "file").read_text(encoding="utf-8") == str(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_libraries_are_in_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary.for_libraries():
        made = Path(tempfile.mkdtemp())
        assert made.parents[2] == tmp_path
    assert (list(tmp_path.iterdir()), tempfile.gettempdir()) == ([], str(tmp_path))
