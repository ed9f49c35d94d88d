"""Paths as URIs, and URIs without credentials for printing.

Only this module makes `file://` and `sqlite:///` URIs of paths, and only this module masks credentials.
"""

import os
import re
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.errors import UsageError

if TYPE_CHECKING:
    pass

_MASK = "***"
_COLON, _SLASH, _AT = (rf"%(?:25)*{code}" for code in ("3A", "2F", "40"))
_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+"
_WORD = r"[^ \t\r\n\f\v]{0,2048}"
"""Part of a URI, bounded like all repetitions here: matching a server's text must not take quadratic time."""
_NAME = r"(?:password|passwd|pwd|passphrase|secret|token|credential|api[-_]?key|access[-_]?key|account[-_]?key)"
_PART = r"[\w.%-]{0,64}"
_VALUE = r"""(?P<secret>[^& \t\r\n\f\v]{0,2048}[^& \t\r\n\f\v'")\]}>,.;:]|[^& \t\r\n\f\v]+)"""
"""A secret; punctuation that closes a sentence around a URI is excluded, unless there is nothing else."""

_PATTERNS = (
    re.compile(
        rf"{_SCHEME}://"
        # Without a host there is no account: an @ is part of the path. Newsbert's own hints contain USER:PASSWORD.
        r"(?!(?<=file://)/|(?<=sqlite://)/|USER(?::PASSWORD)?@)"
        # Azure's URIs have a container where others have an account.
        rf"(?!(?:(?<=wasbs://)|(?<=wasb://)|(?<=abfss://)|(?<=abfs://))[a-z0-9$-]+@(?!{_WORD}@))"
        # The last @, since a password may contain others that are not encoded; after a blank only if the text before it
        # is not a host and port.
        rf"(?P<secret>{_WORD}(?=@)|(?!\[)[^\s/@:?#]{{0,256}}:(?!\s|\d{{1,5}}(?:[^\w@]|$))[^\r\n]{{0,2048}}(?=@))"
    ),
    re.compile(rf"{_SCHEME}{_COLON}{_SLASH}{_SLASH}(?P<secret>{_WORD}){_AT}", re.IGNORECASE),
    re.compile(
        rf"[?&;](?:{_PART}{_NAME}{_PART}|x-(?:amz|goog)-{_PART}|auth|sig|signature|awsaccesskeyid)={_VALUE}",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?<![\w-])(?:\w{1,64}_)?(?:ssl)?(?:password|passwd|pwd|passphrase|client_secret|secret_access_key|accountkey"
        rf"|sharedaccesskey)\s*=\s*(?:(?P<quoted>'(?:[^'\\]|\\.)*')|{_VALUE})",
        re.IGNORECASE,
    ),
    re.compile(rf"authorization['\"]?\s*[:=]\s*['\"]?(?:basic|bearer|token)\s+{_VALUE}", re.IGNORECASE),
)
_ENCODING_HINT = (
    "write in its password %2F for /, %40 for @, %3A for :, %23 for #, %3F for ?, %20 for a blank:"
    " https://USER:PASSWORD@HOST:PORT"
)


def as_uri(path: str | os.PathLike[str]) -> str:
    """Return the `file://` URI of a path, which need not exist."""
    return Path(path).absolute().as_uri()


def sqlite_uri(path: str | os.PathLike[str]) -> str:
    """Return SQLAlchemy's URL of an SQLite file, which is relative for a relative path.

    Raises:
        UsageError: If the path's bytes are not UTF-8, which such a URL cannot represent.
    """
    try:
        # Quoted like SQLAlchemy, which reads the same path from it.
        return "sqlite:///" + urllib.parse.quote(os.fspath(path), safe=" +/")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{os.fspath(path)!r} cannot hold a database: its name is not UTF-8", "use another directory"
        ) from error


def mask_credentials(text: str) -> str:
    """Return a text with the credentials of all URIs in it replaced by `***`.

    Credentials are everything before a URI's last `@` (also in a URI that is encoded into another's query), the values
    of query parameters such as `password`, `sig` and `X-Amz-Signature`, of fields such as `password=` in a database's
    connection string, and of `Authorization` headers. Text that cannot be distinguished from a password is masked, too.
    """
    spans = sorted(
        match.span(name)
        for pattern in _PATTERNS
        for match in pattern.finditer(text)
        for name in pattern.groupindex
        if match[name]
    )
    parts, end = [], 0
    for start, stop in spans:  # spans in the original text overlap where one pattern ends earlier than another
        if start >= end:
            parts += [text[end:start], _MASK]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def without_credentials(uri: str) -> str:
    """Return a server's URI without its account."""
    parts = urllib.parse.urlsplit(uri)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def check_unambiguous(uri: str, what: str) -> None:
    """Reject a URI that libraries parse in different ways: their errors would print parts of its password.

    Args:
        uri: URI of a server or a database.
        what: Its name in the error, which does not show a URI that may contain a password.

    Raises:
        UsageError: If its host may begin at several places, or it contains blanks.
    """
    try:
        parts = urllib.parse.urlsplit(uri)
        _ = parts.port
        account = parts.netloc.rpartition("@")[0]
        readable = "@" not in f"{account}{parts.path}{parts.query}{parts.fragment}" or not parts.netloc
        if parts.scheme in {"http", "https"}:
            readable = readable and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        readable = False
    if not readable or (parts.netloc and re.search(r"[\s\x00-\x20\x7f]", uri)):
        if not set(uri) & set("@?#"):  # it cannot contain a password
            raise UsageError(
                f"{what} is {uri!r}, which cannot be read", "such as http://HOST:5000 or sqlite:///mlflow.db"
            )
        raise UsageError(f"{what} cannot be read", _ENCODING_HINT)


def local_path(uri: str) -> Path | None:
    """Return the path of an artifact location on this machine, or `None` if it is elsewhere."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in {"", "file"} or parts.netloc not in {"", "localhost"}:
        return None
    return Path(urllib.parse.unquote(parts.path))
