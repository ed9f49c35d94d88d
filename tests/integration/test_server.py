"""A server at work: how it stops, who may use it, where it writes, and what happens when its model is lost."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import ServeSettings
from newsbert.inference.model import Model
from newsbert.serving import archive, protocol
from newsbert.serving.client import Client
from newsbert.serving.torchserve import job_queue
from tests.support import processes
from tests.support.cli import Cli
from tests.support.serving import PATH, Served, Start

# Who may use it


def test_with_tokens_only_requests_with_one_are_answered(start: Start, cli: Cli) -> None:
    served = start("--token-auth")
    key_file = Path(served.ready["key_file"])
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    keys = json.loads(key_file.read_text())
    first = keys["inference"]["key"]
    assert served.ask() == 400
    assert served.ask(keys["management"]["key"]) == 400
    assert served.ask(first) == 200
    shown = cli("serve", "token", "--key-file", key_file)
    assert shown.stdout == f"{first}\n"
    renewed = cli("serve", "token", "--renew", NEWSBERT_KEY_FILE=str(key_file)).stdout.strip()
    assert renewed not in {"", first}
    assert served.ask(first) == 400
    assert served.ask(renewed) == 200
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    output = json.dumps(served.ready) + served.log.read_text()
    for key in (first, renewed, keys["API"]["key"], keys["management"]["key"]):
        assert key not in output
    assert served.stop() == 0
    assert not key_file.exists()


def test_the_command_line_sends_a_token(start: Start, cli: Cli) -> None:
    served = start(NEWSBERT_TOKEN_AUTH="1")
    key_file = Path(served.ready["key_file"])
    token = json.loads(key_file.read_text())["inference"]["key"]
    assert cli("predict", "--url", served.url, "goal", NEWSBERT_TOKEN=token).returncode == 0
    assert cli("predict", "--url", served.url, "goal", NEWSBERT_KEY_FILE=str(key_file)).returncode == 0
    for env in ({}, {"NEWSBERT_TOKEN": "wrong"}):
        refused = cli("predict", "--url", served.url, "goal", **env)
        assert refused.returncode == 1
        assert "wants a token" in refused.stderr
        assert "newsbert serve token" in refused.stderr


def test_a_token_expires_and_probes_go_on(start: Start, cli: Cli) -> None:
    served = start("--token-auth", "--token-expiry-min", "0.05")
    key_file = Path(served.ready["key_file"])
    first = cli("serve", "token", "--key-file", key_file).stdout.strip()
    deadline = time.monotonic() + 20
    while served.ask(first) == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert served.ask(first) == 400
    done = _probe(served, NEWSBERT_KEY_FILE=str(key_file))
    assert done.returncode == 0, done.stdout
    assert served.ask(cli("serve", "token", "--key-file", key_file).stdout.strip()) == 200
    assert job_queue.count_pending(key_file.parent, protocol.SERVED_NAME) == 0  # though its token expired, too


def test_the_token_of_a_detached_server_can_be_read(bundle: Bundle, cli: Cli) -> None:
    started = cli("serve", "locally", bundle.path, "--detach", "--port", "0", "--token-auth", "--json")
    assert started.returncode == 0, started.stderr
    server = json.loads(started.stdout)
    try:
        by_port = cli("serve", "token", "--port", server["port"])
        assert by_port.stdout == cli("serve", "token").stdout
        assert cli("predict", "--url", server["url"], "goal", NEWSBERT_TOKEN=by_port.stdout.strip()).returncode == 0
    finally:
        assert cli("serve", "stop").returncode == 0
    assert cli("serve", "token").returncode == 1


def _probe(served: Served, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "newsbert.serving.probe", str(served.port)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# gRPC


def _field(number: int, value: bytes) -> bytes:
    """A field of a protobuf message, of at most 127 bytes."""
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def _ask_grpc(port: int, token: str | None = None) -> bytes:
    import grpc

    request = _field(1, b"news_classification") + _field(3, _field(1, b"data") + _field(2, b"goal"))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions")
        return bytes(call(request, timeout=20, metadata=[("authorization", f"Bearer {token}")] if token else []))


def test_answers_are_explained(start: Start, cli: Cli) -> None:
    served = start()
    url = served.ready["url"]
    body = json.dumps({"text": "goal team cup"}).encode()
    request = urllib.request.Request(
        f"{url}/explanations/{protocol.SERVED_NAME}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    assert [word["text"] for word in answer["explanation"]["words"]] == ["goal", "team", "cup"]
    (explained,) = Client(url).explain(["goal team cup"])
    assert explained.to_dict() == answer
    shown = json.loads(cli("explain", "--url", url, "--json", "goal team cup").stdout)
    assert shown == {"model": served.ready["model"], **answer}
    refused = cli("explain", "--url", url, "--label", "Weather", "goal")
    assert (refused.returncode, "there is no label 'Weather'" in refused.stderr) == (1, True)
    assert served.stop() == 0


def test_pages_of_an_origin_may_send_requests_if_it_is_named(start: Start) -> None:
    origin = "https://news.example"
    for options, allowed in (((), None), (("--cors-origin", origin), origin)):
        served = start(*options)
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        with urllib.request.urlopen(urllib.request.Request(served.url + PATH, b"goal", headers), timeout=60) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == allowed
        assert served.stop() == 0


def test_grpc_answers_on_the_chosen_port(start: Start) -> None:
    import grpc

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = start("--grpc-port", port, "--token-auth")
    assert served.ready["grpc"] == f"127.0.0.1:{port}"
    token = json.loads(Path(served.ready["key_file"]).read_text())["inference"]["key"]
    answer = _ask_grpc(port, token)
    assert json.loads(answer[answer.index(b"{") :])["label"]
    with pytest.raises(grpc.RpcError) as caught:
        _ask_grpc(port)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert served.stop() == 0


# Where it writes


def test_all_that_it_writes_is_in_its_run_directory(start: Start, tmp_path: Path, cli: Cli) -> None:
    run_dir, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    served = start("--run-dir", run_dir, TMPDIR=str(temporary))
    assert served.ask() == 200
    assert (run_dir / "management.sock").is_socket()
    assert list(temporary.iterdir()) == []
    opened = {Path(file.path) for process in (served.java(), served.worker()) for file in process.open_files()}
    written = {path for path in opened if os.access(path, os.W_OK) and path.is_relative_to(tmp_path)}
    assert all(path.is_relative_to(run_dir) for path in written)
    again = cli("serve", "locally", "--port", "0", NEWSBERT_RUN_DIR=str(run_dir))
    assert again.returncode == 1
    assert f"Error: a server is running in {run_dir}" in again.stderr
    assert served.ask() == 200
    assert served.stop() == 0
    assert not run_dir.exists()


def test_what_a_killed_server_left_is_gone_with_the_next_command_and_a_living_one_answers_on(
    start: Start, cli: Cli
) -> None:
    with tempfile.TemporaryDirectory() as directory:  # a short path, as for any server's directory
        killed, living = start(TMPDIR=directory), start("--token-auth", TMPDIR=directory)
        assert len(list(Path(directory).iterdir())) == 2
        family = processes.children(killed.process.pid)
        killed.process.kill()
        killed.process.wait()
        assert psutil.wait_procs(family, 20)[1] == []
        assert len(list(Path(directory).iterdir())) == 2
        assert cli("config", TMPDIR=directory).returncode == 0
        (left,) = Path(directory).iterdir()
        key = json.loads((left / "files" / "key_file.json").read_text(encoding="utf-8"))
        assert living.ask(key["inference"]["key"]) == 200
        assert living.stop() == 0
        assert list(Path(directory).iterdir()) == []


@pytest.fixture
def noexec() -> Iterator[Path]:
    """A file system in memory from which nothing can be run, as Docker's tmpfs is."""
    mounted = Path(tempfile.mkdtemp())  # a short path, as for any server's directory
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "noexec,nosuid,nodev,mode=1777", "tmpfs", str(mounted)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        mounted.rmdir()
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()} (run as root)")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)
        mounted.rmdir()


