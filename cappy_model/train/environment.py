"""The surroundings of training: the processes of a launcher, experiment trackers, the arithmetic."""

import os

from accelerate import PartialState
from transformers import PreTrainedModel
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from cappy_model.score.forward import keep_head_out_of_autocast
from schemas.errors import UsageError

_KEPT_BYTES = 8  # of each attention weight: in bfloat16 before the softmax, in both formats after it
_PLAIN_ATTENTION = 5 * 2**30


def processes(device: str) -> PartialState:
    """Return the state of this process among those of the launcher (`torchrun`, `accelerate launch`), if any."""
    return PartialState(cpu=device == "cpu", backend=backend_of(device))


def backend_of(device: str) -> str | None:
    """Return the backend of the communication between processes; None is the library's choice."""
    return "gloo" if device == "cpu" and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def check_report_to(names: tuple[str, ...]) -> None:
    """Raise UsageError for an integration of transformers that is unknown or not installed."""
    for name in names:
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except (ValueError, RuntimeError, ImportError) as error:
            raise UsageError(f"--report-to {name}: {error}") from error


def settle_arithmetic(model: PreTrainedModel, dtype: str, device: str, *, batch_size: int, max_length: int) -> None:
    """Prepare a model for training under autocast to `dtype`, with batches of at most this many pairs and tokens.

    On a CPU in bfloat16 the backward pass of torch's fused attention takes several times as long as the plain one,
    which keeps its weights: those of all layers must stay below `_PLAIN_ATTENTION` bytes.
    """
    if dtype == "float32":
        return
    keep_head_out_of_autocast(model)
    config = model.config
    if device == "cpu" and config._attn_implementation == "sdpa":
        weights = batch_size * max_length**2 * config.num_attention_heads * config.num_hidden_layers
        if weights * _KEPT_BYTES <= _PLAIN_ATTENTION:
            model.set_attn_implementation("eager")
