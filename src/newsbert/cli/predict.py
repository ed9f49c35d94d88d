"""`newsbert predict`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli.options import Debug, Json, TrackingUri
from newsbert.cli.output import Output
from newsbert.errors import UsageError

if TYPE_CHECKING:
    from newsbert.model import Prediction

EXAMPLES = """
Examples:

    newsbert predict "Stocks fall as oil rises"

    newsbert predict --model BertModel/2 --file in.csv --output out.csv

    newsbert predict --url http://127.0.0.1:8080 "Cup final ends in a draw"

    head -n 3 headlines.txt | newsbert predict --json
"""


def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to classify.", show_default="lines of standard input")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="BertModel/2, BertModel@champion, a run id or a bundle's directory.",
            show_default="the version registered last",
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Ask the server there instead of loading a model here.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Classify the rows of a csv, tsv, json, jsonl or parquet file.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the rows of --file go, with the answers.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text in --file.", metavar="NAME")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Classify texts: given as arguments, on standard input a line each, or the rows of a file."""
    screen = Output(as_json)
    if url is not None and model is not None:
        raise UsageError("--url and --model exclude each other", "a server has one model: leave --model out")
    if file is not None and texts:
        raise UsageError("texts and --file exclude each other", "give one of them")
    if (file is None) != (output is None):
        raise UsageError("--file and --output go together", "newsbert predict --file in.csv --output out.csv")
    from newsbert import bulk
    from newsbert.client import Client

    if file is not None and output is not None:
        bulk.check(file, output)
    items = [] if file is not None else _texts(texts)
    predictor: bulk.Predictor
    if url is not None:
        predictor = Client(url)
    else:
        from newsbert import api

        predictor = api.load(model, tracking_uri=tracking_uri)
    if file is not None and output is not None:
        with screen.progress() as progress:
            done = bulk.predict_file(
                predictor, file, output, text_column, lambda count, total: progress.update("rows", count, total, {})
            )
        if done.skipped:
            screen.note(f"{done.skipped} rows without text got no answer")
        if screen.as_json:
            screen.document(
                {"model": predictor.name, "rows": done.rows, "skipped": done.skipped, "output": str(output)}
            )
        else:
            screen.result(f"{done.rows} rows, answers in the columns {', '.join(done.columns)}: {output}")
        return
    predictions = bulk.predict_items(predictor, items)
    _render(screen, predictor.name, items, predictions)  # a server has told its name only now


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
            "standard input is not valid UTF-8", "iconv -f latin1 -t utf-8 FILE | newsbert predict"
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
        rows.append([short, each.label, *(f"{each.probabilities[label]:.3f}" for label in labels)])
    screen.table(["text", "label", *labels], rows, title=name, words=2)
