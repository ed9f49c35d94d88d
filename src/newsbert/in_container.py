"""`newsbert train` in the trainer image: same working directory, same tracking server, files owned by the caller."""

import os
import signal
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from newsbert import api, building, config
from newsbert.config import ImageSettings, TrackingSettings, TrainSettings
from newsbert.engine import Engine
from newsbert.errors import EngineError, MissingExtraError, NotFoundError, TrackingError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_KILLED = 137


@dataclass(frozen=True)
class Place:
    """Where and as whom the container runs.

    Attributes:
        mounts: Directories and files of this machine that it sees under the same path; true where it may write.
        environment: Its variables, credentials for the tracking server and its bucket among them.
        network: `host` where the tracking server is on this machine; the engine's default otherwise.
    """

    mounts: dict[Path, bool]
    environment: dict[str, str]
    network: str | None


def train(
    flags: Mapping[str, Any],
    options: list[str],
    on_output: Callable[[bytes], None],
    on_log: Callable[[bytes], None],
) -> int:
    """Run `newsbert train` with `flags` in the trainer image until it ends; Ctrl+C and SIGTERM are passed on.

    Args:
        flags: Options by name, as the command line has them; `None` is not given.
        options: Options without a value, such as `--json`.
        on_output: Called with what it writes to standard output.
        on_log: Called with what it writes to standard error.

    Returns:
        Its exit code.

    Raises:
        NotFoundError: If there is no trainer image of this newsbert.
        EngineError: If there is no engine, or the engine ends it.
    """
    with building.contexts(None, "trainer", config.resolve(ImageSettings)) as plan:
        image = plan.contexts[-1].tag
    engine = Engine()
    if not engine.has_image(image):
        raise NotFoundError(
            f"the engine has no image {image!r}",
            "newsbert build-image --trainer, with [image] in newsbert.toml as here",
        )
    place = _place(flags)
    given = {name: value for name, value in flags.items() if value is not None}
    container = engine.start(
        image,
        ["newsbert", "train", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items()), *options],
        user=f"{os.getuid()}:{os.getgid()}",
        directory=Path.cwd(),
        mounts=place.mounts,
        environment=place.environment,
        network=place.network,
    )

    def pass_on(number: int, _frame: FrameType | None) -> None:
        container.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for output, log in container.follow():
            if output:
                on_output(output)
            if log:
                on_log(log)
        code = container.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        container.remove()
    if code == _KILLED:
        raise EngineError(f"the engine killed the training (exit code {code})", "was it short of memory? docker events")
    return code


def _place(flags: Mapping[str, Any]) -> Place:
    """What the container must see and know for `flags` to mean what they mean here."""
    tracking = config.resolve(
        TrackingSettings, tracking_uri=flags.get("tracking_uri"), experiment=flags.get("experiment")
    )
    training = config.resolve(TrainSettings, **{name: flags.get(name) for name in ("data", "base_model", "output")})
    environment, files = config.for_container()
    mounts = {Path.cwd(): True, **dict.fromkeys(files, False)}
    for name in (training.data, training.base_model):
        if Path(name).expanduser().exists():
            mounts.setdefault(Path(name).expanduser().resolve(), False)
    if training.output is not None:
        parent = Path(training.output).expanduser().resolve().parent
        parent.mkdir(parents=True, exist_ok=True)
        mounts[parent] = True
    uri = urllib.parse.urlsplit(tracking.tracking_uri)
    if uri.scheme == "sqlite":
        mounts[Path(uri.path.removeprefix("/")).resolve().parent] = True
        root = _artifact_root(tracking)
        if root is not None:
            mounts[root] = True
    network = "host" if uri.hostname in _LOOPBACK else None
    return Place(mounts, {**environment, "MLFLOW_TRACKING_URI": tracking.tracking_uri}, network)


def _artifact_root(tracking: TrackingSettings) -> Path | None:
    """Where the experiment keeps its artifacts on this machine, if it exists already and MLflow is installed here."""
    try:
        return api.connect(tracking.tracking_uri, tracking.experiment).artifact_root()
    except (MissingExtraError, TrackingError, NotFoundError):
        return None
