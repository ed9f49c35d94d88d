"""Our MLflow deployment target: `mlflow deployments create|update|list|get|predict|delete -t newsbert`.

It extends the target of mlflow-torchserve, of which it keeps how the server's addresses are found, and answers in its
place where that does not do: the plugin sends no token, cannot reach a socket, starts no worker once it is given any
configuration, packs the whole logged model through a shell, and reads nothing of what MLflow 3 hands to `predict`.
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
    """What callers of MLflow expect to be raised; its command line prints it instead of a traceback."""

    def __init__(self, error: NewsbertError) -> None:
        super().__init__(show_controls(f"{error.message}\nHint: {error.hint}" if error.hint else error.message))
        self.exit_code = error.exit_code  # type: ignore[misc]


def _told(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have our errors reach MLflow's callers as theirs."""

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

    @_told
    def __init__(self, uri: str) -> None:
        super().__init__(uri)  # finds TorchServe's defaults, or what the file CONFIG_PROPERTIES says
        management, inference = addresses(uri, self.management_api, self.inference_api)
        self.management_api, self.inference_api = management, inference
        self._server = ModelServer(management, inference)

    @_told
    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Pack a model, have the server load it, and see that it answers as it did in training.

        Args:
            name: What it is called in URLs; `name/2.0` also says its version.
            model_uri: `models:/…`, `runs:/…`, or any other URI or directory of a logged model.
            flavor: `python_function` or `pytorch`: the archive is the same.
            config: See `target_help`.
            endpoint: Not used.

        Returns:
            Its `name` with its version, and its `flavor`.
        """
        _check(flavor, endpoint)
        options = DeploymentOptions.read(config, CREATE_KEYS)
        name, version = split_name(name)
        asked = options.version or version
        there = [str(each["modelVersion"]) for each in self._server.versions(name)]
        if there and (asked is None or asked in there):
            raise ServingError(
                f"the deployment {name}/{asked or there[0]} exists",
                f"mlflow deployments update -t {quote(self.target_uri)} --name {name} -m {quote(model_uri)}",
            )
        asked = asked or FIRST_VERSION
        self._deploy(name, asked, model_uri, options)
        return {"name": f"{name}/{asked}", "flavor": flavor or FLAVORS[0]}

    @_told
    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Put another model in a version's place, or change its workers, or make it the default.

        Another model becomes a version beside the old one, with the old one's workers and batches unless others are
        given, and the default once it answers; then the old one is taken away. Nobody who asks is turned away.
        """
        _check(flavor, endpoint)
        options = DeploymentOptions.read(config, (*CREATE_KEYS, "SET_DEFAULT"))
        name, version = split_name(name)
        if model_uri is None:
            self._change(name, version, options)
            return {"name": name, "flavor": flavor or FLAVORS[0]}
        old = self._server.describe(name, version or "")
        numbers = [float(each["modelVersion"]) for each in self._server.versions(name) if _is_number(each)]
        new = options.version or str(float(int(max(numbers, default=0.0)) + 1))
        settings = {
            "workers": max(1, int(old["minWorkers"])),
            "batch_size": old["batchSize"],
            "batch_delay_ms": old["maxBatchDelay"],
        }
        self._deploy(name, new, model_uri, dataclasses.replace(options, settings={**settings, **options.settings}))
        self._server.set_default(name, new)
        self._remove(name, old, options.export_path)
        return {"name": f"{name}/{new}", "flavor": flavor or FLAVORS[0]}

    @_told
    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Take away a version, or for a bare name all of them; also its archive, if EXPORT_PATH says where it is.

        What is not there need not be deleted: this is no error.
        """
        _check(None, endpoint)
        options = DeploymentOptions.read(config, ("EXPORT_PATH",))
        name, version = split_name(name)
        there = [each for each in self._server.versions(name) if version in {None, each["modelVersion"]}]
        if version is None and there:
            # TorchServe does not part with a default version while there are others.
            default = self._server.describe(name)["modelVersion"]
            there.sort(key=lambda each: each["modelVersion"] == default)
        for each in there:
            self._remove(name, each, options.export_path)

    @_told
    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """All models of the server: their `name`s and what else it lists of them."""
        _check(None, endpoint)
        return [{"name": each["modelName"], **each} for each in self._server.models()]

    @_told
    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """What the server says of a version, the default one for a bare name; its `name` has the version."""
        _check(None, endpoint)
        name, version = split_name(name)
        description = self._server.describe(name, version or "")
        return {"name": f"{name}/{description['modelVersion']}", **description}

    @_told
    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Classify texts or title/text objects.

        Args:
            deployment_name: `name`, or `name/2.0`.
            inputs: A frame, list, dict or text; see `payload.items`.
            endpoint: Not used.

        Returns:
            `predictions`: `label`, `score` and `probabilities` of each.
        """
        name, version = _split_name(deployment_name, endpoint)
        _, answers = self._server.predict(name, version or "", payload.items(inputs))
        return PredictionsResponse({"predictions": answers})

    @_told
    def explain(
        self, deployment_name: str | None = None, df: Any = None, endpoint: str | None = None
    ) -> dict[str, Any]:
        """Classify texts or title/text objects and say which of their words each answer rests on.

        Args:
            deployment_name: `name`, or `name/2.0`.
            df: As `predict` takes it.
            endpoint: Not used.

        Returns:
            `predictions`: `label`, `score`, `probabilities` and `explanation` of each.
        """
        name, version = _split_name(deployment_name, endpoint)
        return {"predictions": self._server.explain(name, version or "", payload.items(df))}

    def _deploy(self, name: str, version: str, model_uri: str, options: DeploymentOptions) -> None:
        """Pack, register and try a model; nothing of it is left if one of these fails."""
        settings = options.serve_settings()
        with fetched(model_uri) as (found, bundle), archive_directory(options.export_path) as directory:
            runtime = resolve_runtime(bundle, options.runtime or settings.runtime)
            settings = dataclasses.replace(settings, runtime=runtime)
            said = options.model or found
            file_name = archive_name(name, version, bundle)
            file = archive.write(
                bundle, directory, said, settings, served_name=name, version=version, file_name=file_name
            )
            try:
                self._server.register(file, name, settings)
                try:
                    self._try(name, version, bundle, runtime, said)
                except BaseException:
                    with contextlib.suppress(NewsbertError):  # what is wrong with the model is to be told, not this
                        self._server.unregister(name, version)
                    raise
            except BaseException:
                file.unlink(missing_ok=True)
                raise

    def _try(self, name: str, version: str, bundle: Bundle, runtime: str, said: str) -> None:
        """Ask for the texts whose answers the bundle remembers.

        Raises:
            ServingError: If another archive was loaded.
            ModelError: If other answers come: the server's libraries are at odds.
        """
        contract = bundle.contract
        found, answers = self._server.predict(name, version, [golden.item for golden in contract.golden])
        if found != said:
            raise ServingError(f"the server answers as {found!r} instead of {said!r}", "clear its model store")
        check_answers(contract, runtime, [Prediction.from_dict(each) for each in answers])

    def _change(self, name: str, version: str | None, options: DeploymentOptions) -> None:
        others = {*options.settings} - {"workers"}
        if others or options.export_path or options.runtime or options.model or options.version:
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

    def _remove(self, name: str, description: Mapping[str, Any], export_path: Path | None) -> None:
        version = str(description["modelVersion"])
        self._server.unregister(name, version)
        file_name = str(description["modelUrl"]).rpartition("/")[2]
        # Only what this target has written.
        if export_path is not None and re.fullmatch(re.escape(f"{name}-{version}-") + r"[0-9a-f]{12}\.mar", file_name):
            (export_path / file_name).unlink(missing_ok=True)


