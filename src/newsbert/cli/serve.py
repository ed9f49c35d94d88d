"""`newsbert serve`."""

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert import config
from newsbert.cli.options import Debug, Json, TrackingUri, setting
from newsbert.cli.output import Output
from newsbert.config import ServeSettings

if TYPE_CHECKING:
    from newsbert.torchserve import Address

LOCAL_EXAMPLES = """
Examples:

    newsbert serve locally

    newsbert serve locally BertModel@champion --port 0

    newsbert serve locally bundles/my-model --detach
"""
CONTAINER_EXAMPLES = """
Examples:

    newsbert serve container BertModel/2

    newsbert serve container BertModel/2 --port 9000 --detach
"""
STOP_EXAMPLES = """
Examples:

    newsbert serve stop

    newsbert serve stop --port 8080
"""

app = typer.Typer(help="Serve a model over HTTP.", invoke_without_command=True)

Host = Annotated[str | None, setting(ServeSettings, "host")]
Port = Annotated[int | None, setting(ServeSettings, "port")]
Timeout = Annotated[float | None, setting(ServeSettings, "timeout_s", "--timeout", metavar="SECONDS")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return when the model answers; serve in the background.")]


@app.callback()
def _serve(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        Output().help(context)


@app.command("locally", epilog=LOCAL_EXAMPLES)
def locally(
    model: Annotated[
        str | None,
        typer.Argument(
            help="BertModel/2, BertModel@champion, a bundle's directory, a run id or a .mar file.",
            show_default="the version registered last",
        ),
    ] = None,
    host: Host = None,
    port: Port = None,
    workers: Annotated[int | None, setting(ServeSettings, "workers")] = None,
    batch_size: Annotated[int | None, setting(ServeSettings, "batch_size")] = None,
    batch_delay_ms: Annotated[int | None, setting(ServeSettings, "batch_delay_ms")] = None,
    timeout: Timeout = None,
    detach: Detach = False,
    note_detached: Annotated[bool, typer.Option(hidden=True)] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a model with TorchServe on this machine until Ctrl+C.

    It answers on loopback unless told otherwise; the management interface is never reachable from outside.
    """
    screen = Output(as_json)
    settings = config.resolve(
        ServeSettings,
        host=host,
        port=port,
        workers=workers,
        batch_size=batch_size,
        batch_delay_ms=batch_delay_ms,
        timeout_s=timeout,
    )
    from newsbert import servers, serving

    if detach:
        from newsbert import torchserve

        chosen = torchserve.claim_port(settings.host, settings.port)
        arguments = ["serve", "locally", *([model] if model else []), "--note-detached", "--port", str(chosen)]
        for flag, value in (
            ("--host", host),
            ("--workers", workers),
            ("--batch-size", batch_size),
            ("--batch-delay-ms", batch_delay_ms),
            ("--timeout", timeout),
            ("--tracking-uri", tracking_uri),
        ):
            arguments += [] if value is None else [flag, str(value)]
        server = servers.start_detached(arguments, chosen, settings.timeout_s + 30)
        _render_detached(screen, server)
        return

    port_noted: list[int] = []

    def on_ready(name: str, address: "Address") -> None:
        if note_detached:
            servers.note(servers.Detached(address.port, address.url, name, pid=_pid()))
            port_noted.append(address.port)
        _render_ready(screen, name, address)

    stop = _stop_on_signals()
    screen.log("starting …")
    try:
        serving.serve_locally(
            model,
            settings,
            tracking_uri=tracking_uri,
            stop=stop,
            on_ready=on_ready,
            on_log=lambda line: screen.log(line) if debug or _is_problem(line) else None,
        )
    finally:
        for noted in port_noted:
            servers.forget(noted)
    screen.log("stopped")


@app.command("container", epilog=CONTAINER_EXAMPLES)
def container(
    model: Annotated[
        str | None, typer.Argument(help="BertModel/2 or an image.", show_default="the version registered last")
    ] = None,
    host: Host = None,
    port: Port = None,
    repository: Annotated[str | None, setting(config.ImageSettings, "repository", metavar="PREFIX")] = None,
    timeout: Timeout = None,
    detach: Detach = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a model's image in a container until Ctrl+C."""
    screen = Output(as_json)
    settings = config.resolve(ServeSettings, host=host, port=port, timeout_s=timeout)
    images = config.resolve(config.ImageSettings, repository=repository)
    from newsbert import containers, servers

    image = containers.image_of(model, images, tracking_uri)
    stop = _stop_on_signals()
    screen.log(f"starting {image} …")
    with containers.serving(image, settings, stop, screen.log, keep=detach) as running:
        if running is None:
            screen.log("stopped")
            return
        if detach:
            server = servers.Detached(running.address.port, running.address.url, image, container=running.id)
            servers.note(server)
            _render_detached(screen, server)
            return
        _render_ready(screen, image, running.address)
        while not stop.wait(0.5):
            running.check()
    screen.log("stopped")


@app.command("stop", epilog=STOP_EXAMPLES)
def stop_detached(
    port: Annotated[int | None, typer.Option(help="The server on this port.", show_default="all")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Stop servers that were started with --detach."""
    screen = Output(as_json)
    from newsbert import servers

    stopped = servers.stop(port)
    if screen.as_json:
        screen.document({"stopped": [{"url": server.url, "model": server.model} for server in stopped]})
        return
    for server in stopped:
        screen.result(f"stopped {server.model} on {server.url}")


def _stop_on_signals() -> threading.Event:
    """An event that Ctrl+C and SIGTERM set."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


def _pid() -> int:
    import os

    return os.getpid()


def _is_problem(line: str) -> bool:
    """Tell the lines that an operator wants to see from TorchServe's talk of how it starts."""
    return any(word in line for word in (" WARN ", " ERROR ", " FATAL ", "Error", "Exception", "Traceback", "  File "))


def _render_ready(screen: Output, name: str, address: "Address") -> None:
    if screen.as_json:
        screen.document({"model": name, "url": address.url, "predictions": address.predictions_url})
        return
    screen.result(f"{name} is ready on {address.url}")
    screen.result(f"  curl {address.predictions_url} -d 'data=Stocks fall as oil rises'")
    screen.log("Ctrl+C stops it")


def _render_detached(screen: Output, server: "object") -> None:
    from newsbert.servers import Detached

    assert isinstance(server, Detached)
    if screen.as_json:
        screen.document({"model": server.model, "url": server.url, "port": server.port})
        return
    screen.result(f"{server.model} is ready on {server.url}")
    screen.next_command(f"newsbert predict --url {server.url} 'Stocks fall as oil rises'")
    screen.next_command(f"newsbert serve stop --port {server.port}")
