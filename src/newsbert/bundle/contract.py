"""The contract of a bundle: what predictions depend on, and the digests of its files."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from newsbert.bundle import contract_check, signing
from newsbert.core import typed_json

CONTRACT_FILE, SIGNATURE_FILE = signing.CONTRACT_FILE, signing.SIGNATURE_FILE

LABELS_FILE = "class_mapping.json"

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Graph:
    """A serving graph and how it agrees with PyTorch, on validation rows when it was made.

    Attributes:
        runtime: The runtime that it was checked with.
        tolerance: Largest difference in probability that is accepted of its answers to the golden texts.
        max_difference: Largest one to PyTorch's that was seen, on any row.
        rows: How many rows it was checked on.
        agreement: Share of rows that got the same label.
        accuracy_loss: Accuracy of PyTorch's answers less that of its own, in points of a hundred.
        batch_difference: Largest difference in probability between a text alone and the same in a batch.
        golden: Its own answers to the golden texts; none if they are to be PyTorch's.
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
class Golden:
    """A text or title/text object, and the probabilities that PyTorch gave it, in label order."""

    item: str | dict[str, str]
    probabilities: list[float]


@dataclass(frozen=True)
class Contract:
    """What preparation, graphs and answers of a bundle must be; `newsbert.json`.

    Attributes:
        labels: Label names in logit order.
        max_length: Tokens read of a text.
        pad_id: The token id that pads a batch.
        cleaning: Names of the cleaning rules, in order.
        temperature: What logits are divided by before softmax.
        review_below: The score below which a person has to see an answer; see `review`. Contracts may be without.
        base_model: `name` and `sha256` of what was fine-tuned.
        data: `name`, `sha256`, rows by split, and `text_column` and `label_column` where these were named, of what it
            was trained on.
        libraries: Versions at training.
        metrics: Scores on the test rows.
        graphs: Serving graphs by file name.
        golden: Texts with their expected probabilities.
        files: SHA-256 by file name of every other file.
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
    graphs: dict[str, Graph]
    golden: list[Golden]
    files: dict[str, str]
    format_version: int = FORMAT_VERSION
    review_below: float = 0.0

    @property
    def description(self) -> str:
        """What the model is, in two sentences."""
        rows = self.data["rows"]
        return (
            f"News classifier ({', '.join(self.labels)}), {self.base_model['name']} fine-tuned on "
            f"{rows['train']} rows of {self.data['name']}. On {rows['test']} test rows: "
            f"accuracy {self.metrics['accuracy']:.4f}, macro F1 {self.metrics['f1_macro']:.4f}."
        )

    def to_json(self) -> str:
        """Return the contract as it stands in a bundle."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, content: str) -> "Contract":
        """Read a contract.

        Raises:
            ValueError: If it is no contract of a format that this version reads.
        """
        values = typed_json.loads(content)
        if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
            version = values.get("format_version") if isinstance(values, dict) else None
            raise ValueError(f"its format_version is {version!r:.80}, and this newsbert reads {FORMAT_VERSION}")
        contract = typed_json.read(cls, values)
        contract_check.check(contract)
        return contract
