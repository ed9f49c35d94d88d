"""MLflow deployment target: `mlflow deployments create|update|list|get|predict|delete -t newsbert`.

It extends the target of mlflow-torchserve, and uses its lookup of the server's addresses. It overrides the rest, since
the plugin sends no token, cannot connect to a unix socket, starts no worker if there is any configuration, packs the
whole logged model through a shell, and cannot read the inputs that MLflow 3 passes to `predict`.
"""

import contextlib
import dataclasses
import re
import threading
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from shlex import quote
from typing import Any, ParamSpec, TypeVar

import click
from mlflow.deployments import PredictionsResponse
from mlflow.exceptions import MlflowException

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.golden import check_answers
from newsbert.core import installation
from newsbert.core.terminal import show_controls
from newsbert.errors import NewsbertError, ServingError, UsageError
from newsbert.inference.prediction import Prediction
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving import archive, protocol
from newsbert.serving.mlflow_target import payload
from newsbert.serving.mlflow_target.models import archive_directory, archive_name, fetched
from newsbert.serving.mlflow_target.options import (
    CREATE_KEYS,
    HELP,
    LOCAL_SETTINGS,
    VERSION,
    DeploymentOptions,
    addresses,
    split_name,
)
from newsbert.serving.torchserve.management import ModelServer

try:
    import mlflow_torchserve
except ImportError as _error:
    raise ImportError(f"{_error}: {installation.command('deploy')}") from _error

FIRST_VERSION = "1.0"
FLAVORS = ("python_function", "pytorch")
_P = ParamSpec("_P")
_R = TypeVar("_R")


class DeploymentError(MlflowException, click.ClickException):  # type: ignore[misc]
    """The exception that MLflow's callers expect; MLflow's command line prints it without a traceback."""

    def __init__(self, error: NewsbertError) -> None:
        super().__init__(show_controls(f"{error.message}\nHint: {error.hint}" if error.hint else error.message))
        self.exit_code = error.exit_code  # type: ignore[misc]


