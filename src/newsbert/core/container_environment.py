"""The environment of a training container: the variables and files of this environment that it needs."""

import contextlib
import os
import typing
from pathlib import Path

if typing.TYPE_CHECKING:
    pass

_CONTAINER_PREFIXES = ("NEWSBERT_TRAIN_", "MLFLOW_", "HF_", "AWS_", "AZURE_", "GOOGLE_")

_CONTAINER_NAMES = (
    "API_ENDPOINT_OVERRIDE",
    "CURL_CA_BUNDLE",
    "GCE_METADATA_HOST",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
    "NO_GCE_CHECK",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "STORAGE_EMULATOR_HOST",
    "NEWSBERT_EXPERIMENT",
    "NEWSBERT_MODEL_NAME",
    "NEWSBERT_REGISTRY_URI",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "NO_COLOR",
)

_CONTAINER_FILES = {
    "GOOGLE_APPLICATION_CREDENTIALS": False,
    "AWS_SHARED_CREDENTIALS_FILE": False,
    "AWS_CONFIG_FILE": False,
    "AWS_WEB_IDENTITY_TOKEN_FILE": False,
    "AWS_CA_BUNDLE": False,
    "AZURE_CLIENT_CERTIFICATE_PATH": False,
    "AZURE_FEDERATED_TOKEN_FILE": False,
    "CURL_CA_BUNDLE": False,
    "REQUESTS_CA_BUNDLE": False,
    "SSL_CERT_FILE": False,
    "MLFLOW_TRACKING_SERVER_CERT_PATH": False,
    "MLFLOW_TRACKING_CLIENT_CERT_PATH": False,
    "HF_HOME": True,
}
"""Variables that name files, with `True` for files that are written to."""

_HOME_FILES = {
    "GOOGLE_APPLICATION_CREDENTIALS": ".config/gcloud/application_default_credentials.json",
    "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials",
    "AWS_CONFIG_FILE": ".aws/config",
}
"""Files in the user's home that the stores' clients read if the variable is not set."""


def for_container() -> tuple[dict[str, str], dict[Path, bool]]:
    """Return the variables for a trainer container, and the files that it needs, with `True` for writable ones.

    The container gets them when it runs; they are in no image. They are the settings of newsbert, MLflow and the Hub,
    and the credentials of the tracking server and its bucket.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith(_CONTAINER_PREFIXES)}
    variables |= {name: os.environ[name] for name in _CONTAINER_NAMES if name in os.environ}
    files = {}
    with contextlib.suppress(OSError, RuntimeError):  # no home directory, or an unreadable one
        for name, path in _HOME_FILES.items():
            if name not in variables and Path.home().joinpath(path).is_file():
                variables[name] = str(Path.home() / path)
    for name, write in _CONTAINER_FILES.items():
        if name in variables and Path(variables[name]).exists():
            variables[name] = str(Path(variables[name]).resolve())
            files[Path(variables[name])] = write
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.getuid())
    # The caller has no entry in the image's /etc/passwd, where Python would otherwise look for a name and a home.
    return {**variables, "HOME": "/tmp", "USER": user, "LOGNAME": user}, files  # noqa: S108
