"""Loading a model: its configuration and tokenizer, then its weights, merged with an adapter's."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging

from cappy_model.checkpoints import adapters
from cappy_model.checkpoints.source import CONFIG, Checkpoint, ModelError, ModelSource
from cappy_model.checkpoints.unsuitable import check_known

_TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
_CHAT_TEMPLATE = "chat_template.jinja"
_OF_PROCESSOR = ("chat_template.json", "processor_config.json")
"""Files in which the processors of earlier versions of transformers keep the chat template, under this name."""


def load_config(checkpoint: Checkpoint) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Load a model's configuration and tokenizer, without its weights.

    What stands beside an adapter (config.json, tokenizer, chat template) replaces that of its base, and the
    configuration is that of the merged model. Raises ModelError.
    """
    source = checkpoint.source
    check_known(checkpoint)
    with _loading(source):
        config = AutoConfig.from_pretrained(
            str(checkpoint.folder_of(CONFIG)), trust_remote_code=source.trust_remote_code
        )
        tokenizer = _load_tokenizer(checkpoint, config)
        if checkpoint.base:
            adapters.settle_head(checkpoint, config)
    return config, tokenizer


def _load_tokenizer(checkpoint: Checkpoint, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    folder = checkpoint.folder_of(*_TOKENIZER)
    given: dict[str, Any] = {"trust_remote_code": checkpoint.source.trust_remote_code}
    if checkpoint.base:
        given["config"] = config  # beside an adapter there may be a tokenizer without a config.json
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), **given)
    template = checkpoint.folder_of(_CHAT_TEMPLATE) / _CHAT_TEMPLATE
    if template.is_file() and template.parent != folder:
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    for path in (folder / name for name in _OF_PROCESSOR if not tokenizer.chat_template):
        if path.is_file():
            tokenizer.chat_template = json.loads(path.read_bytes()).get("chat_template")
    return tokenizer


def settle_padding(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set a missing padding token of the configuration from the tokenizer. Raises ModelError if neither has one."""
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None:
        raise ModelError(f"{config.model_type}: neither model nor tokenizer has a padding token; set one and save it")


def generates_by(checkpoint: Checkpoint, config: PreTrainedConfig) -> Any:
    """Return the auto class of a generative model, encoder-decoder or decoder-only, according to its configuration.

    Raises ModelError for a model that is neither.
    """
    architectures = config.architectures or ()
    for names, loader in (
        (MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, AutoModelForSeq2SeqLM),
        (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, AutoModelForCausalLM),
    ):
        own_code = getattr(config, "auto_map", None) or {}
        if names.get(config.model_type) in architectures or loader.__name__ in own_code:
            return loader
    raise ModelError(
        f"{checkpoint.source.name}: is {', '.join(architectures) or 'of no architecture that its config.json names'}, "
        "which generates no text; give a decoder-only or an encoder-decoder language model"
    )


def load_generator(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a language model (in evaluation mode, on the CPU) and its tokenizer.

    Raises ModelError unless it is decoder-only or encoder-decoder, with all of its weights and its own tokenizer.
    """
    config, tokenizer = load_config(checkpoint)
    return load_model(checkpoint, generates_by(checkpoint, config), config, tokenizer, dtype), tokenizer


def load_model(
    checkpoint: Checkpoint,
    loader: Any,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
) -> PreTrainedModel:
    """Load a model (in evaluation mode, on the CPU) with the auto class `loader`.

    Raises ModelError for weights that are missing or cannot be read, and for the tokenizer of another model.
    """
    model, new = load_with_new_weights(checkpoint, loader, config, tokenizer, dtype)
    if new:
        raise _lacking(checkpoint, new)
    return model


def load_with_new_weights(
    checkpoint: Checkpoint,
    loader: Any,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model as `load_model` does; also return the names of the weights that its files lack, in order.

    They are newly initialised. Only a head's and a pooler's may be: raises ModelError where those of a layer are.
    """
    source, base = checkpoint.source, checkpoint.base
    with _loading(source):
        model, info = loader.from_pretrained(
            str(base.folder if base else checkpoint.folder),
            config=config,
            dtype=dtype,
            use_safetensors=None if source.allow_pickle else True,
            trust_remote_code=source.trust_remote_code,
            ignore_mismatched_sizes=base is not None,  # the adapter has its own head
            output_loading_info=True,
        )
        missing = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        if base:
            model, added = adapters.merge(checkpoint, model)
            missing -= added
    layers = tuple(
        f"{model.base_model_prefix}.{name}" for name, _ in model.base_model.named_children() if name != "pooler"
    )
    lacking = sorted(key for key in missing if key.startswith(layers))
    if lacking:
        raise _lacking(checkpoint, lacking)
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise ModelError(
            f"{source.name}: its tokenizer has {len(tokenizer)} ids, its model {embeddings}: they do not match"
        )
    return model.eval(), sorted(missing)


def _lacking(checkpoint: Checkpoint, names: Sequence[str]) -> ModelError:
    return ModelError(
        f"{checkpoint.source.name}: lacks weights ({', '.join(names[:3])}), so it was not trained for this use"
    )


@contextmanager
def _loading(source: ModelSource) -> Iterator[None]:
    """Turn errors of transformers into a ModelError that names the model, and silence its output."""
    try:
        with quiet():
            yield
    except ModelError:
        raise
    except Exception as error:  # damaged files and unknown models raise errors of any type
        reason = str(error).strip() or type(error).__name__
        raise ModelError(f"{source.name}: cannot be loaded: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the progress bars and warnings of transformers."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
