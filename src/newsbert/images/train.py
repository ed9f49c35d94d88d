"""`newsbert train` in the trainer image: same working directory, same tracking server, files owned by the caller."""

import os
import signal
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from newsbert.core import config, loopback, uris
from newsbert.core.container_environment import for_container
from newsbert.core.environment import store_hosts
from newsbert.core.installation import MissingExtraError
from newsbert.core.settings import ImageSettings, TrackingSettings, TrainSettings
from newsbert.errors import EngineError, NotFoundError, TrackingError, UsageError
from newsbert.images import build
from newsbert.images.engine.container import Container
from newsbert.images.engine.engine import Engine
from newsbert.tracking import locate, sqlite
from newsbert.training import run

_KILLED = 137


@dataclass(frozen=True)
class Place:
    """Where and as whom the container runs.

    Attributes:
        mounts: Directories and files of this machine that it sees under the same path; true where it may write.
        environment: Its variables, credentials for the tracking server and its bucket among them.
        network: `host` where the tracking server or its bucket is on this machine; the engine's default otherwise.
        given: Options that are to be given in place of the caller's.
    """

    mounts: dict[Path, bool]
    environment: dict[str, str]
    network: str | None
    given: dict[str, Any]


def train(
    flags: Mapping[str, Any],
    options: list[str],
    on_output: Callable[[bytes], None],
    on_log: Callable[[bytes], None],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run `newsbert train` with `flags` in the trainer image until it ends; Ctrl+C and SIGTERM are passed on.

    Args:
        flags: Options by name, as the command line has them; `None` is not given.
        options: Options without a value, such as `--json`.
        on_output: Called with what it writes to standard output.
        on_log: Called with what it writes to standard error.
        environment: More variables for it.

    Returns:
        Its exit code.

    Raises:
        NotFoundError: If there is no trainer image of this newsbert.
        EngineError: If there is no engine, or the engine ends it.
    """
    with build.contexts(None, "trainer", config.resolve(ImageSettings)) as plan:
        image = plan.contexts[-1].tag
    engine = Engine()
    if not engine.has_image(image):
        raise NotFoundError(
            f"the engine has no image {image!r}",
            "newsbert build-image --trainer, with [image] in newsbert.toml as here",
        )
    place = _place(flags)
    given = {name: value for name, value in {**flags, **place.given}.items() if value is not None}
    signals: list[int] = []
    container: Container | None = None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if container is not None:
            container.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        container = engine.start(
            image,
            ["newsbert", "train", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items()), *options],
            user=f"{os.getuid()}:{os.getgid()}",
            directory=Path.cwd(),
            mounts=place.mounts,
            environment={**place.environment, **(environment or {})},
            network=place.network,
        )
        for number in signals:  # those that came before there was anybody to pass them on to
            container.send_signal(number)
        for output, log in container.follow():
            if output:
                on_output(output)
            if log:
                on_log(log)
        code = container.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if container is not None:
            container.remove()
    if code == _KILLED:
        raise EngineError(f"the engine killed the training (exit code {code})", "was it short of memory? docker events")
    return code


def _place(flags: Mapping[str, Any]) -> Place:
    """What the container must see and know for `flags` to mean what they mean here.

    Raises:
        UsageError: If a path cannot be what it is given for.
    """
    try:
        return _find_place(flags)
    except (OSError, RuntimeError) as error:  # the latter: no such user's home
        raise UsageError(f"a path cannot be used: {error}", "check --data, --base-model and --output") from error


def _find_place(flags: Mapping[str, Any]) -> Place:
    tracking = config.resolve(
        TrackingSettings, tracking_uri=flags.get("tracking_uri"), experiment=flags.get("experiment")
    )
    resume = flags.get("resume")
    if resume is None:
        training = config.resolve(TrainSettings, **{name: flags.get(name) for name in ("data", "base_model", "output")})
    else:  # its own settings, which cannot be given again
        training = run.settings_of(resume)
    environment, files = for_container()
    mounts = {Path.cwd(): True, **files}
    # As they are without links and ~, which mean something else in there.
    paths: dict[str, str] = {}
    uri = tracking.tracking_uri
    for name in ("data", "base_model"):
        value = getattr(training, name)
        if value != getattr(TrainSettings, name) and Path(value).expanduser().exists():
            path = Path(value).expanduser().resolve()
            mounts.setdefault(path, False)
            paths[name] = str(path)
    if training.output is not None:
        output = Path(training.output).expanduser().resolve()
        output.parent.mkdir(parents=True, exist_ok=True)
        mounts[output.parent] = True
        paths["output"] = str(output)
    file = sqlite.path_of(tracking.tracking_uri)
    if file is not None:
        file = file.expanduser().resolve()
        mounts[file.parent] = True
        uri = uris.sqlite_uri(file)
        root = _artifact_root(tracking)
        if root is not None:
            mounts[root] = True
    hosts = [urllib.parse.urlsplit(tracking.tracking_uri).hostname, *store_hosts()]
    given = {"tracking_uri": uri, **({} if resume else paths)}
    return Place(mounts, environment, "host" if any(loopback.is_loopback(host) for host in hosts) else None, given)


def _artifact_root(tracking: TrackingSettings) -> Path | None:
    """Where the experiment keeps its artifacts on this machine, if it exists already and MLflow is installed here."""
    try:
        return locate.connect(tracking.tracking_uri, tracking.experiment).artifact_root()
    except (MissingExtraError, TrackingError, NotFoundError):
        return None
