"""The layers of an image."""

import re
from dataclasses import dataclass

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Layer:
    """A layer of an image: the Dockerfile's step that made it, and its size."""

    step: str
    size_bytes: int


def describe_step(created_by: str) -> str:
    """Return a Dockerfile's step from an entry of the image's history, without the shell that ran it."""
    step = re.sub(r"^(/bin/sh -c )?(#\(nop\) +)?", "", created_by).strip()
    step = re.sub(r"(COPY|ADD) (dir|file|multi):[0-9a-f]+ in", r"\1", step)
    return " ".join(step.split()) or "root image"
