"""The surroundings of training: the processes of a launcher, experiment trackers, the arithmetic."""

import os

from accelerate import PartialState
from transformers import PreTrainedModel
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from cappy_model.score.forward import keep_head_out_of_autocast
from schemas.errors import UsageError


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


def settle_arithmetic(model: PreTrainedModel, dtype: str, device: str) -> None:
    """Prepare a model for training under autocast to `dtype`."""
    if dtype != "float32":
        keep_head_out_of_autocast(model)
        if device == "cpu" and model.config._attn_implementation == "sdpa":
            model.set_attn_implementation("eager")  # the backward pass of sdpa in bfloat16 takes twice as long
