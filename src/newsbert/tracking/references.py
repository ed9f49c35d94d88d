"""Find the version or the run that a reference means."""

import re
import shlex
from typing import TYPE_CHECKING

from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.core.identifiers import (
    MIN_RUN_ID_DIGITS,
    is_model_name,
    parse_alias,
    parse_model_id,
    parse_time,
)
from newsbert.errors import NotFoundError, TrackingError, UsageError
from newsbert.tracking.runs import MODEL_ID_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from newsbert.tracking.client import TrackingClient


RUN_ID_PREFIX = re.compile(rf"[0-9a-f]{{{MIN_RUN_ID_DIGITS},31}}")
"""Prefix of a run's id, as `newsbert runs` shows it."""

_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:/(?P<version>[0-9]+)|@(?P<alias>[^/@]+))?")


def find_version(tracker: "TrackingClient", reference: str) -> "ModelVersion":
    """Find a version in the registry; see `locate`.

    Raises:
        UsageError: If the reference is invalid.
        NotFoundError: If there is no such model, version or alias.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None or not is_model_name(match["name"]):
        raise UsageError(
            f"{reference!r:.300} names no model", "write Name/2, Name@alias, models:/Name/2 or a directory"
        )
    name, version, alias = match["name"], match["version"], match["alias"]
    known = tracker.versions(name)
    if not known:
        names = sorted({model.name for model in tracker.versions()})
        raise NotFoundError(
            f"there is no registered model {name!r} on {tracker.where}",
            f"there are: {', '.join(names)}" if names else f"newsbert register --model-name {shlex.quote(name)}",
        )
    if alias is not None:
        model_version = tracker.aliased(name, parse_alias(alias))
        if model_version is None:
            raise NotFoundError(
                f"{name!r} has no alias {alias!r}",
                f"newsbert register --model-name {shlex.quote(name)} --alias {shlex.quote(alias)}",
            )
        return model_version
    latest = max(known, key=lambda version: int(version.version))
    if version is None:
        return latest
    model_version = next((candidate for candidate in known if str(candidate.version) == version.lstrip("0")), None)
    if model_version is None:
        raise NotFoundError(f"there is no version {version} of {name!r}", f"the latest is {name}/{latest.version}")
    return model_version


def find_run(tracker: "TrackingClient", source: str | None) -> "Run":
    """Find a run, which must hold a newsbert model.

    Args:
        tracker: The tracking server that knows it.
        source: A run id or its prefix, a `runs:/…` URI, or `None` for the latest finished run.

    Raises:
        UsageError: If it is no run, or matches several.
        NotFoundError: If there is no such run.
        TrackingError: If it holds no newsbert model.
    """
    if source is None:
        run = tracker.latest_run()
        if run is None:
            raise NotFoundError(
                f"there is no finished training run in the experiment {tracker.settings.experiment!r} "
                f"on {tracker.where}",
                "newsbert train",
            )
        return run
    if RUN_ID_PREFIX.fullmatch(source):
        source = _complete_run_id(tracker, source)
    match = re.fullmatch(r"(?:runs:/)?(?P<run>[0-9a-f]{32})(?:/(?P<path>.*))?", source)
    if match is None:
        raise UsageError(f"{source!r} is no run", "give one of: newsbert runs; or runs:/RUN_ID/model")
    run = tracker.get_run(match["run"])
    if run is None:
        raise NotFoundError(
            f"there is no run {match['run']!r} on {tracker.where}",
            "give another run, or none for the latest finished one",
        )
    if MODEL_ID_TAG not in run.data.tags or match["path"] not in {None, "", "model"}:
        raise TrackingError(
            f"run {match['run']} is no newsbert model: its {match['path'] or 'model'!r} has no {CONTRACT_FILE} "
            f"(the run's status is {run.info.status})",
            "register a run that `newsbert train` finished",
        )
    parse_model_id(run.data.tags[MODEL_ID_TAG], f"the tag {MODEL_ID_TAG} of run {match['run']}")
    return run


def describe_run(run: "Run") -> str:
    """Describe a run that the user did not choose: its id, its user and its end time."""
    user = run.data.tags.get("mlflow.user") or "somebody unknown"
    ended = parse_time(run.info.end_time or run.info.start_time or 0).astimezone()
    return f"run {run.info.run_id} of {user!r:.100}, which ended {ended:%Y-%m-%d %H:%M}"


def _complete_run_id(tracker: "TrackingClient", beginning: str) -> str:
    """Return the full id of the run of the experiment with this prefix.

    Raises:
        NotFoundError: If there is none.
        UsageError: If there are several.
    """
    matches: list[str] = [run.info.run_id for run in tracker.runs(f"attributes.run_id LIKE '{beginning}%'", 3)]
    if not matches:
        where = f"the experiment {tracker.settings.experiment!r} on {tracker.where}"
        raise NotFoundError(f"there is no run {beginning!r} in {where}", "newsbert runs")
    if len(matches) > 1:
        raise UsageError(f"several runs begin with {beginning!r}: {', '.join(matches)}", "give more of its id")
    return matches[0]
