"""The bundle: one flat directory with everything a prediction depends on.

Training writes it; tracking stores it; the archive, the handler, bulk prediction and the tests read it. Its contract,
`newsbert.json`, is written last and names every other file with its SHA-256, so the contract's own digest is the
bundle's.
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
"""Digests of texts that were trained and validated on; see `row_sketch`."""
FP32_GRAPH, INT8_GRAPH = "model.onnx", "model.int8.onnx"
_ALWAYS = ("tokenizer.json", LABELS_FILE, CONTRACT_FILE)
WEIGHTS_FILE = "model.safetensors"
_TORCH = (WEIGHTS_FILE, "config.json")
_FP32 = (FP32_GRAPH, WEIGHTS_FILE)  # the graph refers to the weights: see shared_weights.py

AUTO = "auto"
"""Stands for the runtime that `runtimes.chosen` chooses."""

RUNTIME_FILES = {
    "onnxruntime": (*_FP32, *_ALWAYS),
    "onnxruntime-int8": (INT8_GRAPH, *_ALWAYS),
    "openvino": (*_FP32, *_ALWAYS),
    "openvino-bf16": (*_FP32, *_ALWAYS),
    "openvino-int8": (INT8_GRAPH, *_ALWAYS),
    "torch": (*_TORCH, *_ALWAYS),
    "torch-bf16": (*_TORCH, *_ALWAYS),
    "torch-compiled": (*_TORCH, *_ALWAYS),
}
"""All runtimes, and what each reads of a bundle, the graph or the weights first; so this is what its archive holds."""

FP32_TOLERANCE = 1e-3
"""How far from PyTorch's a probability may be that fp32 arithmetic gives."""

BF16_TOLERANCE = 2e-2
"""The same of bfloat16."""

INT8_TOLERANCE = 2e-2
"""How far the answers of a quantized graph may be from those it gave when it was made: what differs between processors
in the last digit of an fp32 number may round to another 8-bit one."""

_RETRAIN = "train or fetch the model again"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read.

    Attributes:
        path: Its directory.
        contract: Its contract.
        digest: SHA-256 of the contract, which stands for all files.
        signature: Its signature, if it has one.
        signed_by: The trusted key that made that, where `trusted_keys` are set.
    """

    path: Path
    contract: Contract
    digest: str
    signature: bytes | None = dataclasses.field(default=None, repr=False)
    signed_by: str | None = None

    @classmethod
    def read(cls, path: Path, name: str | None = None, run_id: str | None = None) -> "Bundle":
        """Read the contract of the bundle in `path`; where `trusted_keys` are set, one of them must have signed it.

        Args:
            path: Its directory.
            name: What errors call it, such as `BertModel/2`; its path by default.
            run_id: The run that it is of, by which it can be signed; its path by default.

        Raises:
            ModelError: If it is no bundle, one that this version cannot read, or not signed by a trusted key.
        """
        model_name = (name or "").rpartition("/")[0] or "NAME"
        register = ["newsbert", "register", run_id or str(path), "--model-name", model_name, "--sign", "KEY.pem"]
        hint = f"if you know who made it, sign it: {shlex.join(register)}"
        return cls._read(path, lambda content, signature: signing.check(content, signature, name or str(path), hint))

    @classmethod
    def read_unsigned(cls, path: Path) -> "Bundle":
        """Read a bundle as `read` does, whoever has signed it: one that is being made, or is to be signed.

        Raises:
            ModelError: If it is no bundle, or one that this version cannot read.
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
            raise ModelError(f"{path} is no readable bundle: {name}: {error}", _RETRAIN) from error
        if labels != class_mapping(contract.labels):
            raise ModelError(f"{path}: {LABELS_FILE} and {CONTRACT_FILE} name different labels", _RETRAIN)
        return cls(path, contract, hashlib.sha256(content).hexdigest(), signature, signed_by)

    def files(self, runtime: str) -> dict[str, bytes | Path]:
        """Return what goes with it to where a runtime reads it, by name: a path or content; its signature, too.

        Raises:
            UsageError: If there is no such runtime.
        """
        files: dict[str, bytes | Path] = {name: self.path / name for name in files_of(runtime)}
        return files | ({SIGNATURE_FILE: self.signature} if self.signature else {})

    def sign(self, key: Path) -> tuple[bytes, str]:
        """Sign the contract that was read, and return the signature and the SHA-256 of the public key.

        Raises:
            ModelError: If another contract is there by now, or it cannot be read.
            NewsbertError: As `signing.sign` does.
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
            only: Where the files lie among others, as in an archive: names to check, or none for all of them. If
                not given, all are checked and nothing else may be there.

        Raises:
            ModelError: If a file is missing, differs or was added; the message names it.
        """
        for name in RUNTIME_FILES["onnxruntime"]:
            if name != CONTRACT_FILE and name not in self.contract.files:
                raise ModelError(f"the contract of {self.path} does not name {name}", _RETRAIN)
        for name, expected in self.contract.files.items():
            if only and name not in only:
                continue
            file = self.path / name
            if not file.is_file() or file.is_symlink():
                raise ModelError(f"the bundle {self.path} has lost its file {name}", _RETRAIN)
            try:
                found = sha256_of(file)
            except OSError as error:
                raise ModelError(f"{file} cannot be read: {error.strerror or error}", "check its rights") from error
            if found != expected:
                raise ModelError(f"{file} was altered after training: its SHA-256 is not the contract's", _RETRAIN)
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
    """What a runtime reads of a bundle, the graph or the weights first.

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
        path: A flat directory with all other files in place.
        contract: The fields of `Contract`, but for `files`.
    """
    write_class_mapping(path, contract["labels"])
    for file in path.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner only; who serves may be another user
    files = {file.name: sha256_of(file) for file in sorted(path.iterdir()) if file.name != CONTRACT_FILE}
    content = Contract(**contract, files=files).to_json()
    (path / CONTRACT_FILE).write_text(content, encoding="utf-8")
    return Bundle.read_unsigned(path)


def class_mapping(labels: list[str]) -> dict[str, str]:
    """Label names by id as text: `{"0": "World", …}`."""
    return {str(index): label for index, label in enumerate(labels)}


def write_class_mapping(path: Path, labels: list[str]) -> None:
    """Write `class_mapping.json`."""
    content = json.dumps(class_mapping(labels), indent=2, ensure_ascii=False)
    (path / LABELS_FILE).write_text(content + "\n", encoding="utf-8")


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
