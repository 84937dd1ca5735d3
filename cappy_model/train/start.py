"""The initial model of training: an encoder with a new head, or an earlier scorer."""

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cappy_model.architectures import DECODERS
from cappy_model.checkpoints import Checkpoint, ModelError, load_config, load_model, settle_padding

_CLASSIFIER = "AutoModelForSequenceClassification"


def check_start(checkpoint: Checkpoint, config: PreTrainedConfig) -> None:
    """Raise ModelError unless training can start with a model.

    It needs an architecture with a sequence classification head in transformers. A classifier must have one logit, and
    a decoder-only language model must be a classifier.
    """
    name, kind = checkpoint.source.name, config.model_type
    remedy = "give an encoder such as RoBERTa, or an earlier scorer"
    own_code = getattr(config, "auto_map", None) or {}
    if type(config) not in AutoModelForSequenceClassification._model_mapping and _CLASSIFIER not in own_code:
        raise ModelError(f"{name}: is a {kind}, for which transformers has no scoring head; {remedy}")
    if _is_classifier(config):
        _check_one_logit(checkpoint, config)
    elif kind in DECODERS:
        raise ModelError(f"{name}: is a {kind}, a decoder-only language model; {remedy}")


def load_to_train(checkpoint: Checkpoint, *, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a scorer to train (float32, on the CPU) and its tokenizer; an encoder gets a new head.

    `seed` initialises a new head. Raises ModelError as `check_start` does, and if weights of the encoder are missing.
    """
    config, tokenizer = load_config(checkpoint)
    check_start(checkpoint, config)
    new_head = not _is_classifier(config)
    config.num_labels, config.problem_type = 1, "regression"
    torch.manual_seed(seed)
    loader = AutoModelForSequenceClassification
    model = load_model(checkpoint, loader, config, tokenizer, torch.float32, new_head=new_head)
    settle_padding(config, tokenizer)
    return model, tokenizer


def _is_classifier(config: PreTrainedConfig) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def _check_one_logit(checkpoint: Checkpoint, config: PreTrainedConfig) -> None:
    """Raise ModelError unless the head has one logit."""
    if config.num_labels != 1:
        raise ModelError(f"{checkpoint.source.name}: has a head of {config.num_labels} logits; a scorer has one")
