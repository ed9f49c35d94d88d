"""The command that installs a part of newsbert, from where this newsbert was installed."""

import json
import re
import shlex
import urllib.parse
from importlib import metadata
from pathlib import Path
from urllib.request import url2pathname

from newsbert.errors import NewsbertError

_APART = {"openvino", "ray"}
"""Extras that `all` does not have."""

_VCS = re.compile(r"[a-z]{2,3}")


def command(extra: str, *options: str) -> str:
    """Return the command that installs an extra; of those that `all` has, `all` at once.

    Args:
        extra: Its name.
        options: Of `pip install`.
    """
    requirement = _requirement(f"[{extra if extra in _APART else 'all'}]")
    return " ".join(["pip", "install", *options, *requirement])


def _requirement(extras: str) -> list[str]:
    """Return what pip takes, quoted for a shell.

    Source: https://packaging.python.org/en/latest/specifications/direct-url-data-structure/
    """
    try:
        origin = json.loads(metadata.distribution("newsbert").read_text("direct_url.json") or "{}")
        url = str(origin.get("url", ""))
        path = _path_of(url)
        if path is not None and path.is_dir():
            is_editable = origin.get("dir_info", {}).get("editable", False) is True
            return [*(["-e"] if is_editable else []), _quote(f"{path}{extras}")]
        vcs = origin.get("vcs_info")
        if vcs is not None and _VCS.fullmatch(vcs["vcs"]):
            return [_quote(f"newsbert{extras} @ {vcs['vcs']}+{url}@{vcs['commit_id']}")]
        if (path is not None and path.is_file()) or url.startswith("https://"):
            return [_quote(f"newsbert{extras} @ {url}")]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, metadata.PackageNotFoundError):
        pass  # it is not known where from
    return [_quote(f"newsbert{extras}")]


def _path_of(url: str) -> Path | None:
    parts = urllib.parse.urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def _quote(text: str) -> str:
    quoted = shlex.quote(text)
    return quoted if quoted != text else f"'{text}'"


class MissingExtraError(NewsbertError):
    """A part of newsbert that was not installed is needed.

    Args:
        module: The module that could not be imported.
        extra: The extra that brings it.
    """

    examined = True

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"the Python package {module!r} is not installed", command(extra))
