"""`newsbert serve container`."""

from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._completion import models
from newsbert.cli._options import Debug, ImageServer, Json, TrackingUri, setting
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
    TokenAuth,
    TokenExpiry,
)
from newsbert.cli.serve._ready import render_detached, render_ready
from newsbert.core import config
from newsbert.core.settings import ImageSettings, ServeSettings
from newsbert.core.signals import stop_on_signals

if TYPE_CHECKING:
    pass


EXAMPLES = """
Examples:

    newsbert serve container BertModel/2

    newsbert serve container BertModel/2 --port 9000 --detach
"""


def container(
    model: Annotated[
        str | None,
        typer.Argument(
            help="BertModel/2 or an image.", show_default="the version registered last", autocompletion=models
        ),
    ] = None,
    host: Host = None,
    port: Port = None,
    server: ImageServer = None,
    repository: Annotated[str | None, setting(ImageSettings, "repository", metavar="PREFIX")] = None,
    review_threshold: ReviewBelow = None,
    cascade: Cascade = None,
    timeout_s: Timeout = None,
    drain_s: Drain = None,
    grpc_port: GrpcPort = None,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
    cors_origin: CorsOrigin = None,
    token_auth: TokenAuth = None,
    token_expiry_min: TokenExpiry = None,
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
        review_threshold=review_threshold,
        cascade=cascade,
        timeout_s=timeout_s,
        drain_s=drain_s,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        log_format=log_format,
        cors_origin=cors_origin,
        token_auth=token_auth,
        token_expiry_min=token_expiry_min,
    )
    images = config.resolve(ImageSettings, server=server, repository=repository)
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
            detached = local_servers.DetachedServer(
                running.address.port,
                running.address.url,
                image,
                container=running.id,
                stop_s=stop_s,
                metrics=running.address.metrics_url or "",
            )
            local_servers.note(detached)
            render_detached(screen, detached)
            return
        render_ready(screen, image, running.address, None, settings.grpc_port is not None)
        while not stop.wait(0.5):
            running.check()
    screen.log("stopped")
