"""Names and origins that a tracking server answers to."""

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_names(exposed: bool) -> list[str]:
    """The names that a server on this machine is called by: on loopback, and from elsewhere where it is exposed."""
    names = ["localhost", "127.0.0.1"]
    if exposed:
        import psutil

        found = [
            each.address
            for all_of in psutil.net_if_addrs().values()
            for each in all_of
            if each.family == socket.AF_INET
        ]
        names += [socket.gethostname(), socket.getfqdn(), *found]
    return list(dict.fromkeys(names))


def origins(hosts: list[str], port: int) -> list[str]:
    """Where its own pages say that they come from: MLflow takes what a page posts from these alone.

    A proxy before it speaks TLS on the port of that. Where any name will do, any page would: that is not said here.
    """
    named = {
        form: None for host in hosts if host != "*" for form in ((host,) if ":" in host else (host, f"{host}:{port}"))
    }
    return [f"{scheme}://{each}" for each in named for scheme in ("http", "https")]


def with_ports(hosts: list[str]) -> list[str]:
    """Names with any port, as MLflow compares them with what a request calls it."""
    return [form for host in dict.fromkeys(hosts) for form in ((host,) if ":" in host else (host, f"{host}:*"))]
