"""Loading of a scorer: its weights, and how its pairs are rendered, cut and reduced to a score."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from cappy_model.architectures import is_language_model
from cappy_model.checkpoints import (
    Checkpoint,
    ModelError,
    check_has_head,
    load_config,
    load_model,
    load_with_new_weights,
    refuse_unsuitable,
)
from cappy_model.score.cross_encoder import CrossEncoder, PooledScorer, read_cross_encoder
from cappy_model.score.encoding import Encoder, encoder_for
from cappy_model.score.heads import Head, classifier_head, words_head
from cappy_model.score.templates import AUTO, Template, settle_template
from schemas.errors import CappyError


@dataclass(frozen=True)
class SettledScorer:
    """A scorer without its weights: what is known from the files of its folder and from the settings.

    `stored` is what a folder of sentence-transformers says.
    """

    checkpoint: Checkpoint
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    head: Head
    template: Template
    encoder: Encoder
    stored: CrossEncoder

    @property
    def fingerprint_inputs(self) -> dict[str, Any]:
        """The part of a run's fingerprint that says what the scores mean, beside the content of the model's files."""
        head = {} if self.head == Head() else {"head": self.head.name}
        cut = {"max_length": self.encoder.max_length, "truncation": self.encoder.policy}
        return {"type": self.config.model_type, **cut, **head, **self.template.fingerprint_inputs}

    @property
    def described(self) -> dict[str, str | None]:
        """The head, the template, and the activation that the model names, which scores are taken before."""
        return {
            "head": self.head.name,
            "template": self.template.kind,
            "activation": "identity",
            "named_activation": self.stored.activation,
        }


@dataclass(frozen=True)
class LoadedScorer:
    """A scorer with its weights, in evaluation mode, on the CPU, as transformers has loaded it."""

    model: Any
    settled: SettledScorer

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer."""
        return self.settled.tokenizer

    @property
    def encoder(self) -> Encoder:
        """The encoder of pairs."""
        return self.settled.encoder

    @property
    def head(self) -> Head:
        """How logits become scores."""
        return self.settled.head


def settle_scorer(
    checkpoint: Checkpoint, *, head: str | None = None, template: str = AUTO, max_length: int | None = None
) -> SettledScorer:
    """Settle how a model scores (see `Scorer.from_pretrained`), from its files without the weights.

    Raises ModelError for a model that is no scorer, and for a head, template or length that does not go with it.
    """
    refuse_unsuitable(checkpoint)
    config, tokenizer = load_config(checkpoint)
    name = checkpoint.source.name
    folder = checkpoint.folder_of("modules.json", "config_sentence_transformers.json")
    stored = read_cross_encoder(folder, config, model=name)
    if stored.dense:
        config.num_labels = stored.labels
        chosen = classifier_head(head, config, model=name)
    elif stored.words is not None and head is None:
        chosen = stored.words
    elif head is not None and is_language_model(config):
        chosen = words_head(head, tokenizer, model=name)
    else:
        check_has_head(checkpoint, config)
        chosen = classifier_head(head, config, model=name)
    answers = bool(chosen.tokens)
    settled = settle_template(template, tokenizer, config, stored=stored.template, answers=answers, model=name)
    try:
        encoder = encoder_for(tokenizer, config, template=settled, max_length=max_length)
    except CappyError as error:
        raise ModelError(f"{name}: {error}") from error
    return SettledScorer(checkpoint, config, tokenizer, chosen, settled, encoder, stored)


def load_scorer(settled: SettledScorer, dtype: torch.dtype) -> LoadedScorer:
    """Load the weights of a settled scorer. Raises ModelError if some are missing or cannot be read."""
    checkpoint, config, tokenizer = settled.checkpoint, settled.config, settled.tokenizer
    if settled.stored.dense:
        encoder, _ = load_with_new_weights(checkpoint, AutoModel, config, tokenizer, dtype)
        pooling = settled.stored.pooling or "cls"
        model: Any = PooledScorer(encoder, pooling, settled.stored.dense, model=checkpoint.source.name).eval()
    else:
        loader = AutoModelForCausalLM if settled.head.tokens else AutoModelForSequenceClassification
        model = load_model(checkpoint, loader, config, tokenizer, dtype)
    return LoadedScorer(model, settled)
