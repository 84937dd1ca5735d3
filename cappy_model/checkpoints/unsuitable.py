"""Models that cannot score: refused by name, with the reason, before their weights are loaded."""

import re
from collections.abc import Mapping
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification, PreTrainedConfig

from cappy_model.architectures import is_language_model
from cappy_model.checkpoints.source import Checkpoint, ModelError

_CLASSIFIER = "AutoModelForSequenceClassification"
_LANGUAGE_MODEL = "AutoModelForCausalLM"
_REMEDY = "give a model that scores one response to one instruction"
_REASONS = (
    (
        re.compile(r"Pair(RM|wise|Rank|Reward|Preference)", re.IGNORECASE),
        "a pairwise model: it compares two responses and has no score for one",
    ),
    (
        re.compile(r"ForRanking|List-?wise|ListConRank", re.IGNORECASE),
        "a listwise model: its score of a response depends on the other candidates",
    ),
    (
        re.compile(r"ProcessReward|PRM(?![a-z])|Prm(?![a-z])|ForTokenClassification"),
        "a process reward model: it has a score for each step or token and none for the response",
    ),
)
_OTHER_INPUTS = ("vision_config", "audio_config", "speech_config", "thinker_config", "vision_tower", "mm_vision_tower")


def check_known(checkpoint: Checkpoint) -> None:
    """Raise ModelError for a model of a type that transformers does not know, or only with the model's own code."""
    stored = checkpoint.stored_config()
    kind = stored.get("model_type")
    if kind is None or kind in CONFIG_MAPPING:
        return
    if "AutoConfig" not in (stored.get("auto_map") or {}):
        raise ModelError(
            f"{checkpoint.source.name}: is of the type {kind!r}, which transformers {transformers.__version__} does "
            "not know; a later version may"
        )
    _need_code(checkpoint, stored, "AutoConfig")


def refuse_unsuitable(checkpoint: Checkpoint) -> None:
    """Raise ModelError for a model that does not score a single response to an instruction, by its config.json.

    Refused are pairwise, listwise, process reward and multimodal models, and those that need their own code without
    the permission to run it. This needs no class of transformers, so call it before `load_config`.
    """
    stored = checkpoint.stored_config()
    names = _architectures(stored)
    described = ", ".join(names) or str(stored.get("model_type"))
    other = next((key for key in _OTHER_INPUTS if stored.get(key)), None)
    if other or any(re.search(r"VL(?=For)|VLM", name) for name in names):
        found = f" ({other} in its config.json)" if other else ""
        raise ModelError(
            f"{checkpoint.source.name}: {described} is a multimodal model{found}, of which only text models are "
            f"scored; {_REMEDY}"
        )
    kinds = [*names, str(stored.get("model_type")), str(stored.get("ranker_type"))]
    for pattern, reason in _REASONS:
        if any(pattern.search(name) for name in kinds):
            raise ModelError(f"{checkpoint.source.name}: {described} is {reason}; {_REMEDY}")
    check_known(checkpoint)
    # With the classes of transformers such a model would load as another one of its type.
    if _CLASSIFIER in (stored.get("auto_map") or {}) and not any(hasattr(transformers, name) for name in names):
        _need_code(checkpoint, stored, _CLASSIFIER)


def check_has_head(checkpoint: Checkpoint, config: PreTrainedConfig) -> None:
    """Raise ModelError for a model that was saved without a sequence classification head, by its architecture.

    Without an architecture, or with one that transformers does not know, loading tells: `load_model` refuses a head
    without weights.
    """
    name, names = checkpoint.source.name, config.architectures or ()
    own_code = getattr(config, "auto_map", None) or {}
    known = [one for one in names if hasattr(transformers, one)]
    if not known or _CLASSIFIER in own_code or any(one.endswith("ForSequenceClassification") for one in known):
        return
    if is_language_model(config):
        raise ModelError(
            f"{name}: is a language model ({known[0]}) without a scoring head: give --head yes,no (head='yes,no') and "
            "the --template of its makers if it answers yes or no, or a model with a scoring head"
        )
    trained = type(config) in AutoModelForSequenceClassification._model_mapping
    remedy = f"`cappy train --model {name}` gives it one" if trained else _REMEDY
    raise ModelError(f"{name}: has no scoring head, it is {known[0]}; {remedy}")


def _architectures(stored: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in stored.get("architectures") or ()]


def _need_code(checkpoint: Checkpoint, stored: Mapping[str, Any], loader: str) -> None:
    """Raise ModelError for a class of the model's own code unless that code may run."""
    if checkpoint.source.trust_remote_code:
        return
    module = str(stored["auto_map"][loader]).rpartition("--")[2].partition(".")[0]
    raise ModelError(
        f"{checkpoint.source.name}: needs its own code ({module}.py), which can run anything on this machine; give "
        "--trust-remote-code (trust_remote_code=True) if you trust its source"
    )
