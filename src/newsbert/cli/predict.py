"""`newsbert predict`."""

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._completion import files
from newsbert.cli._options import Debug, Json, ModelOption, RayAddress, TrackingUri, Workers, setting
from newsbert.cli._output import Output, Progress, duration
from newsbert.core import config
from newsbert.core.settings import RaySettings, ServeSettings, TrainSettings
from newsbert.errors import NewsbertError, UsageError

if TYPE_CHECKING:
    from newsbert.inference.batch import ray_workers
    from newsbert.inference.batch.predictor import Predictor
    from newsbert.inference.prediction import Prediction

REQUESTS = 8
"""Requests that are under way at a server at the same time for a file."""

EXAMPLES = """
Examples:

    newsbert predict "Stocks fall as oil rises"

    newsbert predict --model BertModel/2 --file in.jsonl.gz --output out.parquet

    newsbert predict --file s3://bucket/in.parquet --output s3://bucket/out.parquet --workers 8 --ray-address auto

    newsbert predict --url http://127.0.0.1:8080 "Cup final ends in a draw"

    head -n 3 headlines.txt | newsbert predict --json
"""


def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to classify.", show_default="lines of standard input")
    ] = None,
    model: ModelOption = None,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    review_below: Annotated[float | None, setting(ServeSettings, "review_below", metavar="SCORE")] = None,
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
            help="Where the rows of --file go, with the answers, here or at s3://… or gs://…; those that got none go to"
            " OUTPUT.rejected.jsonl too, with the reason.",
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
    restart: Annotated[
        bool, typer.Option("--restart", help="Do all of --file again, not only what a run that was ended has left.")
    ] = False,
    workers: Workers = None,
    ray_address: RayAddress = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Classify texts: given as arguments, on standard input a line each, or the rows of a file."""
    screen = Output(as_json)
    if url is not None and model is not None:
        raise UsageError("--url and --model exclude each other", "a server has one model: leave --model out")
    if url is not None and runtime is not None:
        raise UsageError("--url and --runtime exclude each other", "a server has one runtime: leave --runtime out")
    if url is not None and review_below is not None:
        raise UsageError(
            "--url and --review-below exclude each other",
            "it is the server's: newsbert serve locally --review-below 0.8",
        )
    if file is not None and texts:
        raise UsageError("texts and --file exclude each other", "give one of them")
    if (file is None) != (output is None):
        raise UsageError("--file and --output go together", "newsbert predict --file in.csv --output out.csv")
    if restart and file is None:
        raise UsageError("--restart is for --file", "newsbert predict --file in.csv --output out.csv --restart")
    if workers is not None and (file is None or url is not None):
        raise UsageError("--workers is for --file and a model here", "newsbert predict --help")
    shared = config.resolve_shared(workers, ray_address)
    if file is not None and output is not None:
        answering = config.resolve(ServeSettings, runtime=runtime, review_below=review_below)
        _predict_file(screen, file, output, text_column, url, model, answering, shared, tracking_uri, restart)
        return
    from newsbert.api import models
    from newsbert.inference.items import predict_items
    from newsbert.serving.client import Client

    items = _texts(texts)
    predictor: Predictor
    if url is not None:
        predictor = Client(url)
    else:
        settings = config.resolve(ServeSettings, runtime=runtime, review_below=review_below)
        predictor = models.load(
            model, runtime=settings.runtime, review_below=settings.review_below, tracking_uri=tracking_uri
        )
    predictions = predict_items(predictor, items)
    _render(screen, predictor.name, items, predictions)  # a server has told its name only now


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
) -> None:
    from newsbert.api import models
    from newsbert.inference.batch import object_store, paths, resume
    from newsbert.inference.batch.predict_file import predict_file
    from newsbert.inference.model import Model
    from newsbert.serving.client import Client

    with contextlib.ExitStack() as stack:
        here, there = stack.enter_context(
            object_store.staged(file, output, paths.check, lambda said: screen.log(f"{said} …"))
        )
        predictor: Predictor | ray_workers.Workers
        if url is not None:
            predictor = server = Client(url)
            server.predict(["newsbert"])  # it has to answer, and to tell its name, before a long file is read
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
                progress.phase(f"reading {here.name}")
                done = predict_file(
                    predictor,
                    here,
                    there,
                    text_column,
                    pace,
                    model=identity,
                    requests=1 if url is None else REQUESTS,
                    restart=restart,
                    on_note=screen.note,
                    likely_columns=(config.resolve(TrainSettings).text_column, trained_column),
                )
        except (KeyboardInterrupt, NewsbertError):
            kept = resume.kept(there)
            if kept is not None and pace is not None and pace.has_begun:
                screen.note(
                    f"{kept.records} of {kept.total} rows are done and kept; the same command goes on from there"
                )
            raise
    rejected = f"{output}.rejected.jsonl" if done.rejected else None
    if done.skipped:
        screen.note(f"{done.skipped} rows got no answer; {rejected} says why")
    if done.unreadable:
        screen.note(f"{done.unreadable} rows cannot be read and were left out; {rejected} says why")
    if screen.as_json:
        screen.document(
            {
                "model": predictor.name,
                "rows": done.rows,
                "skipped": done.skipped,
                "unreadable": done.unreadable,
                "output": output,
                "rejected": rejected,
            }
        )
    else:
        screen.result(f"{done.rows} rows, answers in the columns {', '.join(done.columns)}: {output}")


class _Pace:
    """Progress of rows, with their number per second and the time that is left.

    Args:
        progress: Where it is shown.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begun: tuple[int, float] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether anything was said."""
        return self._begun is not None

    def __call__(self, done: int, total: int) -> None:
        """Say how many of the rows are done."""
        now = time.monotonic()
        first, begun = self._begun = self._begun or (done, now)
        details = {}
        if done > first:
            rate = (done - first) / (now - begun)
            details = {"per second": f"{rate:.0f}", "left": duration((total - done) / rate)}
        self._progress.update("rows", done, total, details)


def _texts(texts: list[str] | None) -> list[str]:
    """The texts to classify; standard input's lines if there are none or the only one is `-`.

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
    found = [line for line in lines if line]
    if not found:
        raise UsageError("standard input holds no text", 'newsbert predict "Stocks fall as oil rises"')
    return found


def _render(screen: Output, name: str, items: list[str], predictions: "list[Prediction]") -> None:
    if screen.as_json:
        answers = [{"text": text, **each.to_dict()} for text, each in zip(items, predictions, strict=True)]
        screen.document({"model": name, "predictions": answers})
        return
    labels = list(predictions[0].probabilities)
    rows = []
    for text, each in zip(items, predictions, strict=True):
        short = text if len(text) <= 60 else f"{text[:59]}…"
        rows.append(
            [
                short,
                each.label,
                "yes" if each.review else "no",
                *(f"{each.probabilities[label]:.3f}" for label in labels),
            ]
        )
    screen.table(["text", "label", "review", *labels], rows, title=name, words=3)
