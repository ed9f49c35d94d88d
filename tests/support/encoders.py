"""Small encoders of the families that the Hub has, with their own kinds of tokenizers, in the Hugging Face layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers as t
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def _config(name: str, vocab_size: int) -> t.PreTrainedConfig:
    size = {"vocab_size": vocab_size, "initializer_range": 0.2}
    configs: dict[str, Callable[[], t.PreTrainedConfig]] = {
        "bert": lambda: t.BertConfig(**SMALL, **size),
        "roberta": lambda: t.RobertaConfig(**SMALL, **size, max_position_embeddings=66),
        "distilbert": lambda: t.DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=48, **size),
        "xlm-roberta": lambda: t.XLMRobertaConfig(**SMALL, **size, max_position_embeddings=66),
        "electra": lambda: t.ElectraConfig(**SMALL, **size, embedding_size=16),
        "albert": lambda: t.AlbertConfig(**SMALL, **size, embedding_size=16, bos_token_id=0, eos_token_id=2),
        "deberta-v2": lambda: t.DebertaV2Config(
            **SMALL, **size, type_vocab_size=0, relative_attention=True, pos_att_type=["p2c", "c2p"],
            position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False,
        ),
        "camembert": lambda: t.CamembertConfig(**SMALL, **size, max_position_embeddings=66),
        "modernbert": lambda: t.ModernBertConfig(
            **SMALL, **size, pad_token_id=1, bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2,
        ),
    }  # fmt: skip
    return configs[name]()


FAMILIES = (
    "bert",
    "roberta",
    "distilbert",
    "xlm-roberta",
    "electra",
    "albert",
    "deberta-v2",
    "camembert",
    "modernbert",
)


def make(name: str, directory: Path, texts: list[str]) -> Path:
    """Write an encoder of a family with random weights, and a tokenizer of its kind that is made of some texts."""
    if name in {"bert", "distilbert", "electra"}:
        tokenizer, special = _word_piece(texts), _BERT
    elif name in {"roberta", "modernbert"}:
        tokenizer, special = _byte_level(texts), _ROBERTA
    else:
        tokenizer, special = _unigram(texts), _ROBERTA
    torch.manual_seed(0)
    t.AutoModel.from_config(_config(name, tokenizer.get_vocab_size())).save_pretrained(directory)
    pad, unk, cls, sep, mask = special if special is _BERT else (special[place] for place in (1, 3, 0, 2, 4))
    t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask,
        model_max_length=64,
    ).save_pretrained(directory)  # fmt: skip
    return directory


def _word_piece(texts: list[str]) -> Any:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _trained(tokenizer, trainers.WordPieceTrainer(vocab_size=300, special_tokens=list(_BERT)), texts)


def _byte_level(texts: list[str]) -> Any:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(_ROBERTA), initial_alphabet=alphabet)
    return _trained(tokenizer, trainer, texts)


def _unigram(texts: list[str]) -> Any:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=list(_ROBERTA), unk_token="<unk>")
    return _trained(tokenizer, trainer, texts)


def _trained(tokenizer: Any, trainer: Any, texts: list[str]) -> Any:
    tokenizer.train_from_iterator(texts, trainer)
    first, last = ("[CLS]", "[SEP]") if tokenizer.token_to_id("[CLS]") is not None else ("<s>", "</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    return tokenizer
