"""Tokenizer of an encoder, in the form of bundles."""

import json
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModel, AutoTokenizer

from newsbert.errors import ModelError, UsageError, first_line
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training.base_model import VOCABULARIES, BaseModel


def prepare_tokenizer(base: BaseModel, directory: Path, max_length: int) -> SequenceTokenizer:
    """Write the base model's tokenizer to `directory` in the bundle's form and load it as serving does.

    Raises:
        UsageError: If the encoder cannot read `max_length` tokens.
        ModelError: If the tokenizer cannot be loaded.
    """
    tokenizer = _load_tokenizer(base)
    try:
        positions = _count_positions(transformers.AutoConfig.from_pretrained(str(base.path), trust_remote_code=False))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the base model {base.name!r} cannot be loaded: {error}", "give a BERT-family directory or Hub name"
        ) from error
    limit = min(int(tokenizer.model_max_length), positions)
    if max_length > limit:
        raise UsageError(
            f"--max-length {max_length} is more than the {limit} tokens that {base.name} reads", f"give {limit} or less"
        )
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of {base.name!r} has no pad token (tokenizer_config.json: pad_token)",
            "give an encoder, such as one of BERT's family; `--base-model minilm` is the bundled one",
        )
    tokenizer.save_pretrained(str(directory))
    if not (directory / "tokenizer.json").is_file():
        raise ModelError(f"the tokenizer of {base.name!r} has no fast form", "give a BERT-family base model")
    backend = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    if backend["model"]["type"] == "WordPiece":
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        (directory / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8")
    return SequenceTokenizer.load(directory / "tokenizer.json", max_length, pad_id=int(tokenizer.pad_token_id))


def _load_tokenizer(base: BaseModel) -> Any:
    """Load the base model's tokenizer.

    Raises:
        ModelError: If it is broken, or of a kind that the installed `tokenizers` does not support.
    """
    file = next(file for pattern in VOCABULARIES for file in sorted(base.path.glob(pattern)))
    if file.suffix == ".model" and find_spec("sentencepiece") is None:
        raise ModelError(
            f"{file} is a SentencePiece model, and what converts it is not installed", "pip install sentencepiece"
        )
    try:
        return AutoTokenizer.from_pretrained(str(base.path), trust_remote_code=False)
    except Exception as error:  # tokenizers raises no class of its own
        versions = " and ".join(f"{name} {metadata.version(name)}" for name in ("tokenizers", "transformers"))
        raise ModelError(
            f"{file} cannot be read by {versions}: {first_line(error)}",
            "pip install --upgrade tokenizers transformers, or take another base model",
        ) from error


def _count_positions(config: Any) -> int:
    """Return the number of an encoder's positions; those of RoBERTa begin after the padding index."""
    with torch.device("meta"):
        encoder = AutoModel.from_config(config, trust_remote_code=False)
    tables = [module for name, module in encoder.named_modules() if name.endswith("position_embeddings")]
    positions = [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for table in tables
        if isinstance(table, nn.Embedding)
    ]
    return min([int(getattr(config, "max_position_embeddings", 512)), *positions])
