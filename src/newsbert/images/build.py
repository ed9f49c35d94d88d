"""From a registered model to its images: plan, build, record, push, inspect."""

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
from newsbert.images.tags import serving_repository
from newsbert.tracking import locate, registry
from newsbert.tracking.artifacts import ModelLocation

BILL_PATH = "/opt/model/bom.cdx.json"
IMAGE_TAG, DIGEST_TAG = "newsbert.image", "newsbert.image_digest"
"""Of a model version: the image that was built of it last, and the one that was pushed."""

STAGE_ARGUMENT = "STAGE"
"""Names the build stages that pip's options are in."""

Kind = Literal["base", "trainer", "tracking", "serving"]


@dataclass(frozen=True)
class BuildPlan:
    """Contexts in the order they are built, and the model of the last one, if it has one.

    Attributes:
        contexts: The contexts.
        located: The model.
        notes: What the user should know of it: packages whose versions differ from those it was trained with.
    """

    contexts: tuple[BuildContext, ...]
    located: ModelLocation | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltImage:
    """An image that is there now; `cached` if it was before."""

    tag: str
    aliases: tuple[str, ...]
    id: str
    cached: bool
    layers: tuple[Layer, ...]

    @property
    def size_bytes(self) -> int:
        """Size over all layers."""
        return sum(layer.size_bytes for layer in self.layers)


@contextlib.contextmanager
def contexts(
    reference: str | None, kind: Kind, settings: ImageSettings, tracking_uri: str | None = None
) -> Iterator[BuildPlan]:
    """Render the contexts that an image takes, in the order they are built; their files last as long as the block.

    Args:
        reference: The model of a serving image, as of `newsbert.load`.
        kind: Which image is wanted.
        settings: Root image, repository, options.
        tracking_uri: MLflow's; as configured if not given.

    Raises:
        NewsbertError: If there is no such model, or it was altered after training.
    """
    with temporary.directory() as work:
        if kind != "serving":
            base = render_base(settings, work)
            on_it = {"trainer": render_trainer, "tracking": render_tracking}.get(kind)
            yield BuildPlan((base, *([on_it(base, settings)] if on_it else [])), None)
            return
        located = locate.locate(reference, tracking_uri=tracking_uri)
        bundle = Bundle.read(located.path)
        shipped = pins.pins()
        differences = bundle_requirements.differences(bundle_requirements.read(located.path, shipped), shipped)
        own = {difference.name: difference.bundle for difference in differences} if settings.bundle_versions else {}
        base = render_base(settings, work, own)
        trainer_image = render_trainer(base, settings)
        serving_image = render_serving(bundle, located, base, trainer_image, settings, own)
        signed = (f"{located.name} is signed by {bundle.signed_by}",) if bundle.signed_by else ()
        yield BuildPlan((base, trainer_image, serving_image), located, (*signed, *_notes(differences, settings)))


def _notes(differences: Sequence[Difference], settings: ImageSettings) -> tuple[str, ...]:
    """Return what the user should know of packages in images whose versions a model was not trained with."""
    used = [difference for difference in differences if difference.name in package_sets.BASE + package_sets.SERVING]
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
    """Build a context, unless there is an image of that content.

    Args:
        context: What to build.
        settings: Network and hosts of the build.
        on_line: Called with what the engine says.
        rebuild: Build all of it anew: what a name such as `python:3.11` means changes in time.

    Raises:
        EngineError: If there is no engine, or the build fails.
        UsageError: If an extra host is not HOST:IP.
    """
    engine = Engine()
    hosts = dict(_host(each) for each in settings.extra_hosts)
    cached = engine.has_image(context.tag) and not rebuild
    # What pip's options are copied into is known by this label afterwards; other builds at work have labels of theirs.
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
                except EngineError as error:  # whatever ended the build is to be told, not this
                    on_line(f"Note: pip's options are still in the build stage newsbert.stage={stage}: {error.message}")
    for alias in context.aliases:
        engine.tag_image(context.tag, alias)
    return BuiltImage(
        context.tag, context.aliases, engine.image_id(context.tag), cached, tuple(engine.layers(context.tag))
    )


