"""`newsbert inspect-image`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from newsbert.cli._completion import models
from newsbert.cli._options import Debug, ImageServer, Json, TrackingUri, setting
from newsbert.cli._output import Output, layer_rows
from newsbert.core import config
from newsbert.core.settings import ImageSettings

EXAMPLES = """
Examples:

    newsbert inspect-image torchserve:BertModel-2

    newsbert inspect-image BertModel/2 --sbom > bom.cdx.json

    newsbert inspect-image BertModel/2 --check PyPI-all.zip
"""


def inspect_image(
    image: Annotated[
        str | None,
        typer.Argument(
            help="An image, or a model with one.", show_default="the version registered last", autocompletion=models
        ),
    ] = None,
    sbom: Annotated[bool, typer.Option("--sbom", help="Print the CycloneDX SBOM as it is.")] = False,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Compare the SBOM with the advisories in this OSV file; exit 1 if any applies.", metavar="FILE"
        ),
    ] = None,
    server: ImageServer = None,
    repository: Annotated[str | None, setting(ImageSettings, "repository", metavar="PREFIX")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show an image's labels, layers and SBOM."""
    screen = Output(as_json)
    settings = config.resolve(ImageSettings, server=server, repository=repository)
    from newsbert.images import build, run

    tag = run.image_of(image, settings, tracking_uri)
    content = build.inspect(tag)
    if sbom:
        screen.result(json.dumps(build.get_sbom(content), indent=2))
        return
    if check is not None:
        _render_findings(screen, tag, build.get_sbom(content), check)
        return
    if screen.as_json:
        screen.document(
            {
                "image": tag,
                "id": content.id,
                "labels": content.labels,
                "size_bytes": sum(layer.size_bytes for layer in content.layers),
                "layers": [dataclasses.asdict(layer) for layer in content.layers],
                "sbom": content.sbom,
            }
        )
        return
    screen.result(tag)
    screen.table(["label", "value"], [[name, value] for name, value in sorted(content.labels.items())], words=2)
    screen.table(["layer", "size"], layer_rows(content.layers))
    if content.sbom is None:
        screen.note("it has no SBOM")
        return
    screen.table(
        ["component", "name", "version", "licence"],
        [
            [component["type"], component["name"], component.get("version", ""), _format_licences(component)]
            for component in content.sbom["components"]
        ],
        words=4,
    )


def _render_findings(screen: Output, tag: str, sbom: dict[str, Any], file: Path) -> None:
    from newsbert.images import advisories

    read = advisories.read(file)
    findings = advisories.find(sbom, read)
    if screen.as_json:
        documents = [dataclasses.asdict(finding) for finding in findings]
        screen.document({"image": tag, "advisories": len(read), "findings": documents})
    else:
        number = len({finding.advisory for finding in findings})
        screen.result(f"{tag}: {number} of {len(read)} advisories apply, to {len(findings)} components")
        if findings:
            screen.table(
                ["advisory", "component", "version", "fixed in", "summary"],
                [
                    [finding.advisory, finding.component, finding.version, ", ".join(finding.fixed), finding.summary]
                    for finding in findings
                ],
                words=5,
            )
    if findings:
        raise typer.Exit(1)


def _format_licences(component: dict[str, Any]) -> str:
    """Return a component's licences, separated by commas."""
    licences = [entry.get("license") or {"id": entry["expression"]} for entry in component.get("licenses", [])]
    return ", ".join(licence.get("id") or licence["name"] for licence in licences)
