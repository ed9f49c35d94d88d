"""Plan, build, record, push and inspect the images of a registered model."""

import contextlib
import json
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from newsbert.bundle import pins
from newsbert.bundle import requirements as bundle_requirements
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.requirements import Difference
from newsbert.core import temporary
from newsbert.core.settings import ImageSettings
from newsbert.errors import EngineError, NewsbertError, NotFoundError, TrackingError, UsageError
from newsbert.images import package_sets
from newsbert.images.contexts import BuildContext, render_base, render_serving, render_tracking, render_trainer
from newsbert.images.engine.engine import Engine
from newsbert.images.engine.layers import Layer
from newsbert.images.pip_options import holds_secret
from newsbert.images.reference import ImageReference
from newsbert.images.tags import serving_repositories
from newsbert.tracking import locate, registry
from newsbert.tracking.artifacts import ModelLocation

SBOM_PATH = "/opt/model/bom.cdx.json"
IMAGE_TAG, DIGEST_TAG = "newsbert.image", "newsbert.image_digest"
"""Tags of a model version: the image that was built from it last, and the image that was pushed, with its digest."""

STAGE_ARGUMENT = "STAGE"
"""Build argument that names the build stages with pip's options."""

Kind = Literal["base", "trainer", "tracking", "serving"]


