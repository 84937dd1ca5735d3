"""Training of a scorer: transformers' Trainer over an endless stream of batches, resumable at any step.

The loss of a step is that of the head's raw output, in float32, over all of its pairs (see `losses`).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from cappy_model.checkpoints import quiet
from cappy_model.train.assessment import Assessment
from cappy_model.train.checkpoints import delete_broken, last_checkpoint, mark_whole, read_state
from cappy_model.train.data import Place, Stream
from cappy_model.train.environment import backend_of, processes, settle_arithmetic
from cappy_model.train.losses import LOSSES, Loss
from cappy_model.train.progress import TrainingProgress
from schemas.errors import CappyError

_KEPT_CHECKPOINTS = 2
_MAX_GRADIENT_NORM = 1.0
_LOG_STEPS = 10


class TrainingError(CappyError):
    """Training that cannot continue."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The resolved settings of training.

    `steps`: optimiser steps, each over at most `batch_size` x `accumulation` x processes pairs. The learning rate
    rises to `learning_rate` over the share `warm_up` of the steps, then falls to 0, both linearly. `dtype`: float32 or
    bfloat16, for the arithmetic of the layers; weights are float32. `patience`: evaluations without improvement before
    training stops; None: train all steps. `recipe` names the origin of unset settings; `batches`, `loss` and `dropout`
    are as in `Recipe`.
    """

    recipe: str
    batches: str
    loss: str
    dropout: float | None
    steps: int
    batch_size: int
    accumulation: int
    learning_rate: float
    warm_up: float
    dtype: str
    device: str
    seed: int
    evaluate_every: int
    save_every: int
    patience: int | None
    report_to: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    """The result of training: the step of the model's weights, the steps done, and the logs.

    `pairs_seen`: pairs of all steps done, repeated ones too. `epochs`: passes over the training pairs. `losses`: step,
    training loss since the previous entry, gradient norm and learning rate. `evaluations`: step and
    `Assessment.metrics`.
    """

    step: int
    steps_done: int
    pairs_seen: int
    epochs: float
    losses: list[dict[str, float]]
    evaluations: list[dict[str, float]]


def train(
    model: PreTrainedModel,
    stream: Stream,
    assessment: Assessment | None,
    settings: Settings,
    folder: Path,
    *,
    saved: Callable[[Path], None],
) -> Trained:
    """Train a model in place, starting from the last complete checkpoint in `folder` if there is one.

    With an assessment the weights are those of the step with the lowest evaluation loss, else those of the last step.
    `folder` keeps the last two checkpoints and the best; the main process calls `saved` with each complete one.
    Raises TrainingError for a non-finite loss, naming the pairs, and for a checkpoint that cannot be written.
    """
    arguments = _arguments(settings, folder, evaluates=assessment is not None)
    place = Place(arguments.process_index, arguments.world_size)
    if arguments.process_index == 0:
        delete_broken(folder)
    processes(settings.device).wait_for_everyone()
    last = last_checkpoint(folder)
    done = read_state(last).step if last else 0
    shape = {"batch_size": settings.batch_size, "max_length": stream.encoder.max_length}
    settle_arithmetic(model, settings.dtype, settings.device, **shape)
    batches = _Batches(stream, done * settings.accumulation * place.world, place)
    trainer = _Trainer(model, arguments, batches, assessment, place, saved, LOSSES[settings.loss])
    if settings.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(settings.patience))
    if last is None or not read_state(last).stopped:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        processes(settings.device).wait_for_everyone()
        last = last_checkpoint(folder)
    if last is None:
        raise TrainingError(f"{folder}: has no checkpoint after training; was it deleted?")
    state = read_state(last)
    step = state.best_step or state.step
    trainer._load_from_checkpoint(str(folder / f"checkpoint-{step}"))
    seen = stream.pairs_of(state.step * settings.accumulation * place.world)
    return Trained(step, state.step, *seen, state.losses, state.evaluations)


def _arguments(settings: Settings, folder: Path, *, evaluates: bool) -> TrainingArguments:
    saved_every = math.gcd(settings.save_every, settings.evaluate_every if evaluates else 0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warm_up * settings.steps),
        weight_decay=0.0,
        max_grad_norm=_MAX_GRADIENT_NORM,
        bf16=settings.dtype == "bfloat16",
        use_cpu=settings.device == "cpu",
        ddp_backend=backend_of(settings.device),
        seed=settings.seed,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.evaluate_every,
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=_KEPT_CHECKPOINTS,
        metric_for_best_model="loss" if evaluates else None,
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        # Each saved step ends a log entry, so that a resumed run has the same log.
        logging_steps=max(each for each in range(1, _LOG_STEPS + 1) if saved_every % each == 0),
        logging_nan_inf_filter=False,
        ignore_data_skip=True,  # the stream starts at the right batch
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process per GPU, never one for several
    return arguments


@dataclass(frozen=True)
class _Batches:
    """The stream as the data loader of the Trainer: without a length, and without random numbers drawn by iteration."""

    stream: Stream
    start: int
    place: Place

    def __iter__(self) -> Any:
        return self.stream.batches(self.start, self.place)


class _Evaluation(TrainerCallback):
    """Evaluates the last step, too, and saves each step that is evaluated, since it may turn out to be the best."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        control.should_evaluate |= state.global_step >= state.max_steps
        return control

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        control.should_save = True
        return control


