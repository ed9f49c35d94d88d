"""`newsbert doctor` on machines that lack something, and with servers that it cannot reach."""

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


def test_findings_have_states_and_the_order_of_the_checks() -> None:
    checks = [
        Check("fine", lambda: "all"),
        Check("note", lambda: _raise(NoteError("some", "do")), needed=True),
        Check("unused", lambda: _raise(UnusedError("none")), needed=True),
        Check("bad", lambda: _raise(NewsbertError("wrong", "do")), needed=True),
        Check("bad besides", lambda: _raise(NewsbertError("wrong", "do"))),
        Check("bug", lambda: _raise(ValueError("x\ny")), needed=True),
    ]
    findings = list(examination.run_checks(checks))
    assert [finding.check for finding in findings] == [check.name for check in checks]
    assert [finding.state for finding in findings] == [OK, NOTE, OFF, FAILED, NOTE, FAILED]
    assert [finding.result for finding in findings] == ["all", "some", "none", "wrong", "wrong", "ValueError: x"]
    assert [finding.fix for finding in findings] == [None, "do", None, "do", "do", "report it"]


def test_a_check_that_hangs_times_out_and_the_others_are_reported() -> None:
    stopped = threading.Event()
    checks = [Check("stuck", lambda: str(stopped.wait(60)), needed=True), Check("fine", lambda: "all")]
    stuck, fine = examination.run_checks(checks, timeout_s=0.2)
    stopped.set()
    assert (stuck.state, stuck.result) == (FAILED, "no answer within 0.2 s")
    assert (fine.state, fine.result) == (OK, "all")


def _run_doctor(cli: Cli, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by check."""
    done = cli("doctor", "--json", **environment)
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] == (done.returncode == 0)
    return done.returncode, {finding["check"]: finding for finding in document["checks"]}


def test_a_complete_machine_passes_and_is_left_unchanged(cli: Cli, tmp_path: Path) -> None:
    code, findings = _run_doctor(cli, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert code == 0, findings
    for name in ("Python", "packages", "Java", "TorchServe", "servers", "tracking"):
        assert findings[name]["state"] == OK, findings[name]
    assert findings["disk"]["state"] in (OK, NOTE), findings["disk"]  # where tests run there may be little room
    assert "wants tokens and takes its own" in findings["TorchServe"]["result"]
    assert findings["tracking"]["result"].endswith("made by the first training")
    assert (findings["engine"]["state"], findings["Hub"]["state"]) == (NOTE, OFF)
    assert "DOCKER_HOST" in findings["engine"]["fix"]
    left = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set()


def test_missing_requirements_fail_with_a_fix(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a directory should be")
    code, findings = _run_doctor(
        cli,
        JAVA_HOME="/nowhere",
        NEWSBERT_CACHE_DIR=str(tmp_path / "cache"),
        MLFLOW_TRACKING_URI="http://somebody:planted-secret@127.0.0.1:9",
    )
    assert code == 1
    for name, message, fix in (
        ("Java", "JAVA_HOME is '/nowhere'", "unset it"),
        ("TorchServe", "JAVA_HOME is '/nowhere'", "unset it"),
        ("disk", "cannot be written to", "NEWSBERT_CACHE_DIR"),
        ("tracking", "http://***@127.0.0.1:9 cannot be reached", "MLFLOW_TRACKING_URI"),
    ):
        assert (findings[name]["state"], message in findings[name]["result"]) == (FAILED, True), findings[name]
        assert fix in findings[name]["fix"]
    shown = cli("doctor", JAVA_HOME="/nowhere", COLUMNS="60")
    assert shown.returncode == 1
    assert "failed" in shown.stdout and max(map(len, shown.stdout.splitlines())) <= 60


def test_old_and_missing_packages_are_named(cli: Cli, tmp_path: Path) -> None:
    """A distribution of the same name that stands before the installed one."""
    for name, version in (("torchserve", "0.5.0"), ("scikit_learn", "0.1")):
        info = tmp_path / "older" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    code, findings = _run_doctor(cli, PYTHONPATH=str(tmp_path / "older"))
    assert (code, findings["packages"]["state"]) == (1, FAILED)
    assert findings["packages"]["result"] == "train lacks scikit-learn>=1.6 (there is 0.1)"
    assert findings["packages"]["fix"] == installation.command("train")


@contextlib.contextmanager
def _listen_silently() -> Iterator[int]:
    """A port where a server answers every request with an error."""

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


def test_a_taken_port_and_stale_servers_are_reported(cli: Cli, tmp_path: Path) -> None:
    notes = tmp_path / ".state" / "servers"
    notes.mkdir(parents=True)
    server = {"url": "http://127.0.0.1:7", "model": "TinyModel/1"}
    (notes / "7.json").write_text(json.dumps({"port": 7, "pid": 2**22 + 1, "started": 1, **server}))
    with _listen_silently() as port, socket.socket() as taken:
        # A container's note: only the engine knows whether it runs.
        stuck = {"port": port, "url": f"http://127.0.0.1:{port}", "model": "TinyModel/2", "container": "abc"}
        (notes / f"{port}.json").write_text(json.dumps(stuck))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, findings = _run_doctor(cli, NEWSBERT_SERVE_PORT=str(taken.getsockname()[1]))
    assert code == 0
    assert (findings["port"]["state"], "cannot listen on" in findings["port"]["result"]) == (NOTE, True)
    assert findings["servers"]["state"] == NOTE
    assert f"127.0.0.1:{port} (TinyModel/2): the model does not answer: 500" in findings["servers"]["result"]
    assert findings["servers"]["result"].endswith("1 that are gone were struck out")
    assert findings["servers"]["fix"] == f"newsbert serve stop --port {port}"
    assert not (notes / "7.json").exists()


def test_machine_errors_hint_at_doctor(cli: Cli) -> None:
    away = cli("runs", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert away.stderr.splitlines()[-1] == "Hint: newsbert doctor"
    assert cli("--nope").stderr.splitlines()[-1] == "Hint: newsbert --help"
