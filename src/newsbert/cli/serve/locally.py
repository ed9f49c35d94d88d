"""`newsbert serve locally`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._completion import models
from newsbert.cli._options import Debug, Json, Server, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.cli.serve._options import (
    Cascade,
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
    TlsCert,
    TlsKey,
    TokenAuth,
    TokenExpiry,
    TokenFile,
)
from newsbert.cli.serve._ready import render_detached, render_ready
from newsbert.core import config
from newsbert.core.settings import ServeSettings
from newsbert.core.signals import stop_on_signals
from newsbert.errors import NewsbertError, UsageError

if TYPE_CHECKING:
    from newsbert.serving.server_events import ServerEvent


EXAMPLES = """
Examples:

    newsbert serve locally

    newsbert serve locally BertModel@champion --port 0

    newsbert serve locally bundles/my-model --detach

    newsbert serve locally --review-threshold 0.9

    newsbert serve locally --token-auth

    newsbert serve locally --server native

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
    server: Server = None,
    host: Host = None,
    port: Port = None,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    review_threshold: ReviewBelow = None,
    cascade: Cascade = None,
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
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    max_connections: Annotated[int | None, setting(ServeSettings, "max_connections")] = None,
    header_timeout_s: Annotated[float | None, setting(ServeSettings, "header_timeout_s", metavar="SECONDS")] = None,
    body_timeout_s: Annotated[float | None, setting(ServeSettings, "body_timeout_s", metavar="SECONDS")] = None,
    keep_alive_s: Annotated[float | None, setting(ServeSettings, "keep_alive_s", metavar="SECONDS")] = None,
    name: Annotated[str | None, setting(ServeSettings, "name", metavar="NAME")] = None,
    run_dir: Annotated[str | None, setting(ServeSettings, "run_dir", metavar="DIRECTORY")] = None,
    detach: Detach = False,
    note_detached: Annotated[bool, typer.Option(hidden=True)] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a model on this machine until Ctrl+C.

    The server is TorchServe, or the native one. By default it answers on loopback. The management interface is never
    reachable from outside. When it is stopped, it answers the requests that it has received; a second Ctrl+C does not
    wait for that.
    """
    screen = Output(as_json)
    options: dict[str, object] = {
        "server": server,
        "host": host,
        "port": port,
        "runtime": runtime,
        "review_threshold": review_threshold,
        "cascade": cascade,
        "workers": workers,
        "batch_size": batch_size,
        "batch_delay_ms": batch_delay_ms,
        "queue_size": queue_size,
        "timeout_s": timeout_s,
        "drain_s": drain_s,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "log_format": log_format,
        "cors_origin": cors_origin,
        "token_auth": token_auth,
        "token_expiry_min": token_expiry_min,
        "token_file": token_file,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "max_connections": max_connections,
        "header_timeout_s": header_timeout_s,
        "body_timeout_s": body_timeout_s,
        "keep_alive_s": keep_alive_s,
        "name": name,
        "run_dir": run_dir,
    }
    settings = config.resolve(ServeSettings, **options)
    screen.log_format = settings.log_format
    _check_archive_options(model, options)
    from newsbert.core import bounded_log
    from newsbert.deployment import local_servers
    from newsbert.serving import local

    local.check_settings(settings)
    if detach:
        from newsbert.core import ports

        arguments = ["serve", "locally", *([model] if model else []), "--note-detached"]
        for key, value in {**options, "tracking_uri": tracking_uri}.items():
            if isinstance(value, bool):
                arguments.append(_name_option(key if value else f"no_{key}"))
            elif value is not None and key != "port":
                arguments += [_name_option(key), str(value)]
        with ports.bind_port(settings.host, settings.port) as listener:  # reserved until the server binds it
            bound_port = int(listener.getsockname()[1])
            arguments += ["--port", str(bound_port)]
            render_detached(screen, local_servers.start_detached(arguments, bound_port, settings.timeout_s + 30))
        return

    noted_ports: list[int] = []

    def on_ready(model_name: str, running: "local.Server") -> None:
        address = running.address
        if note_detached:
            stop_s = settings.drain_s + _STOP_MARGIN_S
            local_servers.note(
                local_servers.this_process(
                    address.port, address.url, model_name, running.key_file, stop_s, address.metrics_url or ""
                )
            )
            noted_ports.append(address.port)
        if running.signed_by:
            screen.log(f"{model_name} is signed by {running.signed_by}")
        render_ready(screen, model_name, address, running.key_file, settings.grpc_port is not None)

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


def _check_archive_options(model: str | None, options: Mapping[str, object]) -> None:
    """Check that no option is given that an archive has set.

    Raises:
        UsageError: If one is.
    """
    archive_names = ("name", "runtime", "workers", "batch_size", "batch_delay_ms", "queue_size")
    conflicts = [_name_option(name) for name in archive_names if options[name] is not None]
    if conflicts and model is not None and model.endswith(".mar"):
        raise UsageError(
            f"{' and '.join(conflicts)} cannot be given for {model!r}: the archive says what they are",
            "give the model itself, or write another archive: newsbert export archive --help",
        )


def _name_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
