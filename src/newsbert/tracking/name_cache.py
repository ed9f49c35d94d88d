"""Names of models and runs that commands have seen, for the completion of shells.

Completion must answer at once: it reads these files, and neither imports MLflow nor calls a server. A model or run may
be gone since; the command that gets its name reports that.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from newsbert.core import environment, files, typed_json, uris
from newsbert.core.identifiers import parse_alias, parse_model_name, parse_run_id, parse_version
from newsbert.core.settings import TrackingSettings
from newsbert.errors import NewsbertError

_MAX_NAMES = 1000
Kind = Literal["models", "runs"]


def add(kind: Kind, settings: TrackingSettings, names: Mapping[str, int]) -> None:
    """Add names that are new; a failure is ignored, since it only shortens the completions.

    Args:
        kind: `models` for versions, `BertModel/7`, and aliases, `BertModel@champion`; `runs` for ids of runs.
        settings: The tracking server, and the experiment of the runs.
        names: The names, with the times when they were made in milliseconds.
    """
    with contextlib.suppress(OSError, ValueError, NewsbertError):
        file = _get_file(kind, settings)
        known: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):  # it is missing or damaged: then it is written again
            known = read(kind, settings)
        merged = {**_filter_valid(kind, names), **known}
        if len(merged) > len(known):
            latest = sorted(merged.items(), key=lambda item: item[1], reverse=True)[:_MAX_NAMES]
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.write_atomically(file, json.dumps(dict(latest)), mode=0o600)


def read(kind: Kind, settings: TrackingSettings) -> dict[str, int]:
    """Return the names with their times, the latest first.

    Args:
        kind: `models` or `runs`.
        settings: The tracking server, and the experiment of the runs.

    Raises:
        OSError: If no names were seen yet, or the file cannot be read.
        ValueError: If the file is damaged.
    """
    content = _get_file(kind, settings).read_text(encoding="utf-8")
    return _filter_valid(kind, typed_json.read(dict[str, int], typed_json.loads(content)))


def _filter_valid(kind: Kind, names: Mapping[str, int]) -> dict[str, int]:
    """Leave out names that newsbert would refuse: they come from servers and are printed to shells."""
    valid = {}
    for name, time_ms in names.items():
        with contextlib.suppress(NewsbertError):
            _parse(kind, name)
            valid[name] = time_ms
    return valid


def _parse(kind: Kind, name: str) -> None:
    if kind == "runs":
        parse_run_id(name, "a run")
        return
    model, separator, alias = name.partition("@")
    if separator:
        parse_alias(alias)
    else:
        model, _, version = name.partition("/")
        parse_version(version, "a version")
    parse_model_name(model)


def _get_file(kind: Kind, settings: TrackingSettings) -> Path:
    if kind == "models":
        uri, experiment = settings.registry_uri or settings.tracking_uri, ""
    else:
        uri, experiment = settings.tracking_uri, settings.experiment
    # A relative database is another one in another directory.
    directory = "" if uri.startswith(("http://", "https://", "sqlite:////")) else str(Path.cwd())
    key = "\n".join([uris.without_credentials(uri), directory, experiment])
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return environment.cache_dir() / "names" / f"{kind}-{digest}.json"
