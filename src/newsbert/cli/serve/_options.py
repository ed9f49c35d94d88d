"""Options of several commands of `newsbert serve`."""

from typing import Annotated

import typer

from newsbert.cli._options import setting
from newsbert.core.settings import ServeSettings

Host = Annotated[str | None, setting(ServeSettings, "host")]


Port = Annotated[int | None, setting(ServeSettings, "port")]


ReviewBelow = Annotated[float | None, setting(ServeSettings, "review_threshold", metavar="SCORE")]


Cascade = Annotated[str | None, setting(ServeSettings, "cascade", metavar="on|off|auto")]


Timeout = Annotated[float | None, setting(ServeSettings, "timeout_s", metavar="SECONDS")]


Drain = Annotated[float | None, setting(ServeSettings, "drain_s", metavar="SECONDS")]


GrpcPort = Annotated[int | None, setting(ServeSettings, "grpc_port")]


MetricsPort = Annotated[int | None, setting(ServeSettings, "metrics_port")]


LogFormat = Annotated[str | None, setting(ServeSettings, "log_format", metavar="text|json")]


CorsOrigin = Annotated[str | None, setting(ServeSettings, "cors_origin", metavar="ORIGIN")]


TokenAuth = Annotated[bool | None, setting(ServeSettings, "token_auth", "--token-auth/--no-token-auth")]


TokenExpiry = Annotated[float | None, setting(ServeSettings, "token_expiry_min", metavar="MINUTES")]


TokenFile = Annotated[str | None, setting(ServeSettings, "token_file", metavar="FILE")]


TlsCert = Annotated[str | None, setting(ServeSettings, "tls_cert", metavar="FILE")]


TlsKey = Annotated[str | None, setting(ServeSettings, "tls_key", metavar="FILE")]


Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return when the model answers; serve in the background.")]
