"""Kinds of models, by their configuration."""

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

DECODERS = (
    frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    - frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    - frozenset(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    - {"xlnet"}  # bidirectional
)
"""Model types that are decoder-only language models."""


def is_language_model(config: PreTrainedConfig) -> bool:
    """Return whether a model is a causal language model, by its architecture: some are named otherwise (GPT-2)."""
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return any(name.endswith("ForCausalLM") or name in known for name in config.architectures or ())
