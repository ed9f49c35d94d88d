"""The private directory of a server: made anew for every server, never another user's, never two servers in one."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.errors import ServingError, UsageError
from newsbert.serving import runtime_dir


def test_the_directory_is_private_and_removed_at_the_end() -> None:
    with runtime_dir.make(None) as first, runtime_dir.make(None) as second:
        assert first != second
        for directory in (first, second):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            (directory / "file").write_text("x")
    assert not first.exists()
    assert not second.exists()


def test_a_configured_directory_is_used(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "run"
    with runtime_dir.make(str(directory)) as made:
        assert made == directory
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not directory.exists()


def test_a_directory_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    code = (
        "import os, sys; from newsbert.serving import runtime_dir\n"
        "with runtime_dir.make(sys.argv[1]) as made:\n"
        " (made / 'key_file.json').write_text('old')\n"
        " (made / 'tmp').mkdir()\n"
        " (made / 'tmp' / 'x').touch()\n"
        " os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(directory)], check=False, timeout=60)
    assert (directory / "tmp" / "x").exists()
    with runtime_dir.make(str(directory)) as made:
        assert [entry.name for entry in made.iterdir()] == [runtime_dir.LOCK]


def test_a_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds files that no server left"), runtime_dir.make(str(tmp_path)):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_directory_of_a_running_server_is_refused(tmp_path: Path) -> None:
    directory = str(tmp_path / "run")
    with runtime_dir.make(directory) as running:
        (running / "file").write_text("x")
        with pytest.raises(ServingError, match="a server is running in"), runtime_dir.make(directory):
            pass
        assert (running / "file").read_text() == "x"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="no directory of this user's"), runtime_dir.make(str(tmp_path / "run")):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", 12_345, 12_345)
    with pytest.raises(UsageError, match="no directory of this user's"), runtime_dir.make(str(tmp_path / "run")):
        pass


def test_a_path_too_long_for_sockets_is_a_usage_error(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    with pytest.raises(UsageError, match="more than 86 bytes"), runtime_dir.make(str(directory)):
        pass
    assert not directory.exists()


@pytest.mark.parametrize("option", [None, "/proc/newsbert"])
def test_an_unwritable_directory_is_an_error_with_a_hint(option: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc")  # a directory in which nothing can be made
    with pytest.raises(ServingError) as caught, runtime_dir.make(option):
        pass
    assert "--tmpfs /tmp" in str(caught.value.hint)
