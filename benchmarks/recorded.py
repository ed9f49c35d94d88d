"""Results that a benchmark stores from one call to the next, one JSON object per line of a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read(file: Path) -> list[dict[str, Any]]:
    """Return all results so far."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def add(file: Path, *results: Mapping[str, Any]) -> None:
    """Append results, and print them."""
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(result) + "\n" for result in results)
    print(*results, sep="\n", flush=True)
