"""Render the build contexts of images, Dockerfile and files, without an engine.

The trainer image, the serving images and the image of a team's tracking server are built on the base image.
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from newsbert.bundle import pins
from newsbert.bundle.bundle import Bundle, sha256_of
from newsbert.core import package_files
from newsbert.core.settings import NATIVE, TORCHSERVE, ImageSettings
from newsbert.core.version import __version__
from newsbert.images import lock_files, package_sets, wheel
from newsbert.images.pip_options import pip_conf, redact
from newsbert.images.reference import ImageReference
from newsbert.images.tags import (
    BASE_NAME,
    HASH_LENGTH,
    MAX_TAG_LENGTH,
    TRACKING_NAME,
    TRAINER_NAME,
    version_tag,
    write_name,
)
from newsbert.inference.runtime import resolve_runtime
from newsbert.tracking.artifacts import ModelLocation

MODEL_LABEL, RUNTIME_LABEL, DIGEST_LABEL = "newsbert.model", "newsbert.runtime", "newsbert.bundle_digest"
"""Labels of a serving image: the model's name in answers, the runtime, and the SHA-256 of the contract."""

SERVER_LABEL = "newsbert.server"
"""Label of a serving image: the server in it."""

REQUIREMENTS_FILE, TORCH_FILE, BUNDLE_FILE = "requirements.txt", "torch.txt", "bundle.txt"
PIP_CONF, TORCH_CONF = "pip.conf", "torch.conf"
ENTRYPOINT = "entrypoint.sh"
_LICENCES = {
    NATIVE: "Apache-2.0 AND BSD-2-Clause AND BSD-3-Clause AND MIT AND MPL-2.0 AND PSF-2.0",
    TORCHSERVE: (
        "Apache-2.0 AND BSD-2-Clause AND BSD-3-Clause AND GPL-2.0-only WITH Classpath-exception-2.0 AND MIT AND PSF-2.0"
    ),
}
_OCI = "org.opencontainers.image"
_IMAGE_ARGUMENTS = {"BASE_IMAGE", "TRAINER_IMAGE", "SHIPPED_IMAGE"}
_PIP_INSTALL = "python3 -m pip --python /opt/packages/bin/python install --no-deps --only-binary :all:"
_GPU_LINE = "# GPU\n"
_GPU_STEP = f"RUN {_PIP_INSTALL} --require-hashes -r /build/gpu.txt\n"
_BUNDLE_LINE = "# BUNDLE\n"
_BUNDLE_STEP = f"# --bundle-versions: what the bundle names, without hashes.\nRUN {_PIP_INSTALL} -r /build/bundle.txt\n"
_BUNDLE_SERVING_STEP = _BUNDLE_STEP.replace(
    "--python /opt/packages/bin/python install", "install --target /opt/serving"
)


