"""Options of score."""

from dataclasses import dataclass

from beam_pipelines.models.config import ModelConfig
from beam_pipelines.runs.flags import flag, whole


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
    """Options specific to score: the input, its columns, and the scorer."""

    input: str = flag(metavar="PATTERN", help="input files: a path or fsspec URL with wildcards")
    model: str = flag(metavar="ID", help="scorer: hub id[@revision], folder, or fsspec URL")
    instruction_column: str = flag("instruction", metavar="C", help="column of the instruction")
    response_column: str = flag("response", metavar="C", help="column of the response: text, or a list of texts")
    score_column: str = flag("score", metavar="C", help="name of the new column with the score")
