"""The initial model of training: an encoder with a new head, or an earlier scorer."""

import logging
import os

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cappy_model.architectures import DECODERS
from cappy_model.checkpoints import (
    Checkpoint,
    ModelError,
    load_config,
    load_model,
    load_with_new_weights,
    settle_padding,
)
from cappy_model.train.recipe import dropouts

_LOG = logging.getLogger("cappy")
_CLASSIFIER = "AutoModelForSequenceClassification"
_OF_THE_HEAD = ("sentence_transformers", "sbert_ce_default_activation_function")


def check_start(checkpoint: Checkpoint, config: PreTrainedConfig, *, new_head: bool = False) -> None:
    """Raise ModelError unless training can start with a model.

    It needs an architecture with a sequence classification head in transformers. A classifier must have one logit
    unless it gets a new head, and a decoder-only language model must be a classifier.
    """
    name, kind = checkpoint.source.name, config.model_type
    remedy = "give an encoder such as RoBERTa, or an earlier scorer"
    own_code = getattr(config, "auto_map", None) or {}
    if type(config) not in AutoModelForSequenceClassification._model_mapping and _CLASSIFIER not in own_code:
        raise ModelError(f"{name}: is a {kind}, for which transformers has no scoring head; {remedy}")
    if _is_classifier(config):
        if config.num_labels != 1 and not new_head:
            raise ModelError(
                f"{name}: has a head of {config.num_labels} logits; a scorer has one. Give --new-head to train a new "
                "head over its encoder"
            )
    elif kind in DECODERS:
        raise ModelError(f"{name}: is a {kind}, a decoder-only language model; {remedy}")


def load_to_train(
    checkpoint: Checkpoint, *, seed: int, new_head: bool = False, dropout: float | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a scorer to train (float32, on the CPU) and its tokenizer; an encoder gets a new head.

    With `new_head` a classifier's head is replaced, too, whatever its size; a pooler that belongs to the encoder
    (BERT's) stays. `seed` initialises new weights, which are logged by name. `dropout` is the probability of every
    dropout of the model; None: its own. Raises ModelError as `check_start` does, and if weights of the encoder are
    missing.
    """
    config, tokenizer = load_config(checkpoint)
    check_start(checkpoint, config, new_head=new_head)
    if dropout is not None:
        config.update(dict.fromkeys(dropouts(config), dropout))
    parts = (checkpoint, AutoModelForSequenceClassification, config, tokenizer, torch.float32)
    new: list[str] = []
    torch.manual_seed(seed)
    if not _is_classifier(config):
        _set_one_logit(config)
        model, new = load_with_new_weights(*parts)
    elif new_head:
        model, new = load_with_new_weights(*parts)
        model, head = _replace_head(model, checkpoint)
        new = [*(name for name in new if name not in head and name in model.state_dict()), *head]
    else:
        _set_one_logit(config)
        model = load_model(*parts)
    settle_padding(model.config, tokenizer)
    if new and os.environ.get("RANK", "0") == "0":  # under torchrun, the first process alone
        _LOG.info("%s: weights newly initialised, by seed %d: %s", checkpoint.source.name, seed, ", ".join(new))
    return model, tokenizer


def _is_classifier(config: PreTrainedConfig) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def _set_one_logit(config: PreTrainedConfig) -> None:
    config.num_labels, config.problem_type = 1, "regression"


def _replace_head(model: PreTrainedModel, checkpoint: Checkpoint) -> tuple[PreTrainedModel, list[str]]:
    """Return a classifier with the encoder of `model` and a new head of one logit, and the names of its weights."""
    config = model.config
    _set_one_logit(config)
    for name in _OF_THE_HEAD:
        if hasattr(config, name):
            delattr(config, name)
    fresh: PreTrainedModel = AutoModelForSequenceClassification.from_config(
        config, dtype=torch.float32, trust_remote_code=checkpoint.source.trust_remote_code
    )
    if fresh.base_model is fresh:
        raise ModelError(
            f"{checkpoint.source.name}: its code does not say which weights are the encoder's, so --new-head cannot "
            "replace the others; give the encoder itself"
        )
    fresh.base_model.load_state_dict(model.base_model.state_dict(), assign=True)
    encoder = f"{fresh.base_model_prefix}."
    return fresh.eval(), [name for name in fresh.state_dict() if not name.startswith(encoder)]
