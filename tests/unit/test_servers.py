"""Notes of detached servers: what runs is known, what has ended is forgotten, and nobody else's process is touched."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from newsbert import config, servers
from newsbert.errors import NotFoundError, ServingError
from newsbert.servers import Detached

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that waits, with the given arguments on its command line."""
    with contextlib.ExitStack() as stack:

        def run(*arguments: str, code: str = "") -> "subprocess.Popen[bytes]":
            script = f"import signal, sys, time\n{code}\nprint(flush=True)\ntime.sleep(60)"
            process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.enter_context(process.stdout)
            process.stdout.readline()  # it has begun
            return process

        yield run


def _detached(port: int, pid: int = 0, container: str = "") -> Detached:
    return Detached(port, f"http://127.0.0.1:{port}", "TinyModel/1", pid, container)


def _notes() -> list[str]:
    return sorted(file.name for file in (config.state_dir() / "servers").iterdir())


def test_a_running_server_is_known_until_it_is_forgotten(start: Start) -> None:
    server = _detached(8101, start("newsbert", "serve").pid)
    servers.note(server)
    assert servers.running() == [server]
    assert _notes() == ["8101.json"]
    servers.forget(8101)
    servers.forget(8101)
    assert servers.running() == []
    assert _notes() == []


def test_a_note_of_the_same_port_replaces_the_one_before(start: Start) -> None:
    pid = start("newsbert", "serve").pid
    servers.note(Detached(8101, "http://127.0.0.1:8101", "Old/1", pid))
    servers.note(Detached(8101, "http://127.0.0.1:8101", "New/1", pid))
    assert [server.model for server in servers.running()] == ["New/1"]


def test_notes_of_dead_processes_are_forgotten(start: Start) -> None:
    gone, alive = start("newsbert", "serve"), start("newsbert", "serve")
    servers.note(_detached(8101, gone.pid))
    servers.note(_detached(8102, alive.pid))
    gone.kill()
    gone.wait()
    assert [server.port for server in servers.running()] == [8102]
    assert _notes() == ["8102.json"]


def test_a_process_that_has_ended_but_was_not_waited_for_is_dead(start: Start) -> None:
    process = start("newsbert", "serve")
    servers.note(_detached(8101, process.pid))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert servers.running() == []


def test_another_program_with_the_pid_of_a_server_is_forgotten_and_left_alone(start: Start) -> None:
    other = start("something", "else")
    servers.note(_detached(8101, other.pid))
    with pytest.raises(NotFoundError):
        servers.stop(None)
    assert other.poll() is None
    assert _notes() == []


def test_a_container_is_known_without_a_process() -> None:
    server = _detached(8101, container="0a1b2c")
    servers.note(server)
    assert servers.running() == [server]


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"port": 1}', '{"port": 1, "other": 2}', "\udcff"])
def test_a_note_that_cannot_be_read_is_passed_over(start: Start, content: str) -> None:
    server = _detached(8102, start("newsbert", "serve").pid)
    servers.note(server)
    (config.state_dir() / "servers" / "8101.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert servers.running() == [server]


@pytest.mark.parametrize("port", [None, 8101])
def test_there_is_nothing_to_stop(port: int | None) -> None:
    with pytest.raises(NotFoundError, match="no detached server is running") as caught:
        servers.stop(port)
    assert ("8101" in caught.value.message) == (port is not None)


def test_the_server_on_a_port_is_stopped_and_no_other(start: Start) -> None:
    first, second = start("newsbert", "serve"), start("newsbert", "serve")
    servers.note(_detached(8101, first.pid))
    servers.note(_detached(8102, second.pid))
    assert [server.port for server in servers.stop(8102)] == [8102]
    assert second.wait(5) == -signal.SIGTERM
    assert first.poll() is None
    with pytest.raises(NotFoundError):
        servers.stop(8102)
    assert [server.port for server in servers.stop(None)] == [8101]
    assert _notes() == []


def test_all_servers_are_stopped_where_no_port_is_given(start: Start) -> None:
    for port in (8101, 8102):
        servers.note(_detached(port, start("newsbert", "serve").pid))
    assert [server.port for server in servers.stop(None)] == [8101, 8102]
    assert servers.running() == []


def test_stopping_waits_until_the_server_is_gone(start: Start) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(0)))"
    process = start("newsbert", "serve", code=code)
    servers.note(_detached(8101, process.pid))
    servers.stop(None)
    # Gone, so that waiting for it takes no time.
    assert process.wait(0.1) == 0


def test_a_detached_server_that_does_not_start_tells_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["serve", "locally", str(tmp_path / "empty"), "--note-detached", "--port", "0"]
    with pytest.raises(ServingError, match="is no newsbert bundle") as caught:
        servers.start_detached(arguments, 8101, 60)
    assert str(servers.log_file(8101)) in str(caught.value.hint)
    assert "newsbert.json" in servers.log_file(8101).read_text(encoding="utf-8")
    assert servers.running() == []


def test_a_detached_server_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"no answer on port 8101 after 0\.1 s"):
        servers.start_detached(["predict", "-"], 8101, 0.1)
    assert servers.running() == []
