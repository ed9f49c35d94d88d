"""`newsbert serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newsbert.cli import kubernetes
from newsbert.cli._completion import models
from newsbert.cli._framework import Commands
from newsbert.cli._options import Debug, Json, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.cli._signals import stop_on_signals
from newsbert.core import config
from newsbert.core.settings import ImageSettings, ServeSettings
from newsbert.errors import NewsbertError, UsageError

if TYPE_CHECKING:
    from newsbert.deployment.local_servers import Detached
    from newsbert.serving.torchserve.endpoints import Address
    from newsbert.serving.torchserve.log_events import Problem
    from newsbert.serving.torchserve.supervisor import Server

LOCAL_EXAMPLES = """
Examples:

    newsbert serve locally

    newsbert serve locally BertModel@champion --port 0

    newsbert serve locally bundles/my-model --detach

    newsbert serve locally --review-below 0.9

    newsbert serve locally --token-auth

    newsbert serve locally --metrics-port 8082 --log-format json
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
DASHBOARD_EXAMPLES = """
Examples:

    newsbert serve dashboard > newsbert.json
"""
OPENAPI_EXAMPLES = """
Examples:

    newsbert serve openapi > openapi.json
"""
TOKEN_EXAMPLES = """
Examples:

    export NEWSBERT_TOKEN=$(newsbert serve token)

    newsbert serve token --renew --port 8080

    docker exec CONTAINER newsbert serve token
"""  # noqa: S105 - no password

_STOP_MARGIN_S = 10

app = Commands(help="Serve a model over HTTP.", invoke_without_command=True)

