"""Options of a worker of the native server, which its supervisor writes to a file."""

from dataclasses import dataclass
from pathlib import Path

from newsbert.bundle.bundle import Bundle
from newsbert.core import cpu
from newsbert.core.settings import ServeSettings
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving.endpoints import Endpoints


@dataclass(frozen=True)
class WorkerOptions:
    """Options of a worker: its model and its limits. All paths are absolute.

    Attributes:
        bundle: Directory of the model's files.
        digest: SHA-256 of the model's contract.
        name: The model's name in answers.
        runtime: Name of the runtime.
        threads: Number of cores.
        review_threshold: Threshold for reviews, if not the model's.
        cascade: Whether the companion answers texts alone; see `resolve_cascade`.
        metrics_dir: The server's directory of metrics.
        queue_size: Maximum number of waiting requests.
        drain_s: Seconds to answer what was sent when it stops.
        unresponsive_timeout_s: Seconds without a result after which the worker ends.
        cors_origin: Origin whose pages may send requests.
        token_file: File of the valid tokens.
        grpc_address: `HOST:PORT` of gRPC; without it there is no gRPC.
        tls_cert: Certificate chain for HTTPS and gRPC.
        tls_key: Its private key.
        max_connections: See `ConnectionLimits`; the following, too.
    """

    bundle: str
    digest: str
    name: str
    runtime: str
    threads: int
    review_threshold: float | None
    cascade: str
    metrics_dir: str
    queue_size: int
    drain_s: float
    unresponsive_timeout_s: float
    cors_origin: str | None
    token_file: str | None
    grpc_address: str | None
    tls_cert: str | None
    tls_key: str | None
    max_connections: int
    header_timeout_s: float
    body_timeout_s: float
    keep_alive_s: float

    @classmethod
    def make(
        cls, bundle: Bundle, name: str, settings: ServeSettings, address: Endpoints, metrics_dir: Path
    ) -> "WorkerOptions":
        """Return the options of every worker of a server.

        Raises:
            UsageError: If there is no such runtime.
            ModelError: If the bundle has no graph for it.
        """

        def resolve(file: str | None) -> str | None:
            return None if file is None else str(Path(file).absolute())

        return cls(
            bundle=str(bundle.path.absolute()),
            digest=bundle.digest,
            name=name,
            runtime=resolve_runtime(bundle, settings.runtime),
            threads=max(1, cpu.cores() // settings.workers),
            metrics_dir=str(metrics_dir.absolute()),
            grpc_address=f"{address.grpc_host}:{address.grpc_port}" if settings.grpc_port is not None else None,
            token_file=resolve(settings.token_file),
            tls_cert=resolve(settings.tls_cert),
            tls_key=resolve(settings.tls_key),
            **{field: getattr(settings, field) for field in _SAME_AS_SETTINGS},
        )


_SAME_AS_SETTINGS = (
    "review_threshold", "cascade", "queue_size", "drain_s", "unresponsive_timeout_s", "cors_origin", "max_connections",
    "header_timeout_s", "body_timeout_s", "keep_alive_s",
)  # fmt: skip
