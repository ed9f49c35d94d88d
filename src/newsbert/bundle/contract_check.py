"""Check the values of a contract, whose types `typed_json` has checked."""

import itertools
from typing import TYPE_CHECKING

from newsbert.core.identifiers import check_labels, is_digest, is_file_name
from newsbert.core.terminal import has_controls
from newsbert.data.text import prepare, unknown_rules

if TYPE_CHECKING:
    from newsbert.bundle.contract import Contract

_RANGES: dict[str, tuple[float, float]] = {
    "max_length": (1, 1 << 17),
    "pad_id": (0, (1 << 31) - 1),
    "temperature": (1e-6, 1e6),  # logits are divided by it
    "review_below": (0, 1),
}
_SCORES = {"accuracy", "f1_macro"}


def check(contract: "Contract") -> None:
    """Refuse a contract whose values are out of range or do not fit one another.

    Raises:
        ValueError: If it is one; the message says which value.
    """
    check_labels(contract.labels)
    unknown = unknown_rules(contract.cleaning)
    if unknown:
        raise ValueError(f"its cleaning rule {unknown[0]!r:.80} is unknown to this newsbert")
    for name, (least, most) in _RANGES.items():
        if not least <= getattr(contract, name) <= most:
            raise ValueError(f"its {name} is {getattr(contract, name)!r:.80}, and not from {least:g} to {most:g}")
    _check_files(contract)
    _check_golden(contract)
    _check_provenance(contract)


def _check_files(contract: "Contract") -> None:
    for name in (*contract.files, *contract.graphs):
        if not is_file_name(name):
            raise ValueError(f"it names the file {name!r:.80}, which no bundle has")
    for name, digest in contract.files.items():
        if not is_digest(digest):
            raise ValueError(f"the digest of its file {name} is {digest!r:.80}")


def _check_golden(contract: "Contract") -> None:
    if not contract.golden:
        raise ValueError("it has no golden texts")
    for golden in contract.golden:
        try:
            prepare(golden.item, contract.cleaning)
        except ValueError as error:
            raise ValueError(f"its golden text {golden.item!r:.80} is none: {error}") from error
    for graph in contract.graphs.values():
        if not 0 <= graph.tolerance <= 1:
            raise ValueError(f"a graph's tolerance is {graph.tolerance!r:.80}, and not from 0 to 1")
        if graph.golden and len(graph.golden) != len(contract.golden):
            raise ValueError(f"a graph has {len(graph.golden)} golden answers instead of {len(contract.golden)}")
    answers = [golden.probabilities for golden in contract.golden]
    for answer in itertools.chain(answers, *(graph.golden for graph in contract.graphs.values())):
        if len(answer) != len(contract.labels) or not all(0 <= probability <= 1 for probability in answer):
            raise ValueError(f"a golden answer is {answer!r:.80}, and not a probability for each label")


def _check_provenance(contract: "Contract") -> None:
    """Check what cards, tags and descriptions are made of."""
    named = {"base_model name": contract.base_model.get("name")}
    named |= {f"data {name}": contract.data.get(name) for name in ("name", "sha256")}
    for name, value in named.items():
        if not isinstance(value, str):
            raise ValueError(f"its {name} is {value!r:.80}")
    for name in ("text_column", "label_column"):
        column = contract.data.get(name)
        if column is not None and (not isinstance(column, str) or not column or has_controls(column)):
            raise ValueError(f"its {name} is {column!r:.80}")
    rows = contract.data.get("rows")
    if not isinstance(rows, dict) or not all(type(rows.get(split)) is int for split in ("train", "test")):
        raise ValueError(f"its data has the rows {rows!r:.80}")
    if contract.metrics and not contract.metrics.keys() >= _SCORES:
        raise ValueError(f"its metrics lack {' or '.join(sorted(_SCORES))}")