Host = Annotated[str | None, setting(ServeSettings, "host")]
Port = Annotated[int | None, setting(ServeSettings, "port")]
ReviewBelow = Annotated[float | None, setting(ServeSettings, "review_below", metavar="SCORE")]
Timeout = Annotated[float | None, setting(ServeSettings, "timeout_s", "--timeout", metavar="SECONDS")]
Drain = Annotated[float | None, setting(ServeSettings, "drain_s", "--drain", metavar="SECONDS")]
GrpcPort = Annotated[int | None, setting(ServeSettings, "grpc_port")]
MetricsPort = Annotated[int | None, setting(ServeSettings, "metrics_port")]
LogFormat = Annotated[str | None, setting(ServeSettings, "log_format", metavar="text|json")]
CorsOrigin = Annotated[str | None, setting(ServeSettings, "cors_origin", metavar="ORIGIN")]
TokenAuth = Annotated[bool | None, setting(ServeSettings, "token_auth", "--token-auth/--no-token-auth")]
TokenExpiry = Annotated[float | None, setting(ServeSettings, "token_expiry_min", "--token-expiry", metavar="MINUTES")]
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
            autocompletion=models,
        ),
    ] = None,
    host: Host = None,
    port: Port = None,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    review_below: ReviewBelow = None,
    workers: Annotated[int | None, setting(ServeSettings, "workers")] = None,
    batch_size: Annotated[int | None, setting(ServeSettings, "batch_size")] = None,
    batch_delay_ms: Annotated[int | None, setting(ServeSettings, "batch_delay_ms")] = None,
    queue_size: Annotated[int | None, setting(ServeSettings, "queue_size")] = None,
    timeout: Timeout = None,
    drain: Drain = None,
    grpc_port: GrpcPort = None,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
    cors_origin: CorsOrigin = None,
    token_auth: TokenAuth = None,
    token_expiry: TokenExpiry = None,
    run_dir: Annotated[str | None, setting(ServeSettings, "run_dir", metavar="DIRECTORY")] = None,
    detach: Detach = False,
    note_detached: Annotated[bool, typer.Option(hidden=True)] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a model with TorchServe on this machine until Ctrl+C.

    It answers on loopback unless told otherwise; the management interface is never reachable from outside. When it is
    stopped, it answers what it has been asked first; a second Ctrl+C does not wait for that.
    """
    screen = Output(as_json)
    settings = config.resolve(
        ServeSettings,
        host=host,
        port=port,
        runtime=runtime,
        review_below=review_below,
        workers=workers,
        batch_size=batch_size,
        batch_delay_ms=batch_delay_ms,
        queue_size=queue_size,
        timeout_s=timeout,
        drain_s=drain,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        log_format=log_format,
        cors_origin=cors_origin,
        token_auth=token_auth,
        token_expiry_min=token_expiry,
        run_dir=run_dir,
    )
    screen.log_format = settings.log_format
    of_archives = {
        "--runtime": runtime,
        "--workers": workers,
        "--batch-size": batch_size,
        "--batch-delay-ms": batch_delay_ms,
        "--queue-size": queue_size,
    }
    given = [name for name, value in of_archives.items() if value is not None]
    if given and model is not None and model.endswith(".mar"):
        raise UsageError(
            f"{' and '.join(given)} cannot be given for {model!r}: the archive says what they are",
            "give the model itself, or write another archive: newsbert archive --help",
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
            ("--review-below", review_below),
            ("--workers", workers),
            ("--batch-size", batch_size),
            ("--batch-delay-ms", batch_delay_ms),
            ("--queue-size", queue_size),
            ("--timeout", timeout),
            ("--drain", drain),
            ("--grpc-port", grpc_port),
            ("--metrics-port", metrics_port),
            ("--log-format", log_format),
            ("--cors-origin", cors_origin),
            ("--token-expiry", token_expiry),
            ("--run-dir", run_dir),
            ("--tracking-uri", tracking_uri),
        ):
            arguments += [] if value is None else [flag, str(value)]
        with ports.bind_port(settings.host, settings.port) as held:  # until the server has it
            chosen = int(held.getsockname()[1])
            arguments += ["--port", str(chosen)]
            _render_detached(screen, local_servers.start_detached(arguments, chosen, settings.timeout_s + 30))
        return

    port_noted: list[int] = []

    def on_ready(name: str, server: "Server") -> None:
        address = server.address
        if note_detached:
            stop_s = settings.drain_s + _STOP_MARGIN_S
            local_servers.note(
                local_servers.this_process(
                    address.port, address.url, name, server.key_file, stop_s, address.metrics_url or ""
                )
            )
            port_noted.append(address.port)
        if server.signed_by:
            screen.log(f"{name} is signed by {server.signed_by}")
        _render_ready(screen, name, address, server.key_file, settings.grpc_port is not None)

    def on_problem(problem: "Problem") -> None:
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
        for noted in port_noted:
            local_servers.forget(noted)
    screen.log("stopped")


@app.command("container", epilog=CONTAINER_EXAMPLES)
def container(
    model: Annotated[
        str | None,
        typer.Argument(
            help="BertModel/2 or an image.", show_default="the version registered last", autocompletion=models
        ),
    ] = None,
    host: Host = None,
    port: Port = None,
    repository: Annotated[str | None, setting(ImageSettings, "repository", metavar="PREFIX")] = None,
    review_below: ReviewBelow = None,
    timeout: Timeout = None,
    drain: Drain = None,
    grpc_port: GrpcPort = None,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
    cors_origin: CorsOrigin = None,
    token_auth: TokenAuth = None,
    token_expiry: TokenExpiry = None,
    detach: Detach = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a model's image in a container until Ctrl+C.

    The container's root file system is read-only and it has no privilege; it can write to /tmp, which is in memory.
    """
    screen = Output(as_json)
    settings = config.resolve(
        ServeSettings,
        host=host,
        port=port,
        review_below=review_below,
        timeout_s=timeout,
        drain_s=drain,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        log_format=log_format,
        cors_origin=cors_origin,
        token_auth=token_auth,
        token_expiry_min=token_expiry,
    )
    images = config.resolve(ImageSettings, repository=repository)
    from newsbert.deployment import local_servers
    from newsbert.images.run import image_of, serving, stop_timeout_s

    image = image_of(model, images, tracking_uri)
    stop = stop_on_signals()
    screen.log(f"starting {image} …")
    with serving(image, settings, stop, screen.log, keep=detach) as running:
        if running is None:
            screen.log("stopped")
            return
        if settings.token_auth:
            screen.note(f"docker exec {running.id[:12]} newsbert serve token  prints the token")
        if detach:
            stop_s = stop_timeout_s(settings)
            server = local_servers.Detached(
                running.address.port,
                running.address.url,
                image,
                container=running.id,
                stop_s=stop_s,
                metrics=running.address.metrics_url or "",
            )
            local_servers.note(server)
            _render_detached(screen, server)
            return
        _render_ready(screen, image, running.address, None, settings.grpc_port is not None)
        while not stop.wait(0.5):
            running.check()
    screen.log("stopped")


app.command("kubernetes", epilog=kubernetes.EXAMPLES)(kubernetes.kubernetes)


