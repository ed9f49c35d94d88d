"""Environment variables that newsbert reads, and those that it sets for other programs."""

import contextlib
import os
import re
import secrets
import typing
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from newsbert.core import identifiers
from newsbert.errors import UsageError

if typing.TYPE_CHECKING:
    import ssl
from newsbert.core.config import trusted_keys

_STORE_ENDPOINTS = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST",
                    "API_ENDPOINT_OVERRIDE")  # fmt: skip

TOKEN_VARIABLES = {"inference": "NEWSBERT_TOKEN", "management": "NEWSBERT_MANAGEMENT_TOKEN"}
"""The environment variables of TorchServe's tokens, by interface."""


def signing_passphrase() -> bytes | None:
    """Return the passphrase of the signing key: `NEWSBERT_SIGNING_PASSPHRASE`, if it is set."""
    return os.environ.get("NEWSBERT_SIGNING_PASSPHRASE", "").encode() or None


def python_path() -> str:
    """Return `PYTHONPATH`, or an empty text if it is not set."""
    return os.environ.get("PYTHONPATH", "")


def java_home() -> str | None:
    """Return `JAVA_HOME`, if it is set."""
    return os.environ.get("JAVA_HOME") or None


def token(interface: str = "inference") -> str | None:
    """Return the token of TorchServe's `management` or `inference` interface from its variable, if that is set."""
    return os.environ.get(TOKEN_VARIABLES[interface], "").strip() or None


def key_file() -> Path | None:
    """Return the file to which a TorchServe has written its tokens: `NEWSBERT_KEY_FILE`, if it is set."""
    value = os.environ.get("NEWSBERT_KEY_FILE")
    return Path(value).expanduser() if value else None


