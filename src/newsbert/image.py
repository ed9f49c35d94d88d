"""What an image is built from: Dockerfile and files, rendered apart from any engine."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import newsbert
from newsbert import archive, requirements, wheel
from newsbert.bundle import Bundle
from newsbert.config import ImageSettings, ServeSettings
from newsbert.errors import UsageError

BASE_NAME, SERVING_NAME = "newsbert-base", "torchserve"
_TAG_LENGTH = 128
_PIP_OPTION = re.compile(r"(?P<name>[a-z][a-z0-9-]*)=(?P<value>[^\r\n]+)")
_CREDENTIAL = re.compile(r"(?P<kept>(?:[a-z][a-z0-9_-]*=)?[a-z][a-z0-9+.-]*://)?\S*@", re.IGNORECASE)
_QUERY = re.compile(r"\?\S+")
_PLAIN_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[0-9]+)?|run [0-9a-f]{32}")


@dataclass(frozen=True)
class Context:
    """A build context.

    Attributes:
        tag: What the image is to be called.
        dockerfile: Text of the Dockerfile.
        build_args: Values of its ARGs.
        labels: The image's labels.
        files: Content, or the path of a file with it, by name in the context.
    """

    tag: str
    dockerfile: str
    build_args: dict[str, str]
    labels: dict[str, str]
    files: dict[str, bytes | Path]

    def write(self, directory: Path) -> None:
        """Write Dockerfile and files into an empty directory."""
        (directory / "Dockerfile").write_text(self.dockerfile, encoding="utf-8")
        for name, content in self.files.items():
            (directory / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())

    def sizes(self) -> dict[str, int]:
        """Bytes by name, the Dockerfile among them."""
        sizes = {
            name: len(each) if isinstance(each, bytes) else each.stat().st_size for name, each in self.files.items()
        }
        return {"Dockerfile": len(self.dockerfile.encode()), **sizes}


def render_base(settings: ImageSettings, directory: Path) -> Context:
    """Render the context of the base image, which training and serving share.

    The tag ends in a hash of all that goes in but pip's options: the same input is the same image.

    Args:
        settings: Root image and pip options.
        directory: Where the newsbert wheel may be written.

    Raises:
        UsageError: If a pip option is none.
    """
    dockerfile = _dockerfile("base")
    package = wheel.write(directory)
    pins = _lines(requirements.pinned())
    build_args = {"ROOT_IMAGE": settings.root_image}
    digest = hashlib.sha256()
    for part in (dockerfile.encode(), pins, package.read_bytes(), settings.root_image.encode()):
        digest.update(hashlib.sha256(part).digest())
    return Context(
        tag=_name(settings.repository, BASE_NAME, f"{newsbert.__version__}-{digest.hexdigest()[:12]}"),
        dockerfile=dockerfile,
        build_args=build_args,
        labels={"org.opencontainers.image.title": BASE_NAME, "org.opencontainers.image.version": newsbert.__version__},
        files={"pip.conf": pip_conf(settings.pip_options), "requirements.txt": pins, package.name: package},
    )


def render_serving(bundle: Bundle, name: str, base_tag: str, settings: ImageSettings, directory: Path) -> Context:
    """Render the context of the image that serves a verified bundle.

    Args:
        bundle: What it serves.
        name: The model's name, such as `BertModel/2`.
        base_tag: The base image.
        settings: Root image, repository and pip options.
        directory: Where the model archive may be written.

    Raises:
        ModelError: If the bundle was altered after training.
        UsageError: If a pip option is none.
    """
    model_archive = archive.write(bundle, directory, name, ServeSettings())
    base = set(requirements.pinned())
    pins = [line for line in requirements.pinned(requirements.SERVING_EXTRA) if line not in base]
    return Context(
        tag=serving_tag(name, settings),
        dockerfile=_dockerfile("torchserve"),
        build_args={"BASE_IMAGE": base_tag, "ROOT_IMAGE": settings.root_image},
        labels={
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.version": newsbert.__version__,
            "newsbert.model": name,
            "newsbert.bundle_digest": bundle.digest,
            "newsbert.data_digest": str(bundle.contract.data["sha256"]),
        },
        files={
            "pip.conf": pip_conf(settings.pip_options),
            "requirements.txt": _lines(pins),
            "torch_standin.py": torch_standin(),
            archive.ARCHIVE_NAME: model_archive,
        },
    )


def serving_tag(name: str, settings: ImageSettings) -> str:
    """The serving image of a model: `torchserve:BertModel-2` for `BertModel/2`, behind the repository's prefix.

    A name that a tag cannot tell from others ends in its hash: no two models have the same image.
    """
    if not _PLAIN_TAG.fullmatch(name) or len(name) > _TAG_LENGTH:
        name = f"{name[:100]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    return _name(settings.repository, SERVING_NAME, name)


def pip_conf(options: Sequence[str]) -> bytes:
    """Pip's configuration of `NAME=VALUE` options; a name given several times has several values.

    Raises:
        UsageError: If an option is not of that form.
    """
    values: dict[str, list[str]] = {}
    for option in options:
        match = _PIP_OPTION.fullmatch(option)
        if match is None:
            raise UsageError(
                f"the pip option {_blotted(option)!r} is not NAME=VALUE",
                "such as --pip-option index-url=https://packages.example/simple",
            )
        values.setdefault(match["name"], []).append(match["value"])
    return _lines(["[global]", *(f"{name} = {' '.join(each)}" for name, each in values.items())])


def without_secrets(context: Context) -> Mapping[str, str]:
    """What `--dry-run` shows of a context: the files as text, where they are text, credentials blotted out."""
    conf = context.files["pip.conf"]
    assert isinstance(conf, bytes)
    return {
        "Dockerfile": context.dockerfile,
        "pip.conf": _blotted(conf.decode()),
    }


def docker_directory() -> Traversable:
    """Where the Dockerfiles are: in the installed package, or at the top of the checkout it is installed from."""
    installed = resources.files("newsbert") / "docker"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "docker"


def torch_standin() -> bytes:
    """The module that stands where torch would in a server that needs none."""
    return (resources.files("newsbert") / "torch_standin.py").read_bytes()


def _dockerfile(name: str) -> str:
    return (docker_directory() / f"{name}.Dockerfile").read_text(encoding="utf-8")


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _blotted(text: str) -> str:
    """`text` without what may be a credential: what stands before an @, and the query of a URL."""
    return _QUERY.sub("?***", _CREDENTIAL.sub(r"\g<kept>***@", text))


def _name(repository: str, image: str, tag: str) -> str:
    """An image reference; characters that a tag may not have become `-`."""
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", tag).lstrip(".-")[:_TAG_LENGTH]
    return f"{repository.rstrip('/')}/{image}:{clean}" if repository else f"{image}:{clean}"
