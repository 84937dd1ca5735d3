"""Options of training, for train and adapt."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from beam_pipelines.models.config import LoadingConfig
from beam_pipelines.runs.config import TextFileConfig
from beam_pipelines.runs.flags import flag, rate, share
from cappy_model.train.recipe import GROUPED, LISTWISE, MINILM_WIDTH, MSE, RANDOM, Recipe, recipe_for
from schemas.errors import UsageError

DTYPES = ("auto", "float32", "bfloat16")
UNIT, RAW = "unit", "raw"
_EVALUATIONS = 10  # of a run, unless a flag says otherwise


def _dropout(text: str) -> str:
    """Parse `model`, or a probability in [0, 1)."""
    if text != "model" and share(text) == 1:
        raise argparse.ArgumentTypeError("1 drops everything; give less, or model")
    return text if text == "model" else f"{share(text):g}"


def _integrations(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of integrations; `none` and empty names are left out."""
    return tuple(name for name in text.split(",") if name and name != "none")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(LoadingConfig, TextFileConfig):
    """Options shared by train and adapt.

    A value of None is settled by the recipe (`cappy_model.train.recipe`) or the plan. `eval_fraction` is a share of the
    instructions in [0, 1); `warm_up` is a share of the steps in [0, 1].
    """

    model: str = flag(metavar="INIT", help="encoder or scorer to start from: hub id[@revision], folder, or fsspec URL")
    new_head: bool = flag(False, help="start from the encoder of any classifier, with a new head")
    max_pairs: int | None = flag(
        None, metavar="N", help="train on at most N pairs of whole instructions, drawn evenly (default: all)"
    )
    weights: str | None = flag(
        None,
        metavar="FILE",
        help="YAML file with the shares to keep, of a label source's pairs and of a dataset's instructions: "
        "{label_source: {NAME: share}, dataset: {NAME: share}}",
    )
    held_out: Sequence[str] = flag(
        (),
        action="append",
        metavar="PATTERN",
        help="files whose instructions are excluded from the corpus; may be repeated",
    )
    max_steps: int | None = flag(None, metavar="N", help="optimiser steps (default: by the number of pairs)")
    batches: str | None = flag(
        None,
        choices=(GROUPED, RANDOM),
        help="grouped: all responses to an instruction in one batch, as far as they fit (default); random: pairs in "
        "any order",
    )
    loss: str | None = flag(
        None,
        choices=(MSE, LISTWISE),
        help="mse: squared error of the label; mse+listwise: also the softmax cross-entropy among the responses to an "
        "instruction (default: by the recipe)",
    )
    dropout: str | None = flag(
        None,
        parse=_dropout,
        metavar="R",
        help="dropout probability, or model for the model's own (default: by the recipe)",
    )
    batch_size: int | None = flag(
        None, metavar="N", help="at most N pairs per batch, on each process (default: by the recipe)"
    )
    accumulation: int | None = flag(
        None, metavar="N", help="gradient accumulation: batches per optimiser step and process (default: by the recipe)"
    )
    learning_rate: float | None = flag(
        None, parse=rate, metavar="R", help="peak learning rate, reached after the warm-up (default: by the recipe)"
    )
    warm_up: float = flag(0.1, parse=share, metavar="R", help="share of the steps in which the learning rate rises")
    template: str = flag(
        "auto",
        metavar="T",
        help="how a pair is rendered, kept in the model: auto (as the model says), none, chat, or a jinja file",
    )
    max_length: int = flag(512, metavar="N", help="tokens of a pair; longer pairs are truncated")
    shuffle_buffer: int = flag(65_536, metavar="N", help="pairs in the shuffle buffer, in memory")
    eval_fraction: float = flag(
        0.02, parse=share, metavar="R", help="share of the instructions kept from training, for evaluation"
    )
    max_eval_pairs: int = flag(2_000, metavar="N", help="evaluate on at most N pairs of these instructions")
    evaluate_every: int | None = flag(
        None, metavar="N", help="steps between evaluations (default: a tenth of all steps)"
    )
    save_every: int | None = flag(
        None, metavar="N", help="steps between checkpoints (default: the value of --evaluate-every)"
    )
    patience: int | None = flag(
        None,
        metavar="N",
        help="stop after N evaluations without a lower loss",
    )
    device: str = flag(
        "auto", metavar="D", help="auto, cpu or cuda; for several GPUs use torchrun or accelerate launch"
    )
    dtype: str = flag("auto", metavar="T", help="number format of the layers: auto, float32 or bfloat16")
    report_to: tuple[str, ...] = flag(
        (),
        parse=_integrations,
        metavar="NAMES",
        help="experiment trackers of transformers, such as tensorboard,wandb",
    )

    def check(self) -> None:
        """Raise UsageError for options that exclude each other, and for unknown values."""
        if self.eval_fraction == 1:
            raise UsageError("--eval-fraction 1 leaves nothing to learn from; give less")
        if self.patience is not None and not self.eval_fraction:
            raise UsageError("--patience needs pairs to evaluate on; give an --eval-fraction")
        self._check_known("dtype", DTYPES)
        self._check_known("batches", (None, GROUPED, RANDOM))
        self._check_known("loss", (None, MSE, LISTWISE))

    def _check_known(self, name: str, known: Sequence[str | None]) -> None:
        if getattr(self, name) not in known:
            listed = ", ".join(filter(None, known))
            raise UsageError(f"--{name} {getattr(self, name)} is not known; there are {listed}")

    def evaluation_interval(self, steps: int) -> int:
        """Return the steps between evaluations of a run of `steps` steps."""
        return self.evaluate_every or -(-steps // _EVALUATIONS)

    def recipe(self, batches: str, pairs: int, hidden_size: int = MINILM_WIDTH) -> Recipe:
        """Return the recipe for training on `pairs` pairs in all, with the settings that flags give."""
        names = ("loss", "batch_size", "accumulation", "learning_rate")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.dropout is not None:
            given["dropout"] = None if self.dropout == "model" else float(self.dropout)
        return recipe_for(batches, pairs, hidden_size)._replace(**given)


_PAIRS = ("response", "label", UNIT)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingConfig):
    """Options specific to train: the corpus, and the number of epochs."""

    corpus: str = flag(metavar="PATTERN", help="Parquet files of labelled pairs, or of preference pairs")
    instruction_column: str = flag("instruction", metavar="NAME", help="text column of the instructions")
    response_column: str = flag(_PAIRS[0], metavar="NAME", help="text column of the responses")
    label_column: str = flag(_PAIRS[1], metavar="NAME", help="numeric column of the labels")
    chosen_column: str | None = flag(
        None, metavar="NAME", help="text column of preferred responses, instead of responses and labels"
    )
    rejected_column: str | None = flag(
        None, metavar="NAME", help="text column of the responses that are not preferred, beside --chosen-column"
    )
    labels: str = flag(
        UNIT,
        choices=(UNIT, RAW),
        help="range of the labels; unit: from 0 to 1, raw: any finite numbers, such as another scorer's scores",
    )
    epochs: int = flag(1, metavar="N", help="passes over the pairs")
    pairs_seen: int | None = flag(
        None,
        metavar="N",
        help="train until about N pairs were seen, in as many epochs as that takes, in place of --epochs",
    )

    takes_beam_flags: ClassVar[bool] = False

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        super().check()
        self._check_known("labels", (UNIT, RAW))
        if self.pairs_seen is not None and self.max_steps is not None:
            raise UsageError("--pairs-seen and --max-steps both end training; give one of them")
        named = (self.instruction_column, self.response_column, self.label_column)
        if self.chosen_column is not None:
            named = (self.instruction_column, self.chosen_column, str(self.rejected_column))
        twice = next((name for number, name in enumerate(named) if name in named[:number]), None)
        if twice is not None:
            raise UsageError(f"the column {twice!r} is named for two roles; name another for one of them")
        if (self.chosen_column is None) != (self.rejected_column is None):
            raise UsageError("--chosen-column and --rejected-column belong together: name both, or neither")
        if self.chosen_column is not None and (self.response_column, self.label_column, self.labels) != _PAIRS:
            raise UsageError(
                "--chosen-column and --rejected-column stand for responses and labels; leave out --response-column, "
                "--label-column and --labels"
            )