@app.command("dashboard", epilog=DASHBOARD_EXAMPLES)
def dashboard(as_json: Json = False, debug: Debug = False) -> None:
    """Print a Grafana dashboard of a server's metrics, to import there; it is JSON with or without --json."""
    from importlib import resources

    Output(as_json).result(
        (resources.files("newsbert") / "serving/assets/grafana.json").read_text(encoding="utf-8").rstrip()
    )


@app.command("openapi", epilog=OPENAPI_EXAMPLES)
def openapi(as_json: Json = False, debug: Debug = False) -> None:
    """Print the OpenAPI description of a served model: requests, answers, limits; JSON with or without --json."""
    from importlib import resources

    Output(as_json).result(
        (resources.files("newsbert") / "serving/assets/openapi.json").read_text(encoding="utf-8").rstrip()
    )


@app.command("token", epilog=TOKEN_EXAMPLES)
def token(
    renew: Annotated[bool, typer.Option("--renew", help="Make a new one; the one before is no longer taken.")] = False,
    port: Annotated[int | None, typer.Option(help="Of the detached server on this port.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Of the server whose key file this is.", show_default="NEWSBERT_KEY_FILE")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the token that a server with --token-auth is asked with."""
    screen = Output(as_json)
    if port is not None and key_file is not None:
        raise UsageError("--port and --key-file exclude each other", "give one of them")
    from newsbert.deployment import local_servers
    from newsbert.serving import auth

    file = key_file or (
        local_servers.key_file(port) if port is not None else auth.configured() or local_servers.key_file(None)
    )
    keys = auth.read(file)
    if renew or keys.expired:
        keys = auth.renew(file)
    if screen.as_json:
        screen.document({"token": keys.inference, "expires": keys.expires.isoformat(), "key_file": str(file)})
        return
    screen.result(keys.inference)


@app.command("stop", epilog=STOP_EXAMPLES)
def stop_detached(
    port: Annotated[int | None, typer.Option(help="The server on this port.", show_default="all")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Stop servers that were started with --detach."""
    screen = Output(as_json)
    from newsbert.deployment import local_servers

    stopped: list[dict[str, str]] = []

    def on_stopped(server: "Detached") -> None:
        stopped.append({"url": server.url, "model": server.model})
        if not screen.as_json:
            screen.result(f"stopped {server.model} on {server.url}")

    local_servers.stop(port, on_stopped)
    if screen.as_json:
        screen.document({"stopped": stopped})


def _render_ready(screen: Output, name: str, address: "Address", key_file: Path | None, grpc: bool) -> None:
    grpc_address = f"{address.grpc_host}:{address.grpc_port}" if grpc else None
    said: dict[str, Any] = {
        "model": name,
        "url": address.url,
        "predictions": address.predictions_url,
        "grpc": grpc_address,
        "metrics": address.metrics_url,
        "key_file": None if key_file is None else str(key_file),
    }
    if screen.as_json:
        screen.document(said)
        return
    if screen.log_format == "json":
        screen.event("ready", f"{name} is ready on {address.url}", **said)
        return
    screen.result(f"{name} is ready on {address.url}")
    if grpc_address:
        screen.result(f"  gRPC on {grpc_address}")
    if address.metrics_url:
        screen.result(f"  metrics on {address.metrics_url}")
    bearer = ""
    if key_file is not None:
        screen.result(f"  tokens in {key_file}")
        bearer = f' -H "Authorization: Bearer $(newsbert serve token --key-file {key_file})"'
    screen.result(f"  curl {address.predictions_url} -d 'data=Stocks fall as oil rises'{bearer}")
    screen.log("Ctrl+C stops it")


def _render_detached(screen: Output, server: "Detached") -> None:
    key_file = server.key_file or None
    if screen.as_json:
        said = {"model": server.model, "url": server.url, "port": server.port}
        screen.document({**said, "metrics": server.metrics or None, "key_file": key_file})
        return
    screen.result(f"{server.model} is ready on {server.url}")
    if server.metrics:
        screen.result(f"  metrics on {server.metrics}")
    if key_file:
        screen.result(f"  tokens in {key_file}")
        screen.next_command(f"export NEWSBERT_KEY_FILE={key_file}")
    screen.next_command(f"newsbert predict --url {server.url} 'Stocks fall as oil rises'")
    screen.next_command(f"newsbert serve stop --port {server.port}")
