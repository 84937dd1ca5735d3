"""Model checkpoints: find one (folder, fsspec URL, hub id, PEFT adapter), identify its content, and load it."""

from cappy_model.checkpoints.find import find_checkpoint
from cappy_model.checkpoints.loading import (
    generates_by,
    load_config,
    load_generator,
    load_model,
    load_with_new_weights,
    quiet,
    settle_padding,
)
from cappy_model.checkpoints.parameters import count_parameters
from cappy_model.checkpoints.source import Checkpoint, ModelError, ModelSource
from cappy_model.checkpoints.unsuitable import check_has_head, refuse_unsuitable

__all__ = [
    "Checkpoint",
    "ModelError",
    "ModelSource",
    "check_has_head",
    "count_parameters",
    "find_checkpoint",
    "generates_by",
    "load_config",
    "load_generator",
    "load_model",
    "load_with_new_weights",
    "quiet",
    "refuse_unsuitable",
    "settle_padding",
]
