"""What `cappy doctor --model` is asked. Imports no torch, so that the flags are known at once."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beam_pipelines.jobs.evaluate.config import EvaluateConfig
from beam_pipelines.jobs.score.config import ScoreConfig
from beam_pipelines.runs.flags import add_flag, config_from, flag_name, positive
from beam_pipelines.runs.parser import nearest
from schemas.errors import UsageError

_PAIRS = 64
_FLAGS = (
    (ScoreConfig, "instruction_column"),
    (ScoreConfig, "response_column"),
    (EvaluateConfig, "group_column"),
    (EvaluateConfig, "reference_column"),
    (EvaluateConfig, "label_column"),
    (ScoreConfig, "text_columns"),
    (ScoreConfig, "csv_delimiter"),
    (ScoreConfig, "encoding"),
    (ScoreConfig, "limit"),
    (ScoreConfig, "head"),
    (ScoreConfig, "template"),
    (ScoreConfig, "max_length"),
    (ScoreConfig, "device"),
    (ScoreConfig, "dtype"),
    (ScoreConfig, "allow_pickle"),
    (ScoreConfig, "trust_remote_code"),
)


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """A scorer and the input that it is tried on; the fields are those of the flags of score and evaluate.

    `pairs`: about how many pairs of the input are tried; right responses are tried on twice as many instructions.
    """

    model: str
    inputs: Sequence[str]
    pairs: int
    instruction_column: str
    response_column: str
    group_column: str | None
    reference_column: str
    label_column: str | None
    text_columns: tuple[str, ...]
    csv_delimiter: str | None
    encoding: str | None
    limit: int | None
    head: str | None
    template: str
    max_length: int | None
    device: str
    dtype: str
    allow_pickle: bool
    trust_remote_code: bool
    storage: dict[str, Any]


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ModelCheck` but `--input` and `--storage-options`, which other checks take, too."""
    group = parser.add_argument_group("a scorer, on this machine")
    group.add_argument(
        "--model",
        metavar="ID",
        help="check this scorer: hub id[@revision], folder, or fsspec URL; --input: the pairs that it is tried on",
    )
    text = f"about how many pairs of the input are tried, and twice as many right responses (default: {_PAIRS})"
    group.add_argument("--pairs", type=positive, default=_PAIRS, metavar="N", help=text)
    for config, name in _FLAGS:
        add_flag(group, config, name)


def model_check(arguments: argparse.Namespace, rest: Sequence[str]) -> ModelCheck | None:
    """Return what is asked of a model, None if none is named.

    Raises UsageError for flags that only a model has, and for those that it has not.
    """
    names = [("--pairs", "pairs"), *((flag_name(config, name), name) for config, name in _FLAGS)]
    given = [flag for flag, name in names if getattr(arguments, name) != arguments.parser.get_default(name)]
    if arguments.model is None:
        if given:
            raise UsageError(f"{given[0]} belongs to a scorer: name it with --model")
        return None
    if rest or arguments.outputs:
        unwanted = rest[0] if rest else "--output"
        near = nearest(unwanted.partition("=")[0], list(arguments.parser._option_string_actions)) if rest else None
        hint = f"; did you mean {near}?" if near else ""
        raise UsageError(f"{unwanted} does not go with --model, which is checked on this machine{hint}")
    check: ModelCheck = config_from(ModelCheck, arguments)
    return check