@dataclass(frozen=True)
class BuildPlan:
    """Contexts in build order, and the model of the last one, if it has one.

    Attributes:
        contexts: The contexts.
        located: The model.
        notes: Notes for the user, such as packages whose versions differ from those of the training.
    """

    contexts: tuple[BuildContext, ...]
    located: ModelLocation | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltImage:
    """An image in the engine; `cached` if it existed before the build."""

    tag: str
    aliases: tuple[str, ...]
    id: str
    cached: bool
    layers: tuple[Layer, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all layers in bytes."""
        return sum(layer.size_bytes for layer in self.layers)


@contextlib.contextmanager
def contexts(
    reference: str | None, kind: Kind, settings: ImageSettings, tracking_uri: str | None = None
) -> Iterator[BuildPlan]:
    """Render the contexts of an image in build order; their files are removed at the end of the block.

    Args:
        reference: The model of a serving image, as in `newsbert.load`.
        kind: The kind of image.
        settings: Root image, repository, options.
        tracking_uri: MLflow's tracking URI; default: the configured one.

    Raises:
        NewsbertError: If there is no such model, or it was altered after training.
    """
    with temporary.directory() as work:
        if kind != "serving":
            base = render_base(settings, work)
            render = {"trainer": render_trainer, "tracking": render_tracking}.get(kind)
            yield BuildPlan((base, *([render(base, settings)] if render else [])), None)
            return
        located = locate.locate(reference, tracking_uri=tracking_uri)
        bundle = Bundle.read(located.path)
        shipped = pins.pins()
        differences = bundle_requirements.differences(bundle_requirements.read(located.path, shipped), shipped)
        overrides = (
            {difference.name: difference.bundle for difference in differences} if settings.bundle_versions else {}
        )
        base = render_base(settings, work, overrides)
        trainer = render_trainer(base, settings)
        image = render_serving(bundle, located, base, trainer, settings, overrides)
        # The native server's image needs a trainer for a runtime of PyTorch's alone.
        built_on = [context for context in (base, trainer) if context.tag in image.build_args.values()]
        base_images = (base, trainer) if trainer in built_on else (base,)
        signed = (f"{located.name} is signed by {bundle.signed_by}",) if bundle.signed_by else ()
        yield BuildPlan((*base_images, image), located, (*signed, *_describe_differences(differences, settings)))


def _describe_differences(differences: Sequence[Difference], settings: ImageSettings) -> tuple[str, ...]:
    """Return notes about packages in images whose versions differ from those of the model's training."""
    used = [
        difference
        for difference in differences
        if difference.name in package_sets.BASE + package_sets.SERVING[settings.server]
    ]
    if settings.bundle_versions:
        return tuple(
            f"{package.name} {package.bundle} is the bundle's; newsbert has {package.shipped}" for package in used
        )
    notes = [
        f"{package.name} {package.shipped} is newsbert's; the model was trained with {package.bundle}"
        for package in used
    ]
    return (*notes, *(["to serve with what it was trained with: --bundle-versions"] if notes else []))


def build(
    context: BuildContext, settings: ImageSettings, on_line: Callable[[str], None], *, rebuild: bool = False
) -> BuiltImage:
    """Build a context, unless the engine has an image of that content.

    Args:
        context: The context.
        settings: Network and hosts of the build.
        on_line: Called with every line of the engine's output.
        rebuild: Build again from scratch, since the image of a name such as `python:3.11` changes over time.

    Raises:
        EngineError: If there is no engine, or the build fails.
        UsageError: If an extra host is not HOST:IP.
    """
    engine = Engine()
    hosts = dict(_parse_host(entry) for entry in settings.extra_hosts)
    cached = engine.has_image(context.tag) and not rebuild
    # The label identifies the stages that pip's options are copied into; concurrent builds have other labels.
    stage = f"build-{uuid.uuid4().hex}" if holds_secret(settings.pip_options, settings.torch_index) else "build"
    if rebuild and "BASE_IMAGE" not in context.build_args:
        try:
            engine.pull(settings.root_image)
        except EngineError as error:
            on_line(f"Note: the root image stays as it is: {error.message}")
    if not cached:
        try:
            with temporary.directory() as directory:
                file = directory / "context.tar"
                context.write(file)
                engine.build(
                    file,
                    context.tag,
                    build_args={**context.build_args, STAGE_ARGUMENT: stage},
                    labels=context.labels,
                    network=settings.build_network,
                    extra_hosts=hosts,
                    on_line=on_line,
                    fresh=rebuild,
                )
        except OSError as error:
            raise NewsbertError(
                f"the build context cannot be written: {error}", "check the disk: df -h /tmp"
            ) from error
        finally:
            if stage != "build":
                try:
                    engine.remove_stages(f"newsbert.stage={stage}")
                except EngineError as error:  # must not hide the error that ended the build
                    on_line(f"Note: pip's options are still in the build stage newsbert.stage={stage}: {error.message}")
    for alias in context.aliases:
        engine.tag_image(context.tag, alias)
    return BuiltImage(
        context.tag, context.aliases, engine.image_id(context.tag), cached, tuple(engine.layers(context.tag))
    )


def write_contexts(plan: BuildPlan, settings: ImageSettings, directory: Path) -> list[str]:
    """Write every context of a plan to its own directory and return the commands that build them, in order.

    Args:
        plan: The plan.
        settings: Network and hosts of the build.
        directory: A new directory; `build.sh` in it has the commands.

    Raises:
        UsageError: If it exists, or an extra host is not HOST:IP.
        NewsbertError: If it cannot be written to.
    """
    hosts = [word for name, ip in map(_parse_host, settings.extra_hosts) for word in ("--add-host", f"{name}:{ip}")]
    network = ["--network", settings.build_network] if settings.build_network else []
    commands = []
    try:
        if directory.exists():
            raise UsageError(f"{str(directory)!r} exists", "name a new directory: --write-context DIR")
        directory.parent.mkdir(parents=True, exist_ok=True)
        with temporary.directory(directory.parent) as part:
            for number, context in enumerate(plan.contexts, 1):
                name = f"{number}-{ImageReference.parse(context.tag).repository.rpartition('/')[2]}"
                context.write_directory(part / name)
                words = ["docker", "build", *network, *hosts]
                for tag in (context.tag, *context.aliases):
                    words += ["--tag", tag]
                for flag, values in (("--build-arg", context.build_args), ("--label", context.labels)):
                    words += [word for key, value in values.items() for word in (flag, f"{key}={value}")]
                commands.append(shlex.join([*words, name]))
            script = "".join(f"{command}\n" for command in commands)
            (part / "build.sh").write_text(f'set -eu\ncd "$(dirname "$0")"\n{script}', encoding="utf-8")
            part.rename(directory)
    except OSError as error:
        raise NewsbertError(
            f"{directory} cannot be written: {error.strerror}", "check the disk and its rights"
        ) from error
    return commands


def pending_contexts(plan: BuildPlan, *, rebuild: bool = False) -> tuple[BuildContext, ...]:
    """Return the contexts of a plan to build: only the last one, if the engine has its image already."""
    return plan.contexts[-1:] if Engine().has_image(plan.contexts[-1].tag) and not rebuild else plan.contexts


def record(located: ModelLocation, built: BuiltImage, tracking_uri: str | None = None) -> list[str]:
    """Add an image's SBOM to the artifacts of its model version.

    Returns:
        Notes for the user, if that failed; the image exists all the same.
    """
    if located.model_name is None or located.version is None:
        return []
    try:
        tracker = locate.connect(tracking_uri)
        if registry.version_tags(tracker, located.model_name, located.version).get(IMAGE_TAG) == built.tag:
            return []
        sbom = Engine().read_file(built.tag, SBOM_PATH)
        if sbom is None:
            return [f"{built.tag} has no {SBOM_PATH}"]
        with temporary.directory() as directory:
            file = directory / Path(SBOM_PATH).name
            file.write_bytes(sbom)
            registry.add_artifact(tracker, located.model_name, located.version, file)
            registry.tag_version(tracker, located.model_name, located.version, IMAGE_TAG, built.tag)
    except TrackingError as error:
        return [f"the SBOM is not with {located.name}: {error.message}"]
    return []


def push(
    built: BuiltImage,
    located: ModelLocation | None,
    tracking_uri: str | None,
    on_progress: Callable[[str, int, int], None],
) -> dict[str, str]:
    """Push an image under all its names, and record its digest as a tag of the model version.

    Returns:
        `REPOSITORY@sha256:…` by tag.

    Raises:
        EngineError: If the registry cannot be reached, or refuses the image.
        TrackingError: If the image was pushed, but the digest cannot be recorded.
    """
    engine = Engine()
    pushed = {}
    for tag in (built.tag, *built.aliases):
        pushed[tag] = f"{tag.rpartition(':')[0]}@{engine.push(tag, on_progress)}"
    if located is not None and located.model_name is not None and located.version is not None:
        tracker = locate.connect(tracking_uri)
        registry.tag_version(tracker, located.model_name, located.version, DIGEST_TAG, pushed[built.tag])
    return pushed


def pushed_image(tags: Mapping[str, str], model: str, settings: ImageSettings) -> ImageReference | None:
    """Return the pushed image that a version's tags name, or `None` if they name none.

    Anyone with write access to the registry can change a tag. Therefore the tag must name an image of the configured
    repository, and name it by its digest.

    Raises:
        UsageError: If the tag is not an image with a digest, or names another repository.
    """
    text = tags.get(DIGEST_TAG)
    if text is None:
        return None
    again = f"newsbert build-image {shlex.quote(model)} --push"
    try:
        image = ImageReference.parse(text)
    except UsageError as error:
        raise UsageError(f"the registry names no image for {model}: {error.message}", again) from error
    expected = serving_repositories(settings)
    if image.digest is None or image.tag is not None or image.repository not in expected:
        raise UsageError(
            f"the registry names {image} as the image of {model}, which is none of {expected[0]}@sha256:…",
            f"set [image] repository in newsbert.toml to your registry, or push it again: {again}",
        )
    return image


@dataclass(frozen=True)
class ImageInspection:
    """The contents of an image: labels, layers, and the CycloneDX SBOM, if it has one."""

    tag: str
    id: str
    labels: dict[str, str]
    layers: tuple[Layer, ...]
    sbom: dict[str, Any] | None


def inspect(tag: str) -> ImageInspection:
    """Inspect an image.

    Raises:
        NotFoundError: If the engine has no such image.
        EngineError: If its SBOM cannot be read.
    """
    engine = Engine()
    sbom = engine.read_file(tag, SBOM_PATH)
    try:
        parsed = None if sbom is None else json.loads(sbom)
    except ValueError as error:
        raise EngineError(
            f"{SBOM_PATH} in {tag} is no JSON: {error}", "newsbert build-image MODEL --rebuild"
        ) from error
    return ImageInspection(tag, engine.image_id(tag), engine.labels(tag), tuple(engine.layers(tag)), parsed)


def get_sbom(content: ImageInspection) -> dict[str, Any]:
    """Return the SBOM of an image.

    Raises:
        NotFoundError: If it has none.
    """
    if content.sbom is None:
        raise NotFoundError(f"{content.tag} has no SBOM", "newsbert build-image MODEL makes one")
    return content.sbom


def _parse_host(entry: str) -> tuple[str, str]:
    host, _, address = entry.partition(":")
    if not host or not address:
        raise UsageError(f"the extra host {entry!r} is not HOST:IP", "such as --extra-host pypi.local:10.0.0.5")
    return host, address
