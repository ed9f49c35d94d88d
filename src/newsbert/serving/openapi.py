"""The OpenAPI descriptions of both servers, and the same as a page.

The native server's description is TorchServe's with the changes of a JSON merge patch (RFC 7396).
"""

import functools
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

from newsbert.core.settings import NATIVE

_ASSETS = resources.files("newsbert") / "serving" / "assets"


def read_description(server: str) -> dict[str, Any]:
    """Return the description of a server, `torchserve` or `native`."""
    description = json.loads((_ASSETS / "openapi.json").read_text(encoding="utf-8"))
    if server == NATIVE:
        patch = json.loads((_ASSETS / "openapi-native.json").read_text(encoding="utf-8"))
        description = merge_patch(description, patch)
    return dict(description)


def merge_patch(target: Any, patch: Any) -> Any:
    """Return a JSON value with the changes of a merge patch: members are replaced, and removed where it has null."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def render_markdown(description: dict[str, Any]) -> str:
    """Return the paths and the objects of a description in Markdown."""
    return "\n".join(
        [
            f"{description['info']['description']}\n",
            *_list_operations(description["paths"]),
            *_list_schemas(description["components"]["schemas"]),
        ]
    )


@functools.cache
def render_json(server: str) -> bytes:
    """Return the description of a server as JSON, in UTF-8."""
    return json.dumps(read_description(server), ensure_ascii=False).encode()


@functools.cache
def render_html(server: str) -> bytes:
    """Return the description of a server as a page, in UTF-8."""
    from markdown_it import MarkdownIt

    description = read_description(server)
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    content = markdown.render(f"# {description['info']['title']}\n\n{render_markdown(description)}")
    return (_ASSETS / "docs.html").read_text(encoding="utf-8").replace("CONTENT", content).encode()


def _list_operations(paths: dict[str, Any]) -> Iterator[str]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            yield f"## {method.upper()} {path}\n"
            yield f"{operation['summary']}. {operation.get('description', '')}".strip() + "\n"
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                yield f"- `Content-Type: {kind}`: {_type(content['schema'])}"
                examples = [example["value"] for example in content.get("examples", {}).values()]
                for example in examples:
                    yield f"  - `{json.dumps(example, ensure_ascii=False)}`"
            yield "\n| status | meaning |\n|---|---|"
            for status, response in sorted(operation["responses"].items()):
                yield f"| {status} | {_cell(response.get('description', ''))} |"
            yield ""


def _list_schemas(schemas: dict[str, Any]) -> Iterator[str]:
    yield "## Objects\n"
    for name, schema in schemas.items():
        properties = schema.get("properties")
        if not properties:
            continue
        yield f"### {name}\n"
        if "description" in schema:
            yield f"{schema['description']}\n"
        yield "| member | type | meaning |\n|---|---|---|"
        for member, member_schema in properties.items():
            note = "" if member in schema.get("required", []) else " (optional)"
            yield f"| `{member}` | {_type(member_schema)}{note} | {_cell(member_schema.get('description', ''))} |"
        yield ""


def _type(schema: dict[str, Any]) -> str:
    """Return a schema's type in words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return " or ".join(_type(option) for option in schema[key])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
