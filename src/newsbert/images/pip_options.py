"""The pip options of a build: write them as pip's configuration file, and redact them for output."""

import re
from collections.abc import Sequence

from newsbert.errors import UsageError

ALLOWED = (
    "cert", "client-cert", "find-links", "index-url", "no-index", "proxy", "resume-retries", "retries", "timeout",
    "trusted-host",
)  # fmt: skip
"""Allowed options: the sources of packages and the connections to them.

Options cannot change what is installed. A second index is not allowed, because pip takes the higher version of the two:
use one index that has all packages, or --find-links.
"""

_OPTION = re.compile(r"(?P<name>[a-z][a-z0-9-]*)=(?P<value>[^\x00-\x1f\x7f\x85\u2028\u2029]+)")
_CREDENTIAL = re.compile(r"(?P<scheme>(?:[a-z][a-z0-9_-]*=)?[a-z][a-z0-9+.-]*://)?\S*@", re.IGNORECASE)
_QUERY = re.compile(r"\?\S+")


def pip_conf(options: Sequence[str]) -> bytes:
    """Return pip's configuration file for `NAME=VALUE` options.

    A name that occurs several times has several values.

    Raises:
        UsageError: If an option is not of that form, or not in `ALLOWED`.
    """
    values: dict[str, list[str]] = {}
    for option in options:
        match = _OPTION.fullmatch(option)
        if match is None:
            raise UsageError(
                f"the pip option {redact(option)!r} is not NAME=VALUE",
                "such as --pip-option index-url=https://packages.example/simple",
            )
        if match["name"] not in ALLOWED:
            raise UsageError(f"the pip option {match['name']!r} is none of a build", f"choose of {', '.join(ALLOWED)}")
        values.setdefault(match["name"], []).append(match["value"])
    settings = [f"{name} = {' '.join(arguments)}\n" for name, arguments in values.items()]
    return "".join(["[global]\n", *settings]).encode()


def holds_secret(options: Sequence[str], torch_index: str = "") -> bool:
    """Return whether pip's options may hold a credential.

    The URL of an index can be a credential as a whole.
    """
    return redact(torch_index) != torch_index or any(
        option.partition("=")[0].endswith(("url", "proxy", "cert")) or redact(option) != option for option in options
    )


def redact(text: str) -> str:
    """Replace possible credentials in `text`: the part before an @, and the query of a URL."""
    return _QUERY.sub("?***", _CREDENTIAL.sub(r"\g<scheme>***@", text))
