"""Evaluation of a scorer during training, on pairs that are not trained on."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedModel

from cappy_model.score.batching import token_batches
from cappy_model.score.encoding import EncodedPairs, Encoder
from cappy_model.score.forward import padded_logits
from cappy_model.train.corpus import LabelledPairs, instruction_keys
from cappy_model.train.data import Place


@dataclass(frozen=True)
class Assessment:
    """Pairs to evaluate a model on, in batches of at most `tokens_per_batch`."""

    pairs: LabelledPairs
    encoder: Encoder
    tokens_per_batch: int

    @cached_property
    def _encoded(self) -> EncodedPairs:
        return self.encoder.encode(self.pairs.instructions, self.pairs.responses)

    @cached_property
    def _groups(self) -> np.ndarray:
        """int64[n]: the number of the instruction of each pair."""
        keys = instruction_keys(pa.array(self.pairs.instructions, pa.string()))
        return np.unique(keys, return_inverse=True)[1]

    @cached_property
    def _batches(self) -> list[np.ndarray]:
        return token_batches(self._encoded.lengths, self.tokens_per_batch, padded=True)

    def scores(self, model: PreTrainedModel, device: torch.device, place: Place) -> np.ndarray:
        """Return the head's raw output for each pair, float32[n]; 0 for the pairs of other processes."""
        scores = np.zeros(len(self.pairs.ids), dtype=np.float32)
        model.eval()
        with torch.no_grad():
            for rows in self._batches[place.rank :: place.world]:
                scores[rows] = padded_logits(model, self._encoded.take(rows), device)[:, 0].cpu().numpy()
        return scores

    def metrics(self, scores: np.ndarray) -> dict[str, float]:
        """Return the metrics of `scores` float32[n].

        `loss`: mean squared error. `constant_loss`: mean squared error of the labels' mean as a constant prediction.
        `pearson`: correlation with the labels, 0 if scores or labels are constant. `spread`: standard deviation of the
        scores. `accuracy`: see `choice_accuracy`, over `groups` instructions; `random_accuracy`: that of a random
        choice; these three are missing if no instruction has pairs with different labels.
        """
        labels, scores = self.pairs.labels.astype(np.float64), scores.astype(np.float64)
        varied = scores.std() > 0 and labels.std() > 0
        metrics = {
            "loss": float(np.square(scores - labels).mean()),
            "constant_loss": float(labels.var()),
            "pearson": float(np.corrcoef(scores, labels)[0, 1]) if varied else 0.0,
            "spread": float(scores.std()),
        }
        chosen, random = (choice_accuracy(each, labels, self._groups) for each in (scores, np.zeros_like(scores)))
        if chosen is not None and random is not None:
            metrics |= {"accuracy": chosen.share, "random_accuracy": random.share, "groups": chosen.groups}
        return metrics


class Accuracy(NamedTuple):
    """The share of right choices, in [0, 1], among `groups` instructions."""

    share: float
    groups: int


def choice_accuracy(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Accuracy | None:
    """Return how often the pair with a group's highest score has its highest label.

    `scores` and `labels` float64[n]; equal numbers in `groups` int64[n] are one group. Groups whose labels are all
    equal are left out; None if no group is left. Of several highest scores each counts in part.
    """
    count = int(groups.max(initial=-1)) + 1
    highest, lowest, best = np.full(count, -np.inf), np.full(count, np.inf), np.full(count, -np.inf)
    np.maximum.at(highest, groups, labels)
    np.minimum.at(lowest, groups, labels)
    np.maximum.at(best, groups, scores)
    chosen = scores == best[groups]
    right = np.bincount(groups, chosen & (labels == highest[groups]), count) / np.bincount(groups, chosen, count)
    has_choice = highest > lowest
    return Accuracy(float(right[has_choice].mean()), int(has_choice.sum())) if has_choice.any() else None
