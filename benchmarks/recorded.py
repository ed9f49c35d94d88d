"""Results that a benchmark stores from one call to the next, one JSON object per line of a file."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def read(file: Path) -> list[dict[str, Any]]:
    """Return all results so far."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def iterate_missing(file: Path, sizes: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Yield every number of rows and seed without a result; `all` rows have the first seed only."""
    for size, seed in itertools.product(sizes, seeds):
        key = {"rows": size, "seed": seed}
        if (size != "all" or seed == seeds[0]) and not any(key.items() <= result.items() for result in read(file)):
            yield size, seed


def add(file: Path, *results: Mapping[str, Any]) -> None:
    """Append results, and print them."""
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(result) + "\n" for result in results)
    print(*results, sep="\n", flush=True)
