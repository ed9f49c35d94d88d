"""Shell completion of model versions, runs and files.

MLflow is not imported, which takes seconds: the REST API of a server is called, and a database file is read with SQL.
A source that does not answer within a second yields no completions: a shell has no place for errors.
"""

import contextlib
import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import typer

from newsbert.core import config, environment
from newsbert.core.settings import TrackingSettings

_MAX_ITEMS = 50
TIMEOUT_S = 1.0
Found = list[tuple[str, str]]
"""Completions, as pairs of value and description."""


def models(ctx: typer.Context, incomplete: str) -> Found:
    """Complete model versions and aliases, the latest first; else bundle directories; else runs."""
    completions: Found = []
    with _suppress_errors():
        settings = _resolve_settings(ctx)
        for name, version, aliases in _list_versions(settings):
            completions.append((f"{name}/{version}", "version"))
            completions += [(f"{name}@{alias}", f"alias of version {version}") for alias in aliases]
    return (
        _filter_by_prefix(_filter_safe(completions), incomplete)
        or _complete_directories(incomplete)
        or runs(ctx, incomplete)
    )


def runs(ctx: typer.Context, incomplete: str) -> Found:
    """Complete runs of the experiment, the latest first."""
    completions: Found = []
    with _suppress_errors():
        completions = [(run[:12], f"run {name}") for run, name in _list_runs(_resolve_settings(ctx))]
    return _filter_by_prefix(_filter_safe(completions), incomplete)


def files(incomplete: str) -> list[str]:
    """Complete files and directories."""
    with _suppress_errors():
        return sorted(_list_paths(incomplete))[:_MAX_ITEMS]
    return []


def _resolve_settings(context: typer.Context) -> TrackingSettings:
    options = {name: context.params.get(name) for name in ("tracking_uri", "experiment")}
    return config.resolve(TrackingSettings, **options)


def _suppress_errors() -> contextlib.suppress:
    return contextlib.suppress(Exception)


def _filter_safe(found: Iterable[tuple[str, str]]) -> Found:
    """Leave out values that a shell would not read as one word: they are inserted without quotes."""
    return [(value, text) for value, text in found if shlex.quote(value) == value and text.isprintable()]


def _filter_by_prefix(found: Iterable[tuple[str, str]], incomplete: str) -> Found:
    return [completion for completion in found if completion[0].startswith(incomplete)][:_MAX_ITEMS]


def _list_paths(incomplete: str) -> Iterator[str]:
    directory, _, prefix = incomplete.rpartition("/")
    base = f"{directory}/" if "/" in incomplete else ""
    for path in Path(base or ".").expanduser().iterdir():
        if path.name.startswith(prefix) and (prefix or not path.name.startswith(".")):
            yield f"{base}{path.name}{'/' if path.is_dir() else ''}"


def _complete_directories(incomplete: str) -> Found:
    """Complete bundle directories, or else all directories, which may contain bundles."""
    from newsbert.bundle.contract import CONTRACT_FILE

    with _suppress_errors():
        directories = [path for path in sorted(_list_paths(incomplete)) if path.endswith("/")]
        bundles = [path for path in directories if (Path(path).expanduser() / CONTRACT_FILE).is_file()]
        return [(path, "bundle") for path in bundles[:_MAX_ITEMS]] or [
            (path, "directory") for path in directories[:_MAX_ITEMS]
        ]
    return []


def _list_versions(settings: TrackingSettings) -> Iterator[tuple[str, str, list[str]]]:
    uri = settings.registry_uri or settings.tracking_uri
    if uri.startswith("sqlite:"):
        aliases: dict[tuple[str, str], list[str]] = {}
        for name, version, alias in _query_database(uri, "SELECT name, version, alias FROM registered_model_aliases"):
            aliases.setdefault((name, str(version)), []).append(alias)
        query = "SELECT name, version FROM model_versions ORDER BY creation_time DESC LIMIT ?"
        for name, version in _query_database(uri, query, _MAX_ITEMS):
            yield name, str(version), aliases.get((name, str(version)), [])
        return
    for version in _call_api(uri, f"model-versions/search?max_results={_MAX_ITEMS}").get("model_versions", []):
        yield version["name"], version["version"], version.get("aliases", [])


def _list_runs(settings: TrackingSettings) -> Iterator[tuple[str, str]]:
    uri, experiment = settings.tracking_uri, settings.experiment
    if uri.startswith("sqlite:"):
        query = (
            "SELECT run_uuid, runs.name FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?"
            " AND runs.lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT ?"
        )
        yield from _query_database(uri, query, experiment, _MAX_ITEMS)
        return
    experiment_id = _call_api(uri, f"experiments/get-by-name?{urlencode({'experiment_name': experiment})}")[
        "experiment"
    ]["experiment_id"]
    for run in _call_api(uri, "runs/search", {"experiment_ids": [experiment_id], "max_results": _MAX_ITEMS}).get(
        "runs", []
    ):
        yield run["info"]["run_id"], run["info"]["run_name"]


def _query_database(uri: str, query: str, *values: object) -> list[Any]:
    import sqlite3

    path = quote(uri.partition("///")[2].partition("?")[0])
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=TIMEOUT_S)) as connection:
        return connection.execute(query, values).fetchall()


def _call_api(uri: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    from urllib.request import Request

    from newsbert.core import loopback

    base, authorization = environment.tracking_authorization(uri)
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{base}/api/2.0/mlflow/{path}", data, headers)
    with loopback.urlopen(request, TIMEOUT_S, environment.tracking_tls()) as response:
        content: dict[str, Any] = json.load(response)
        return content
