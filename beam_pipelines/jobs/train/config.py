"""Options of training, for train and adapt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from beam_pipelines.models.config import LoadingConfig
from beam_pipelines.runs.flags import flag, rate, share
from schemas.errors import UsageError

DTYPES = ("auto", "float32", "bfloat16")


def _integrations(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of integrations; `none` and empty names are left out."""
    return tuple(name for name in text.split(",") if name and name != "none")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(LoadingConfig):
    """Options shared by train and adapt.

    A value of None is settled by the plan. `eval_fraction` is a share of the instructions in [0, 1); `warm_up` is a
    share of the steps in [0, 1].
    """

    model: str = flag(metavar="INIT", help="encoder or scorer to start from: hub id[@revision], folder, or fsspec URL")
    max_pairs: int | None = flag(None, metavar="N", help="train on at most N pairs, drawn evenly (default: all)")
    weights: str | None = flag(
        None,
        metavar="FILE",
        help="YAML file with the shares of pairs to keep: {label_source: {NAME: share}, dataset: {NAME: share}}",
    )
    held_out: Sequence[str] = flag(
        (),
        action="append",
        metavar="PATTERN",
        help="files whose instructions are excluded from the corpus; may be repeated",
    )
    max_steps: int | None = flag(None, metavar="N", help="optimizer steps (default: by the number of pairs)")
    batch_size: int = flag(8, metavar="N", help="pairs per batch, on each process")
    accumulation: int = flag(16, metavar="N", help="gradient accumulation: batches per optimizer step and process")
    learning_rate: float = flag(2e-5, parse=rate, metavar="R", help="peak learning rate, reached after the warm-up")
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
        help="stop after N evaluations without a lower loss, and keep the checkpoint with the lowest",
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
        """Raise UsageError for options that exclude each other, and for an unknown dtype."""
        if self.eval_fraction == 1:
            raise UsageError("--eval-fraction 1 leaves nothing to learn from; give less")
        if self.patience is not None and not self.eval_fraction:
            raise UsageError("--patience needs pairs to evaluate on; give an --eval-fraction")
        if self.patience is not None and self.save_every not in (None, self.evaluate_every):
            raise UsageError("--patience keeps the best evaluated step, so it saves at each; leave --save-every out")
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype} is not known; there are {', '.join(DTYPES)}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingConfig):
    """Options specific to train: the corpus, and the number of epochs."""

    corpus: str = flag(metavar="PATTERN", help="Parquet files of labelled pairs, as build-corpus writes them")
    epochs: int = flag(1, metavar="N", help="passes over the pairs")

    takes_beam_flags: ClassVar[bool] = False
