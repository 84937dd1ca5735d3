"""What training is told: its configuration, and the flags of it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from beam_pipelines.runners.options import json_object, positive, share
from schemas.errors import UsageError

DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What any training is told; None: as the model or the number of steps has it.

    `eval_fraction` is of the instructions, in [0, 1); `warm_up` of the steps; `storage` goes to fsspec.
    """

    model: str
    output: str
    seed: int = 0
    max_pairs: int | None = None
    weights: str | None = None
    held_out: Sequence[str] = ()
    max_steps: int | None = None
    batch_size: int = 8
    accumulation: int = 16
    learning_rate: float = 2e-5
    warm_up: float = 0.1
    max_length: int = 512
    shuffle_buffer: int = 65_536
    eval_fraction: float = 0.02
    max_eval_pairs: int = 2_000
    evaluate_every: int | None = None
    save_every: int | None = None
    patience: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    report_to: tuple[str, ...] = ()
    allow_pickle: bool = False
    trust_remote_code: bool = False
    dry_run: bool = False
    overwrite: bool = False
    storage: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingConfig):
    """What train is told beside that: a pattern of files of labelled pairs, and how often each pair is learned from."""

    corpus: str
    epochs: int = 1


def check(config: TrainingConfig) -> None:
    """Raises UsageError for settings that do not go together."""
    if config.eval_fraction == 1:
        raise UsageError("--eval-fraction 1 leaves nothing to learn from; give less")
    if config.patience is not None and not config.eval_fraction:
        raise UsageError("--patience needs pairs to evaluate on; give an --eval-fraction")
    if config.patience is not None and config.save_every not in (None, config.evaluate_every):
        raise UsageError("--patience keeps the best evaluated step, so it saves at each; leave --save-every out")
    if config.dtype not in DTYPES:
        raise UsageError(f"--dtype {config.dtype} is not known; there are {', '.join(DTYPES)}")


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `TrainConfig`."""
    default = TrainConfig(corpus="", model="", output="")
    parser.add_argument("--corpus", required=True, metavar="PATTERN", help="Parquet files of labelled pairs")
    _add(parser, default, "epochs", "times that each pair is learned from", type=positive, metavar="N")
    add_training_flags(parser, default)


def _add(parser: argparse.ArgumentParser, default: TrainingConfig, name: str, text: str, **options: Any) -> None:
    known = getattr(default, name.replace("-", "_"))
    shown = f" (default: {known})" if known is not None and known != () else ""
    parser.add_argument(f"--{name}", default=known, help=text + shown, **options)


def add_training_flags(parser: argparse.ArgumentParser, default: TrainingConfig) -> None:
    """The flags of `TrainingConfig`, with the defaults of an instance of it."""
    add = partial(_add, parser, default)
    parser.add_argument("--model", required=True, metavar="INIT", help="an encoder, or a scorer: hub id, folder or URL")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results: a path or an fsspec URL")
    add("seed", "of every random choice", type=int)
    whole = "" if default.max_pairs else " (default: all)"
    add("max-pairs", f"learn from so many pairs, drawn evenly{whole}", type=positive, metavar="N")
    add("weights", "YAML: {label_source: {NAME: share}, dataset: {NAME: share}} of the pairs to take", metavar="FILE")
    held_out = "files with instructions that are dropped from the corpus; may be given repeatedly"
    parser.add_argument("--held-out", action="append", default=[], metavar="PATTERN", help=held_out)
    add("max-steps", "of the optimiser (default: by the number of pairs)", type=positive, metavar="N")
    add("batch-size", "pairs that are computed together", type=positive, metavar="N")
    add("accumulation", "batches of a process in a step of the optimiser", type=positive, metavar="N")
    add("learning-rate", "the highest, reached after the warm-up", type=_rate, metavar="R")
    add("warm-up", "share of the steps in which the learning rate rises", type=share, metavar="R")
    add("max-length", "tokens of a pair", type=positive, metavar="N")
    add("shuffle-buffer", "pairs that are shuffled together, in memory", type=positive, metavar="N")
    add("eval-fraction", "share of the instructions that are evaluated on", type=share, metavar="R")
    add("max-eval-pairs", "evaluate on so many of their pairs", type=positive, metavar="N")
    add("evaluate-every", "steps between evaluations (default: a tenth of all)", type=positive, metavar="N")
    add("save-every", "steps between checkpoints (default: as --evaluate-every)", type=positive, metavar="N")
    add("patience", "stop after N evaluations without a better loss, and keep the best", type=positive, metavar="N")
    add("device", "auto, cpu or cuda; several GPUs by torchrun or accelerate launch", metavar="D")
    add("dtype", "of the layers' arithmetic: auto, float32 or bfloat16", metavar="T")
    add("report-to", "integrations of transformers, such as tensorboard,wandb", type=_names, metavar="NAMES")
    parser.add_argument("--allow-pickle", action="store_true", help="load pickled weights, which can run any code")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace another run's files in the output folder")
    parser.add_argument(
        "--storage-options", dest="storage", type=json_object, default={}, metavar="JSON", help="passed to fsspec"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name and name != "none")
