"""Pip's options for a build: as its configuration file, and as they may be shown."""

import re
from collections.abc import Sequence

from newsbert.errors import UsageError

ALLOWED = (
    "cert", "client-cert", "find-links", "index-url", "no-index", "proxy", "resume-retries", "retries", "timeout",
    "trusted-host",
)  # fmt: skip
"""What says where packages come from and how they are reached. What is installed is not for options to say, and of two
indexes pip takes whichever has the higher version: an index that has all, or --find-links, does without a second."""

_OPTION = re.compile(r"(?P<name>[a-z][a-z0-9-]*)=(?P<value>[^\x00-\x1f\x7f\x85\u2028\u2029]+)")
_CREDENTIAL = re.compile(r"(?P<kept>(?:[a-z][a-z0-9_-]*=)?[a-z][a-z0-9+.-]*://)?\S*@", re.IGNORECASE)
_QUERY = re.compile(r"\?\S+")


def pip_conf(options: Sequence[str]) -> bytes:
    """Pip's configuration of `NAME=VALUE` options; a name given several times has several values.

    Raises:
        UsageError: If an option is not of that form, or not one of those that a build takes.
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
    settings = [f"{name} = {' '.join(each)}\n" for name, each in values.items()]
    return "".join(["[global]\n", *settings]).encode()


def holds_secret(options: Sequence[str], torch_index: str = "") -> bool:
    """Tell whether there may be a credential in pip's options; an index's URL may be one as a whole."""
    return redact(torch_index) != torch_index or any(
        option.partition("=")[0].endswith(("url", "proxy", "cert")) or redact(option) != option for option in options
    )


def redact(text: str) -> str:
    """`text` without what may be a credential: what stands before an @, and the query of a URL."""
    return _QUERY.sub("?***", _CREDENTIAL.sub(r"\g<kept>***@", text))
