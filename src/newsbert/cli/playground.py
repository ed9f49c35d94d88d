"""`newsbert playground`."""

from typing import Annotated

import typer

from newsbert.cli._completion import models
from newsbert.cli._options import Debug, Json, Model, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.core import config
from newsbert.core.installation import MissingExtraError
from newsbert.core.settings import ServeSettings
from newsbert.core.signals import stop_on_signals
from newsbert.errors import UsageError

EXAMPLES = """
Examples:

    newsbert playground

    newsbert playground BertModel/2 --compare-to BertModel/1

    newsbert playground --url http://127.0.0.1:8080 --open
"""


def playground(
    model: Model = None,
    compare_to: Annotated[
        str | None, typer.Option(help="Another model, to be shown beside it.", metavar="MODEL", autocompletion=models)
    ] = None,
    url: Annotated[str | None, typer.Option(help="Ask the server there instead of loading a model here.")] = None,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    review_threshold: Annotated[float | None, setting(ServeSettings, "review_threshold", metavar="SCORE")] = None,
    host: Annotated[str, typer.Option(help="Address the page answers on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port the page answers on; 0 takes a free one.", min=0, max=65_535)] = 7860,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Try one model, or compare two, on a page in the browser.

    The page shows all probabilities, whether a person should review the answer, and what each word adds. Ctrl+C stops
    it.
    """
    screen = Output(as_json)
    for name, value in {"MODEL": model, "--runtime": runtime, "--review-threshold": review_threshold}.items():
        if url is not None and value is not None:
            raise UsageError(f"--url and {name} exclude each other", f"a server has one: leave {name} out")
    try:
        from newsbert.serving.playground import models, server
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in {"starlette", "uvicorn"}:
            raise
        raise MissingExtraError(module, "playground") from error
    from newsbert.core import loopback

    settings = config.resolve(ServeSettings, runtime=runtime, review_threshold=review_threshold)
    stop = stop_on_signals()
    screen.log("loading …")
    shown_models = [models.served(url) if url is not None else models.loaded(model, settings, tracking_uri)]
    if compare_to is not None:
        shown_models.append(models.loaded(compare_to, settings, tracking_uri))

    def on_ready(page: str) -> None:
        if screen.as_json:
            screen.document({"url": page, "models": [shown_model.predictor.name for shown_model in shown_models]})
        else:
            screen.result(page)
        if not loopback.is_loopback(host):
            screen.note(f"whoever reaches {host} can use it: it asks for no password")
        if open_browser:
            import webbrowser

            webbrowser.open(page)

    server.serve(shown_models, host, port, stop, on_ready)
    screen.log("stopped")
