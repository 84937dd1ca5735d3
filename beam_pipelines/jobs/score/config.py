"""Options of score."""

from collections.abc import Sequence
from dataclasses import dataclass

from beam_pipelines.models.config import ModelConfig
from beam_pipelines.runs.flags import flag, whole
from schemas.errors import UsageError

ONE_COLUMN = "score"
"""The column of the score, unless a flag names another."""


@dataclass(frozen=True, kw_only=True)
class ScorerConfig(ModelConfig):
    """Options of scoring, shared with rerank. `max_length` None: the model's own; `head` None: the only logit."""

    head: str | None = flag(
        None,
        metavar="H",
        help="the score of a model with several logits: a label's name or number, or expected; of a language model: "
        "the words of its answer, such as yes,no",
    )
    template: str = flag(
        "auto",
        metavar="T",
        help="how a pair is rendered: auto (as the model says), none, chat, or a file with a jinja template",
    )
    max_length: int | None = flag(None, metavar="N", help="tokens of a pair, the rest is cut (default: by the model)")
    check_pairs: int = flag(
        16,
        metavar="N",
        parse=whole,
        help="pairs of the input to check against the plain forward pass of the model before the run; 0 for none",
    )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(ScorerConfig):
    """Options specific to score: the input, its columns, and the scorer or a file of several."""

    input: str = flag(metavar="PATTERN", help="input files: a path or fsspec URL with wildcards")
    model: str | None = flag(None, metavar="ID", help="scorer: hub id[@revision], folder, or fsspec URL")
    scorers: str | None = flag(
        None,
        metavar="FILE",
        help="YAML file that lists several scorers, instead of --model: for each its model and column, and optionally "
        "template, head, dtype and max_length",
    )
    reuse: Sequence[str] = flag(
        (),
        action="extend",
        metavar="DIR",
        help="finished output folders of score to copy the scores of identical pairs from; may be repeated",
    )
    instruction_column: str = flag("instruction", metavar="C", help="column of the instruction")
    response_column: str = flag("response", metavar="C", help="column of the response: text, or a list of texts")
    score_column: str = flag(ONE_COLUMN, metavar="C", help="name of the new column with the score")

    def check(self) -> None:
        """Raise UsageError unless there is either a model or a file of scorers."""
        super().check()
        if self.model is None and self.scorers is None:
            raise UsageError("give --model ID, or --scorers FILE for several scorers")
        if self.scorers is None:
            return
        if self.model is not None:
            raise UsageError(f"--model and --scorers exclude each other; list {self.model} in {self.scorers}")
        if self.score_column != ONE_COLUMN:
            raise UsageError(f"--score-column {self.score_column!r}: each scorer in {self.scorers} names its `column`")
