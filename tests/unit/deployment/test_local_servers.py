"""Notes of detached servers: what runs is known, what has ended is forgotten, and no other process is touched."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from newsbert.core import environment
from newsbert.deployment import local_servers
from newsbert.deployment.local_servers import DetachedServer
from newsbert.errors import ModelError, NotFoundError, ServingError, UsageError
from tests.support.cli import Cli

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that waits, with these arguments on its command line."""
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


def _make_server(port: int, pid: int = 0, container: str = "") -> DetachedServer:
    return DetachedServer(port, f"http://127.0.0.1:{port}", "TinyModel/1", pid, container)


def _stop(port: int | None) -> list[int]:
    stopped: list[int] = []
    local_servers.stop(port, lambda server: stopped.append(server.port))
    return stopped


def _list_entries() -> list[str]:
    return sorted(file.name for file in (environment.state_dir() / "servers").iterdir())


def test_a_running_server_is_listed_until_it_is_removed(start: Start) -> None:
    server = _make_server(8101, start("newsbert", "serve").pid)
    local_servers.note(server)
    assert local_servers.running() == [server]
    assert _list_entries() == ["8101.json"]
    local_servers.forget(8101)
    local_servers.forget(8101)
    assert local_servers.running() == []
    assert _list_entries() == []


def test_a_server_on_the_same_port_replaces_the_entry(start: Start) -> None:
    pid = start("newsbert", "serve").pid
    local_servers.note(DetachedServer(8101, "http://127.0.0.1:8101", "Old/1", pid))
    local_servers.note(DetachedServer(8101, "http://127.0.0.1:8101", "New/1", pid))
    assert [server.model for server in local_servers.running()] == ["New/1"]


def test_entries_of_dead_processes_are_removed(start: Start) -> None:
    gone, alive = start("newsbert", "serve"), start("newsbert", "serve")
    local_servers.note(_make_server(8101, gone.pid))
    local_servers.note(_make_server(8102, alive.pid))
    gone.kill()
    gone.wait()
    assert [server.port for server in local_servers.running()] == [8102]
    assert _list_entries() == ["8102.json"]


def test_a_zombie_is_dead(start: Start) -> None:
    process = start("newsbert", "serve")
    local_servers.note(_make_server(8101, process.pid))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert local_servers.running() == []


def test_a_reused_pid_of_another_program_is_not_stopped(start: Start) -> None:
    other = start("something", "else")
    local_servers.note(_make_server(8101, other.pid))
    with pytest.raises(NotFoundError):
        _stop(None)
    assert other.poll() is None
    assert _list_entries() == []


