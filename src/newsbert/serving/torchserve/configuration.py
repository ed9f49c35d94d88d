"""TorchServe's configuration: its properties, its JVM options and its environment."""

import json
import os
import zipfile
from pathlib import Path

from newsbert.core.environment import child_environment, python_path
from newsbert.core.ports import LOOPBACK
from newsbert.core.settings import ServeSettings
from newsbert.serving import auth
from newsbert.serving.archive import CONFIG_NAME
from newsbert.serving.endpoints import Endpoints, check_origin
from newsbert.serving.protocol import SERVED_NAME

MAX_REQUEST_BYTES = 1024 * 1024

_UNREACHABLE = "127.255.255.255"
"""Loopback's broadcast address: a program can listen there, but TCP never connects to one (RFC 1122, 4.2.3.10)."""


_JAVA_OPTIONS = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}
"""Environment variables with further options for Java, which are removed."""

HEAP_OPTIONS = (
    # Large bodies go to the old generation. By default it starts large, and is collected only when it is full.
    "-Xms64m",
    "-Xmn32m",
    "-XX:MinHeapFreeRatio=20",
    "-XX:MaxHeapFreeRatio=40",
    # Netty holds chunks of 8 KiB << maxOrder, 16 MiB by default, while any part of them is in use.
    "-Dio.netty.allocator.maxOrder=7",
    "-Dio.netty.allocator.numDirectArenas=2",
)
"""JVM options that limit its memory, and return memory after a burst of large requests."""


def read_configured(archive: Path) -> dict[str, int]:
    """Return TorchServe's settings from an archive."""
    with zipfile.ZipFile(archive) as content:
        return dict(json.loads(content.read(CONFIG_NAME)))


def make_properties(
    address: Endpoints, model_store: Path, model: str | None, work: Path, settings: ServeSettings
) -> dict[str, object]:
    """Return TorchServe's properties: the model on the configured address, other interfaces on loopback.

    Management is a socket in a private directory: through a port, any user of this machine could stop the workers. Its
    gRPC interface cannot be switched off, so it listens where nothing can connect.
    """
    return {
        "inference_address": f"http://{address.host}:{address.port}",
        "management_address": f"unix:/proc/self/cwd/{auth.MANAGEMENT_SOCKET}",
        "metrics_address": f"http://{LOOPBACK}:{address.frontend_metrics_port}",
        "metrics_mode": "prometheus",
        "grpc_inference_address": address.grpc_host,
        "grpc_management_address": _UNREACHABLE,
        "grpc_inference_port": address.grpc_port,
        "grpc_management_port": 0,
        "model_store": model_store,
        "load_models": f"{SERVED_NAME}={model}" if model else "",
        "default_workers_per_model": 1,
        "allowed_urls": "file:///nowhere",
        "enable_model_api": str(model is None).lower(),
        "disable_token_authorization": str(not settings.token_auth).lower(),
        "token_expiration_min": settings.token_expiry_min,
        "disable_system_metrics": "true",
        "enable_envvars_config": "false",
        # Bodies go to the handler as bytes: TorchServe would decode them, and pass invalid JSON on as text.
        "decode_input_request": "false",
        "install_py_dep_per_model": "false",
        "number_of_gpu": 0,
        "max_request_size": MAX_REQUEST_BYTES,
        "max_response_size": 16 * MAX_REQUEST_BYTES,
        "default_startup_timeout": 120,
        **_make_cors_properties(settings.cors_origin),
    }


def _make_cors_properties(origin: str | None) -> dict[str, object]:
    """Return the CORS properties for an origin.

    Raises:
        UsageError: If the origin is invalid.
    """
    if origin is None:
        return {}
    check_origin(origin)
    return {
        "cors_allowed_origin": origin,
        "cors_allowed_methods": "GET, POST, OPTIONS",
        "cors_allowed_headers": "Accept, Authorization, Content-Type, Tier",
    }


def make_environment(work: Path, settings: ServeSettings) -> dict[str, str]:
    """Return the environment of the frontend and its workers."""
    # A variable too, since the archive may have been written earlier, with other settings.
    review_threshold = settings.review_threshold
    variables = {} if review_threshold is None else {"NEWSBERT_SERVE_REVIEW_THRESHOLD": str(review_threshold)}
    if settings.cascade != ServeSettings.cascade:
        variables["NEWSBERT_SERVE_CASCADE"] = settings.cascade
    # Java takes the encoding of file names from the locale: under LANG=C it cannot open a name with an umlaut.
    environment = child_environment(
        LC_ALL="C.UTF-8",
        LOG_LOCATION=str(work / "logs"),
        METRICS_LOCATION=str(work / "logs"),
        TEMP=str(work / "tmp"),
        TMPDIR=str(work / "tmp"),
        NEWSBERT_ACTIVITY_DIR=str(work / ACTIVITY_DIR),
        NEWSBERT_METRICS_DIR=str(work / METRICS_DIR),
        NEWSBERT_SERVER_DIR=str(work),
        PYTHONUNBUFFERED="1",
        # Otherwise every thread has its own heap, and all of them retain memory after a burst of large requests.
        MALLOC_ARENA_MAX="2",
        PYTHONPATH=os.pathsep.join(filter(None, [str(work / "lib"), python_path()])),
        **variables,
    )
    return {
        name: value for name, value in environment.items() if name not in _JAVA_OPTIONS and not name.startswith("TS_")
    }


ACTIVITY_DIR, METRICS_DIR = "activity", "metrics"
