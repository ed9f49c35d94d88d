"""Parsers of ids, names and locations from MLflow, bundles and users; foreign text becomes one only here.

A parsed value is safe in a path, a URL, a filter or a command. Other text raises an error that shows it escaped.
"""

import re
import urllib.parse
from collections.abc import Sequence
from datetime import UTC, datetime

from newsbert.core.terminal import has_controls
from newsbert.errors import NewsbertError, TrackingError, UsageError

_RUN_ID = re.compile(r"[0-9a-f]{32}")

MIN_RUN_ID_DIGITS = 6
"""Length from which the beginning of a run's id stands for the run."""

SHORT_RUN_ID_DIGITS = 8
"""Length of the beginning of a run's id that is shown."""

_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_MODEL_NAME = re.compile(r"[^/:@%'\"\\`?#\x00-\x1f\x7f-\x9f\u2028\u2029]{1,250}")
_VERSION = re.compile(r"0*[1-9][0-9]{0,17}")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,250}")
_RESERVED_ALIAS = re.compile(r"latest|[vV][0-9]+")
_EXPERIMENT_ID = re.compile(r"[0-9]{1,20}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MIN_LABELS = 2
_STORE_SCHEMES = {"s3", "gs", "wasb", "wasbs", "abfs", "abfss", "hdfs", "dbfs", "file", ""}
"""Schemes of artifact locations that MLflow reads with separate credentials, or none."""
_AZURE_HOST = re.compile(
    r"[^@/]+@[a-z0-9-]+\.(?:(?:blob|dfs)\.core\.(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)"
    r"|dfs\.fabric\.microsoft\.com)"
)
"""Hosts of Azure: MLflow sends Azure's credentials to any host that an abfss:// location names."""
_MAX_TIME_MS = 253_370_764_800_000
"""The start of the year 9999, with which Python's calendar ends."""


def parse_run_id(text: object, origin: str, error: type[NewsbertError] = TrackingError) -> str:
    """Return a valid run id.

    Args:
        text: The text to parse.
        origin: Source of the text, for the error.
        error: Class of the error.

    Raises:
        NewsbertError: If it is not a run id.
    """
    return _parse(_RUN_ID, text, origin, "a run's id", "newsbert runs", error)


def parse_experiment_id(text: object) -> str:
    """Return a valid experiment id.

    Raises:
        TrackingError: If it is not an experiment id.
    """
    return _parse(_EXPERIMENT_ID, text, "an experiment's id", "a number", "check who runs that server", TrackingError)


def parse_model_id(text: object, origin: str) -> str:
    """Return a valid id of a logged model, `m-…`.

    Raises:
        TrackingError: If it is not a model id.
    """
    return _parse(_MODEL_ID, text, origin, "a logged model's id", "train and register the model again", TrackingError)


def parse_version(text: object, origin: str, error: type[NewsbertError] = TrackingError) -> str:
    """Return a version number without leading zeros.

    Raises:
        NewsbertError: If it is not a version number.
    """
    number = _parse(_VERSION, str(text), origin, "a version", "newsbert runs", error)
    return number.lstrip("0")


def parse_model_name(text: str) -> str:
    """Return a valid name of a registered model.

    Raises:
        UsageError: If the name is invalid.
    """
    if not is_model_name(text):
        raise UsageError(
            f"{text!r:.300} cannot name a registered model",
            "use letters, digits, blanks, -, _ and . in a name; not / : @ % ? # and quotes",
        )
    return text


def is_model_name(text: object) -> bool:
    """Return whether a text is a valid name of a registered model here; MLflow itself accepts more."""
    return (
        isinstance(text, str)
        and _MODEL_NAME.fullmatch(text) is not None
        and text.isprintable()
        and text == text.strip()
        and text not in {".", ".."}
        and not text.startswith("-")
    )


def parse_alias(text: str) -> str:
    """Return a valid alias of a version.

    Raises:
        UsageError: If the alias is invalid.
    """
    if not _ALIAS.fullmatch(text) or _RESERVED_ALIAS.fullmatch(text) or text.startswith("-"):
        raise UsageError(f"{text!r:.300} cannot be an alias", "use letters, digits, - and _; not 'latest' nor 'v1'")
    return text


def parse_digest(text: object, origin: str) -> str:
    """Return a valid SHA-256 digest in hexadecimal.

    Raises:
        TrackingError: If it is not such a digest.
    """
    return _parse(_DIGEST, text, origin, "a SHA-256", "train and register the model again", TrackingError)


def is_digest(text: object) -> bool:
    """Return whether a text is a SHA-256 digest in hexadecimal."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def check_labels(labels: Sequence[str]) -> None:
    """Check label names, which appear in tables, metrics, dashboard URLs and terminals.

    Raises:
        ValueError: If there are fewer than two, or one is empty, duplicated, or contains a control character.
    """
    if len(labels) < _MIN_LABELS:
        raise ValueError(f"it has the labels {list(labels)!r:.80}; a classifier needs two or more")
    for label in labels:
        if not label.strip():
            raise ValueError(f"its label {label!r} is empty")
        if has_controls(label):
            raise ValueError(f"its label {label!r:.80} holds a control character")
    if len(set(labels)) < len(labels):
        raise ValueError(f"it has a label twice: {', '.join(labels):.200}")


def is_file_name(text: object) -> bool:
    """Return whether a text is a valid file name in a bundle: flat, plain and not hidden."""
    return isinstance(text, str) and _FILE_NAME.fullmatch(text) is not None


def parse_location(text: object, tracking_uri: str, origin: str) -> str:
    """Return an artifact location from a tracking server, if it is safe to read.

    MLflow sends the tracking server's credentials to the host of such a location, so it must name no other host.

    Args:
        text: The location.
        tracking_uri: URI of the tracking server.
        origin: Source of the location, for the error.

    Raises:
        TrackingError: If it belongs neither to this server nor to a store with separate credentials.
    """
    location_error = TrackingError(f"{origin} is {text!r:.200}, which is not read", "check who wrote it to the server")
    if not isinstance(text, str) or not text or not text.isprintable() or text != text.strip():
        raise location_error
    try:
        parts = urllib.parse.urlsplit(text)
        server = urllib.parse.urlsplit(tracking_uri)
    except ValueError as error:
        raise location_error from error
    if parts.scheme in {"http", "https", "mlflow-artifacts"}:
        allowed = not parts.netloc or parts.netloc.rpartition("@")[2] == server.netloc.rpartition("@")[2]
        allowed = allowed and "@" not in parts.netloc and (parts.scheme in {server.scheme, "mlflow-artifacts"})
    elif parts.scheme == "runs":
        allowed = _RUN_ID.fullmatch(parts.path.lstrip("/").partition("/")[0]) is not None and not parts.netloc
    elif parts.scheme in {"", "file"}:
        return text  # a path of this machine, where `?`, `#` and `%` are ordinary characters
    elif parts.scheme in {"wasb", "wasbs", "abfs", "abfss"}:
        allowed = _AZURE_HOST.fullmatch(parts.netloc) is not None
    else:
        allowed = parts.scheme in _STORE_SCHEMES
    steps = parts.path.split("/")
    is_plain = not any(urllib.parse.unquote(urllib.parse.unquote(step)) in {".", ".."} for step in steps)
    if not allowed or not is_plain or parts.query or parts.fragment or "?" in text or "#" in text or "\\" in text:
        raise location_error
    return text


def parse_time(milliseconds: int) -> datetime:
    """Return a time from MLflow, which any client may set, limited to the range of Python's calendar."""
    return datetime.fromtimestamp(min(max(milliseconds, 0), _MAX_TIME_MS) / 1000, UTC)


def _parse(
    pattern: re.Pattern[str], text: object, origin: str, kind: str, hint: str, error: type[NewsbertError]
) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise error(f"{origin} is {text!r:.200}, which is not {kind}", hint)
    return text
