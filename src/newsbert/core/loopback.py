"""HTTP requests to servers that may be on this machine: such requests bypass the environment's proxies."""

import ssl
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from newsbert.errors import ServingError

if TYPE_CHECKING:
    import httpx2

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def urlopen(request: str | urllib.request.Request, timeout: float, tls: ssl.SSLContext | None = None) -> Any:
    """Open a URL as `urllib` does, without a proxy if the host is this machine; `tls` has the trusted certificates."""
    url = request if isinstance(request, str) else request.full_url
    direct = is_loopback(urllib.parse.urlsplit(url).hostname)
    if tls is None:
        return _DIRECT.open(request, timeout=timeout) if direct else urllib.request.urlopen(request, timeout=timeout)
    handlers = [urllib.request.HTTPSHandler(context=tls), *([urllib.request.ProxyHandler({})] if direct else [])]
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout)


def is_loopback(host: str | None) -> bool:
    """Return whether a URL's host is a loopback name or address, regardless of the machine's own names."""
    return host in {"localhost", "::1"} or (host or "").startswith("127.")


def make_client(address: str) -> "httpx2.Client":
    """Return an HTTP client of the server at a URL, or at `unix:` and the path of a socket.

    Raises:
        ServingError: If the address, or the environment's proxy for it, is invalid.
    """
    import httpx2

    try:
        if address.startswith("unix:"):
            transport = httpx2.HTTPTransport(verify=False, uds=address.removeprefix("unix:"))
            return httpx2.Client(transport=transport, base_url="http://localhost")
        url = httpx2.URL(address)
        # Only with TLS: to read the system's certificates takes longer than a request.
        tls = url.scheme == "https" and ssl.create_default_context()
        return httpx2.Client(verify=tls, trust_env=not is_loopback(url.host), base_url=url)
    except (httpx2.InvalidURL, ValueError, ImportError) as error:  # the last for a SOCKS proxy
        hint = "give http://HOST:PORT, and check https_proxy, http_proxy and all_proxy"
        raise ServingError(f"no requests can be sent to {address!r}: {error}", hint) from error
