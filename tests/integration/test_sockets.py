"""What of a served model can be reached, and by whom."""

import http.client
import ipaddress
import json
import socket
import urllib.error
import urllib.request
from typing import Any

import psutil
import pytest

from newsbert.serving.torchserve import process
from tests.support import processes


def _listening() -> list[Any]:
    """The listening sockets of the frontend that this process started."""
    return [
        connection
        for connection in processes.frontend().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def _status(port: int, path: str, method: str = "GET") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, http.client.HTTPException):
        return 0  # no HTTP there


def test_everything_listens_on_loopback(server: process.Server) -> None:
    addresses = {ipaddress.ip_address(connection.laddr.ip.removeprefix("::ffff:")) for connection in _listening()}
    assert all(address.is_loopback for address in addresses)
    ports = {connection.laddr.port for connection in _listening()}
    assert {server.address.port, server.address.grpc_port} <= ports


def test_nothing_can_connect_to_grpc_management(server: process.Server) -> None:
    """It is the one that listens on another address than those for clients, and no address reaches it."""
    served = {server.address.port, server.address.grpc_port, server.address.frontend_metrics_port}
    (management,) = {connection.laddr for connection in _listening() if connection.laddr.port not in served}
    for host in (management.ip.removeprefix("::ffff:"), "127.0.0.1"):
        with socket.socket() as connection, pytest.raises(OSError, match=r"unreachable|refused"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            connection.connect((host, management.port))


def test_no_port_lets_anybody_manage_models(server: process.Server) -> None:
    scale = "/models/news_classification?min_worker=0&max_worker=0"
    register = "/models?url=http://127.0.0.1:9/evil.mar"
    for port in (connection.laddr.port for connection in _listening()):
        assert _status(port, scale, "PUT") not in {200, 202}
        assert _status(port, register, "POST") not in {200, 202}
        assert _status(port, "/models/news_classification", "DELETE") not in {200, 202}
    request = urllib.request.Request(server.address.predictions_url, b"goal", {"Content-Type": "text/plain"})
    with urllib.request.urlopen(request, timeout=10) as response:
        assert json.load(response)["label"]
