"""`newsbert predict`."""

import contextlib
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._completion import files
from newsbert.cli._options import Debug, Json, ModelOption, RayAddress, RayWorkers, TrackingUri, setting
from newsbert.cli._output import Output, Progress, duration
from newsbert.core import config
from newsbert.core.settings import RaySettings, ServeSettings, TrainSettings
from newsbert.errors import NewsbertError, UsageError

if TYPE_CHECKING:
    from newsbert.inference.batch import ray_workers
    from newsbert.inference.batch.predictor import Predictor
    from newsbert.inference.prediction import Prediction

REQUESTS = 8
"""Concurrent requests to a server for the rows of a file."""

EXAMPLES = """
Examples:

    newsbert predict "Stocks fall as oil rises"

    newsbert predict --model BertModel/2 --file in.jsonl.gz --output out.parquet

    newsbert predict --file s3://bucket/in.parquet --output s3://bucket/out.parquet --ray-workers 8 --ray-address auto

    newsbert predict --url http://127.0.0.1:8080 "Cup final ends in a draw"

    head -n 3 headlines.txt | newsbert predict --json
"""


def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to classify.", show_default="lines of standard input")
    ] = None,
    model: ModelOption = None,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    review_threshold: Annotated[float | None, setting(ServeSettings, "review_threshold", metavar="SCORE")] = None,
    cascade: Annotated[str | None, setting(ServeSettings, "cascade", metavar="on|off|auto")] = None,
    url: Annotated[str | None, typer.Option(help="Ask the server there instead of loading a model here.")] = None,
    file: Annotated[
        str | None,
        typer.Option(
            help="Classify the rows of a csv, tsv, json, jsonl or parquet file, also .gz, here or at s3://… or gs://…."
            " It may be of any size; only json is held in memory.",
            metavar="FILE",
            autocompletion=files,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Where the rows of --file go, with the answers: a csv, tsv, jsonl or parquet file, here or at s3://…"
            " or gs://…; those that got none go to OUTPUT.rejected.jsonl too, with the reason.",
            metavar="FILE",
            autocompletion=files,
        ),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(
            help="Column of the text in --file.", metavar="NAME", show_default="the project's, or the model's"
        ),
    ] = None,
    tier: Annotated[
        bool, typer.Option("--tier", help="Show what answered each text: the companion alone, or the model.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Do all of --file again, not only what a run that was ended has left.")
    ] = False,
    ray_workers: RayWorkers = None,
    ray_address: RayAddress = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Classify texts, lines of standard input, or rows of a file."""
    screen = Output(as_json)
    if url is not None and model is not None:
        raise UsageError("--url and --model exclude each other", "a server has one model: leave --model out")
    if url is not None and runtime is not None:
        raise UsageError("--url and --runtime exclude each other", "a server has one runtime: leave --runtime out")
    if url is not None and review_threshold is not None:
        raise UsageError(
            "--url and --review-threshold exclude each other",
            "it is the server's: newsbert serve locally --review-threshold 0.8",
        )
    if url is not None and cascade is not None:
        raise UsageError(
            "--url and --cascade exclude each other", "it is the server's: newsbert serve locally --cascade off"
        )
    if file is not None and texts:
        raise UsageError("texts and --file exclude each other", "give one of them")
    if texts and len(texts) == 1 and url is None and Path(texts[0]).is_file():
        raise UsageError(
            f"{texts[0]!r} is a file, and would be classified by its name",
            f"newsbert predict --file {shlex.quote(texts[0])} --output predictions.jsonl",
        )
    if (file is None) != (output is None):
        raise UsageError("--file and --output go together", "newsbert predict --file in.csv --output out.csv")
    if restart and file is None:
        raise UsageError("--restart is for --file", "newsbert predict --file in.csv --output out.csv --restart")
    if ray_workers is not None and (file is None or url is not None):
        raise UsageError("--ray-workers is for --file and a model here", "newsbert predict --help")
    ray_settings = config.resolve_shared(ray_workers, ray_address)
    if file is not None and output is not None:
        serve_settings = config.resolve(
            ServeSettings, runtime=runtime, review_threshold=review_threshold, cascade=cascade
        )
        _predict_file(
            screen, file, output, text_column, url, model, serve_settings, ray_settings, tracking_uri, restart, tier
        )
        return
    from newsbert.api import models
    from newsbert.inference.items import predict_items
    from newsbert.serving.client import Client

    items = _read_texts(texts)
    predictor: Predictor
    if url is not None:
        predictor = Client(url)
    else:
        settings = config.resolve(ServeSettings, runtime=runtime, review_threshold=review_threshold, cascade=cascade)
        predictor = models.load(
            model,
            runtime=settings.runtime,
            review_threshold=settings.review_threshold,
            cascade=settings.cascade,
            tracking_uri=tracking_uri,
        )
    predictions = predict_items(predictor, items)
    _render(screen, predictor.name, items, predictions, tier=tier)  # a server's name is known only now


def _predict_file(
    screen: Output,
    file: str,
    output: str,
    text_column: str | None,
    url: str | None,
    model: str | None,
    answering: ServeSettings,
    shared: RaySettings,
    tracking_uri: str | None,
    restart: bool,
    tier: bool,
) -> None:
    from newsbert.api import models
    from newsbert.inference.batch import object_store, paths, resume
    from newsbert.inference.batch.predict_file import predict_file
    from newsbert.inference.model import Model
    from newsbert.serving.client import Client

    with contextlib.ExitStack() as stack:
        local_input, local_output = stack.enter_context(
            object_store.staged(file, output, paths.check, lambda message: screen.log(f"{message} …"))
        )
        predictor: Predictor | ray_workers.Workers
        if url is not None:
            predictor = server = Client(url)
            server.predict(["newsbert"])  # fails early, and gets the server's name, before a long file is read
            identity = server.name or url
        else:
            if shared.workers > 1:
                screen.log(f"starting {shared.workers} workers …")
            predictor, identity = stack.enter_context(
                models.predictor(model, answering, shared, screen.note, tracking_uri=tracking_uri)
            )
        trained_column = predictor.bundle.contract.data.get("text_column") if isinstance(predictor, Model) else None
        pace: _Pace | None = None
        try:
            with screen.progress() as progress:
                pace = _Pace(progress)
                progress.phase(f"reading {local_input.name}")
                result = predict_file(
                    predictor,
                    local_input,
                    local_output,
                    text_column,
                    pace,
                    model=identity,
                    requests=1 if url is None else REQUESTS,
                    restart=restart,
                    tier=tier,
                    on_note=screen.note,
                    likely_columns=(config.resolve(TrainSettings).text_column, trained_column),
                )
        except (KeyboardInterrupt, NewsbertError):
            state = resume.read_state(local_output)
            if state is not None and pace is not None and pace.has_begun:
                screen.note(f"{state.records} of {state.total} rows are saved: run the same command again to resume")
            raise
    rejected = f"{output}.rejected.jsonl" if result.rejected else None
    if result.skipped:
        screen.note(f"{result.skipped} rows were rejected: see {rejected}")
    if result.unreadable:
        screen.note(f"{result.unreadable} rows cannot be read and were left out: see {rejected}")
    if screen.as_json:
        screen.document(
            {
                "model": predictor.name,
                "rows": result.rows,
                "skipped": result.skipped,
                "unreadable": result.unreadable,
                "output": output,
                "rejected": rejected,
            }
        )
    else:
        screen.result(f"{result.rows} rows, answers in the columns {', '.join(result.columns)}: {output}")


class _Pace:
    """Progress of rows, with rows per second and the remaining time.

    Args:
        progress: The progress display.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._start: tuple[int, float] | None = None

    @property
    def has_begun(self) -> bool:
        """True if progress was shown."""
        return self._start is not None

    def __call__(self, done: int, total: int) -> None:
        """Show the number of completed rows."""
        now = time.monotonic()
        first, started = self._start = self._start or (done, now)
        details = {}
        if done > first:
            rate = (done - first) / (now - started)
            details = {"per second": f"{rate:.0f}", "left": duration((total - done) / rate)}
        self._progress.update("rows", done, total, details)


