"""Progress of training: a bar on a terminal, otherwise occasional log lines."""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerState

_LOG = logging.getLogger("cappy")
_LOG_SECONDS = 30.0


class TrainingProgress(TrainerCallback):
    """Callback of the Trainer that shows the step and the losses in the main process."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._logged = 0.0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Start the bar."""
        self._logged = time.monotonic()
        if state.is_world_process_zero and sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit=" steps")

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Update the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
        """Show the losses."""
        logs: Mapping[str, float] = more["logs"]
        shown = {name: logs[name] for name in ("loss", "eval_loss", "eval_pearson", "eval_accuracy") if name in logs}
        if not (shown and state.is_world_process_zero):
            return
        text = ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif time.monotonic() - self._logged > _LOG_SECONDS or "eval_loss" in logs:
            self._logged = time.monotonic()
            _LOG.info("step %d of %d: %s", state.global_step, state.max_steps, text)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