@_told
def run_local(name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, Any] | None = None) -> None:
    """Serve a model with a TorchServe of newsbert's own until Ctrl+C; see `newsbert serve locally`."""
    from newsbert.serving import local

    _check(flavor, None)
    options = DeploymentOptions.read(config, tuple(LOCAL_SETTINGS))
    if name != protocol.SERVED_NAME:
        raise UsageError(f"a local server calls its model {protocol.SERVED_NAME}", f"--name {protocol.SERVED_NAME}")
    settings = options.serve_settings()
    with (
        contextlib.suppress(KeyboardInterrupt),
        fetched(model_uri) as (said, bundle),
        archive_directory(None) as directory,
    ):
        local.serve_locally(
            str(archive.write(bundle, directory, said, settings)),
            settings,
            tracking_uri=None,
            stop=threading.Event(),
            on_ready=lambda model, server: click.echo(f"{model} is ready on {server.address.url}; Ctrl+C stops it"),
            on_log=lambda line: None,
            on_problem=lambda problem: click.echo(show_controls(problem.text()), err=True),
        )


def target_help() -> str:
    """What `mlflow deployments help -t newsbert` prints."""
    return HELP


def _check(flavor: str | None, endpoint: str | None) -> None:
    if flavor is not None and flavor not in FLAVORS:
        raise UsageError(f"newsbert's models have no flavor {flavor!r}", f"give none, or one of {', '.join(FLAVORS)}")
    if endpoint is not None:
        raise UsageError("TorchServe has no endpoints above its models", "leave --endpoint out")


def _split_name(deployment_name: str | None, endpoint: str | None) -> tuple[str, str | None]:
    """Return the name and the version of the deployment that is to answer."""
    _check(None, endpoint)
    if deployment_name is None:
        raise UsageError("no deployment to ask", "give its name: --name news_classification")
    return split_name(deployment_name)


def _is_number(description: Mapping[str, Any]) -> bool:
    return VERSION.fullmatch(str(description["modelVersion"])) is not None
