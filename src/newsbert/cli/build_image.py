"""`newsbert build-image`."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newsbert.cli._options import Debug, ImageServer, Json, Model, TrackingUri, setting
from newsbert.cli._output import Output, layer_rows, size
from newsbert.core import config
from newsbert.core.settings import ImageSettings
from newsbert.errors import UsageError

if TYPE_CHECKING:
    from newsbert.images.build import BuiltImage, Kind
    from newsbert.images.contexts import BuildContext

EXAMPLES = """
Examples:

    newsbert build-image BertModel/2

    newsbert build-image BertModel@champion --repository registry.example/team --push

    newsbert build-image BertModel/2 --server native

    newsbert build-image --trainer

    newsbert build-image --tracking

    newsbert build-image BertModel/2 --dry-run
"""

PipOptions = Annotated[list[str] | None, setting(ImageSettings, "pip_options", "--pip-option", metavar="NAME=VALUE")]
ExtraHosts = Annotated[list[str] | None, setting(ImageSettings, "extra_hosts", "--extra-host", metavar="HOST:IP")]


def build_image(
    model: Model = None,
    base: Annotated[bool, typer.Option("--base", help="Build the base image only.")] = False,
    trainer: Annotated[bool, typer.Option("--trainer", help="Build the trainer, and write its MLproject.")] = False,
    tracking: Annotated[bool, typer.Option("--tracking", help="Build the image of a tracking server.")] = False,
    project: Annotated[
        str, typer.Option(help="Where --trainer writes the MLproject that names the image.", metavar="DIR")
    ] = "docker/trainer",
    push: Annotated[bool, typer.Option("--push", help="Push the image to the registry in --repository.")] = False,
    server: ImageServer = None,
    repository: Annotated[str | None, setting(ImageSettings, "repository", metavar="PREFIX")] = None,
    runtime: Annotated[str | None, setting(ImageSettings, "runtime", metavar="NAME")] = None,
    root_image: Annotated[str | None, setting(ImageSettings, "root_image", metavar="IMAGE")] = None,
    gpu: Annotated[bool | None, setting(ImageSettings, "gpu", "--gpu")] = None,
    torch_index: Annotated[str | None, setting(ImageSettings, "torch_index", metavar="URL")] = None,
    bundle_versions: Annotated[bool | None, setting(ImageSettings, "bundle_versions", "--bundle-versions")] = None,
    pip_option: PipOptions = None,
    build_network: Annotated[str | None, setting(ImageSettings, "build_network", metavar="NETWORK")] = None,
    extra_host: ExtraHosts = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build also what is there: the root image or its packages have changed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print Dockerfiles and files; build nothing.")] = False,
    write_context: Annotated[
        Path | None,
        typer.Option(help="Write what docker build takes, and its commands; build nothing.", metavar="DIR"),
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build a container image that serves a model.

    The base image and the trainer image are built first. The model comes from the registry on this machine; no
    credential enters an image. What is there with the same content is not built again.
    """
    screen = Output(as_json)
    if base + trainer + tracking + (model is not None) > 1:
        raise UsageError("MODEL, --base, --trainer and --tracking are four images", "newsbert build-image --help")
    settings = config.resolve(
        ImageSettings,
        server=server,
        repository=repository,
        runtime=runtime,
        root_image=root_image,
        gpu=gpu,
        torch_index=torch_index,
        bundle_versions=bundle_versions,
        pip_options=pip_option or None,
        build_network=build_network,
        extra_hosts=extra_host or None,
    )
    if push and not settings.repository:
        raise UsageError("--push needs a registry to push to", "name it: --repository registry.example/team")
    from newsbert.images import build, mlproject

    kind: Kind = "base" if base else "trainer" if trainer else "tracking" if tracking else "serving"
    with build.contexts(model, kind, settings, tracking_uri) as plan:
        _show_notes(screen, plan.notes)
        if dry_run:
            _render_dry_run(screen, plan.contexts)
            return
        if write_context is not None:
            _render_written_contexts(screen, write_context, build.write_contexts(plan, settings, write_context))
            return
        images = []
        with screen.progress() as progress:
            for context in build.pending_contexts(plan, rebuild=rebuild):
                progress.phase(f"building {context.tag}")
                images.append(build.build(context, settings, screen.log, rebuild=rebuild))
        if plan.located is not None:
            _show_notes(screen, build.record(plan.located, images[-1], tracking_uri))
        project_file = mlproject.write(project, images[-1].tag) if trainer else None
        digests: dict[str, str] = {}
        if push:
            with screen.progress() as progress:
                digests = build.push(
                    images[-1],
                    plan.located,
                    tracking_uri,
                    lambda layer, done, total: progress.update(
                        f"pushing {layer}", done, total, {"size": f"{size(done)} of {size(total)}"}
                    ),
                )
    if screen.as_json:
        screen.document({"images": [_build_document(image, digests) for image in images], "project": project_file})
        return
    for image in images:
        screen.result(f"{image.aliases[0]}  {size(image.size_bytes)}{'  (cached)' if image.cached else ''}")
        screen.result(f"{image.tag}")
    screen.table(["layer", "size"], layer_rows(images[-1].layers))
    for digest in dict.fromkeys(digests.values()):
        screen.result(f"pushed  {digest}")
    if plan.located is not None:
        screen.next_command(f"newsbert serve container {images[-1].aliases[0]}")
    elif project_file is not None:
        screen.result(f"wrote {project_file}")
        screen.next_command(
            f"mlflow run {shlex.quote(project)} --experiment-name newsbert -A network=host -P max_epochs=1"
        )


def _show_notes(screen: Output, notes: Sequence[str]) -> None:
    for note in notes:
        screen.note(note)


def _render_written_contexts(screen: Output, directory: Path, commands: Sequence[str]) -> None:
    if screen.as_json:
        screen.document({"directory": str(directory), "commands": commands})
        return
    for command in commands:
        screen.result(f"wrote {directory / command.rpartition(' ')[2]}")
    screen.next_command(shlex.join(["sh", str(directory / "build.sh")]))


def _render_dry_run(screen: Output, contexts: "Sequence[BuildContext]") -> None:
    from newsbert.images.contexts import without_secrets

    if screen.as_json:
        documents = [{"tag": context.tag, "aliases": context.aliases, "build_args": context.build_args,
                      "labels": context.labels, "files": context.sizes(), **without_secrets(context)}
                     for context in contexts]  # fmt: skip
        screen.document({"images": documents})
        return
    for context in contexts:
        screen.result(f"# {context.tag}")
        for name, size_bytes in context.sizes().items():
            screen.result(f"#   {name}  {size(size_bytes)}")
        for name, value in context.build_args.items():
            screen.result(f"#   --build-arg {name}={value}")
        for name, value in context.labels.items():
            screen.result(f"#   --label {name}={value}")
        screen.result(context.dockerfile)


def _build_document(built: "BuiltImage", digests: dict[str, str]) -> dict[str, Any]:
    return {
        "tag": built.aliases[0],
        "content_tag": built.tag,
        "id": built.id,
        "size_bytes": built.size_bytes,
        "cached": built.cached,
        "layers": [dataclasses.asdict(layer) for layer in built.layers],
        **({"digest": digests[built.tag]} if built.tag in digests else {}),
    }
