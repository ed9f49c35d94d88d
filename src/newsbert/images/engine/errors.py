"""Convert an engine's errors to newsbert's, and find hints for them."""

import contextlib
from collections.abc import Iterator, Sequence

from newsbert.bundle import golden
from newsbert.errors import EngineError

_HASH_MISMATCH = "DO NOT MATCH THE HASHES"  # from pip's error message
START_HINT = "start Docker, or point DOCKER_HOST at an engine"


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Convert errors of the SDK and of its HTTP libraries to `EngineError`.

    Raises:
        EngineError: With `what` and the reason as its message.
    """
    import requests
    import urllib3
    from docker.errors import DockerException

    try:
        yield
    # urllib3's errors if the engine goes away during a build: the SDK reads the build's events without requests.
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise EngineError(f"{what}: {reason(error)}", START_HINT) from error


def reason(error: BaseException) -> str:
    """Return the last line of an error's message."""
    message = str(getattr(error, "explanation", None) or error).strip()
    return message.splitlines()[-1][:500] if message else type(error).__name__


def cause(error: BaseException) -> str:
    """Return the system's message in an error that libraries have wrapped, or else the last line of the error's."""
    deepest: BaseException | None = error
    while deepest is not None:
        if isinstance(deepest, OSError) and deepest.strerror:
            return deepest.strerror
        deepest = deepest.__cause__ or deepest.__context__
    return reason(error)


def push_hint(tag: str, error: str) -> str:
    """Return a hint for a push that a registry refuses."""
    registry = tag.partition("/")[0] if "/" in tag else ""
    if any(sign in error.lower() for sign in ("denied", "unauthorized", "authentication", "no basic auth")):
        return f"docker login {registry}".strip()
    return f"is {registry} a registry that answers? push again with --push" if registry else "name one: --repository"


def build_hint(error: str, tail: Sequence[str]) -> str:
    """Return a hint for a failed build, from the engine's error and the last lines of the output."""
    if any(golden.MISMATCH in line for line in tail):
        return "the image would not answer as the model did in training: is its handler or a library another one?"
    lowered = error.lower()
    if any(
        sign in lowered for sign in ("pull access denied", "manifest", "lookup", "registry", "dial tcp", "not found:")
    ):
        return "the root image cannot be had: name another with --root-image, or load it into the engine first"
    if "no space left" in lowered or any("no space left" in line.lower() for line in tail):
        return "the engine's disk is full: docker system df; docker system prune"
    if any(_HASH_MISMATCH in line for line in tail):
        return (
            "what the index gave is not the file that newsbert was tested with; is it torch? "
            "--torch-index https://download.pytorch.org/whl/cpu has the CPU builds, --gpu takes those for CUDA"
        )
    if any("torch==" in line for line in tail if line.startswith("ERROR")):
        return "name an index that has it: --torch-index URL; empty for pip's own"
    return "pip's index can be set with --pip-option index-url=URL, the network with --build-network host"