def _convert_errors(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a function raise newsbert's errors as `DeploymentError`."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except NewsbertError as error:
            raise DeploymentError(error) from error

    return call


class NewsbertTarget(mlflow_torchserve.TorchServePlugin):  # type: ignore[misc]
    """A TorchServe that answers with newsbert's models.

    Args:
        uri: `newsbert`, `newsbert://HOST:PORT?inference_port=8080` or `newsbert:/path/to/management.sock`.
    """

    management_api: str
    inference_api: str

    @_convert_errors
    def __init__(self, uri: str) -> None:
        super().__init__(uri)  # sets TorchServe's default addresses, or those of the file that CONFIG_PROPERTIES names
        management, inference = addresses(uri, self.management_api, self.inference_api)
        self.management_api, self.inference_api = management, inference
        self._server = ModelServer(management, inference)

    @_convert_errors
    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Pack a model, register it with the server, and check that it answers as in training.

        Args:
            name: The model's name in URLs; `name/2.0` also sets its version.
            model_uri: `models:/…`, `runs:/…`, or any other URI or directory of a logged model.
            flavor: `python_function` or `pytorch`: the archive is the same.
            config: See `target_help`.
            endpoint: Not used.

        Returns:
            Its `name` with its version, and its `flavor`.
        """
        _check_arguments(flavor, endpoint)
        options = DeploymentOptions.read(config, CREATE_KEYS)
        name, version = split_name(name)
        new_version = options.version or version
        versions = [str(description["modelVersion"]) for description in self._server.versions(name)]
        if versions and (new_version is None or new_version in versions):
            raise ServingError(
                f"the deployment {name}/{new_version or versions[0]} exists",
                f"mlflow deployments update -t {quote(self.target_uri)} --name {name} -m {quote(model_uri)}",
            )
        new_version = new_version or FIRST_VERSION
        self._deploy(name, new_version, model_uri, options)
        return {"name": f"{name}/{new_version}", "flavor": flavor or FLAVORS[0]}

    @_convert_errors
    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Replace the model of a version, change its workers, or make it the default.

        A new model is registered as a version beside the old one. It has the old one's workers and batching, unless
        `config` overrides them. It becomes the default once it answers; then the old version is removed. No request is
        rejected meanwhile.
        """
        _check_arguments(flavor, endpoint)
        options = DeploymentOptions.read(config, (*CREATE_KEYS, "SET_DEFAULT"))
        name, version = split_name(name)
        if model_uri is None:
            self._change_version(name, version, options)
            return {"name": name, "flavor": flavor or FLAVORS[0]}
        old = self._server.describe(name, version or "")
        numbers = [
            float(description["modelVersion"])
            for description in self._server.versions(name)
            if _has_numeric_version(description)
        ]
        new_version = options.version or str(float(int(max(numbers, default=0.0)) + 1))
        settings = {
            "workers": max(1, int(old["minWorkers"])),
            "batch_size": old["batchSize"],
            "batch_delay_ms": old["maxBatchDelay"],
        }
        self._deploy(
            name, new_version, model_uri, dataclasses.replace(options, settings={**settings, **options.settings})
        )
        self._server.set_default(name, new_version)
        self._remove_version(name, old, options.export_path)
        return {"name": f"{name}/{new_version}", "flavor": flavor or FLAVORS[0]}

    @_convert_errors
    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Remove a version, or all versions of a bare name; with EXPORT_PATH, remove the archives too.

        A missing version is no error.
        """
        _check_arguments(None, endpoint)
        options = DeploymentOptions.read(config, ("EXPORT_PATH",))
        name, version = split_name(name)
        descriptions = [
            description for description in self._server.versions(name) if version in {None, description["modelVersion"]}
        ]
        if version is None and descriptions:
            # TorchServe does not unregister the default version while there are others.
            default = self._server.describe(name)["modelVersion"]
            descriptions.sort(key=lambda description: description["modelVersion"] == default)
        for description in descriptions:
            self._remove_version(name, description, options.export_path)

    @_convert_errors
    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Return all models of the server: their `name`, and the rest of the server's entry."""
        _check_arguments(None, endpoint)
        return [{"name": model["modelName"], **model} for model in self._server.models()]

    @_convert_errors
    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Return the description of a version, for a bare name of the default one; its `name` has the version."""
        _check_arguments(None, endpoint)
        name, version = split_name(name)
        description = self._server.describe(name, version or "")
        return {"name": f"{name}/{description['modelVersion']}", **description}

    @_convert_errors
    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Classify texts or title/text objects.

        Args:
            deployment_name: `name`, or `name/2.0`.
            inputs: A frame, list, dict or text; see `payload.items`.
            endpoint: Not used.

        Returns:
            `predictions`: `label`, `score` and `probabilities` of every item.
        """
        name, version = _split_name(deployment_name, endpoint)
        _, answers = self._server.predict(name, version or "", payload.items(inputs))
        return PredictionsResponse({"predictions": answers})

    @_convert_errors
    def explain(
        self, deployment_name: str | None = None, df: Any = None, endpoint: str | None = None
    ) -> dict[str, Any]:
        """Classify texts or title/text objects, and explain the answers by the words.

        Args:
            deployment_name: `name`, or `name/2.0`.
            df: The inputs, as for `predict`.
            endpoint: Not used.

        Returns:
            `predictions`: `label`, `score`, `probabilities` and `explanation` of every item.
        """
        name, version = _split_name(deployment_name, endpoint)
        return {"predictions": self._server.explain(name, version or "", payload.items(df))}

    def _deploy(self, name: str, version: str, model_uri: str, options: DeploymentOptions) -> None:
        """Pack, register and verify a model; leave nothing behind if a step fails."""
        settings = options.serve_settings()
        with fetched(model_uri) as (default_name, bundle), archive_directory(options.export_path) as directory:
            runtime = resolve_runtime(bundle, options.runtime or settings.runtime)
            settings = dataclasses.replace(settings, runtime=runtime)
            model_name = options.model or default_name
            file_name = archive_name(name, version, bundle)
            file = archive.write(
                bundle, directory, model_name, settings, served_name=name, version=version, file_name=file_name
            )
            try:
                self._server.register(file, name, settings)
                try:
                    self._verify(name, version, bundle, runtime, model_name)
                except BaseException:
                    with contextlib.suppress(NewsbertError):  # the error of the model matters, not this one
                        self._server.unregister(name, version)
                    raise
            except BaseException:
                file.unlink(missing_ok=True)
                raise

    def _verify(self, name: str, version: str, bundle: Bundle, runtime: str, expected_name: str) -> None:
        """Check the server's answers to the bundle's golden texts.

        Raises:
            ServingError: If the server has loaded another archive.
            ModelError: If the answers differ: the server has incompatible libraries.
        """
        contract = bundle.contract
        served_name, answers = self._server.predict(name, version, [golden.item for golden in contract.golden])
        if served_name != expected_name:
            raise ServingError(
                f"the server answers as {served_name!r} instead of {expected_name!r}", "clear its model store"
            )
        check_answers(contract, runtime, [Prediction.from_dict(answer) for answer in answers])

    def _change_version(self, name: str, version: str | None, options: DeploymentOptions) -> None:
        creation_settings = {*options.settings} - {"workers"}
        if creation_settings or options.export_path or options.runtime or options.model or options.version:
            raise UsageError(
                "TorchServe sets batches, runtime and version when it loads a model",
                f"give the model too: mlflow deployments update -t {quote(self.target_uri)} --name {name} -m models:/…",
            )
        if not options.settings and not options.set_default:
            raise UsageError("nothing to update", "give -m MODEL_URI, -C WORKERS=N or -C SET_DEFAULT=true")
        version = version or str(self._server.describe(name)["modelVersion"])
        if options.settings:
            self._server.scale(name, version, options.settings["workers"])
        if options.set_default:
            self._server.set_default(name, version)

    def _remove_version(self, name: str, description: Mapping[str, Any], export_path: Path | None) -> None:
        version = str(description["modelVersion"])
        self._server.unregister(name, version)
        file_name = str(description["modelUrl"]).rpartition("/")[2]
        # Only an archive that this target has written.
        if export_path is not None and re.fullmatch(re.escape(f"{name}-{version}-") + r"[0-9a-f]{12}\.mar", file_name):
            (export_path / file_name).unlink(missing_ok=True)


@_convert_errors
def run_local(name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, Any] | None = None) -> None:
    """Serve a model with newsbert's own TorchServe until Ctrl+C; see `newsbert serve locally`."""
    from newsbert.serving import local

    _check_arguments(flavor, None)
    options = DeploymentOptions.read(config, tuple(LOCAL_SETTINGS))
    if name != protocol.SERVED_NAME:
        raise UsageError(f"a local server calls its model {protocol.SERVED_NAME}", f"--name {protocol.SERVED_NAME}")
    settings = options.serve_settings()
    with (
        contextlib.suppress(KeyboardInterrupt),
        fetched(model_uri) as (model_name, bundle),
        archive_directory(None) as directory,
    ):
        local.serve_locally(
            str(archive.write(bundle, directory, model_name, settings)),
            settings,
            tracking_uri=None,
            stop=threading.Event(),
            on_ready=lambda model, server: click.echo(f"{model} is ready on {server.address.url}; Ctrl+C stops it"),
            on_log=lambda line: None,
            on_problem=lambda problem: click.echo(show_controls(problem.text()), err=True),
        )


def target_help() -> str:
    """Return the text that `mlflow deployments help -t newsbert` prints."""
    return HELP


def _check_arguments(flavor: str | None, endpoint: str | None) -> None:
    if flavor is not None and flavor not in FLAVORS:
        raise UsageError(f"newsbert's models have no flavor {flavor!r}", f"give none, or one of {', '.join(FLAVORS)}")
    if endpoint is not None:
        raise UsageError("TorchServe has no endpoints above its models", "leave --endpoint out")


def _split_name(deployment_name: str | None, endpoint: str | None) -> tuple[str, str | None]:
    """Return the name and the version of the deployment for a prediction."""
    _check_arguments(None, endpoint)
    if deployment_name is None:
        raise UsageError("no deployment to ask", "give its name: --name news_classification")
    return split_name(deployment_name)


def _has_numeric_version(description: Mapping[str, Any]) -> bool:
    return VERSION.fullmatch(str(description["modelVersion"])) is not None