@dataclass(frozen=True)
class BuildContext:
    """A build context.

    Attributes:
        tag: The image's name. It ends in a hash of all inputs: same input, same image.
        aliases: Other names of the image.
        dockerfile: Text of the Dockerfile.
        build_args: Values of its ARGs.
        labels: The image's labels.
        files: The content, or the path of a file with the content, by name in the context.
    """

    tag: str
    aliases: tuple[str, ...]
    dockerfile: str
    build_args: dict[str, str]
    labels: dict[str, str]
    files: dict[str, bytes | Path] = field(repr=False)

    def write(self, file: Path) -> None:
        """Write Dockerfile and files as a tar archive, the format that engines accept.

        Raises:
            OSError: If it cannot be written.
        """
        with tarfile.open(file, "w") as context:
            for name, content in {"Dockerfile": self.dockerfile.encode(), **self.files}.items():
                entry = tarfile.TarInfo(name)
                if isinstance(content, bytes):
                    entry.size = len(content)
                    context.addfile(entry, io.BytesIO(content))
                else:
                    entry.size = content.stat().st_size
                    with content.open("rb") as stream:
                        context.addfile(entry, stream)

    def write_directory(self, directory: Path) -> None:
        """Write Dockerfile and files to a directory for this user only, since pip's options may be secret.

        Raises:
            OSError: If it exists, or cannot be written.
        """
        directory.mkdir(mode=0o700)
        for name, content in {"Dockerfile": self.dockerfile.encode(), **self.files}.items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                shutil.copyfile(content, file)

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes by file name, including the Dockerfile."""
        sizes = {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }
        return {"Dockerfile": len(self.dockerfile.encode()), **sizes}


def render_base(settings: ImageSettings, directory: Path, versions: Mapping[str, str] | None = None) -> BuildContext:
    """Render the context of the base image.

    Args:
        settings: Root image, repository and pip options.
        directory: A directory for the newsbert wheel.
        versions: Versions that replace the shipped ones, by package; packages of other images are ignored.

    Raises:
        UsageError: If a pip option, the root image or the repository is not valid.
    """
    package = wheel.write(directory)
    files: dict[str, bytes | Path] = {package.name: package}
    needed = set(package_sets.BASE)
    dockerfile = _read_dockerfile("base")
    if settings.gpu:
        # Replace ONNX Runtime by its CUDA build, and add the CUDA libraries that it requires.
        needed.discard("onnxruntime")
        dockerfile = _insert_step(dockerfile, _GPU_LINE, _GPU_STEP, "gpu.txt")
        files["gpu.txt"] = _encode_lines(lock_files.lines(lock_files.names(lock_files.GPU), lock_files.GPU))
    overrides = {name: version for name, version in (versions or {}).items() if name in needed}
    if overrides:
        dockerfile = _insert_step(dockerfile, _BUNDLE_LINE, _BUNDLE_STEP, BUNDLE_FILE)
        files[BUNDLE_FILE] = _encode_lines(pins.lines(overrides))
    return _create_context(
        BASE_NAME,
        __version__,
        settings,
        dockerfile.replace(_GPU_LINE, "").replace(_BUNDLE_LINE, ""),
        {"ROOT_IMAGE": str(ImageReference.parse(settings.root_image))},
        _create_labels(BASE_NAME),
        {**files, REQUIREMENTS_FILE: _encode_lines(lock_files.lines(needed - overrides.keys()))},
    )


def render_trainer(base: BuildContext, settings: ImageSettings) -> BuildContext:
    """Render the context of the trainer image; `settings` are those of the call of `render_base` for `base`.

    Raises:
        UsageError: If a pip option is not valid.
    """
    index = "" if settings.gpu else settings.torch_index
    if settings.gpu:
        cuda = lock_files.names(lock_files.TORCH_CUDA) - lock_files.names(lock_files.GPU)
        torch = lock_files.lines(cuda, lock_files.TORCH_CUDA)
    else:
        torch = lock_files.lines({"torch"}, lock_files.TORCH_CPU)
    needed = lock_files.names(lock_files.TRAINER) - {*package_sets.BASE}
    return _create_context(
        TRAINER_NAME,
        __version__,
        settings,
        _read_dockerfile("trainer"),
        {"BASE_IMAGE": base.tag, "ROOT_IMAGE": settings.root_image},
        # Pip's default index and another can have different builds of one version: for CUDA, for the CPU.
        {**_create_labels(TRAINER_NAME), "newsbert.torch_index": "another" if index else "pip"},
        {
            TORCH_FILE: _encode_lines(torch),
            REQUIREMENTS_FILE: _encode_lines(lock_files.lines(needed)),
            TORCH_CONF: pip_conf(_replace_index(settings.pip_options, index)),
        },
    )


def render_tracking(base: BuildContext, settings: ImageSettings) -> BuildContext:
    """Render the context of a tracking server's image; the arguments are those of `render_trainer`.

    Raises:
        UsageError: If a pip option is not valid.
    """
    return _create_context(
        TRACKING_NAME,
        __version__,
        settings,
        _read_dockerfile("tracking"),
        {"BASE_IMAGE": base.tag, "ROOT_IMAGE": settings.root_image},
        _create_labels(TRACKING_NAME),
        {
            REQUIREMENTS_FILE: _encode_lines(
                lock_files.lines(lock_files.names(lock_files.TRACKING) - {*package_sets.BASE})
            )
        },
    )


def render_serving(
    bundle: Bundle,
    located: ModelLocation,
    base: BuildContext,
    trainer: BuildContext,
    settings: ImageSettings,
    versions: Mapping[str, str] | None = None,
) -> BuildContext:
    """Render the context of the image that serves a bundle.

    Args:
        bundle: The bundle.
        located: The origin of the bundle.
        base: The base image.
        trainer: The trainer image, in which the archive is built.
        settings: Runtime, root image, repository and pip options.
        versions: As in `render_base`.

    Raises:
        ModelError: If the bundle was altered after training.
        UsageError: If a pip option is not valid, or there is no such runtime.
    """
    runtime = resolve_runtime(bundle, settings.runtime)
    bundle.verify()
    packages = package_sets.SERVING[settings.server]
    serving = {*packages, *(["openvino"] if runtime.startswith("openvino") else [])}
    overrides = {name: version for name, version in (versions or {}).items() if name in serving}
    dockerfile = _read_dockerfile(settings.server)
    if overrides:
        dockerfile = _insert_step(dockerfile, _BUNDLE_LINE, _BUNDLE_SERVING_STEP, BUNDLE_FILE)
    optional_labels = {
        "newsbert.model_name": located.model_name,
        "newsbert.model_version": located.version,
        "newsbert.run_id": located.run_id,
        f"{_OCI}.revision": located.revision,
    }
    images = {"SHIPPED_IMAGE": trainer.tag if runtime.startswith("torch") else base.tag}
    packing: dict[str, bytes | Path] = {}
    if settings.server == TORCHSERVE:  # the trainer packs the model into an archive
        images |= {"BASE_IMAGE": base.tag, "TRAINER_IMAGE": trainer.tag}
        packing["packing.txt"] = _encode_lines(lock_files.lines(package_sets.PACKING))
    return _create_context(
        package_sets.SERVING_NAMES[settings.server],
        version_tag(located, bundle.digest),
        settings,
        dockerfile.replace(_BUNDLE_LINE, ""),
        {**images, "ROOT_IMAGE": settings.root_image, "MODEL": located.name, "RUNTIME": runtime},
        {
            f"{_OCI}.title": located.name,
            f"{_OCI}.version": located.version or __version__,
            f"{_OCI}.licenses": _LICENCES[settings.server],
            "newsbert.version": __version__,
            SERVER_LABEL: settings.server,
            MODEL_LABEL: located.name,
            RUNTIME_LABEL: runtime,
            DIGEST_LABEL: bundle.digest,
            "newsbert.data_digest": str(bundle.contract.data["sha256"]),
            **{label: value for label, value in optional_labels.items() if value},
        },
        {
            ENTRYPOINT: (package_files.find(package_files.DOCKER) / ENTRYPOINT).read_bytes(),
            "serving.txt": _encode_lines(lock_files.lines(serving - overrides.keys())),
            "sbom.txt": _encode_lines(lock_files.lines(package_sets.SBOM)),
            **packing,
            **({BUNDLE_FILE: _encode_lines(pins.lines(overrides))} if overrides else {}),
            **{f"model/{name}": content for name, content in bundle.files(runtime).items()},
        },
    )


def without_secrets(context: BuildContext) -> Mapping[str, str]:
    """Return the text files of a context that `--dry-run` shows, without credentials."""
    options = {name: content for name, content in context.files.items() if name in {PIP_CONF, TORCH_CONF}}
    return {
        "Dockerfile": context.dockerfile,
        **{name: redact(content.decode()) for name, content in options.items() if isinstance(content, bytes)},
    }


def _create_context(
    image: str,
    version: str,
    settings: ImageSettings,
    dockerfile: str,
    build_args: dict[str, str],
    labels: dict[str, str],
    files: dict[str, bytes | Path],
) -> BuildContext:
    """Return a context with pip's options, whose tag ends in the hash of everything except these options."""
    content = {
        name: hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else sha256_of(data)
        for name, data in files.items()
        if name != TORCH_CONF
    }
    # The registry of an image is not content; the tag is, and in newsbert's images it ends in a hash of their content.
    arguments = {
        name: value.rpartition("/")[2] if name in _IMAGE_ARGUMENTS else value for name, value in build_args.items()
    }
    everything = json.dumps([dockerfile, arguments, labels, content], sort_keys=True)
    digest = hashlib.sha256(everything.encode()).hexdigest()[:HASH_LENGTH]
    return BuildContext(
        write_name(settings.repository, image, f"{version[: MAX_TAG_LENGTH - HASH_LENGTH - 1]}-{digest}"),
        (write_name(settings.repository, image, version),),
        dockerfile,
        build_args,
        labels,
        {PIP_CONF: pip_conf(settings.pip_options), **files},
    )


def _replace_index(options: Sequence[str], index: str) -> list[str]:
    """Return pip's options with their index replaced, or unchanged if `index` is empty."""
    if not index:
        return list(options)
    others = [option for option in options if not option.startswith("index-url=")]
    return [*others, f"index-url={index}"]


def _insert_step(dockerfile: str, line: str, step: str, file: str) -> str:
    """Replace a comment of a Dockerfile by a step, and copy the file that the step needs into the build."""
    return dockerfile.replace(" /build/\n", f" {file} /build/\n", 1).replace(line, step)


def _create_labels(title: str) -> dict[str, str]:
    return {
        f"{_OCI}.title": title,
        f"{_OCI}.version": __version__,
        f"{_OCI}.licenses": _LICENCES[TORCHSERVE],
        "newsbert.version": __version__,
    }


def _read_dockerfile(name: str) -> str:
    return (package_files.find(package_files.DOCKER) / f"{name}.Dockerfile").read_text(encoding="utf-8")


def _encode_lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


MODEL_PATH = "/opt/model"
"""Directory of the model in a serving image: its files, or TorchServe's archive of them."""
