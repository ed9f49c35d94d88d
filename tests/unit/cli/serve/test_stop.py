"""`newsbert serve stop`."""

import pytest

from tests.support.calls import failed
from tests.support.cli import Cli


@pytest.mark.parametrize("arguments", [[], ["--port", "8101"]])
def test_stop_without_a_server_exits_1(cli: Cli, arguments: list[str]) -> None:
    failed(cli("serve", "stop", *arguments), 1, "no detached server is running")
