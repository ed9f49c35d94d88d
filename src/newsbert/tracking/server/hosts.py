"""Names and origins that a tracking server answers to."""

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_names(exposed: bool) -> list[str]:
    """Return the names of a server on this machine: on loopback and, if it is exposed, from elsewhere."""
    names = ["localhost", "127.0.0.1"]
    if exposed:
        import psutil

        addresses = [
            address.address
            for interface in psutil.net_if_addrs().values()
            for address in interface
            if address.family == socket.AF_INET
        ]
        names += [socket.gethostname(), socket.getfqdn(), *addresses]
    return list(dict.fromkeys(names))


def origins(hosts: list[str], port: int) -> list[str]:
    """Return the origins of the server's own pages: MLflow accepts posts from pages of these origins only.

    They include TLS origins without the server's port, for a proxy before it. The host `*` adds none, since it would
    admit any page.
    """
    authorities = {
        form: None for host in hosts if host != "*" for form in ((host,) if ":" in host else (host, f"{host}:{port}"))
    }
    return [f"{scheme}://{authority}" for authority in authorities for scheme in ("http", "https")]


def with_ports(hosts: list[str]) -> list[str]:
    """Return the names with any port, as MLflow compares them with a request's host."""
    return [form for host in dict.fromkeys(hosts) for form in ((host,) if ":" in host else (host, f"{host}:*"))]
