"""Requests to servers that may be on this machine: those go there directly, whatever proxy the environment names."""

import urllib.parse
import urllib.request
from typing import Any

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def urlopen(request: str | urllib.request.Request, timeout: float) -> Any:
    """`urllib.request.urlopen`, without a proxy if the host is this machine."""
    url = request if isinstance(request, str) else request.full_url
    host = urllib.parse.urlsplit(url).hostname or ""
    here = host == "localhost" or host.startswith("127.")
    return _DIRECT.open(request, timeout=timeout) if here else urllib.request.urlopen(request, timeout=timeout)
