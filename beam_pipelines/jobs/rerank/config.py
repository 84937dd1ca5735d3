"""Options of rerank."""

from dataclasses import dataclass

from beam_pipelines.jobs.score.config import ScorerConfig
from beam_pipelines.runs.flags import flag


@dataclass(frozen=True, kw_only=True)
class RerankConfig(ScorerConfig):
    """Options specific to rerank: the input, its columns, and how many candidates are kept.

    With a `model` the candidates are scored first. `order_column` None: ties go to the earlier candidate of the input.
    `shards` None: by the size of the input.
    """

    input: str = flag(metavar="PATTERN", help="input files of candidates, scored unless --model is given")
    model: str | None = flag(None, metavar="ID", help="score the candidates with this scorer first, into DIR/scored")
    group_column: str | None = flag(
        None, metavar="C", help="column that defines groups (default: instruction_id if present, else the instruction)"
    )
    instruction_column: str = flag("instruction", metavar="C", help="column of the instruction")
    response_column: str = flag("response", metavar="C", help="column of the response: text, or a list of texts")
    score_column: str = flag("score", metavar="C", help="column of the score: a number, or a list of numbers")
    order_column: str | None = flag(None, metavar="C", help="column that breaks ties: the smaller value is better")
    top_k: int = flag(1, metavar="K", help="candidates kept per group")
    shards: int | None = flag(None, metavar="N", help="number of shuffle shards and output files (default: by size)")
