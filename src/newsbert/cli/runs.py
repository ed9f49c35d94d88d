"""`newsbert runs`."""

import dataclasses
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._options import Debug, Experiment, Json, TrackingUri
from newsbert.cli._output import Output, duration
from newsbert.core.identifiers import SHORT_RUN_ID_DIGITS

if TYPE_CHECKING:
    from newsbert.tracking.run_list import TrainingRun

EXAMPLES = """
Examples:

    newsbert runs

    newsbert runs --limit 3 --json

    newsbert register 3a3273c1 --model-name BertModel
"""


def runs(
    limit: Annotated[int, typer.Option(help="How many to list at most.", min=1, max=50_000)] = 20,
    experiment: Experiment = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List training runs with their scores, latest first.

    The scores are those on the test rows. The first six digits of a run's id are enough for all commands that take a
    run. --json has all that was logged with it.
    """
    screen = Output(as_json)
    from newsbert.tracking import locate, run_list

    tracker = locate.connect(tracking_uri, experiment)
    training_runs = run_list.training_runs(tracker, limit)
    if screen.as_json:
        documents = [
            {
                **dataclasses.asdict(run),
                "started": run.started.isoformat(timespec="seconds"),
                "ended": run.ended and run.ended.isoformat(timespec="seconds"),
                "versions": [{"model": name, "aliases": aliases} for name, aliases in run.versions.items()],
            }
            for run in training_runs
        ]
        screen.document({"experiment": tracker.settings.experiment, "runs": documents})
        return
    if not training_runs:
        screen.note(f"no training runs in the experiment {tracker.settings.experiment!r} on {tracker.where}")
        screen.next_command("newsbert train")
        return
    screen.table(
        ["run", "status", "training", "model", "accuracy", "F1"], [_build_row(run) for run in training_runs], words=4
    )


def _build_row(run: "TrainingRun") -> list[str]:
    scores = [run.metrics.get(f"test_{name}") for name in ("accuracy", "f1_macro")]
    versions = [" ".join([name, *(f"@{alias}" for alias in aliases)]) for name, aliases in run.versions.items()]
    return [
        run.run_id[:SHORT_RUN_ID_DIGITS],
        f"{run.status} {_format_age(run.ended)} ago" if run.ended else f"{run.status} for {_format_age(run.started)}",
        ", ".join(_describe(run)),
        ", ".join(versions),
        *("" if score is None else f"{score:.4f}" for score in scores),
    ]


def _describe(run: "TrainingRun") -> Iterator[str]:
    """Yield facts about a training; a run that failed early, or of a registered bundle, lacks some."""
    from newsbert.tracking.runs import STOPPED_EARLY_TAG

    params = run.params
    rows, data = params.get("train_rows"), params.get("data")
    if data is not None:
        yield f"{rows} rows of {Path(data).name}" if rows else Path(data).name
    if "epochs" in params:
        epochs = params["epochs"].removesuffix(".0")
        yield f"{epochs} {'epoch' if epochs == '1' else 'epochs'}"
    base = params.get("base_model", params.get("base_model_name"))
    if base is not None:
        yield f"{Path(base).name} {params.get('tune', '')}".strip()
    seconds = run.metrics.get("training_seconds")
    if seconds is not None and math.isfinite(seconds):
        yield duration(seconds)
    if run.tags.get(STOPPED_EARLY_TAG) == "true":
        yield "stopped early"


def _format_age(moment: datetime) -> str:
    """Return the time since a moment: `42 s`, `3 h`, `2 days`."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {'day' if (count, name) == (1, 'days') else name}"
    return f"{seconds:.0f} s"
