"""What the workers of a server have counted, as Prometheus reads it.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from newsbert.metrics import FAMILIES, Counts, Family, Layout, workers

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WORKERS = "newsbert_workers"
STARTS = "newsbert_worker_starts_total"


def page(directory: Path) -> str:
    """Write what all workers have counted together, dead ones included.

    Args:
        directory: Where they count.
    """
    found = list(workers(directory))
    sums: dict[Layout, Counts] = {}
    for worker in found:
        sums[worker.layout] = sums.get(worker.layout, np.zeros(worker.layout.size())) + worker.counts
    lines = []
    for family in FAMILIES:
        lines += _head(family.name, family.help, "histogram" if family.bounds else "counter")
        for layout, counts in sums.items():
            lines += _series(family, layout, counts[layout.places()[family]])
    lines += [*_head(WORKERS, "Workers that live.", "gauge"), f"{WORKERS} {sum(each.alive for each in found)}"]
    lines += [*_head(STARTS, "Workers that were started.", "counter"), f"{STARTS} {len(found)}"]
    return "\n".join(lines) + "\n"


def _head(name: str, meaning: str, kind: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]


def _series(family: Family, layout: Layout, counts: Counts) -> Iterator[str]:
    if not family.bounds:
        for value, count in zip(layout.values(family), counts, strict=True):
            yield f"{family.name}{_labels(model=layout.model, **{family.label: value})} {_number(count)}"
        return
    *buckets, total = counts
    below = 0.0
    for bound, count in zip([*map(_number, family.bounds), "+Inf"], buckets, strict=True):
        below += count
        yield f"{family.name}_bucket{_labels(model=layout.model, le=bound)} {_number(below)}"
    yield f"{family.name}_sum{_labels(model=layout.model)} {_number(total)}"
    yield f"{family.name}_count{_labels(model=layout.model)} {_number(below)}"


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


_ESCAPES: Mapping[int, str] = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
