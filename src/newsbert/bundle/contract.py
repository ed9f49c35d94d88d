"""The contract of a bundle: what predictions depend on, and the digests of its files."""

import dataclasses
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from newsbert.bundle import signing
from newsbert.core import typed_json
from newsbert.core.identifiers import check_labels, is_digest, is_file_name
from newsbert.core.terminal import has_controls
from newsbert.data.text import preprocess, unknown_rules

if TYPE_CHECKING:
    pass

CONTRACT_FILE, SIGNATURE_FILE = signing.CONTRACT_FILE, signing.SIGNATURE_FILE

LABELS_FILE = "class_mapping.json"

FORMAT_VERSION = 3
READABLE_VERSIONS = (2, FORMAT_VERSION)
"""Format versions that this newsbert reads; bundles of version 2 have no companion."""


@dataclass(frozen=True)
class GraphInfo:
    """A serving graph and its agreement with PyTorch, measured on validation rows when it was made.

    Attributes:
        runtime: Runtime that the graph was checked with.
        tolerance: Largest accepted difference in probability for the golden texts.
        max_difference: Largest difference in probability to PyTorch, over all rows.
        rows: Number of rows in the check.
        agreement: Fraction of rows with PyTorch's label.
        accuracy_loss: Accuracy of PyTorch minus accuracy of the graph, in percentage points.
        batch_difference: Largest difference in probability between a text alone and the same text in a batch.
        golden: Probabilities of the golden texts with this graph; empty if those with PyTorch are expected.
    """

    runtime: str
    tolerance: float
    max_difference: float
    rows: int = 0
    agreement: float = 1.0
    accuracy_loss: float = 0.0
    batch_difference: float = 0.0
    golden: list[list[float]] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class GoldenText:
    """A text or title/text object, and PyTorch's probabilities, mixed with a companion's, in label order."""

    item: str | dict[str, str]
    probabilities: list[float]


