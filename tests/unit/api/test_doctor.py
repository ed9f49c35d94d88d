"""`newsbert doctor`: what it says of machines that lack something, and of what it cannot reach."""

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from newsbert.api.doctor import examination
from newsbert.api.doctor.checks import FAILED, NOTE, OFF, OK, Check, NoteError, UnusedError
from newsbert.core import installation
from newsbert.errors import NewsbertError
from tests.support.cli import Cli


def _raise(error: Exception) -> str:
    raise error


def test_every_outcome_has_its_state_and_stands_in_order() -> None:
    checks = [
        Check("fine", lambda: "all"),
        Check("note", lambda: _raise(NoteError("some", "do")), needed=True),
        Check("unused", lambda: _raise(UnusedError("none")), needed=True),
        Check("bad", lambda: _raise(NewsbertError("wrong", "do")), needed=True),
        Check("bad besides", lambda: _raise(NewsbertError("wrong", "do"))),
        Check("bug", lambda: _raise(ValueError("x\ny")), needed=True),
    ]
    found = list(examination.run_checks(checks))
    assert [each.check for each in found] == [each.name for each in checks]
    assert [each.state for each in found] == [OK, NOTE, OFF, FAILED, NOTE, FAILED]
    assert [each.found for each in found] == ["all", "some", "none", "wrong", "wrong", "ValueError: x"]
    assert [each.fix for each in found] == [None, "do", None, "do", "do", "report it"]


def test_what_does_not_answer_is_not_waited_for_and_hides_nothing() -> None:
    stopped = threading.Event()
    checks = [Check("stuck", lambda: str(stopped.wait(60)), needed=True), Check("fine", lambda: "all")]
    stuck, fine = examination.run_checks(checks, timeout_s=0.2)
    stopped.set()
    assert (stuck.state, stuck.found) == (FAILED, "no answer within 0.2 s")
    assert (fine.state, fine.found) == (OK, "all")


def _looked(cli: Cli, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by check."""
    done = cli("doctor", "--json", **environment)
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] == (done.returncode == 0)
    return done.returncode, {each["check"]: each for each in document["checks"]}


def test_a_machine_that_has_all_is_fine_and_nothing_is_left_behind(cli: Cli, tmp_path: Path) -> None:
    code, found = _looked(cli, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert code == 0, found
    for name in ("Python", "packages", "Java", "TorchServe", "servers", "tracking"):
        assert found[name]["state"] == OK, found[name]
    assert found["disk"]["state"] in (OK, NOTE), found["disk"]  # where tests run there may be little room
    assert "wants tokens and takes its own" in found["TorchServe"]["found"]
    assert found["tracking"]["found"].endswith("made by the first training")
    assert (found["engine"]["state"], found["Hub"]["state"]) == (NOTE, OFF)
    assert "DOCKER_HOST" in found["engine"]["fix"]
    left = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set()


def test_what_training_or_serving_lacks_is_a_failure_with_what_mends_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a directory is wanted")
    code, found = _looked(
        cli,
        JAVA_HOME="/nowhere",
        NEWSBERT_CACHE_DIR=str(tmp_path / "cache"),
        MLFLOW_TRACKING_URI="http://somebody:planted-secret@127.0.0.1:9",
    )
    assert code == 1
    for name, said, fix in (
        ("Java", "JAVA_HOME is '/nowhere'", "unset it"),
        ("TorchServe", "JAVA_HOME is '/nowhere'", "unset it"),
        ("disk", "cannot be written to", "NEWSBERT_CACHE_DIR"),
        ("tracking", "http://***@127.0.0.1:9 cannot be reached", "MLFLOW_TRACKING_URI"),
    ):
        assert (found[name]["state"], said in found[name]["found"]) == (FAILED, True), found[name]
        assert fix in found[name]["fix"]
    shown = cli("doctor", JAVA_HOME="/nowhere", COLUMNS="60")
    assert shown.returncode == 1
    assert "failed" in shown.stdout and max(map(len, shown.stdout.splitlines())) <= 60


def test_a_package_that_is_too_old_or_missing_is_named(cli: Cli, tmp_path: Path) -> None:
    """A distribution of the same name that stands before the installed one."""
    for name, version in (("torchserve", "0.5.0"), ("scikit_learn", "0.1")):
        info = tmp_path / "older" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    code, found = _looked(cli, PYTHONPATH=str(tmp_path / "older"))
    assert (code, found["packages"]["state"]) == (1, FAILED)
    assert found["packages"]["found"] == "train lacks scikit-learn>=1.6 (there is 0.1)"
    assert found["packages"]["fix"] == installation.command("train")


@contextlib.contextmanager
def _silent() -> Iterator[int]:
    """A port where somebody answers every request with an error."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(500)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_ports_and_servers_are_looked_at(cli: Cli, tmp_path: Path) -> None:
    notes = tmp_path / ".state" / "servers"
    notes.mkdir(parents=True)
    server = {"url": "http://127.0.0.1:7", "model": "TinyModel/1"}
    (notes / "7.json").write_text(json.dumps({"port": 7, "pid": 2**22 + 1, "started": 1, **server}))
    with _silent() as port, socket.socket() as taken:
        # A container's note: whether that runs is the engine's to say.
        stuck = {"port": port, "url": f"http://127.0.0.1:{port}", "model": "TinyModel/2", "container": "abc"}
        (notes / f"{port}.json").write_text(json.dumps(stuck))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, found = _looked(cli, NEWSBERT_SERVE_PORT=str(taken.getsockname()[1]))
    assert code == 0
    assert (found["port"]["state"], "cannot listen on" in found["port"]["found"]) == (NOTE, True)
    assert found["servers"]["state"] == NOTE
    assert f"127.0.0.1:{port} (TinyModel/2): the model does not answer: 500" in found["servers"]["found"]
    assert found["servers"]["found"].endswith("1 that are gone were struck out")
    assert found["servers"]["fix"] == f"newsbert serve stop --port {port}"
    assert not (notes / "7.json").exists()


def test_errors_that_it_examines_end_in_it(cli: Cli) -> None:
    away = cli("runs", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert away.stderr.splitlines()[-1] == "Hint: newsbert doctor"
    assert cli("--nope").stderr.splitlines()[-1] == "Hint: newsbert --help"
