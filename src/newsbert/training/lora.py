"""Tuning low-rank adapters of an encoder's matrices, which are merged into them before the model ships.

Source: https://arxiv.org/abs/2106.09685.
"""

import warnings

from transformers import PreTrainedModel

from newsbert.core.installation import MissingExtraError

_HEAD = ("classifier", "pooler", "pre_classifier")
"""What follows the encoder: it is tuned as a whole."""


def adapt(model: PreTrainedModel, rank: int) -> PreTrainedModel:
    """Put adapters beside all matrices of a classifier's encoder, and leave only these and the head to be tuned.

    Raises:
        MissingExtraError: If peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "train") from error
    head = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in _HEAD]
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", exclude_modules=head, modules_to_save=head
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's and transformers', of one another
        adapted: PreTrainedModel = peft.get_peft_model(model, config)
    return adapted


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """The classifier of plain matrices that computes what the adapted one does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged: PreTrainedModel = model.merge_and_unload()
    return merged


def without_wrapper(model: PreTrainedModel) -> PreTrainedModel:
    """The classifier itself, whose matrices may have adapters."""
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner
