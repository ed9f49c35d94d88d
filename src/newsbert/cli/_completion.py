"""Shell completion of model versions, runs and files.

Models and runs are those that earlier commands have seen. Errors yield no completions: a shell has no place for them.
"""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import typer

from newsbert.core import config
from newsbert.core.identifiers import SHORT_RUN_ID_DIGITS, parse_time
from newsbert.core.settings import TrackingSettings
from newsbert.tracking import name_cache

_MAX_ITEMS = 50
Completions = list[tuple[str, str]]
"""Completions, as pairs of value and description."""


def models(ctx: typer.Context, incomplete: str) -> Completions:
    """Complete model versions and aliases, the latest first; else bundle directories; else runs."""
    return _complete_names("models", ctx, incomplete) or _complete_directories(incomplete) or runs(ctx, incomplete)


def runs(ctx: typer.Context, incomplete: str) -> Completions:
    """Complete runs of the experiment, the latest first."""
    return _complete_names("runs", ctx, incomplete)


def files(incomplete: str) -> list[str]:
    """Complete files and directories."""
    with _suppress_errors():
        return sorted(_list_paths(incomplete))[:_MAX_ITEMS]
    return []


def _complete_names(kind: name_cache.Kind, context: typer.Context, incomplete: str) -> Completions:
    with _suppress_errors():
        options = {name: context.params.get(name) for name in ("tracking_uri", "experiment")}
        names = name_cache.read(kind, config.resolve(TrackingSettings, **options))
        return [
            (name[:SHORT_RUN_ID_DIGITS] if kind == "runs" else name, _describe(name, time_ms))
            for name, time_ms in names.items()
            # A shell inserts a name without quotes, so it must read it as one word.
            if name.startswith(incomplete) and shlex.quote(name) == name
        ][:_MAX_ITEMS]
    return []


def _describe(name: str, time_ms: int) -> str:
    if "@" in name:
        return "alias"
    return f"{'version' if '/' in name else 'run'} of {parse_time(time_ms).astimezone():%Y-%m-%d %H:%M}"


def _suppress_errors() -> contextlib.suppress:
    return contextlib.suppress(Exception)


def _list_paths(incomplete: str) -> Iterator[str]:
    directory, _, prefix = incomplete.rpartition("/")
    base = f"{directory}/" if "/" in incomplete else ""
    for path in Path(base or ".").expanduser().iterdir():
        if path.name.startswith(prefix) and (prefix or not path.name.startswith(".")):
            yield f"{base}{path.name}{'/' if path.is_dir() else ''}"


def _complete_directories(incomplete: str) -> Completions:
    """Complete bundle directories, or else all directories, which may contain bundles."""
    from newsbert.bundle.contract import CONTRACT_FILE

    with _suppress_errors():
        directories = [path for path in sorted(_list_paths(incomplete)) if path.endswith("/")]
        bundles = [path for path in directories if (Path(path).expanduser() / CONTRACT_FILE).is_file()]
        return [(path, "bundle") for path in bundles[:_MAX_ITEMS]] or [
            (path, "directory") for path in directories[:_MAX_ITEMS]
        ]
    return []