@dataclass(frozen=True)
class CompanionInfo:
    """The companion of a model, and the use of its answers; see `inference.companion` and `evaluation.mixing`.

    Attributes:
        scale: Value of a weight of 1.
        bias: Bias of the logits, in label order.
        model_weight: Weight of the logarithm of the model's probability in the mix.
        companion_weight: Weight of the logarithm of the companion's probability in the mix.
        threshold: Probability from which the companion answers alone; `None` if it never does.
        max_loss: Largest accepted loss of accuracy by its answers compared with the mix, in percentage points.
        loss: Upper 95% bound of that loss on the validation rows, in percentage points.
        coverage: Fraction of the validation rows that it answers.
        rows: Number of these rows.
        golden: Its probabilities of the golden texts, in label order.
    """

    scale: float
    bias: list[float]
    model_weight: float
    companion_weight: float
    threshold: float | None = None
    max_loss: float = 0.0
    loss: float = 0.0
    coverage: float = 0.0
    rows: int = 0
    golden: list[list[float]] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class Contract:
    """The required preparation, graphs and answers of a bundle, stored as `newsbert.json`.

    Attributes:
        labels: Label names in logit order.
        max_length: Tokens read of a text.
        pad_id: Token id that pads a batch.
        cleaning: Names of the cleaning rules, in order.
        temperature: Divisor of the logits before softmax.
        review_threshold: Score below which a person must review an answer; see `review`. Contracts may lack it.
        base_model: `name` and `sha256` of the base model that was fine-tuned.
        data: `name`, `sha256` and rows by split of the training data, and its `text_column` and `label_column` if the
            user named them.
        libraries: Library versions at training.
        metrics: Scores on the test rows.
        graphs: Serving graphs by file name.
        golden: Texts with their expected probabilities.
        files: SHA-256 of all other files, by file name.
        companion: The companion, if the bundle has one.
    """

    newsbert_version: str
    labels: list[str]
    max_length: int
    pad_id: int
    cleaning: list[str]
    temperature: float
    base_model: dict[str, str]
    data: dict[str, Any]
    libraries: dict[str, str]
    metrics: dict[str, float]
    graphs: dict[str, GraphInfo]
    golden: list[GoldenText]
    files: dict[str, str]
    format_version: int = FORMAT_VERSION
    review_threshold: float = 0.0
    companion: CompanionInfo | None = None

    @property
    def description(self) -> str:
        """Description of the model in two sentences."""
        rows = self.data["rows"]
        return (
            f"News classifier ({', '.join(self.labels)}), {self.base_model['name']} fine-tuned on "
            f"{rows['train']} rows of {self.data['name']}. On {rows['test']} test rows: "
            f"accuracy {self.metrics['accuracy']:.4f}, macro F1 {self.metrics['f1_macro']:.4f}."
        )

    def to_json(self) -> str:
        """Return the contract as the JSON text of a bundle."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, content: str) -> "Contract":
        """Parse a contract.

        Raises:
            ValueError: If it is no contract in a format that this version reads.
        """
        values = typed_json.loads(content)
        if not isinstance(values, dict) or values.get("format_version") not in READABLE_VERSIONS:
            version = values.get("format_version") if isinstance(values, dict) else None
            readable = " and ".join(map(str, READABLE_VERSIONS))
            raise ValueError(f"its format_version is {version!r:.80}, and this newsbert reads {readable}")
        contract = typed_json.read(cls, values)
        check_contract(contract)
        return contract


_RANGES: dict[str, tuple[float, float]] = {
    "max_length": (1, 1 << 17),
    "pad_id": (0, (1 << 31) - 1),
    "temperature": (1e-6, 1e6),  # logits are divided by it
    "review_threshold": (0, 1),
}


_MAX_WEIGHT = 1e3

_SCORES = {"accuracy", "f1_macro"}


def check_contract(contract: "Contract") -> None:
    """Check that the values of a contract are in range and consistent.

    Raises:
        ValueError: If a value is not; the message names it.
    """
    check_labels(contract.labels)
    unknown = unknown_rules(contract.cleaning)
    if unknown:
        raise ValueError(f"its cleaning rule {unknown[0]!r:.80} is unknown to this newsbert")
    for name, (minimum, maximum) in _RANGES.items():
        if not minimum <= getattr(contract, name) <= maximum:
            raise ValueError(f"its {name} is {getattr(contract, name)!r:.80}, and not from {minimum:g} to {maximum:g}")
    _check_files(contract)
    _check_companion(contract)
    _check_golden(contract)
    _check_provenance(contract)


def _check_files(contract: "Contract") -> None:
    for name in (*contract.files, *contract.graphs):
        if not is_file_name(name):
            raise ValueError(f"it names the file {name!r:.80}, which no bundle has")
    for name, digest in contract.files.items():
        if not is_digest(digest):
            raise ValueError(f"the digest of its file {name} is {digest!r:.80}")


def _check_companion(contract: "Contract") -> None:
    companion = contract.companion
    if companion is None:
        return
    if len(companion.bias) != len(contract.labels):
        raise ValueError(f"its companion has {len(companion.bias)} biases for {len(contract.labels)} labels")
    numbers = {name: getattr(companion, name) for name in ("scale", "model_weight", "companion_weight")}
    for name, value in [*numbers.items(), *(("bias", abs(bias)) for bias in companion.bias)]:
        if not 0 <= value <= _MAX_WEIGHT:
            raise ValueError(f"its companion's {name} is {value!r:.80}, and not from 0 to {_MAX_WEIGHT:g}")
    if companion.threshold is not None and not 0 <= companion.threshold <= 1:
        raise ValueError(f"its companion's threshold is {companion.threshold!r:.80}, and not from 0 to 1")


def _check_golden(contract: "Contract") -> None:
    if not contract.golden:
        raise ValueError("it has no golden texts")
    for golden in contract.golden:
        try:
            preprocess(golden.item, contract.cleaning)
        except ValueError as error:
            raise ValueError(f"its golden text {golden.item!r:.80} is none: {error}") from error
    for graph in contract.graphs.values():
        if not 0 <= graph.tolerance <= 1:
            raise ValueError(f"a graph's tolerance is {graph.tolerance!r:.80}, and not from 0 to 1")
        if graph.golden and len(graph.golden) != len(contract.golden):
            raise ValueError(f"a graph has {len(graph.golden)} golden answers instead of {len(contract.golden)}")
    companion = contract.companion.golden if contract.companion else []
    if contract.companion and len(companion) != len(contract.golden):
        raise ValueError(f"its companion has {len(companion)} golden answers instead of {len(contract.golden)}")
    answers = [golden.probabilities for golden in contract.golden]
    for answer in itertools.chain(answers, companion, *(graph.golden for graph in contract.graphs.values())):
        if len(answer) != len(contract.labels) or not all(0 <= probability <= 1 for probability in answer):
            raise ValueError(f"a golden answer is {answer!r:.80}, and not a probability for each label")


def _check_provenance(contract: "Contract") -> None:
    """Check the fields that model cards, tags and descriptions use."""
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
