"""The bundle: one flat directory with everything a prediction depends on.

Training writes it and tracking stores it. The archive, the handler, bulk prediction and the tests read it. Its
contract, `newsbert.json`, is written last and lists every other file with its SHA-256. So the digest of the contract is
the digest of the bundle.
"""

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newsbert.bundle import signing
from newsbert.bundle.contract import CONTRACT_FILE, LABELS_FILE, SIGNATURE_FILE, Contract
from newsbert.errors import ModelError, UsageError

REVIEW_FILE = "review.csv"
SKETCH_FILE = "learned_texts.sketch"
"""Sketch of the digests of training and validation texts; see `row_sketch`."""
COMPANION_FILE = "companion.npy"
"""8-bit weights of the companion; see `inference.companion`."""
FP32_GRAPH, INT8_GRAPH = "model.onnx", "model.int8.onnx"
_COMMON_FILES = ("tokenizer.json", LABELS_FILE, CONTRACT_FILE)
WEIGHTS_FILE = "model.safetensors"
_TORCH_FILES = (WEIGHTS_FILE, "config.json")
_FP32_FILES = (FP32_GRAPH, WEIGHTS_FILE)  # the graph refers to the weights, see shared_weights.py

AUTO = "auto"
"""Placeholder for the runtime that `runtimes.chosen` selects."""

RUNTIME_FILES = {
    "onnxruntime": (*_FP32_FILES, *_COMMON_FILES),
    "onnxruntime-int8": (INT8_GRAPH, *_COMMON_FILES),
    "openvino": (*_FP32_FILES, *_COMMON_FILES),
    "openvino-bf16": (*_FP32_FILES, *_COMMON_FILES),
    "openvino-int8": (INT8_GRAPH, *_COMMON_FILES),
    "torch": (*_TORCH_FILES, *_COMMON_FILES),
    "torch-bf16": (*_TORCH_FILES, *_COMMON_FILES),
    "torch-compiled": (*_TORCH_FILES, *_COMMON_FILES),
}
"""Bundle files by runtime, with the graph or the weights first. An archive for the runtime holds the same files."""

FP32_TOLERANCE = 1e-3
"""Largest accepted difference in probability between fp32 inference and PyTorch."""

BF16_TOLERANCE = 2e-2
"""Largest accepted difference in probability between bfloat16 inference and PyTorch."""

INT8_TOLERANCE = 2e-2
"""Largest accepted difference in probability between a quantized graph's answers and its own when it was made.

Processors differ in the last digit of an fp32 number, which may then round to another 8-bit number.
"""

_RETRAIN_HINT = "train or fetch the model again"


