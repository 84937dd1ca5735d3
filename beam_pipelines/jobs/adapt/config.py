"""Options of adapt."""

from dataclasses import dataclass

from beam_pipelines.jobs.evaluate.config import rouge_flag
from beam_pipelines.jobs.train.config import TrainingConfig
from beam_pipelines.runs.config import InputConfig
from beam_pipelines.runs.flags import flag, share

ADAPTATION_PAIRS = 102_400
"""About the number of pairs that a scorer is adapted on, repeated where there are fewer (the paper's number)."""


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(TrainingConfig, InputConfig):
    """Options specific to adapt: the candidates for training and for validation."""

    train: str = flag(metavar="PATTERN", help="candidates to train on, with references, as generate writes them")
    validation: str = flag(metavar="PATTERN", help="candidates to choose among, with references")
    max_reject_rate: float = flag(
        0.01, parse=share, metavar="R", help="fail if a larger share of the candidates is rejected, in any stage"
    )
    rouge: str = rouge_flag()
    max_pairs: int | None = flag(ADAPTATION_PAIRS, metavar="N", help="train on at most N pairs, drawn evenly")
    eval_fraction: float = 0.0
