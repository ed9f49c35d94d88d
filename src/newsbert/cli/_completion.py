"""What a shell completes: versions of models, runs, files.

MLflow is not imported, which takes seconds: a server is asked by its REST API, a database file is read as MLflow lays
it out. Whoever cannot be asked, in a second, offers nothing: a shell has no place for errors.
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

MOST = 50
TIMEOUT_S = 1.0
Found = list[tuple[str, str]]
"""What may stand there, and what to say of it."""


def models(ctx: typer.Context, incomplete: str) -> Found:
    """Versions, the latest first, with aliases; then bundles' directories; then runs."""
    found: Found = []
    with _quietly():
        settings = _settings(ctx)
        for name, version, aliases in _versions(settings):
            found.append((f"{name}/{version}", "version"))
            found += [(f"{name}@{alias}", f"alias of version {version}") for alias in aliases]
    return _beginning(_safe(found), incomplete) or _directories(incomplete) or runs(ctx, incomplete)


def runs(ctx: typer.Context, incomplete: str) -> Found:
    """Runs of the experiment, the latest first."""
    found: Found = []
    with _quietly():
        found = [(run[:12], f"run {name}") for run, name in _runs(_settings(ctx))]
    return _beginning(_safe(found), incomplete)


def files(incomplete: str) -> list[str]:
    """Files and directories."""
    with _quietly():
        return sorted(_paths(incomplete))[:MOST]
    return []


def _settings(context: typer.Context) -> TrackingSettings:
    given = {name: context.params.get(name) for name in ("tracking_uri", "experiment")}
    return config.resolve(TrackingSettings, **given)


def _quietly() -> contextlib.suppress:
    return contextlib.suppress(Exception)


def _safe(found: Iterable[tuple[str, str]]) -> Found:
    """Leave out what a shell would read as more than a word: it is put into the command line as it stands."""
    return [(value, text) for value, text in found if shlex.quote(value) == value and text.isprintable()]


def _beginning(found: Iterable[tuple[str, str]], incomplete: str) -> Found:
    return [each for each in found if each[0].startswith(incomplete)][:MOST]


def _paths(incomplete: str) -> Iterator[str]:
    directory, _, beginning = incomplete.rpartition("/")
    base = f"{directory}/" if "/" in incomplete else ""
    for path in Path(base or ".").expanduser().iterdir():
        if path.name.startswith(beginning) and (beginning or not path.name.startswith(".")):
            yield f"{base}{path.name}{'/' if path.is_dir() else ''}"


def _directories(incomplete: str) -> Found:
    """Directories that are bundles, or may hold some."""
    from newsbert.bundle.contract import CONTRACT_FILE

    with _quietly():
        found = [path for path in sorted(_paths(incomplete)) if path.endswith("/")]
        bundles = [path for path in found if (Path(path).expanduser() / CONTRACT_FILE).is_file()]
        return [(path, "bundle") for path in bundles[:MOST]] or [(path, "directory") for path in found[:MOST]]
    return []


def _versions(settings: TrackingSettings) -> Iterator[tuple[str, str, list[str]]]:
    uri = settings.registry_uri or settings.tracking_uri
    if uri.startswith("sqlite:"):
        aliases: dict[tuple[str, str], list[str]] = {}
        for name, version, alias in _read(uri, "SELECT name, version, alias FROM registered_model_aliases"):
            aliases.setdefault((name, str(version)), []).append(alias)
        query = "SELECT name, version FROM model_versions ORDER BY creation_time DESC LIMIT ?"
        for name, version in _read(uri, query, MOST):
            yield name, str(version), aliases.get((name, str(version)), [])
        return
    for version in _ask(uri, f"model-versions/search?max_results={MOST}").get("model_versions", []):
        yield version["name"], version["version"], version.get("aliases", [])


def _runs(settings: TrackingSettings) -> Iterator[tuple[str, str]]:
    uri, experiment = settings.tracking_uri, settings.experiment
    if uri.startswith("sqlite:"):
        query = (
            "SELECT run_uuid, runs.name FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?"
            " AND runs.lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT ?"
        )
        yield from _read(uri, query, experiment, MOST)
        return
    number = _ask(uri, f"experiments/get-by-name?{urlencode({'experiment_name': experiment})}")["experiment"][
        "experiment_id"
    ]
    for run in _ask(uri, "runs/search", {"experiment_ids": [number], "max_results": MOST}).get("runs", []):
        yield run["info"]["run_id"], run["info"]["run_name"]


def _read(uri: str, query: str, *values: object) -> list[Any]:
    import sqlite3

    path = quote(uri.partition("///")[2].partition("?")[0])
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=TIMEOUT_S)) as file:
        return file.execute(query, values).fetchall()


def _ask(uri: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    from urllib.request import Request

    from newsbert.core import loopback

    base, authorization = environment.tracking_authorization(uri)
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{base}/api/2.0/mlflow/{path}", data, headers)
    with loopback.urlopen(request, TIMEOUT_S, environment.tracking_tls()) as response:
        content: dict[str, Any] = json.load(response)
        return content
