"""Scorer: score pairs with a sequence-classification model (see `cappy_model.score.scorer`)."""

from cappy_model.score.scorer import Scored, Scorer

__all__ = ["Scored", "Scorer"]
