"""How a server stops: under load, at a signal, and when what started it is killed."""

import collections
import contextlib
import http.client
import json
import signal
import socket
import threading
import time
import urllib.request

import psutil
import pytest

from newsbert.bundle.bundle import Bundle
from tests.support import processes
from tests.support.cli import Cli
from tests.support.metrics import Page
from tests.support.serving import PATH, SLOW, Served, Start

LONG_ITEMS = 1000


def _send(port: int, items: int) -> socket.socket:
    """Send a request for as many long texts, all of it, and return the connection to read the answer from."""
    body = json.dumps({"instances": ["goal team cup coach " * 20] * items}).encode()
    connection = socket.create_connection(("127.0.0.1", port), 60)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def _count_accepted(served: Served) -> float:
    """The requests that TorchServe has read so far, and put into its queue."""
    with urllib.request.urlopen(served.ready["metrics"], timeout=20) as response:
        return Page(response.read().decode()).get("ts_inference_requests_total")


def _wait_accepted(served: Served, count: float) -> None:
    deadline = time.monotonic() + 20
    while _count_accepted(served) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("keep", [False, True], ids=["a connection a request", "persistent connections"])
def test_a_stop_under_load_answers_or_refuses_all_that_was_sent_before(start: Start, keep: bool) -> None:
    served = start()
    outcomes: collections.Counter[object] = collections.Counter()
    stopping = threading.Event()

    def ask() -> None:
        connection: http.client.HTTPConnection | None = None
        while True:
            was_stopping = stopping.is_set()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
                connection.request("POST", PATH, b"goal", {"Content-Type": "text/plain"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                outcomes["ended", was_stopping] += 1
                return
            outcomes[response.status, was_stopping] += 1
            if response.status != 200 or not keep:
                connection.close()
                connection = None

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    while outcomes[200, False] <= 16:
        time.sleep(0.01)
    stopping.set()
    assert served.stop() == 0
    for thread in threads:
        thread.join(60)
    assert outcomes["ended", True] == 16
    assert outcomes[503, True] > 0
    # What was on its way at the signal may come after the last request that is answered.
    assert set(outcomes) <= {(200, False), (503, False), (200, True), (503, True), ("ended", True)}


def test_a_long_request_in_flight_is_answered(start: Start) -> None:
    served = start(*SLOW)
    before = _count_accepted(served)
    with _send(served.port, LONG_ITEMS) as connection:
        _wait_accepted(served, before + 1)
        served.process.send_signal(signal.SIGTERM)
        response = http.client.HTTPResponse(connection, method="POST")
        response.begin()
        assert response.status == 200
        assert len(json.load(response)) == LONG_ITEMS
    assert served.process.wait(30) == 0


def test_a_signal_to_all_of_its_processes_cuts_no_request_off_either(start: Start) -> None:
    # As systemd does it.
    served = start(*SLOW)
    family = [served.java(), served.worker()]
    before = _count_accepted(served)
    with _send(served.port, LONG_ITEMS) as connection:
        _wait_accepted(served, before + 1)
        for process in family:
            process.terminate()
        served.process.send_signal(signal.SIGTERM)
        response = http.client.HTTPResponse(connection, method="POST")
        response.begin()
        assert (response.status, len(json.load(response))) == (200, LONG_ITEMS)
    assert served.process.wait(30) == 0
    assert not any(map(_alive, family))


def test_requests_that_wait_for_their_turn_are_answered(start: Start) -> None:
    served = start(*SLOW, "--batch-size", "1")
    before = _count_accepted(served)
    connections = [_send(served.port, LONG_ITEMS) for _ in range(6)]
    _wait_accepted(served, before + 6)
    served.process.send_signal(signal.SIGTERM)
    for connection in connections:
        with connection:
            response = http.client.HTTPResponse(connection, method="POST")
            response.begin()
            assert response.status == 200
            assert len(json.load(response)) == LONG_ITEMS
    assert served.process.wait(30) == 0


def test_what_takes_longer_than_the_limit_is_cut_off(start: Start) -> None:
    served = start(*SLOW, "--drain-s", "0.5", "--batch-size", "1")
    before = _count_accepted(served)
    connections = [_send(served.port, LONG_ITEMS) for _ in range(12)]
    _wait_accepted(served, before + 12)
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 20
    answers = [_received(connection) for connection in connections]
    assert b"" in answers


def test_a_second_signal_does_not_wait(start: Start) -> None:
    served = start(*SLOW)
    connections = [_send(served.port, LONG_ITEMS) for _ in range(8)]
    java = served.java()
    served.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 130
    assert not _alive(java)
    for connection in connections:
        connection.close()


def _alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that was killed may wait to be buried."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _received(connection: socket.socket) -> bytes:
    with connection, contextlib.suppress(ConnectionResetError):
        return connection.recv(100)
    return b""


def test_ctrl_c_stops_all_of_it(start: Start) -> None:
    served = start()
    family = processes.children(served.process.pid)
    assert len(family) >= 2  # the frontend and a worker
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(30) == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_a_killed_supervisor_takes_its_server_with_it(start: Start) -> None:
    served = start()
    family = processes.children(served.process.pid)
    served.process.kill()
    served.process.wait(30)
    assert psutil.wait_procs(family, timeout=15)[1] == []


def test_two_servers_at_once_do_not_disturb_each_other(bundle: Bundle, cli: Cli) -> None:
    servers = [
        json.loads(cli("serve", "locally", bundle.path, "--detach", "--port", "0", "--json").stdout) for _ in range(2)
    ]
    assert servers[0]["port"] != servers[1]["port"]
    assert cli("serve", "stop", "--port", servers[0]["port"]).returncode == 0
    answer = cli("predict", "--url", servers[1]["url"], "--json", "the team won the cup")
    assert answer.returncode == 0, answer.stderr
    assert len(json.loads(answer.stdout)["predictions"]) == 1
    assert cli("serve", "stop").returncode == 0
    assert cli("predict", "--url", servers[1]["url"], "the team").returncode == 1