@dataclass(frozen=True)
class Bundle:
    """A bundle with its parsed contract.

    Attributes:
        path: Directory of the bundle.
        contract: Contract of the bundle.
        digest: SHA-256 of the contract, which covers all files.
        signature: Signature of the contract, if the bundle has one.
        signed_by: Trusted key that made the signature, if `trusted_keys` is set.
    """

    path: Path
    contract: Contract
    digest: str
    signature: bytes | None = dataclasses.field(default=None, repr=False)
    signed_by: str | None = None

    @classmethod
    def read(cls, path: Path, name: str | None = None, run_id: str | None = None) -> "Bundle":
        """Read the contract of the bundle in `path` and check its signature.

        If `trusted_keys` is set, one of these keys must have signed the contract.

        Args:
            path: Directory of the bundle.
            name: Name in error messages, such as `BertModel/2`; the path by default.
            run_id: MLflow run of the bundle, for the command that signs it; the path by default.

        Raises:
            ModelError: If it is no bundle, is unreadable for this version, or is not signed by a trusted key.
        """
        model_name = (name or "").rpartition("/")[0] or "NAME"
        register = ["newsbert", "register", run_id or str(path), "--model-name", model_name, "--sign", "KEY.pem"]
        hint = f"if you know who made it, sign it: {shlex.join(register)}"
        return cls._read(path, lambda content, signature: signing.check(content, signature, name or str(path), hint))

    @classmethod
    def read_unsigned(cls, path: Path) -> "Bundle":
        """Read a bundle without checking its signature.

        This is for a bundle that is being written or is about to be signed.

        Raises:
            ModelError: If it is no bundle or is unreadable for this version.
        """
        return cls._read(path, lambda content, signature: None)

    @classmethod
    def _read(cls, path: Path, check_signature: Callable[[bytes, bytes | None], str | None]) -> "Bundle":
        name = CONTRACT_FILE
        try:
            content, signature = (path / CONTRACT_FILE).read_bytes(), signing.read(path)
            signed_by = check_signature(content, signature)
            contract = Contract.from_json(content.decode("utf-8"))
            name = LABELS_FILE
            labels = json.loads((path / LABELS_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelError(f"{path} is no newsbert bundle: it has no {name}", "newsbert train") from error
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{path} is no readable bundle: {name}: {error}", _RETRAIN_HINT) from error
        if labels != class_mapping(contract.labels):
            raise ModelError(f"{path}: {LABELS_FILE} and {CONTRACT_FILE} name different labels", _RETRAIN_HINT)
        return cls(path, contract, hashlib.sha256(content).hexdigest(), signature, signed_by)

    def names(self, runtime: str) -> tuple[str, ...]:
        """Return the names of the files that a runtime reads, with the graph or the weights first.

        Raises:
            UsageError: If there is no such runtime.
        """
        return (*files_of(runtime), *([COMPANION_FILE] if self.contract.companion else []))

    def files(self, runtime: str) -> dict[str, bytes | Path]:
        """Return the files that a runtime reads, and the signature, by name: a path or the content.

        Raises:
            UsageError: If there is no such runtime.
        """
        files: dict[str, bytes | Path] = {name: self.path / name for name in self.names(runtime)}
        return files | ({SIGNATURE_FILE: self.signature} if self.signature else {})

    def without_companion(self) -> "Bundle":
        """Return the same bundle whose encoder answers all texts alone."""
        return dataclasses.replace(self, contract=dataclasses.replace(self.contract, companion=None))

    def sign(self, key: Path) -> tuple[bytes, str]:
        """Sign the contract and return the signature and the SHA-256 of the public key.

        Raises:
            ModelError: If the contract on disk has changed since it was read, or cannot be read.
            NewsbertError: If `signing.sign` fails.
        """
        try:
            content = (self.path / CONTRACT_FILE).read_bytes()
        except OSError as error:
            raise ModelError(f"{self.path} cannot be read: {error.strerror or error}", "check its rights") from error
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise ModelError(f"{self.path} was changed while it was read", "see who changes it, and try again")
        return signing.sign(content, key)

    def verify(self, only: tuple[str, ...] | None = None) -> None:
        """Check that the files are those that training wrote.

        Args:
            only: Names of the files to check, or none for all of them; other files may be there, as in an archive.
                By default, all files are checked and no other file may be there.

        Raises:
            ModelError: If a file is missing, altered or added; the message names it.
        """
        for name in self.names("onnxruntime"):
            if name != CONTRACT_FILE and name not in self.contract.files:
                raise ModelError(f"the contract of {self.path} does not name {name}", _RETRAIN_HINT)
        for name, expected in self.contract.files.items():
            if only and name not in only:
                continue
            file = self.path / name
            if not file.is_file() or file.is_symlink():
                raise ModelError(f"the bundle {self.path} has lost its file {name}", _RETRAIN_HINT)
            try:
                digest = sha256_of(file)
            except OSError as error:
                raise ModelError(f"{file} cannot be read: {error.strerror or error}", "check its rights") from error
            if digest != expected:
                raise ModelError(f"{file} was altered after training: its SHA-256 is not the contract's", _RETRAIN_HINT)
        if only is None:
            self._check_nothing_added()

    def _check_nothing_added(self) -> None:
        expected = {CONTRACT_FILE, *self.contract.files, *([SIGNATURE_FILE] if self.signature else [])}
        try:
            added = sorted({file.name for file in self.path.iterdir()} - expected)
        except OSError as error:
            raise ModelError(f"{self.path} cannot be read: {error.strerror or error}", "check its rights") from error
        if added:
            raise ModelError(
                f"{self.path / added[0]!s} was added after training: the contract does not name it",
                "look what it is, then move it away",
            )


def files_of(runtime: str) -> tuple[str, ...]:
    """Return the bundle files that a runtime reads, with the graph or the weights first.

    Raises:
        UsageError: If there is no such runtime.
    """
    try:
        return RUNTIME_FILES[runtime]
    except KeyError as error:
        raise UsageError(f"no runtime {runtime!r}", f"choose one of {', '.join(RUNTIME_FILES)}") from error


def seal(path: Path, contract: Mapping[str, Any]) -> Bundle:
    """Write the contract of the files in `path` and return the finished bundle.

    Args:
        path: Flat directory that has all other files.
        contract: Fields of `Contract` except `files`.
    """
    write_class_mapping(path, contract["labels"])
    for file in path.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner only, and the server may run as another user
    files = {file.name: sha256_of(file) for file in sorted(path.iterdir()) if file.name != CONTRACT_FILE}
    content = Contract(**contract, files=files).to_json()
    (path / CONTRACT_FILE).write_text(content, encoding="utf-8")
    return Bundle.read_unsigned(path)


def class_mapping(labels: list[str]) -> dict[str, str]:
    """Return label names by id as text: `{"0": "World", …}`."""
    return {str(index): label for index, label in enumerate(labels)}


def write_class_mapping(path: Path, labels: list[str]) -> None:
    """Write `class_mapping.json`."""
    content = json.dumps(class_mapping(labels), indent=2, ensure_ascii=False)
    (path / LABELS_FILE).write_text(content + "\n", encoding="utf-8")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
