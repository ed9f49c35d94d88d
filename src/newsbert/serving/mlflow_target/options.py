"""Names, server addresses and options of deployments."""

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from newsbert.bundle.bundle import AUTO, RUNTIME_FILES
from newsbert.core import config
from newsbert.core.settings import ServeSettings
from newsbert.errors import UsageError

_NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)(?:/(?P<version>[0-9]+(?:\.[0-9]+)?))?")
VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_SETTINGS = {
    "WORKERS": "workers",
    "BATCH_SIZE": "batch_size",
    "BATCH_DELAY_MS": "batch_delay_ms",
    "REVIEW_THRESHOLD": "review_threshold",
    "CASCADE": "cascade",
}
LOCAL_SETTINGS = {"HOST": "host", "PORT": "port", **_SETTINGS}
CREATE_KEYS = (*_SETTINGS, "EXPORT_PATH", "RUNTIME", "MODEL", "VERSION", "HANDLER")
_HELP_COMMAND = "mlflow deployments help -t newsbert"

_STOCK_TARGET_REASONS = {
    "MODEL_FILE": "the archive holds the graph, and needs no class",
    "EXTRA_FILES": "the archive holds all that an answer depends on",
    "REQUIREMENTS_FILE": "the server has what its models need",
}
"""Options of mlflow-torchserve's `torchserve` target that newsbert does not need, with the reasons."""


@dataclass(frozen=True)
class DeploymentOptions:
    """The options of a deployment, from `-C NAME=VALUE`.

    Attributes:
        settings: The specified fields of `ServeSettings`, by name.
        export_path: Directory for the archive.
        runtime: Name of the runtime that computes the answers.
        model: The model's name in answers.
        version: TorchServe's version of the deployment.
        set_default: Whether the version answers requests that name no version.
    """

    settings: dict[str, Any]
    export_path: Path | None = None
    runtime: str | None = None
    model: str | None = None
    version: str | None = None
    set_default: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any] | None, keys: tuple[str, ...]) -> "DeploymentOptions":
        """Parse the configuration of a call that takes `keys`.

        Raises:
            UsageError: If a key is unknown, or its value is invalid.
        """
        values = {str(key).upper().replace("-", "_"): str(value) for key, value in (config or {}).items()}
        for key in values:
            if key in _STOCK_TARGET_REASONS:
                raise UsageError(
                    f"-C {key} is of mlflow-torchserve's own target", f"leave it out: {_STOCK_TARGET_REASONS[key]}"
                )
            if key not in keys:
                raise UsageError(f"unknown configuration -C {key}", f"there are: {', '.join(keys)}")
        handler, version = values.get("HANDLER"), values.get("VERSION")
        if handler is not None and not _is_newsbert_handler(handler):
            raise UsageError(f"-C HANDLER={handler} is not newsbert's handler", "leave it out: the archive brings it")
        if version is not None and not VERSION.fullmatch(version):
            raise UsageError(f"-C VERSION={version} is no version of TorchServe's", "give a number, such as 2.0")
        if values.get("RUNTIME", AUTO) not in {AUTO, *RUNTIME_FILES}:
            runtimes = ", ".join((AUTO, *RUNTIME_FILES))
            raise UsageError(f"-C RUNTIME={values['RUNTIME']}: no such runtime", f"one of {runtimes}")
        set_default = values.get("SET_DEFAULT", "false").lower()
        if set_default not in {"true", "false"}:
            raise UsageError(f"-C SET_DEFAULT={set_default} is neither true nor false", "give true")
        path = values.get("EXPORT_PATH")
        return cls(
            {name: _parse_setting(key, name, values[key]) for key, name in LOCAL_SETTINGS.items() if key in values},
            Path(path).expanduser().absolute() if path else None,
            values.get("RUNTIME"),
            values.get("MODEL"),
            version,
            set_default == "true",
        )

    def serve_settings(self) -> ServeSettings:
        """Return the specified settings, with the configured values for all others."""
        return config.resolve(ServeSettings, **self.settings)


