"""`newsbert serve locally`."""

from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._completion import models
from newsbert.cli._options import Debug, Json, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.cli._signals import stop_on_signals
from newsbert.cli.serve._options import (
    CorsOrigin,
    Detach,
    Drain,
    GrpcPort,
    Host,
    LogFormat,
    MetricsPort,
    Port,
    ReviewBelow,
    Timeout,
    TokenAuth,
    TokenExpiry,
)
from newsbert.cli.serve._ready import render_detached, render_ready
from newsbert.core import config
from newsbert.core.settings import ServeSettings
from newsbert.errors import NewsbertError, UsageError

if TYPE_CHECKING:
    from newsbert.serving.server_events import ServerEvent
    from newsbert.serving.torchserve.process import Server


EXAMPLES = """
Examples:

    newsbert serve locally

    newsbert serve locally BertModel@champion --port 0

    newsbert serve locally bundles/my-model --detach

    newsbert serve locally --review-threshold 0.9

    newsbert serve locally --token-auth

    newsbert serve locally --metrics-port 8082 --log-format json
"""


_STOP_MARGIN_S = 10


def locally(
    model: Annotated[
        str | None,
        typer.Argument(
            help="BertModel/2, BertModel@champion, a bundle's directory, a run id or a .mar file.",
            show_default="the version registered last",
            autocompletion=models,
        ),
    ] = None,
    host: Host = None,
    port: Port = None,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    review_threshold: ReviewBelow = None,
    workers: Annotated[int | None, setting(ServeSettings, "workers")] = None,
    batch_size: Annotated[int | None, setting(ServeSettings, "batch_size")] = None,
    batch_delay_ms: Annotated[int | None, setting(ServeSettings, "batch_delay_ms")] = None,
    queue_size: Annotated[int | None, setting(ServeSettings, "queue_size")] = None,
    timeout_s: Timeout = None,
    drain_s: Drain = None,
    grpc_port: GrpcPort = None,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
    cors_origin: CorsOrigin = None,
    token_auth: TokenAuth = None,
    token_expiry_min: TokenExpiry = None,
    run_dir: Annotated[str | None, setting(ServeSettings, "run_dir", metavar="DIRECTORY")] = None,
    detach: Detach = False,
    note_detached: Annotated[bool, typer.Option(hidden=True)] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a model with TorchServe on this machine until Ctrl+C.

    By default it answers on loopback. The management interface is never reachable from outside. When it is stopped, it
    answers the requests that it has received; a second Ctrl+C does not wait for that.
    """
    screen = Output(as_json)
    settings = config.resolve(
        ServeSettings,
        host=host,
        port=port,
        runtime=runtime,
        review_threshold=review_threshold,
        workers=workers,
        batch_size=batch_size,
        batch_delay_ms=batch_delay_ms,
        queue_size=queue_size,
        timeout_s=timeout_s,
        drain_s=drain_s,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        log_format=log_format,
        cors_origin=cors_origin,
        token_auth=token_auth,
        token_expiry_min=token_expiry_min,
        run_dir=run_dir,
    )
    screen.log_format = settings.log_format
    archive_options = {
        "--runtime": runtime,
        "--workers": workers,
        "--batch-size": batch_size,
        "--batch-delay-ms": batch_delay_ms,
        "--queue-size": queue_size,
    }
    conflicts = [name for name, value in archive_options.items() if value is not None]
    if conflicts and model is not None and model.endswith(".mar"):
        raise UsageError(
            f"{' and '.join(conflicts)} cannot be given for {model!r}: the archive says what they are",
            "give the model itself, or write another archive: newsbert export archive --help",
        )
    from newsbert.core import bounded_log
    from newsbert.deployment import local_servers
    from newsbert.serving import local

    if detach:
        from newsbert.core import ports

        arguments = ["serve", "locally", *([model] if model else []), "--note-detached"]
        arguments += [] if token_auth is None else ["--token-auth" if token_auth else "--no-token-auth"]
        for flag, value in (
            ("--host", host),
            ("--runtime", runtime),
            ("--review-threshold", review_threshold),
            ("--workers", workers),
            ("--batch-size", batch_size),
            ("--batch-delay-ms", batch_delay_ms),
            ("--queue-size", queue_size),
            ("--timeout-s", timeout_s),
            ("--drain-s", drain_s),
            ("--grpc-port", grpc_port),
            ("--metrics-port", metrics_port),
            ("--log-format", log_format),
            ("--cors-origin", cors_origin),
            ("--token-expiry-min", token_expiry_min),
            ("--run-dir", run_dir),
            ("--tracking-uri", tracking_uri),
        ):
            arguments += [] if value is None else [flag, str(value)]
        with ports.bind_port(settings.host, settings.port) as listener:  # reserved until the server binds it
            bound_port = int(listener.getsockname()[1])
            arguments += ["--port", str(bound_port)]
            render_detached(screen, local_servers.start_detached(arguments, bound_port, settings.timeout_s + 30))
        return

    noted_ports: list[int] = []

    def on_ready(name: str, server: "Server") -> None:
        address = server.address
        if note_detached:
            stop_s = settings.drain_s + _STOP_MARGIN_S
            local_servers.note(
                local_servers.this_process(
                    address.port, address.url, name, server.key_file, stop_s, address.metrics_url or ""
                )
            )
            noted_ports.append(address.port)
        if server.signed_by:
            screen.log(f"{name} is signed by {server.signed_by}")
        render_ready(screen, name, address, server.key_file, settings.grpc_port is not None)

    def on_problem(problem: "ServerEvent") -> None:
        screen.problem(problem)
        if note_detached:
            bounded_log.trim(local_servers.log_file(settings.port))

    stop = stop_on_signals()
    screen.log("starting …")
    try:
        local.serve_locally(
            model,
            settings,
            tracking_uri=tracking_uri,
            stop=stop,
            on_ready=on_ready,
            on_log=lambda text: screen.log(text) if debug else None,
            on_problem=on_problem,
            on_choice=lambda run: screen.note(f"the latest finished run is taken: {run}"),
        )
    except NewsbertError as error:
        if screen.log_format != "json":
            raise
        screen.error(error, debug)
        raise typer.Exit(error.exit_code) from error
    finally:
        for noted_port in noted_ports:
            local_servers.forget(noted_port)
    screen.log("stopped")
