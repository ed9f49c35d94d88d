"""`newsbert explain`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from newsbert.cli._options import Debug, Json, ModelOption, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.core import config
from newsbert.core.settings import ServeSettings
from newsbert.core.terminal import show_controls
from newsbert.errors import UsageError

if TYPE_CHECKING:
    from newsbert.inference.explanation import Explanation
    from newsbert.inference.model import Model

EXAMPLES = """
Examples:

    newsbert explain "Stocks fall as oil rises"

    newsbert explain --label Business "Striker sold for a record fee"

    newsbert explain --url http://127.0.0.1:8080 "Cup final ends in a draw"
"""

MAX_WORDS = 10
"""Rows of the table: the words with the largest absolute attributions."""


def explain(
    text: Annotated[str, typer.Argument(help="The text to classify.")],
    label: Annotated[
        str | None, typer.Option(help="Label to explain.", show_default="the predicted one", metavar="LABEL")
    ] = None,
    model: ModelOption = None,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    url: Annotated[str | None, typer.Option(help="Ask the server there instead of loading a model here.")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show how much each word adds to a prediction.

    The sum of all words is the label's probability minus its probability for an empty text.
    """
    from newsbert.api import models
    from newsbert.serving.client import Client

    screen = Output(as_json)
    for name, value in {"--model": model, "--runtime": runtime}.items():
        if url is not None and value is not None:
            raise UsageError(f"--url and {name} exclude each other", f"a server has one: leave {name} out")
    predictor: Client | Model
    if url is not None:
        predictor = Client(url)
    else:
        settings = config.resolve(ServeSettings, runtime=runtime)
        predictor = models.load(
            model,
            runtime=settings.runtime,
            review_threshold=settings.review_threshold,
            cascade=settings.cascade,
            tracking_uri=tracking_uri,
        )
    try:
        (explanation,) = predictor.explain([text], label=label)
    except ValueError as error:  # for an invalid text or label
        raise UsageError(str(error), 'newsbert explain --label LABEL "Stocks fall as oil rises"') from error
    if screen.as_json:
        screen.document({"model": predictor.name, **explanation.to_dict()})
    else:
        _render(screen, predictor.name, explanation)


def _render(screen: Output, name: str, explained: "Explanation") -> None:
    console = screen.console()
    prediction = explained.prediction
    review = ", flagged for review" if prediction.review else ""
    console.print(Text(show_controls(f"{prediction.label} {prediction.score:.3f}{review}  ({name})"), style="bold"))
    min_attribution = max((abs(word.attribution) for word in explained.words), default=0.0) / 10
    highlighted, end = Text(), 0
    for word in explained.words:
        style = (
            ""
            if abs(word.attribution) < min_attribution
            else "black on green"
            if word.attribution > 0
            else "white on red"
        )
        highlighted.append(show_controls(explained.text[end : word.start]))
        highlighted.append(show_controls(word.text), style)
        end = word.end
    highlighted.append(show_controls(explained.text[end:]), "dim")
    console.print(highlighted)
    top_words = sorted(explained.words, key=lambda word: -abs(word.attribution))[:MAX_WORDS]
    probability = prediction.probabilities[explained.label]
    screen.table(
        ["word", f"adds to {explained.label}, {probability:.3f}"],
        [[word.text, f"{word.attribution:+.3f}"] for word in top_words],
        title=f"by {explained.method}",
    )
