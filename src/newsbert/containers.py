"""From an image to a running container."""

import contextlib
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from newsbert import api, image, loopback, torchserve
from newsbert.config import ImageSettings, ServeSettings
from newsbert.engine import Container, Engine
from newsbert.errors import NotFoundError, ServingError
from newsbert.torchserve import Address

CONTAINER_PORT = 8080


@dataclass(frozen=True)
class Running:
    """A container whose model answers."""

    container: Container
    address: Address

    @property
    def id(self) -> str:
        """The engine's id of the container."""
        return self.container.id

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            ServingError: If it has stopped by itself.
        """
        code = self.container.exit_code()
        if code is not None:
            raise ServingError(f"the container stopped by itself (exit code {code})", "start it again")


def image_of(reference: str | None, settings: ImageSettings, tracking_uri: str | None = None) -> str:
    """Return the serving image that `reference` means: an image's own name, or the one of a model.

    Raises:
        NotFoundError: If there is no such model, or the engine has no image of it.
    """
    engine = Engine()
    if reference is not None and ":" in reference and not reference.startswith(("models:/", "runs:/")):
        if not engine.has_image(reference):
            raise NotFoundError(f"the engine has no image {reference!r}", "newsbert build-image MODEL")
        return reference
    located = api.connect(tracking_uri).locate(reference)
    tag = image.serving_tag(located.name, settings)
    if not engine.has_image(tag):
        raise NotFoundError(f"the engine has no image {tag!r}", f"newsbert build-image {located.name}")
    return tag


@contextlib.contextmanager
def serving(
    tag: str, settings: ServeSettings, stop: threading.Event, on_log: Callable[[str], None], *, keep: bool = False
) -> Iterator[Running | None]:
    """Run a serving image until the block ends; `None` if `stop` was set before it answered.

    Args:
        tag: The image.
        settings: Host and port on this machine; port 0 takes a free one.
        stop: Set by somebody else to give up waiting.
        on_log: Called with the container's log if it fails.
        keep: Leave it running at the end of the block.

    Raises:
        ServingError: If it ends or does not answer in time.
    """
    address = Address(settings.host, torchserve.claim_port(settings.host, settings.port))
    container = Engine().run(tag, host=address.host, port=address.port, container_port=CONTAINER_PORT)
    answered = False
    try:
        answered = _wait_ready(container, address, settings.timeout_s, stop)
        yield Running(container, address) if answered else None
    except ServingError:
        for line in container.logs().splitlines()[-20:]:
            on_log(line)
        answered = False
        raise
    finally:
        if not (keep and answered):
            container.stop()


def _wait_ready(container: Container, address: Address, timeout_s: float, stop: threading.Event) -> bool:
    request = urllib.request.Request(address.predictions_url, b"ready?", {"Content-Type": "text/plain"})
    deadline = time.monotonic() + timeout_s
    while not stop.wait(0.1):
        code = container.exit_code()
        if code is not None:
            raise ServingError(f"the container stopped while starting (exit code {code})", "see its log above")
        with contextlib.suppress(OSError), loopback.urlopen(request, timeout=10):
            return True
        if time.monotonic() > deadline:
            raise ServingError(f"no answer on {address.url} after {timeout_s:g} s", "see its log above")
    return False