def _read_texts(texts: list[str] | None) -> list[str]:
    """Return the texts to classify: the lines of standard input if there are no arguments or the only one is `-`.

    Raises:
        UsageError: If there is nothing to classify.
    """
    if texts and texts != ["-"]:
        return texts
    if sys.stdin is None or (sys.stdin.isatty() and texts != ["-"]):
        raise UsageError("no text", 'newsbert predict "Stocks fall as oil rises"')
    try:
        lines = [line.decode("utf-8-sig").strip() for line in sys.stdin.buffer.read().splitlines()]
    except UnicodeDecodeError as error:
        raise UsageError(
            "standard input is not valid UTF-8", "iconv -f windows-1252 -t utf-8 FILE | newsbert predict"
        ) from error
    nonempty_lines = [line for line in lines if line]
    if not nonempty_lines:
        raise UsageError("standard input holds no text", 'newsbert predict "Stocks fall as oil rises"')
    return nonempty_lines


def _render(screen: Output, name: str, items: list[str], predictions: "list[Prediction]", *, tier: bool) -> None:
    if screen.as_json:
        answers = [
            {"text": text, **prediction.to_dict(tier=tier)} for text, prediction in zip(items, predictions, strict=True)
        ]
        screen.document({"model": name, "predictions": answers})
        return
    labels = list(predictions[0].probabilities)
    rows = []
    for text, prediction in zip(items, predictions, strict=True):
        short = text if len(text) <= 60 else f"{text[:59]}…"
        rows.append(
            [
                short,
                prediction.label,
                "yes" if prediction.review else "no",
                *([prediction.tier] if tier else []),
                *(f"{prediction.probabilities[label]:.3f}" for label in labels),
            ]
        )
    columns = ["text", "label", "review", *(["tier"] if tier else [])]
    screen.table([*columns, *labels], rows, title=name, words=len(columns))
