"""Write the pages of the HTTP API from the servers' OpenAPI descriptions: `make docs`. A test compares the two."""

from pathlib import Path

from newsbert.core.settings import NATIVE, TORCHSERVE
from newsbert.serving import openapi

DIRECTORY = Path(__file__).parents[2] / "docs" / "reference"
_TORCHSERVE_HEAD = """\
# HTTP API

The interface of a model that TorchServe serves: `newsbert serve locally`, `newsbert serve container`, and the image.
[The native server](http-api-native.md) has the same paths, and more. This page is made from the OpenAPI description,
which `newsbert export openapi` prints for clients and tools.

"""
_NATIVE_HEAD = """\
# HTTP API of the native server

The interface of a model that [the native server](../guides/native-server.md) serves. It has
[the paths of TorchServe](http-api.md) and those of the Open Inference Protocol. This page is made from the OpenAPI
description, which `newsbert export openapi --server native` prints for clients and tools. A server also has both, at
`/docs` and `/openapi.json`.

"""


def main() -> None:
    """Write the pages."""
    for file, content in pages().items():
        file.write_text(content, encoding="utf-8")


def pages() -> dict[Path, str]:
    """Return the content of every page."""
    return {
        DIRECTORY / name: head + openapi.render_markdown(openapi.read_description(server))
        for name, head, server in (
            ("http-api.md", _TORCHSERVE_HEAD, TORCHSERVE),
            ("http-api-native.md", _NATIVE_HEAD, NATIVE),
        )
    }


if __name__ == "__main__":
    main()