def test_a_container_is_listed_without_a_process() -> None:
    server = _make_server(8101, container="0a1b2c")
    local_servers.note(server)
    assert local_servers.running() == [server]


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"port": 1}', '{"port": 1, "other": 2}', "\udcff"])
def test_an_unreadable_entry_is_ignored(start: Start, content: str) -> None:
    server = _make_server(8102, start("newsbert", "serve").pid)
    local_servers.note(server)
    (environment.state_dir() / "servers" / "8101.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert local_servers.running() == [server]
    assert _list_entries() == ["8102.json"]


def test_a_reused_pid_of_another_server_is_not_stopped(start: Start) -> None:
    # Both are newsbert servers by their command lines: only their start times differ.
    other = start("newsbert", "serve")
    local_servers.note(dataclasses.replace(_make_server(8101, other.pid), started=1))
    with pytest.raises(NotFoundError):
        _stop(None)
    assert other.poll() is None
    assert _list_entries() == []


def test_a_server_registers_itself() -> None:
    noted = local_servers.this_process(8101, "http://127.0.0.1:8101", "TinyModel/1", Path("/run/key_file.json"), 7)
    assert noted.pid == os.getpid()
    assert noted.started > 1
    assert (noted.key_file, noted.stop_s) == ("/run/key_file.json", 7)


def test_several_servers_are_stopped_only_with_all(start: Start, cli: Cli) -> None:
    processes = [start("newsbert", "serve") for _ in range(2)]
    for port, process in enumerate(processes, 8101):
        local_servers.note(_make_server(port, process.pid))
    listed = json.loads(cli("serve", "status", "--json").stdout)["servers"]
    assert [server["port"] for server in listed] == [8101, 8102]
    refused = cli("serve", "stop")
    assert refused.returncode == 2
    assert "several servers run: ports 8101, 8102" in refused.stderr
    assert [process.poll() for process in processes] == [None, None]
    assert cli("serve", "stop", "--all", "--port", "8101").returncode == 2
    assert cli("serve", "stop", "--port", "8101").returncode == 0
    assert cli("serve", "stop").returncode == 0  # the only one that is left
    assert None not in [process.poll() for process in processes]


def test_a_container_without_its_engine_does_not_block_the_others(start: Start, cli: Cli) -> None:
    local_servers.note(_make_server(8101, container="0a1b2c"))
    process = start("newsbert", "serve")
    local_servers.note(_make_server(8102, process.pid))
    done = cli("serve", "stop", "--all", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 1
    assert done.stdout == "stopped TinyModel/1 on http://127.0.0.1:8102\n"
    assert "Error: http://127.0.0.1:8101 was not stopped: no container engine" in done.stderr
    assert process.poll() is not None
    assert _list_entries() == ["8101.json"]  # to be tried again


@pytest.mark.parametrize("what", ["note", "running", "start"])
def test_a_state_directory_that_cannot_be_created_is_named(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NEWSBERT_STATE_DIR", str(tmp_path / "file"))
    with pytest.raises(ServingError, match="cannot be written") as caught:
        if what == "note":
            local_servers.note(_make_server(8101))
        elif what == "running":
            local_servers.running()
        else:
            local_servers.start_detached(["serve"], 8101, 1)
    assert str(tmp_path / "file") in caught.value.message
    assert "NEWSBERT_STATE_DIR" in str(caught.value.hint)


def test_the_key_file_of_the_port_or_of_the_only_server_is_used(start: Start) -> None:
    pid = start("newsbert", "serve").pid
    for port in (8101, 8102):
        local_servers.note(dataclasses.replace(_make_server(port, pid), key_file=f"/run/{port}"))
    local_servers.note(_make_server(8103, pid))
    assert local_servers.key_file(8102) == Path("/run/8102")
    with pytest.raises(NotFoundError, match="8101, 8102"):
        local_servers.key_file(None)
    local_servers.forget(8102)
    assert local_servers.key_file(None) == Path("/run/8101")
    for port in (8103, 9999):
        with pytest.raises(NotFoundError, match=f"on port {port}"):
            local_servers.key_file(port)


@pytest.mark.parametrize("port", [None, 8101])
def test_stopping_without_servers_is_an_error(port: int | None) -> None:
    with pytest.raises(NotFoundError, match="no detached server is running") as caught:
        _stop(port)
    assert ("8101" in caught.value.message) == (port is not None)


def test_only_the_server_on_the_port_is_stopped(start: Start) -> None:
    first, second = start("newsbert", "serve"), start("newsbert", "serve")
    local_servers.note(_make_server(8101, first.pid))
    local_servers.note(_make_server(8102, second.pid))
    assert _stop(8102) == [8102]
    assert second.wait(5) == -signal.SIGTERM
    assert first.poll() is None
    with pytest.raises(NotFoundError):
        _stop(8102)
    assert _stop(None) == [8101]
    assert _list_entries() == []


def test_all_servers_are_stopped_without_a_port(start: Start) -> None:
    for port in (8101, 8102):
        local_servers.note(_make_server(port, start("newsbert", "serve").pid))
    assert _stop(None) == [8101, 8102]
    assert local_servers.running() == []


def test_stopping_waits_for_the_server_to_end(start: Start) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(0)))"
    process = start("newsbert", "serve", code=code)
    local_servers.note(_make_server(8101, process.pid))
    _stop(None)
    # Gone, so that waiting for it takes no time.
    assert process.wait(0.1) == 0


def test_a_detached_server_that_fails_to_start_shows_its_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["serve", "locally", str(tmp_path / "empty"), "--note-detached", "--port", "0"]
    with pytest.raises(ModelError, match="is no newsbert bundle") as caught:
        local_servers.start_detached(arguments, 8101, 60)
    assert str(local_servers.log_file(8101)) in str(caught.value.hint)
    assert "newsbert.json" in local_servers.log_file(8101).read_text(encoding="utf-8")
    assert local_servers.running() == []


def test_a_usage_error_of_a_detached_server_has_its_exit_code_and_hint() -> None:
    arguments = ["serve", "locally", "--note-detached", "--host", "::1"]
    with pytest.raises(UsageError, match="IPv4 addresses only") as caught:
        local_servers.start_detached(arguments, 8101, 60)
    assert caught.value.exit_code == 2
    assert str(caught.value.hint).startswith("give one, such as 127.0.0.1")
    assert _list_entries() == ["8101.log"]


def test_a_detached_server_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"not ready after 0\.1 s"):
        local_servers.start_detached(["predict", "-"], 8101, 0.1)
    assert local_servers.running() == []


def test_the_status_names_the_logs_of_servers(start: Start, cli: Cli) -> None:
    local_servers.note(_make_server(8101, start("newsbert", "serve").pid))
    local_servers.note(_make_server(8102, container="c" * 64))
    shown = cli("serve", "status", COLUMNS="").stdout
    log = str(local_servers.log_file(8101))
    assert log in shown
    assert "docker logs cccccccccccc" in shown
    servers = json.loads(cli("serve", "status", "--json").stdout)["servers"]
    assert [(server["port"], server["log"]) for server in servers] == [(8101, log), (8102, None)]
