"""The public names of `cappy_model.score.scorer`."""

from cappy_model.score.scorer import BrokenModel, Ranked, Scored, Scorer, ScoringError

__all__ = ["BrokenModel", "Ranked", "Scored", "Scorer", "ScoringError"]
