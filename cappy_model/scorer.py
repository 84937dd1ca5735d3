"""The public names of `cappy_model.score.scorer`, under the path that callers know."""

from cappy_model.score.check import BrokenModel
from cappy_model.score.scorer import Ranked, Scored, Scorer, ScoringError

__all__ = ["BrokenModel", "Ranked", "Scored", "Scorer", "ScoringError"]
