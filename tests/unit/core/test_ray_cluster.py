"""What is decided about workers before Ray has a part in it."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from newsbert.core import config
from newsbert.core.ray_cluster import check, divide_cores
from newsbert.core.settings import RaySettings
from newsbert.errors import NewsbertError, UsageError
from tests.support.calls import free_port


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [
        ([2], 2, (1, 2)),
        ([4], 1, (4, 1)),
        ([0, 4, 4, 4, 4], 8, (2, 8)),  # a head that computes nothing
        ([8, 3, 3, 3], 4, (3, 4)),  # a worker is on one node: 17 cores are not four times four
        ([3, 3], 3, (1, 3)),
        ([2, 1], 8, (1, 3)),
        ([0], 2, (1, 0)),
        ([], 2, (1, 0)),
    ],
)
def test_workers_divide_the_cores_of_the_nodes(cores: list[int], workers: int, expected: tuple[int, int]) -> None:
    assert divide_cores(cores, workers) == expected


def test_ray_settings_come_from_flags_environment_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert config.resolve(RaySettings) == RaySettings(1, None)
    Path("newsbert.toml").write_text('[ray]\nworkers = 3\naddress = "head:6379"\n', encoding="utf-8")
    assert config.resolve(RaySettings) == RaySettings(3, "head:6379")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("NEWSBERT_RAY_WORKERS", "4")
    assert config.resolve(RaySettings) == RaySettings(4, "auto")
    assert config.resolve(RaySettings, workers=5, address="other:1") == RaySettings(5, "other:1")


@contextlib.contextmanager
def _answer_with(answer: bytes) -> Iterator[str]:
    """A server that sends the same bytes on every connection; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


HTTP2_SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def test_a_cluster_that_answers_is_accepted() -> None:
    with _answer_with(HTTP2_SETTINGS) as address:
        check(RaySettings(100, address))


def test_another_server_is_no_cluster() -> None:
    with (
        _answer_with(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address,
        pytest.raises(NewsbertError, match=f"no Ray cluster at '{address}'") as caught,
    ):
        check(RaySettings(1, address))
    assert caught.value.hint == "ray start --head"


def test_a_closed_port_is_no_cluster() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(NewsbertError, match=f"no Ray cluster at '{address}': Connection refused"):
        check(RaySettings(1, address))


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", "head:65536", ":", ""])
def test_an_invalid_address_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match="is no address of a Ray cluster"):
        check(RaySettings(1, address))


def test_more_workers_than_cores_is_a_usage_error() -> None:
    for address in (None, "local"):
        with pytest.raises(UsageError, match="100000 workers need as many cores"):
            check(RaySettings(100_000, address))
