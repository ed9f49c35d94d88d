"""Low-rank adapters of an encoder's matrices, which are merged into the matrices before the model ships.

Source: https://arxiv.org/abs/2106.09685.
"""

import warnings

from transformers import PreTrainedModel

from newsbert.core.installation import MissingExtraError

_HEAD_MODULES = ("classifier", "pooler", "pre_classifier")
"""Modules behind the encoder, which are tuned as a whole."""


def adapt(model: PreTrainedModel, rank: int) -> PreTrainedModel:
    """Add adapters to all matrices of a classifier's encoder; only these and the head remain trainable.

    Raises:
        MissingExtraError: If peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "train") from error
    head = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in _HEAD_MODULES]
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", exclude_modules=head, modules_to_save=head
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of peft and transformers about one another
        adapted: PreTrainedModel = peft.get_peft_model(model, config)
    return adapted


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Merge the adapters into the matrices and return the plain classifier."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged: PreTrainedModel = model.merge_and_unload()
    return merged


def without_wrapper(model: PreTrainedModel) -> PreTrainedModel:
    """Return the classifier without peft's wrapper; its matrices may have adapters."""
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner
