"""What requests may cost: expensive ones wait, and other clients do not."""

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

from newsbert.serving import protocol
from newsbert.serving.client import Client
from newsbert.serving.torchserve import job_queue, process


def _status(server: process.Server, body: bytes, content_type: str) -> tuple[int, str | None]:
    request = urllib.request.Request(server.address.predictions_url, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("Retry-After")


def test_attack_a_flood_of_explanations_does_not_stop_answers(server: process.Server) -> None:
    flooding, outcomes = threading.Event(), set()
    flooding.set()

    def flood(number: int) -> None:
        turn = 0
        while flooding.is_set():
            turn += 1
            text = f"{'goal team cup coach ' * 10} {number} {turn}"
            body = json.dumps({"instances": [{"text": text, "explain": True}] * 10}).encode()
            outcomes.add(_status(server, body, "application/json"))

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        answered = [_status(server, b"goal", "text/plain") for _ in range(20)]
    finally:
        flooding.clear()
        for thread in threads:
            thread.join()
    assert answered == [(200, None)] * 20
    assert outcomes <= {(200, None), (503, "1")}
    assert (503, "1") in outcomes
    # A client that tries again after Retry-After gets the explanation.
    (explained,) = Client(server.address.url).explain(["goal team cup after the flood"])
    assert [word.text for word in explained.words] == ["goal", "team", "cup", "after", "the", "flood"]


def test_attack_megabytes_beside_a_neighbour(server: process.Server) -> None:
    outcomes: list[tuple[int, str | None]] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(_status(server, b"!" * 1_000_000, "text/plain")))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    answered = [_status(server, b"goal", "text/plain") for _ in range(10)]
    for thread in threads:
        thread.join()
    assert answered == [(200, None)] * 10
    assert len(outcomes) == 16
    assert set(outcomes) <= {(200, None), (503, "1")}


def test_a_long_explanation_is_answered_at_once_despite_idle_connections(server: process.Server) -> None:
    text = " ".join(f"goal team cup coach {number}" for number in range(20))
    body = json.dumps({"text": text, "explain": True}).encode()
    with contextlib.ExitStack() as connections:
        for _ in range(5):
            connections.enter_context(socket.create_connection((server.address.host, server.address.port)))
        assert _status(server, body, "application/json") == (200, None)


def test_the_queue_is_counted_and_a_server_that_is_gone_has_none(server: process.Server, tmp_path: Path) -> None:
    assert job_queue.count_pending(server.management.parent, protocol.SERVED_NAME) == 0
    assert job_queue.count_pending(server.management.parent, "another") is None
    assert job_queue.count_pending(tmp_path, protocol.SERVED_NAME) is None