def write_contexts(plan: BuildPlan, settings: ImageSettings, directory: Path) -> list[str]:
    """Write the contexts of a plan, each to a directory of its own, and return the commands that build them in order.

    Args:
        plan: What to write.
        settings: Network and hosts of the build.
        directory: Does not exist yet; `build.sh` in it has the commands.

    Raises:
        UsageError: If it exists, or an extra host is not HOST:IP.
        NewsbertError: If it cannot be written to.
    """
    hosts = [word for name, ip in map(_host, settings.extra_hosts) for word in ("--add-host", f"{name}:{ip}")]
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
    """The contexts of a plan to go through: the last alone, where the engine has its image already."""
    return plan.contexts[-1:] if Engine().has_image(plan.contexts[-1].tag) and not rebuild else plan.contexts


def record(located: ModelLocation, built: BuiltImage, tracking_uri: str | None = None) -> list[str]:
    """Put an image's bill of materials beside the files of the model version it was made of.

    Returns:
        What the user should know, if that could not be done: the image is there all the same.
    """
    if located.model_name is None or located.version is None:
        return []
    try:
        tracker = locate.connect(tracking_uri)
        if registry.version_tags(tracker, located.model_name, located.version).get(IMAGE_TAG) == built.tag:
            return []
        bill = Engine().read_file(built.tag, BILL_PATH)
        if bill is None:
            return [f"{built.tag} has no {BILL_PATH}"]
        with temporary.directory() as directory:
            file = directory / Path(BILL_PATH).name
            file.write_bytes(bill)
            registry.add_artifact(tracker, located.model_name, located.version, file)
            registry.tag_version(tracker, located.model_name, located.version, IMAGE_TAG, built.tag)
    except TrackingError as error:
        return [f"the bill of materials is not with {located.name}: {error.message}"]
    return []


def push(
    built: BuiltImage,
    located: ModelLocation | None,
    tracking_uri: str | None,
    on_progress: Callable[[str, int, int], None],
) -> dict[str, str]:
    """Push an image under all its names, and note its digest with the model version.

    Returns:
        `REPOSITORY@sha256:…` by tag.

    Raises:
        EngineError: If the registry cannot be reached, or refuses.
        TrackingError: If it was pushed, but the digest cannot be noted.
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
    """Read which image a version's tags name as the one that was pushed; return nothing if they name none.

    Anybody who may write to the registry may change a tag. So it chooses among the images of one repository, which is
    configured here, and only by a digest.

    Raises:
        UsageError: If what they name is no image with a digest, or of another repository.
    """
    text = tags.get(DIGEST_TAG)
    if text is None:
        return None
    again = f"newsbert build-image {shlex.quote(model)} --push"
    try:
        found = ImageReference.parse(text)
    except UsageError as error:
        raise UsageError(f"the registry names no image for {model}: {error.message}", again) from error
    expected = serving_repository(settings)
    if found.digest is None or found.tag is not None or found.repository != expected:
        raise UsageError(
            f"the registry names {found} as the image of {model}, which is none of {expected}@sha256:…",
            f"set [image] repository in newsbert.toml to your registry, or push it again: {again}",
        )
    return found


@dataclass(frozen=True)
class ImageInspection:
    """What an image is made of: labels, layers, and its CycloneDX bill of materials, if it has one."""

    tag: str
    id: str
    labels: dict[str, str]
    layers: tuple[Layer, ...]
    bill: dict[str, Any] | None


def inspect(tag: str) -> ImageInspection:
    """Look into an image.

    Raises:
        NotFoundError: If the engine has no such image.
        EngineError: If its bill of materials cannot be read.
    """
    engine = Engine()
    bill = engine.read_file(tag, BILL_PATH)
    try:
        parsed = None if bill is None else json.loads(bill)
    except ValueError as error:
        raise EngineError(
            f"{BILL_PATH} in {tag} is no JSON: {error}", "newsbert build-image MODEL --rebuild"
        ) from error
    return ImageInspection(tag, engine.image_id(tag), engine.labels(tag), tuple(engine.layers(tag)), parsed)


def bill_of(content: ImageInspection) -> dict[str, Any]:
    """The bill of materials of an image.

    Raises:
        NotFoundError: If it has none.
    """
    if content.bill is None:
        raise NotFoundError(f"{content.tag} has no bill of materials", "newsbert build-image MODEL makes one")
    return content.bill


def _host(entry: str) -> tuple[str, str]:
    host, _, address = entry.partition(":")
    if not host or not address:
        raise UsageError(f"the extra host {entry!r} is not HOST:IP", "such as --extra-host pypi.local:10.0.0.5")
    return host, address