def test_it_serves_from_a_directory_from_which_nothing_can_be_run(start: Start, noexec: Path, tmp_path: Path) -> None:
    served = start(TMPDIR=str(noexec), NEWSBERT_CACHE_DIR=str(tmp_path / "cache"))
    assert served.ask() == 200
    assert served.stop() == 0
    assert list(noexec.iterdir()) == []


def test_where_no_program_can_be_run_there_is_an_error(bundle: Bundle, noexec: Path, cli: Cli) -> None:
    done = cli("serve", "locally", bundle.path, "--port", "0", TMPDIR=str(noexec), NEWSBERT_CACHE_DIR=str(noexec))
    assert done.returncode == 1
    assert "from which programs may be run" in done.stderr
    assert "--tmpfs /tmp:exec" in done.stderr
    assert list(noexec.iterdir()) in ([], [noexec / "native"])


# When its model is lost


def test_a_server_without_requests_is_not_lost(start: Start) -> None:
    served = start(NEWSBERT_SERVE_UNRESPONSIVE_TIMEOUT_S="5")
    time.sleep(8)
    assert served.ask() == 200
    assert served.stop() == 0


def test_a_worker_that_dies_is_replaced(start: Start) -> None:
    served = start(NEWSBERT_SERVE_UNRESPONSIVE_TIMEOUT_S="30")
    served.worker().kill()
    deadline = time.monotonic() + 25
    while _probe(served).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert served.process.poll() is None
    assert served.stop() == 0


def test_a_worker_that_hangs_fails_the_probe(start: Start) -> None:
    served = start()
    assert _probe(served).returncode == 0
    worker = served.worker()
    worker.suspend()
    done = _probe(served)
    assert done.returncode == 1
    assert "does not answer" in done.stdout
    worker.resume()


def test_a_server_that_lost_its_workers_fails_the_probe_and_ends(start: Start, tmp_path: Path) -> None:
    served = start("--run-dir", tmp_path / "run", NEWSBERT_SERVE_UNRESPONSIVE_TIMEOUT_S="15")
    shutil.rmtree(tmp_path / "run" / "tmp" / "models")  # so that no other worker can start
    served.worker().kill()
    time.sleep(1)
    done = _probe(served)
    assert done.returncode == 1
    assert served.java().is_running()
    assert served.process.wait(60) == 1
    assert "Error: the model has not answered for 15 s" in served.log.read_text()
    assert not (tmp_path / "run").exists()


def test_the_threshold_for_reviews_is_the_options_the_archives_or_the_models(
    start: Start, bundle: Bundle, tmp_path: Path
) -> None:
    packed = archive.write(bundle, tmp_path / "packed", "TinyModel/1", ServeSettings(review_threshold=1.0))

    def reviewed(*arguments: object, model: Path | None = None, **env: str) -> list[bool]:
        served = start(*arguments, model=model, **env)
        predictions = Client(served.url).predict(["goal team cup coach", "x"])
        assert served.stop() == 0
        return [prediction.review for prediction in predictions]

    assert reviewed() == [prediction.review for prediction in Model(bundle).predict(["goal team cup coach", "x"])]
    assert reviewed("--review-threshold", "1") == [True, True]
    assert reviewed(model=packed) == [True, True]
    assert reviewed(model=packed, NEWSBERT_SERVE_REVIEW_THRESHOLD="0") == [False, False]
