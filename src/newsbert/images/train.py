"""`newsbert train` in the trainer image: same working directory, same tracking server, files owned by the caller."""

import contextlib
import os
import urllib.parse
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newsbert.core import config, loopback, uris
from newsbert.core.container_environment import for_container
from newsbert.core.environment import store_hosts
from newsbert.core.installation import MissingExtraError
from newsbert.core.settings import ImageSettings, TrackingSettings, TrainSettings
from newsbert.core.signals import relay_signals
from newsbert.errors import EngineError, NotFoundError, TrackingError, UsageError
from newsbert.images import build
from newsbert.images.engine.container import Container
from newsbert.images.engine.engine import Engine
from newsbert.tracking import locate, sqlite
from newsbert.training import run

_KILLED_EXIT_CODE = 137


@dataclass(frozen=True)
class Place:
    """The mounts, environment and network of a training container, and its changed options.

    Attributes:
        mounts: Directories and files of this machine to mount under the same path; true if they are writable.
        environment: Environment variables, including credentials for the tracking server and its bucket.
        network: `host` if the tracking server or its bucket is on this machine; otherwise the engine's default.
        replaced_options: Options that replace the caller's.
    """

    mounts: dict[Path, bool]
    environment: dict[str, str]
    network: str | None
    replaced_options: dict[str, Any]


def train(
    flags: Mapping[str, Any],
    options: list[str],
    on_output: Callable[[bytes], None],
    on_log: Callable[[bytes], None],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run `newsbert train` with `flags` in the trainer image until it ends; Ctrl+C and SIGTERM are passed on.

    Args:
        flags: Options by name, as on the command line; `None` if not set.
        options: Options without a value, such as `--json`.
        on_output: Called with chunks of its standard output.
        on_log: Called with chunks of its standard error.
        environment: More environment variables for the container.

    Returns:
        The exit code.

    Raises:
        NotFoundError: If there is no trainer image of this newsbert.
        EngineError: If there is no engine, or the engine kills the training.
    """
    with build.contexts(None, "trainer", config.resolve(ImageSettings)) as plan:
        image = plan.contexts[-1].tag
    engine = Engine()
    if not engine.has_image(image):
        raise NotFoundError(
            f"the engine has no image {image!r}",
            "newsbert build-image --trainer, with [image] in newsbert.toml as here",
        )
    place = _resolve_place(flags)
    arguments = {name: value for name, value in {**flags, **place.replaced_options}.items() if value is not None}
    started: Future[Container] = Future()

    def pass_on(number: int) -> None:
        with contextlib.suppress(CancelledError):
            started.result().send_signal(number)

    with relay_signals(pass_on), contextlib.ExitStack() as stack:
        stack.callback(started.cancel)
        container = engine.start(
            image,
            [
                "newsbert",
                "train",
                *(f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()),
                *options,
            ],
            user=f"{os.getuid()}:{os.getgid()}",
            directory=Path.cwd(),
            mounts=place.mounts,
            environment={**place.environment, **(environment or {})},
            network=place.network,
        )
        stack.callback(container.remove)
        started.set_result(container)
        for output, log in container.follow():
            if output:
                on_output(output)
            if log:
                on_log(log)
        code = container.wait()
    if code == _KILLED_EXIT_CODE:
        raise EngineError(f"the engine killed the training (exit code {code})", "was it short of memory? docker events")
    return code


def _resolve_place(flags: Mapping[str, Any]) -> Place:
    """Return the place in which `flags` have the same meaning in the container as on this machine.

    Raises:
        UsageError: If a path cannot be used for its option.
    """
    try:
        return _find_place(flags)
    except (OSError, RuntimeError) as error:  # RuntimeError: the home directory of an unknown user
        raise UsageError(
            f"a path cannot be used: {error}", "check --data, --base-model, --unlabelled and --output-dir"
        ) from error


def _find_place(flags: Mapping[str, Any]) -> Place:
    tracking = config.resolve(
        TrackingSettings, tracking_uri=flags.get("tracking_uri"), experiment=flags.get("experiment")
    )
    resume = flags.get("resume")
    if resume is None:
        training = config.resolve(
            TrainSettings, **{name: flags.get(name) for name in ("data", "base_model", "unlabelled", "output_dir")}
        )
    else:  # the run's own settings, which options cannot change
        training = run.settings_of(resume)
    environment, files = for_container()
    mounts = {Path.cwd(): True, **files}
    # Paths without links and ~, which mean something else in the container.
    paths: dict[str, str] = {}
    uri = tracking.tracking_uri
    for name in ("data", "base_model", "unlabelled"):
        value = getattr(training, name)
        if value and value != getattr(TrainSettings, name) and Path(value).expanduser().exists():
            path = Path(value).expanduser().resolve()
            mounts.setdefault(path, False)
            paths[name] = str(path)
    if training.output_dir is not None:
        output = Path(training.output_dir).expanduser().resolve()
        output.parent.mkdir(parents=True, exist_ok=True)
        mounts[output.parent] = True
        paths["output_dir"] = str(output)
    file = sqlite.path_of(tracking.tracking_uri)
    if file is not None:
        file = file.expanduser().resolve()
        mounts[file.parent] = True
        uri = uris.sqlite_uri(file)
        root = _find_artifact_root(tracking)
        if root is not None:
            mounts[root] = True
    hosts = [urllib.parse.urlsplit(tracking.tracking_uri).hostname, *store_hosts()]
    options = {"tracking_uri": uri, **({} if resume else paths)}
    return Place(mounts, environment, "host" if any(loopback.is_loopback(host) for host in hosts) else None, options)


def _find_artifact_root(tracking: TrackingSettings) -> Path | None:
    """Return the experiment's artifact directory on this machine, if the experiment exists and MLflow is installed."""
    try:
        return locate.connect(tracking.tracking_uri, tracking.experiment).artifact_root()
    except (MissingExtraError, TrackingError, NotFoundError):
        return None
