"""`newsbert build-image`."""

from typing import Annotated

import typer

from newsbert import config
from newsbert.cli.options import Debug, Json, TrackingUri, setting
from newsbert.cli.output import Output, size
from newsbert.config import ImageSettings

EXAMPLES = """
Examples:

    newsbert build-image BertModel/2

    newsbert build-image BertModel@champion --repository registry.example/team

    newsbert build-image BertModel/2 --dry-run
"""

PipOptions = Annotated[list[str] | None, setting(ImageSettings, "pip_options", "--pip-option", metavar="NAME=VALUE")]
ExtraHosts = Annotated[list[str] | None, setting(ImageSettings, "extra_hosts", "--extra-host", metavar="HOST:IP")]


def build_image(
    model: Annotated[
        str | None,
        typer.Argument(
            help="BertModel/2, BertModel@champion, models:/…, a run id or a bundle's directory.",
            show_default="the version registered last",
        ),
    ] = None,
    repository: Annotated[str | None, setting(ImageSettings, "repository", metavar="PREFIX")] = None,
    root_image: Annotated[str | None, setting(ImageSettings, "root_image", metavar="IMAGE")] = None,
    pip_option: PipOptions = None,
    build_network: Annotated[str | None, setting(ImageSettings, "build_network", metavar="NETWORK")] = None,
    extra_host: ExtraHosts = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print Dockerfiles and files; build nothing.")] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build the base image and the image that serves a model.

    The model comes from the registry on this machine; no credential enters an image.
    """
    screen = Output(as_json)
    settings = config.resolve(
        ImageSettings,
        repository=repository,
        root_image=root_image,
        pip_options=pip_option or None,
        build_network=build_network,
        extra_hosts=extra_host or None,
    )
    from newsbert import containers, image

    with containers.contexts(model, settings, tracking_uri) as (base, serving):
        if dry_run:
            shown = [{"tag": each.tag, "build_args": each.build_args, "files": each.sizes(),
                      **image.without_secrets(each)} for each in (base, serving)]  # fmt: skip
            if screen.as_json:
                screen.document({"images": shown})
                return
            for context in (base, serving):
                screen.result(f"# {context.tag}")
                for name, size_bytes in context.sizes().items():
                    screen.result(f"#   {name}  {size(size_bytes)}")
                for name, value in context.build_args.items():
                    screen.result(f"#   --build-arg {name}={value}")
                screen.result(context.dockerfile)
            return
        built = []
        with screen.progress() as progress:
            for context, reuse in ((base, True), (serving, False)):
                progress.phase(f"building {context.tag}")
                built.append(containers.build(context, settings, screen.log, reuse=reuse))
    if screen.as_json:
        screen.document(
            {"images": [{"tag": each.tag, "id": each.id, "size_bytes": each.size_bytes, "cached": each.cached}
                        for each in built]}
        )  # fmt: skip
        return
    for each in built:
        screen.result(f"{each.tag}  {size(each.size_bytes)}{'  (was there)' if each.cached else ''}")
    screen.next_command(f"newsbert serve container {serving.labels['newsbert.model']}")