class _Trainer(Trainer):
    """The Trainer with the batches of a stream, the evaluation of an assessment, and errors with a remedy."""

    def __init__(
        self,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        batches: _Batches,
        assessment: Assessment | None,
        place: Place,
        saved: Callable[[Path], None],
        loss: Loss,
    ) -> None:
        self._loss = loss
        super().__init__(
            model=model,
            args=arguments,
            eval_dataset=assessment,  # the Trainer checks only that it exists; see `evaluate`
            compute_loss_func=self._mean_loss,
            callbacks=[TrainingProgress(), *([_Evaluation()] if assessment is not None else ())],
        )
        self.remove_callback(PrinterCallback)
        self._folder = Path(str(arguments.output_dir))
        self._batches, self._assessment, self._place, self._saved = batches, assessment, place, saved
        self._step_ids: list[str] = []
        self._groups = torch.zeros(0, dtype=torch.int64)  # of the batch in `training_step`

    def get_train_dataloader(self) -> Any:
        """Return the batches of the stream."""
        return self._batches

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one training step. Raises TrainingError for a non-finite loss."""
        ids, self._groups = inputs.pop("pair_ids"), inputs.pop("groups").to(self.args.device)
        self._step_ids += ids
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            self._fail("loss", float(loss), ids)
        return loss

    def _mean_loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """Return a batch's share of the mean loss over the pairs of the step."""
        return self._loss(outputs.logits[:, 0].float(), labels, self._groups) / num_items_in_batch

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """Count the pairs of a step's batches, in all processes; every label counts, whatever its value."""
        pairs = torch.tensor(sum(len(batch["labels"]) for batch in batch_samples), device=device)
        counted: torch.Tensor = self.accelerator.gather(pairs.unsqueeze(0)).sum()
        return counted

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if not torch.isfinite(torch.as_tensor(norm)):
            self._fail("norm of the gradients", float(norm), self._step_ids)
        self._step_ids = []
        return norm

    def _fail(self, name: str, value: float, ids: list[str]) -> None:
        raise TrainingError(
            f"step {self.state.global_step + 1}: the {name} is {value}; the weights are unchanged. Try a lower "
            f"--learning-rate, or --dtype float32. The batch's pair_ids: {', '.join(ids)}"
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Log and return the metrics of the assessment, with the prefix `eval_`."""
        assert self._assessment is not None
        model = self.accelerator.unwrap_model(self.model)
        scores = torch.from_numpy(self._assessment.scores(model, self.args.device, self._place))
        whole = self.accelerator.reduce(scores.to(self.args.device), "sum").cpu().numpy()
        if not np.isfinite(whole).all():
            raise TrainingError(
                f"step {self.state.global_step}: a score of the evaluation is {whole[~np.isfinite(whole)][0]}: the "
                "weights are broken. Try a lower --learning-rate, or --dtype float32."
            )
        metrics = {f"eval_{name}": value for name, value in self._assessment.metrics(whole).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self._folder / f"checkpoint-{self.state.global_step}"
        with _written(folder), quiet():
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            with _written(folder):
                mark_whole(folder)
            self._saved(folder)


@contextmanager
def _written(checkpoint: Path) -> Iterator[None]:
    """Turn errors while a checkpoint is written into a TrainingError."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingError(
            f"{checkpoint}: the checkpoint cannot be written: {error}. Free space or fix the permissions, then repeat "
            "the command: it resumes from the previous checkpoint."
        ) from error
