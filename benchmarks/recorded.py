"""Results that are kept from one call of a benchmark to the next, a JSON object on each line of a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read(file: Path) -> list[dict[str, Any]]:
    """All results so far."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def add(file: Path, *found: Mapping[str, Any]) -> None:
    """Append results, and print them."""
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(each) + "\n" for each in found)
    print(*found, sep="\n", flush=True)
