"""Options of demo."""

from dataclasses import dataclass

from beam_pipelines.runs.config import Config
from beam_pipelines.runs.flags import flag


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Config):
    """Options specific to demo: the number of training pairs."""

    pairs: int = flag(2_400, metavar="N", help="train the scorer on at most N pairs")