def cache_dir() -> Path:
    """Return the directory of fetched models, prepared training data, and names for the completion of shells.

    It is `NEWSBERT_CACHE_DIR`, else in the user's cache.
    """
    return _resolve_dir("NEWSBERT_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Return the directory with records of running servers: `NEWSBERT_STATE_DIR`, else the user's state directory."""
    return _resolve_dir("NEWSBERT_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def _resolve_dir(variable: str, base_variable: str, below_home: str) -> Path:
    """Return a directory of newsbert's; the user's home is looked up only if neither variable is set.

    Raises:
        UsageError: If the user has no home.
    """
    if os.environ.get(variable):
        return Path(os.environ[variable])
    if os.environ.get(base_variable):
        return Path(os.environ[base_variable]) / "newsbert"
    try:
        return Path.home() / below_home / "newsbert"
    except RuntimeError as error:  # a container's user who is not in /etc/passwd
        raise UsageError("this user has no home directory", f"set {variable}") from error


def activity_dir() -> Path | None:
    """Return the directory in which a worker and its supervisor exchange their states; set by the supervisor."""
    directory = os.environ.get("NEWSBERT_ACTIVITY_DIR")
    return Path(directory) if directory else None


def server_dir() -> Path | None:
    """Return the directory of a worker's server, with its management socket; set by the supervisor."""
    directory = os.environ.get("NEWSBERT_SERVER_DIR")
    return Path(directory) if directory else None


def metrics_dir() -> Path | None:
    """Return the directory of a worker's counts for its server's metrics; set by the supervisor."""
    directory = os.environ.get("NEWSBERT_METRICS_DIR")
    return Path(directory) if directory else None


def set_prometheus_dir(directory: Path) -> None:
    """Set the directory of Prometheus's client for the counts of this process, which only a variable can do."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


def run_dir() -> Path | None:
    """Return a server's directory, if one is set: `NEWSBERT_SERVE_RUN_DIR` or `NEWSBERT_RUN_DIR`."""
    directory = os.environ.get("NEWSBERT_SERVE_RUN_DIR") or os.environ.get("NEWSBERT_RUN_DIR")
    return Path(directory) if directory else None


def mlflow_run_id() -> str | None:
    """Return the run in which `mlflow run` has started this process, if it has.

    Raises:
        UsageError: If the variable is not a run id.
    """
    text = os.environ.get("MLFLOW_RUN_ID")
    return identifiers.parse_run_id(text, "MLFLOW_RUN_ID", UsageError) if text else None


def silence_mlflow() -> None:
    """Disable MLflow's telemetry and its printing, unless the user has set otherwise."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # A server's failure must be reported within seconds; MLflow's defaults are seven tries of two minutes per try.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")


def tracking_credentials(uri: str) -> str | None:
    """Describe the credentials that a tracking server receives; return `None` if there are none."""
    if os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return f"the password in MLFLOW_TRACKING_PASSWORD for {os.environ['MLFLOW_TRACKING_USERNAME']}"
    if os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return "the token in MLFLOW_TRACKING_TOKEN"
    return "the name and the password in its address" if "@" in uri.partition("://")[2] else None


def google_storage_emulated() -> bool:
    """Return whether Google's buckets are emulated; an emulator requires no credentials."""
    return bool(os.environ.get("STORAGE_EMULATOR_HOST"))


def has_azure_key() -> bool:
    """Return whether the environment has the key of an Azure account; otherwise Azure's client looks for a login."""
    return any(name in os.environ for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCESS_KEY"))


def configure_mlflow_auth(file: Path, secret_key: str) -> None:
    """Set the path of MLflow's account settings, and its secret key; MLflow's module reads them on import."""
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(file)
    os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secret_key


def limit_spinning() -> None:
    """Limit how long OpenMP's threads spin while they wait for one another, unless the user sets that.

    GNU's OpenMP spins 300,000 times before a thread sleeps. On a busy machine, spinning takes the cores from the
    threads that are waited for. `benchmarks/spinning.py` compares both, alone and beside other processes.
    Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def silence_onnxruntime() -> None:
    """Disable ONNX Runtime's telemetry, unless the user has set otherwise."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def tokenize_in_calling_thread() -> None:
    """Disable the tokenizer's own threads, unless the user has set otherwise."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def torchrun_rank() -> int | None:
    """Return this process's rank if torchrun has started it, else `None`."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return int(os.environ["RANK"])


def silence_ray() -> None:
    """Disable Ray's telemetry and its printing, unless the user has set otherwise."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@contextlib.contextmanager
def ray_token() -> Iterator[None]:
    """Set a new token for Ray, which the processes that Ray starts in the block inherit."""
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def exports_traces() -> bool:
    """Return whether OpenTelemetry's variables name an endpoint for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(os.environ.get(name) for name in names)


def store_hosts() -> list[str]:
    """Return the hosts of the artifact stores whose addresses are in the environment."""
    azure = re.findall(r"(?:^|;)BlobEndpoint=([^;]+)", os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    hosts = []
    for address in [*(os.environ.get(name, "") for name in _STORE_ENDPOINTS), *azure]:
        with contextlib.suppress(ValueError):
            hosts.append(urllib.parse.urlsplit(address).hostname or "")
    return list(filter(None, hosts))


def tracking_tls() -> "ssl.SSLContext | None":
    """Return the TLS context for a tracking server, if MLflow's own variables configure one.

    Raises:
        OSError: If the file that a variable names cannot be read.
    """
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"true", "1"}
    certificates = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    if not (insecure or certificates):
        return None
    import ssl

    if insecure:
        return ssl._create_unverified_context()  # noqa: S323 - the user requests it, and MLflow does so
    is_directory = Path(certificates or "").is_dir()
    return ssl.create_default_context(
        cafile=None if is_directory else certificates, capath=certificates if is_directory else None
    )


def further_origins() -> list[str]:
    """Return additional origins whose pages may call a tracking server, from MLflow's own variable."""
    return list(filter(None, os.environ.get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "").split(",")))


def child_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a program that newsbert starts: this process's, updated by `extra`.

    Python imports nothing from the working directory, in that program and its children: it would run a `rich.py` there.
    The program trusts the same keys, although `newsbert.toml` and relative paths may have another meaning for it.
    """
    keys = ",".join(map(str, trusted_keys()))
    trusted = {"NEWSBERT_TRUSTED_KEYS": keys} if keys else {}
    return {**os.environ, "PYTHONSAFEPATH": "1", **trusted, **extra}
