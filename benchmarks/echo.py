"""An HTTP server that does nothing. It measures the limit of the load generator, and what that adds to a latency.

python benchmarks/echo.py PORT
"""

import asyncio
import sys

_BODY = b'{"label": "World", "score": 1.0, "probabilities": {"World": 1.0}}'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


class _Echo(asyncio.Protocol):
    """Answers all data that arrives; a request of the load generator arrives in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Send the answer."""
        self._transport.write(_ANSWER)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
