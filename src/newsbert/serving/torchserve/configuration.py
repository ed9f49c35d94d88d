"""The configuration of TorchServe: its properties, its JVM's options, its environment."""

import json
import os
import re
import zipfile
from pathlib import Path

from newsbert.core.environment import child_environment, python_path
from newsbert.core.ports import LOOPBACK
from newsbert.core.settings import ServeSettings
from newsbert.errors import UsageError
from newsbert.serving import auth
from newsbert.serving.archive import CONFIG_NAME
from newsbert.serving.protocol import SERVED_NAME
from newsbert.serving.torchserve.endpoints import Endpoints

MAX_REQUEST_BYTES = 1024 * 1024

_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")

_JAVA_OPTIONS = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}
"""Variables whose options Java would take besides ours."""

HEAP_OPTIONS = (
    # Large bodies go to the old generation, which by default starts large and is full before anything is collected.
    "-Xms64m",
    "-Xmn32m",
    "-XX:MinHeapFreeRatio=20",
    "-XX:MaxHeapFreeRatio=40",
    # Netty keeps chunks of 8 KiB shifted by this, 16 MiB by default, while anything in them is used.
    "-Dio.netty.allocator.maxOrder=7",
    "-Dio.netty.allocator.numDirectArenas=2",
)
"""What has the JVM take little memory, and give back what a burst of large requests took."""


def read_configured(archive: Path) -> dict[str, int]:
    """The settings that an archive brings."""
    with zipfile.ZipFile(archive) as content:
        return dict(json.loads(content.read(CONFIG_NAME)))


def make_properties(
    address: Endpoints, model_store: Path, model: str | None, work: Path, settings: ServeSettings
) -> dict[str, object]:
    """TorchServe's configuration: the model on the given address, what else there is on loopback.

    Management is a socket in a directory of ours alone: on a port, any user of this machine could stop the workers.
    """
    return {
        "inference_address": f"http://{address.host}:{address.port}",
        "management_address": f"unix:/proc/self/cwd/{auth.MANAGEMENT_SOCKET}",
        "metrics_address": f"http://{LOOPBACK}:{address.frontend_metrics_port}",
        "metrics_mode": "prometheus",
        "grpc_inference_address": address.grpc_host,
        "grpc_management_address": LOOPBACK,
        "grpc_inference_port": address.grpc_port,
        "grpc_management_port": address.grpc_management_port,
        "model_store": model_store,
        "load_models": f"{SERVED_NAME}={model}" if model else "",
        "default_workers_per_model": 1,
        "allowed_urls": "file:///nowhere",
        "enable_model_api": str(model is None).lower(),
        "disable_token_authorization": str(not settings.token_auth).lower(),
        "token_expiration_min": settings.token_expiry_min,
        "disable_system_metrics": "true",
        "enable_envvars_config": "false",
        # Bodies go to the handler as bytes: decoded here, broken JSON would be passed on as if it were text.
        "decode_input_request": "false",
        "install_py_dep_per_model": "false",
        "number_of_gpu": 0,
        "max_request_size": MAX_REQUEST_BYTES,
        "max_response_size": 16 * MAX_REQUEST_BYTES,
        "default_startup_timeout": 120,
        **_cors(settings.cors_origin),
    }


def _cors(origin: str | None) -> dict[str, object]:
    """Return what TorchServe tells browsers of who may ask.

    Raises:
        UsageError: If the origin is none.
    """
    if origin is None:
        return {}
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise UsageError(f"{origin!r} is no origin", "give scheme, host and port alone, such as https://news.example")
    return {
        "cors_allowed_origin": origin,
        "cors_allowed_methods": "GET, POST, OPTIONS",
        "cors_allowed_headers": "Accept, Authorization, Content-Type",
    }


def make_environment(work: Path, settings: ServeSettings) -> dict[str, str]:
    """The frontend's and its workers' environment."""
    # Not only in an archive made for these settings: an archive may have been made before.
    below = settings.review_below
    given = {} if below is None else {"NEWSBERT_SERVE_REVIEW_BELOW": str(below)}
    # Java takes the encoding of file names from the locale: under LANG=C it opens none with an umlaut.
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
        # Else every thread keeps a heap of its own, and what a burst of large requests took stays in all of them.
        MALLOC_ARENA_MAX="2",
        PYTHONPATH=os.pathsep.join(filter(None, [str(work / "lib"), python_path()])),
        **given,
    )
    return {
        name: value for name, value in environment.items() if name not in _JAVA_OPTIONS and not name.startswith("TS_")
    }


ACTIVITY_DIR, METRICS_DIR = "activity", "metrics"
