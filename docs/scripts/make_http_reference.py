"""Write docs/reference/http-api.md from a server's OpenAPI description: `make docs`. A test holds the two together."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "reference" / "http-api.md"
_SOURCE = ROOT / "src" / "newsbert" / "serving" / "assets" / "openapi.json"
_HEAD = """\
# HTTP API

The interface of a served model: `newsbert serve locally`, `newsbert serve container`, and the image. Made from its
OpenAPI description by `make docs`. `newsbert export openapi` prints that description, for clients and tools.
"""


def main() -> None:
    """Write the page."""
    FILE.write_text(reference(), encoding="utf-8")


def reference() -> str:
    """Return the page's content."""
    description = json.loads(_SOURCE.read_text(encoding="utf-8"))
    return "\n".join([_HEAD, *_paths(description), *_schemas(description["components"]["schemas"])])


def _paths(description: dict[str, Any]) -> Iterator[str]:
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            yield f"## {method.upper()} {path}\n"
            yield f"{operation['summary']}. {operation.get('description', '')}".strip() + "\n"
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                yield f"- `Content-Type: {kind}`: {_type(content['schema'])}"
                examples = [example["value"] for example in content.get("examples", {}).values()]
                for example in examples:
                    yield f"  - `{json.dumps(example, ensure_ascii=False)}`"
            yield "\n| status | meaning |\n|---|---|"
            for status, response in operation["responses"].items():
                yield f"| {status} | {_cell(response.get('description', ''))} |"
            yield ""


def _schemas(schemas: dict[str, Any]) -> Iterator[str]:
    yield "## Objects\n"
    for name, schema in schemas.items():
        properties = schema.get("properties")
        if not properties:
            continue
        yield f"### {name}\n"
        if "description" in schema:
            yield f"{schema['description']}\n"
        yield "| member | type | meaning |\n|---|---|---|"
        for member, own in properties.items():
            note = "" if member in schema.get("required", []) else " (optional)"
            yield f"| `{member}` | {_type(own)}{note} | {_cell(own.get('description', ''))} |"
        yield ""


def _type(schema: dict[str, Any]) -> str:
    """Return a schema's type in words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return " or ".join(_type(one) for one in schema[key])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
