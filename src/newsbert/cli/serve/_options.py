"""Options of several commands of `newsbert serve`."""

from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._options import setting
from newsbert.core.settings import ServeSettings

if TYPE_CHECKING:
    pass


Host = Annotated[str | None, setting(ServeSettings, "host")]


Port = Annotated[int | None, setting(ServeSettings, "port")]


ReviewBelow = Annotated[float | None, setting(ServeSettings, "review_threshold", metavar="SCORE")]


Timeout = Annotated[float | None, setting(ServeSettings, "timeout_s", metavar="SECONDS")]


Drain = Annotated[float | None, setting(ServeSettings, "drain_s", metavar="SECONDS")]


GrpcPort = Annotated[int | None, setting(ServeSettings, "grpc_port")]


MetricsPort = Annotated[int | None, setting(ServeSettings, "metrics_port")]


LogFormat = Annotated[str | None, setting(ServeSettings, "log_format", metavar="text|json")]


CorsOrigin = Annotated[str | None, setting(ServeSettings, "cors_origin", metavar="ORIGIN")]


TokenAuth = Annotated[bool | None, setting(ServeSettings, "token_auth", "--token-auth/--no-token-auth")]


TokenExpiry = Annotated[float | None, setting(ServeSettings, "token_expiry_min", metavar="MINUTES")]


Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return when the model answers; serve in the background.")]
