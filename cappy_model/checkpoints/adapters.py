"""PEFT adapters: the head that one brings, and its weights merged into those of its base."""

import warnings
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from cappy_model.checkpoints.source import Checkpoint, ModelError

if TYPE_CHECKING:
    from peft import PeftConfig

_PREFIX = "base_model.model."
_CLASSIFIES = "SEQ_CLS"
_LABELS = 7_919  # a size that no other dimension of a model has


def settle_head(checkpoint: Checkpoint, config: PreTrainedConfig) -> None:
    """Set labels and architecture in the configuration of the base to those of the head that an adapter brings."""
    _load_settings(checkpoint)
    loader, trust = AutoModelForSequenceClassification, checkpoint.source.trust_remote_code
    if type(config) not in loader._model_mapping and not trust:
        return
    probe = deepcopy(config)
    probe.num_labels = _LABELS
    with torch.device("meta"):
        model = loader.from_config(probe, trust_remote_code=trust)
    head = {name for name, weight in model.named_parameters() if weight.shape[:1] == (_LABELS,)}
    labels = {len(weight) for name, weight in _load_weights(checkpoint).items() if name in head}
    if labels:
        config.architectures = [type(model).__name__]
        if config.num_labels not in labels:
            config.num_labels = labels.pop()


def merge(checkpoint: Checkpoint, model: PreTrainedModel) -> tuple[PreTrainedModel, set[str]]:
    """Merge an adapter into its base; return the model, of its own class again, and the weights that are new in it.

    Raises ModelError for an adapter that was made for another model.
    """
    from peft import get_peft_model

    settings, weights = _load_settings(checkpoint), _load_weights(checkpoint)
    if settings.task_type != _CLASSIFIES:
        settings.task_type = None  # PEFT's own class for a task wants methods that only some models have
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    if f"{name}.weight" in weights:  # with the tokens that were added for the adapter
        model.resize_token_embeddings(len(weights[f"{name}.weight"]), mean_resizing=False)
    own = set(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what PEFT asks of transformers
        adapted = get_peft_model(model, settings, autocast_adapter_dtype=False)
    try:
        result = adapted.load_adapter(
            str(checkpoint.folder), "default", autocast_adapter_dtype=False, torch_device="cpu"
        )
        # Embeddings with new tokens are stored twice, once under a name that nothing reads.
        strays = [*result.missing_keys, *(name for name in result.unexpected_keys if "modules_to_save" not in name)]
    except KeyError as error:  # of a head that the model has not
        strays = [str(error.args[0])]
    if strays:
        raise ModelError(
            f"{checkpoint.source.name}: is an adapter that does not fit {settings.base_model_name_or_path}, loaded as "
            f"{type(model).__name__}: {strays[0].removeprefix(_PREFIX)} is in one of them alone"
        )
    try:
        merged: Any = adapted.merge_and_unload(safe_merge=True)
    except NotImplementedError as error:
        raise _unmergeable(checkpoint, settings) from error
    return merged, own & weights.keys()


def _load_settings(checkpoint: Checkpoint) -> "PeftConfig":
    """Load adapter_config.json. Raises ModelError for a kind of adapter that cannot be merged."""
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise ModelError(
            f"{checkpoint.source.name}: is an adapter, which needs the package peft: python -m pip install peft"
        ) from error
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    settings = PeftConfig.from_pretrained(str(checkpoint.folder))
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(settings.peft_type)
    if settings.is_prompt_learning or not hasattr(tuner, "merge_and_unload"):
        raise _unmergeable(checkpoint, settings)
    return settings


def _unmergeable(checkpoint: Checkpoint, settings: "PeftConfig") -> ModelError:
    from peft import PeftType

    return ModelError(
        f"{checkpoint.source.name}: is an adapter of the kind {PeftType(settings.peft_type).value}, which cannot be "
        "merged into its base; give one that can, such as LoRA"
    )


def _load_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Load the weights of an adapter, by their name in the base."""
    from peft import load_peft_weights

    weights = load_peft_weights(str(checkpoint.folder), device="cpu")
    return {name.removeprefix(_PREFIX): weight for name, weight in weights.items()}
