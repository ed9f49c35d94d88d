"""Paths as URIs, and URIs as they may be printed.

No other module makes a `file://` or `sqlite:///` URI of a path, and none hides a credential in another way.
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
"""Bounded, as all that repeats here: a text of a server's must not cost the square of its length."""
_NAME = r"(?:password|passwd|pwd|passphrase|secret|token|credential|api[-_]?key|access[-_]?key|account[-_]?key)"
_PART = r"[\w.%-]{0,64}"
_VALUE = r"""(?P<secret>[^& \t\r\n\f\v]{0,2048}[^& \t\r\n\f\v'")\]}>,.;:]|[^& \t\r\n\f\v]+)"""
"""What closes a sentence around a URI stays, unless it is all that there is."""

_PATTERNS = (
    re.compile(
        rf"{_SCHEME}://"
        # Without a host there is no account: an @ is one of the path. USER:PASSWORD stands in our own hints.
        r"(?!(?<=file://)/|(?<=sqlite://)/|USER(?::PASSWORD)?@)"
        # A container of Azure's stands where other URIs have an account.
        rf"(?!(?:(?<=wasbs://)|(?<=wasb://)|(?<=abfss://)|(?<=abfs://))[a-z0-9$-]+@(?!{_WORD}@))"
        # The last @, since a password may hold others that nobody has encoded; after a blank only where what stands
        # before it is no host and port.
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
_ENCODE = (
    "write in its password %2F for /, %40 for @, %3A for :, %23 for #, %3F for ?, %20 for a blank:"
    " https://USER:PASSWORD@HOST:PORT"
)


def as_uri(path: str | os.PathLike[str]) -> str:
    """Return the `file://` URI of a path, which need not exist."""
    return Path(path).absolute().as_uri()


def sqlite_uri(path: str | os.PathLike[str]) -> str:
    """Return SQLAlchemy's URL of an SQLite file: relative for a relative path.

    Raises:
        UsageError: If the path's bytes are not UTF-8, which such a URL cannot say.
    """
    try:
        # As SQLAlchemy writes it: what that reads is the path again.
        return "sqlite:///" + urllib.parse.quote(os.fspath(path), safe=" +/")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{os.fspath(path)!r} cannot hold a database: its name is not UTF-8", "use another directory"
        ) from error


def mask_credentials(text: str) -> str:
    """Return a text with the credentials of all URIs in it replaced by `***`.

    They are all that stands before a URI's last `@` (also in a URI that is encoded into another's query), the values of
    query parameters such as `password`, `sig` and `X-Amz-Signature`, of fields such as `password=` in a database's
    connection string, and of `Authorization` headers. More is hidden where it cannot be told apart from a password.
    """
    spans = sorted(
        match.span(name)
        for pattern in _PATTERNS
        for match in pattern.finditer(text)
        for name in pattern.groupindex
        if match[name]
    )
    shown, end = [], 0
    for start, stop in spans:  # of the text as it is: what one of them hides another may have ended too early
        if start >= end:
            shown += [text[end:start], _MASK]
        end = max(end, stop)
    return "".join([*shown, text[end:]])


def without_credentials(uri: str) -> str:
    """Return a server's URI without the account that it names."""
    parts = urllib.parse.urlsplit(uri)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def check_unambiguous(uri: str, what: str) -> None:
    """Refuse a URI that libraries read in different ways: their errors would print parts of its password.

    Args:
        uri: A server's or a database's.
        what: Its name in the error, which does not show a URI that may hold a password.

    Raises:
        UsageError: If there are several places where its host may begin, or it holds blanks.
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
        if not set(uri) & set("@?#"):  # it can hold no password
            raise UsageError(
                f"{what} is {uri!r}, which cannot be read", "such as http://HOST:5000 or sqlite:///mlflow.db"
            )
        raise UsageError(f"{what} cannot be read", _ENCODE)


def local_path(uri: str) -> Path | None:
    """The path of an artifact location on this machine, or `None` if it is elsewhere."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in {"", "file"} or parts.netloc not in {"", "localhost"}:
        return None
    return Path(urllib.parse.unquote(parts.path))
