"""The forward passes over a padded batch of pairs, and the precision of the head.

Which one a model gets depends on what its head reads: `forward_for` in `layouts` decides.
"""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from cappy_model.score.encoding import EncodedPairs


def keep_head_precise(model: PreTrainedModel) -> None:
    """Make the modules after the last layer compute in float32, whatever the dtype of the layers.

    A bfloat16 score has eight bits, so that different candidates would tie; the cost of the head is negligible.
    """
    for module in _behind_the_layers(model):
        module.float().register_forward_pre_hook(lambda _, inputs: tuple(value.float() for value in inputs))


def keep_head_out_of_autocast(model: PreTrainedModel) -> None:
    """Make the modules after the last layer compute in float32 while autocast runs the layers in bfloat16."""
    disabled: list[torch.autocast] = []

    def enter(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        disabled.append(torch.autocast(inputs[0].device.type, enabled=False))
        disabled[-1].__enter__()
        return tuple(value.float() for value in inputs)

    def leave(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        disabled.pop().__exit__(None, None, None)

    for module in _behind_the_layers(model):
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, always_call=True)


def _behind_the_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    heads = [module for name, module in model.named_children() if name != model.base_model_prefix]
    pooler = getattr(model.base_model, "pooler", None)
    return [*heads, *([pooler] if pooler is not None else [])]


def padded_logits(model: PreTrainedModel, batch: EncodedPairs, device: torch.device) -> torch.Tensor:
    """Return the head's output for n pairs, float32[n, labels] on `device`; the pairs are padded on the right."""
    inputs = padded_inputs(batch, model.config.pad_token_id)
    logits: torch.Tensor = model(**{name: on_device(device, array) for name, array in inputs.items()}).logits
    return logits.float()


def padded_inputs(batch: EncodedPairs, pad_token_id: int) -> dict[str, np.ndarray]:
    """Return the model inputs of n pairs: int64[n, longest] arrays, padded on the right."""
    longest = int(batch.lengths.max())
    inside = np.arange(longest) < batch.lengths[:, None]
    inputs = {"input_ids": np.full(inside.shape, pad_token_id, dtype=np.int64)}
    inputs["input_ids"][inside] = batch.tokens
    inputs["attention_mask"] = inside.astype(np.int64)
    if batch.types.any():
        inputs["token_type_ids"] = np.zeros(inside.shape, dtype=np.int64)
        inputs["token_type_ids"][inside] = batch.types
    return inputs


def on_device(device: torch.device, array: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor on `device`, copied from pinned memory to a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
