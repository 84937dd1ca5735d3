"""Folders of sentence-transformers' CrossEncoder: stored prompts and templates, and heads in modules of their own.

`modules.json` lists the modules of such a folder. Without it, or with the transformer alone, the model is a plain
sequence classifier of transformers.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig, PreTrainedModel

from cappy_model.checkpoints import ModelError
from cappy_model.score.heads import Head
from cappy_model.score.templates import CHAT, Template

_POOLINGS = ("cls", "mean", "max", "lasttoken")
_TURNS = ("query", "document")
_OWN = "config_sentence_transformers.json"


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling; `activation` is the full name of a module of torch."""

    folder: Path
    outputs: int
    activation: str
    residual: bool


@dataclass(frozen=True)
class CrossEncoder:
    """What a CrossEncoder folder says about its use.

    `template`: its stored prompt, and whether it reads messages or the plain pair; None if it says neither. `words`:
    the head of a language model scored by the logits of one or two tokens. `pooling` and `dense`: the head of an
    encoder without a classifier. `activation`: the function that predict() applies to the logits, which scores here are
    taken before; None if none is named.
    """

    template: Template | None = None
    words: Head | None = None
    pooling: str | None = None
    dense: Sequence[Dense] = ()
    activation: str | None = None

    @property
    def labels(self) -> int:
        """The number of outputs of the last dense layer."""
        return self.dense[-1].outputs


def read_cross_encoder(folder: Path, config: PreTrainedConfig, *, model: str) -> CrossEncoder:
    """Read the files of sentence-transformers in a model's folder; a folder without any says nothing.

    Raises ModelError for modules that a scorer cannot use, naming them.
    """
    own = _json(folder / _OWN)
    within = getattr(config, "sentence_transformers", None) or {}
    activation = own.get("activation_fn") or within.get("activation_fn")
    activation = activation or getattr(config, "sbert_ce_default_activation_function", None)
    modules: list[dict[str, Any]] = json.loads(_text(folder / "modules.json") or "[]")
    head = _read_head(folder, modules, model)
    return CrossEncoder(stored_template(folder), activation=activation, **head)


def is_cross_encoder(folder: Path) -> bool:
    """Return whether sentence-transformers has saved a CrossEncoder there, and not a model of embeddings."""
    return bool(_json(folder / _OWN).get("model_type") == "CrossEncoder")


def stored_template(folder: Path) -> Template | None:
    """Return the template of a transformer that reads messages, or the plain pair, or that has a prompt."""
    own, bert = _json(folder / _OWN), _json(folder / "sentence_bert_config.json")
    prompt = (own.get("prompts") or {}).get(own.get("default_prompt_name") or "", "")
    modalities = bert.get("modality_config", {})
    if "message" in modalities:
        options = dict(bert.get("processing_kwargs", {}).get("chat_template", {}))
        options.pop("restore_suffix", None)  # about cuts, which never reach the template here
        return Template(CHAT, roles=_TURNS, prompt=prompt, options=options)
    return Template(prompt=prompt) if prompt or "text" in modalities else None


def _read_head(folder: Path, modules: list[dict[str, Any]], model: str) -> dict[str, Any]:
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds in ([], ["Transformer"]):
        return {}
    settings = [_json(folder / module["path"] / "config.json") for module in modules]
    if kinds == ["Transformer", "LogitScore"]:
        tokens = (settings[1]["true_token_id"], settings[1].get("false_token_id"))
        kept = tuple(token for token in tokens if token is not None)
        return {"words": Head(f"tokens {','.join(map(str, kept))}", tokens=kept)}
    if kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) == {"Dense"} and not modules[0]["path"]:
        places = [folder / module["path"] for module in modules[2:]]
        dense = [_dense(place, given) for place, given in zip(places, settings[2:], strict=True)]
        return {"pooling": _pooling(settings[1], model), "dense": dense}
    raise ModelError(
        f"{model}: its modules.json lists {', '.join(kinds)}; a scorer has a Transformer, alone or with LogitScore, or "
        "with Pooling and Dense"
    )


def _dense(folder: Path, settings: Mapping[str, Any]) -> Dense:
    activation = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    return Dense(folder, settings["out_features"], activation, settings.get("use_residual", False))


def _pooling(settings: Mapping[str, Any], model: str) -> str:
    """Return the pooling mode; older folders name it by a flag for each mode."""
    flags = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"}
    flags["pooling_mode_lasttoken"] = "lasttoken"
    named = settings.get("pooling_mode") or [mode for flag, mode in flags.items() if settings.get(flag)]
    modes = [named] if isinstance(named, str) else list(named)
    if len(modes) != 1 or modes[0] not in _POOLINGS or settings.get("include_prompt") is False:
        raise ModelError(f"{model}: pools by {dict(settings)}; a scorer pools by one of {', '.join(_POOLINGS)}")
    return str(modes[0])


class PooledScorer(torch.nn.Module):
    """An encoder with the pooling and the dense layers of a CrossEncoder folder as its head."""

    base_model_prefix = "encoder"

    def __init__(self, encoder: PreTrainedModel, pooling: str, layers: Sequence[Dense], *, model: str) -> None:
        super().__init__()
        self.encoder, self.config, self._pooling = encoder, encoder.config, pooling
        self.head = torch.nn.Sequential(*(_DenseLayer(layer, model) for layer in layers))

    @property
    def base_model(self) -> PreTrainedModel:
        """The encoder."""
        return self.encoder

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the encoder."""
        return self.encoder.dtype

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **inputs: torch.Tensor) -> SimpleNamespace:
        """Return an object whose `logits` [n, labels] are the output of the last dense layer."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        return SimpleNamespace(logits=self.head(_pool(hidden, attention_mask, self._pooling)))


def _pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool hidden states [n, longest, size], padded on the right, into [n, size]."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
    inside = mask[:, :, None].to(hidden.dtype)
    if pooling == "mean":
        return (hidden * inside).sum(dim=1) / inside.sum(dim=1)
    return hidden.masked_fill(inside == 0, -torch.inf).amax(dim=1)


class _DenseLayer(torch.nn.Module):
    """A linear layer with an activation, and its input added where it is residual."""

    def __init__(self, layer: Dense, model: str) -> None:
        super().__init__()
        try:
            weights = load_file(layer.folder / "model.safetensors")
        except OSError as error:
            raise ModelError(f"{model}: cannot read {layer.folder.name}/model.safetensors: {error}") from error
        shape = weights["linear.weight"].shape
        self.linear = torch.nn.Linear(shape[1], shape[0], bias="linear.bias" in weights)
        self.activation, self.residual = _activation(layer.activation, model), None
        if layer.residual:
            square = shape[0] == shape[1]
            self.residual = torch.nn.Identity() if square else torch.nn.Linear(shape[1], shape[0], bias=False)
        self.load_state_dict(weights)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return [n, out] for states [n, in]."""
        output: torch.Tensor = self.activation(self.linear(states))
        return output if self.residual is None else output + self.residual(states)


def _activation(name: str, model: str) -> torch.nn.Module:
    """Return an activation of torch by its full name. Raises ModelError for any other, which would run foreign code."""
    module, _, kind = name.rpartition(".")
    found = getattr(importlib.import_module(module), kind, None) if module.startswith("torch.nn.") else None
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise ModelError(f"{model}: the activation {name} of its dense layer is not one of torch.nn")
    return found()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_text(path) or "{}")
    return content
