"""The command that installs an extra of newsbert, from the origin of this installation."""

import json
import re
import shlex
import urllib.parse
from pathlib import Path

from newsbert.errors import NewsbertError

_SEPARATE_EXTRAS = {"openvino", "ray"}
"""Extras that `all` does not include."""

_VCS = re.compile(r"[a-z]{2,3}")


def command(extra: str, *options: str) -> str:
    """Return the command that installs an extra, or `all` if that includes it.

    Args:
        extra: Name of the extra.
        options: Options of `pip install`.
    """
    requirement = _build_requirement(f"[{extra if extra in _SEPARATE_EXTRAS else 'all'}]")
    return " ".join(["pip", "install", *options, *requirement])


def _build_requirement(extras: str) -> list[str]:
    """Return pip's arguments for the requirement, quoted for a shell.

    Source: https://packaging.python.org/en/latest/specifications/direct-url-data-structure/
    """
    from importlib import metadata  # slow, and only errors need it

    try:
        origin = json.loads(metadata.distribution("newsbert").read_text("direct_url.json") or "{}")
        url = str(origin.get("url", ""))
        path = _parse_file_url(url)
        if path is not None and path.is_dir():
            is_editable = origin.get("dir_info", {}).get("editable", False) is True
            return [*(["-e"] if is_editable else []), _quote(f"{path}{extras}")]
        vcs = origin.get("vcs_info")
        if vcs is not None and _VCS.fullmatch(vcs["vcs"]):
            return [_quote(f"newsbert{extras} @ {vcs['vcs']}+{url}@{vcs['commit_id']}")]
        if (path is not None and path.is_file()) or url.startswith("https://"):
            return [_quote(f"newsbert{extras} @ {url}")]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, metadata.PackageNotFoundError):
        pass  # the origin is unknown
    return [_quote(f"newsbert{extras}")]


def _parse_file_url(url: str) -> Path | None:
    from urllib.request import url2pathname

    parts = urllib.parse.urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def _quote(text: str) -> str:
    quoted = shlex.quote(text)
    return quoted if quoted != text else f"'{text}'"


class MissingExtraError(NewsbertError):
    """Error for a required extra that is not installed.

    Args:
        module: The module that could not be imported.
        extra: The extra that installs it.
    """

    examined = True

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"the Python package {module!r} is not installed", command(extra))
