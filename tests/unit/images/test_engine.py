"""Which engines are talked to."""

import pytest

from newsbert.errors import EngineError, UsageError
from newsbert.images.engine.engine import Engine

pytest.importorskip("docker", reason="needs newsbert[image]")


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:2375", "http://engine.invalid:80", "tcp://[2001:db8::1]:2375"])
def test_a_remote_engine_needs_tls(address: str) -> None:
    with pytest.raises(UsageError, match="without a certificate"):
        Engine(address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://localhost:9", "what"])
def test_an_address_without_an_engine_is_an_error(address: str) -> None:
    with pytest.raises(EngineError, match="no container engine answers"):
        Engine(address)