def addresses(uri: str, management: str, inference: str) -> tuple[str, str]:
    """Return the management and inference addresses of a target's URI, by default the two arguments.

    Raises:
        UsageError: If it is not a URI of this target.
    """
    try:
        parts = urllib.parse.urlsplit(uri)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        port, management_port = int(query.pop("inference_port", "8080")), parts.port or 8081
    except ValueError as error:
        raise UsageError(f"the target {uri!r} is no address: {error}", _HELP_COMMAND) from error
    if query:
        raise UsageError(f"the target {uri!r} has an unknown {', '.join(query)}", _HELP_COMMAND)
    if parts.netloc:
        if parts.path.strip("/") or not parts.hostname or parts.username:
            raise UsageError(f"the target {uri!r} is not newsbert://HOST:PORT", _HELP_COMMAND)
        return f"http://{parts.hostname}:{management_port}", f"http://{parts.hostname}:{port}"
    if parts.scheme:
        if not parts.path.startswith("/"):
            raise UsageError(f"the target {uri!r} has no path of a socket", _HELP_COMMAND)
        return f"unix:{urllib.parse.unquote(parts.path)}", f"http://127.0.0.1:{port}"
    # TorchServe listens on IPv4 only, but `localhost` may resolve to IPv6.
    local = ("//localhost:", "//127.0.0.1:")
    return management.replace(*local), inference.replace(*local)


def split_name(name: str) -> tuple[str, str | None]:
    """Return a deployment's name and, for `name/2.0`, its version.

    Raises:
        UsageError: If TorchServe cannot have it in a URL.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"{name!r} names no deployment", "give letters, digits, . _ -, and /VERSION if need be")
    return match["name"], match["version"]


def _parse_setting(key: str, name: str, value: str) -> Any:
    try:
        return getattr(config.resolve(ServeSettings, **{name: value}), name)
    except UsageError as error:
        flag = f"the option --{name.replace('_', '-')}"
        raise UsageError(error.message.replace(flag, f"-C {key}"), error.hint) from error


def _is_newsbert_handler(value: str) -> bool:
    content = (resources.files("newsbert.serving") / "handler.py").read_bytes()
    return value == "newsbert.serving.handler" or (Path(value).is_file() and Path(value).read_bytes() == content)


HELP = """
Deploys newsbert's models to a TorchServe that runs already, and sees that they answer as they did in training.

TARGET
  newsbert                                        http://127.0.0.1:8081 manages, http://127.0.0.1:8080 answers,
                                                  or as the file says that CONFIG_PROPERTIES names
  newsbert://HOST:PORT?inference_port=8080        PORT is that of management
  newsbert:/path/management.sock?inference_port=8080   management on a unix socket

The server needs newsbert in its Python, enable_model_api=true, and decode_input_request=false to tell broken JSON.

TOKENS
  NEWSBERT_KEY_FILE=…/key_file.json               as TorchServe writes it where it is started, or
  NEWSBERT_MANAGEMENT_TOKEN, NEWSBERT_TOKEN       the keys of management and inference

CREATE, UPDATE: -C NAME=VALUE
  WORKERS=1 BATCH_SIZE=64 BATCH_DELAY_MS=1        as of `newsbert serve locally`
  REVIEW_THRESHOLD=0.8                                a score below it goes to a person; else the model's own
  EXPORT_PATH=DIR                                 the server's model store; else it copies the archive from here
  RUNTIME=auto                                    or one of newsbert benchmark
  MODEL=BertModel/1                               what the answers say of the model
  VERSION=2.0                                     of the deployment; the first is 1.0, updates count up
  SET_DEFAULT=true (update)                       --name NAME/2.0 answers where no version is named

  mlflow deployments create -t newsbert -m models:/BertModel/1 --name news_classification -C EXPORT_PATH=model_store
  mlflow deployments update -t newsbert -m models:/BertModel/2 --name news_classification -C EXPORT_PATH=model_store
  mlflow deployments update -t newsbert --name news_classification -C WORKERS=2

An update with a model puts a new version beside the old one, makes it the default, and removes the old one.

PREDICT, EXPLAIN: -I FILE, JSON in any of MLflow's forms
  {"instances": ["Stocks fall"]}   {"dataframe_split": {"columns": ["title", "text"], "data": [["Stocks", "fall"]]}}

DELETE removes NAME/VERSION, or all versions of NAME; with -C EXPORT_PATH=DIR their archives too.
RUN-LOCAL serves on a TorchServe of its own until Ctrl+C: -C HOST=… PORT=… WORKERS=… BATCH_SIZE=… BATCH_DELAY_MS=…
"""
