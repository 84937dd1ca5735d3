"""Evaluation of a scorer during training, on pairs that are not trained on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from transformers import PreTrainedModel

from cappy_model.score.batching import token_batches
from cappy_model.score.encoding import EncodedPairs, Encoder
from cappy_model.score.forward import padded_logits
from cappy_model.train.corpus import LabelledPairs
from cappy_model.train.data import Place


@dataclass(frozen=True)
class Assessment:
    """LabelledPairs to evaluate a model on, in batches of at most `tokens_per_batch`."""

    pairs: LabelledPairs
    encoder: Encoder
    tokens_per_batch: int

    @cached_property
    def _encoded(self) -> EncodedPairs:
        return self.encoder.encode(self.pairs.instructions, self.pairs.responses)

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
        `pearson`: correlation with the labels, 0 if scores or labels are constant.
        """
        labels, scores = self.pairs.labels.astype(np.float64), scores.astype(np.float64)
        varied = scores.std() > 0 and labels.std() > 0
        return {
            "loss": float(np.square(scores - labels).mean()),
            "constant_loss": float(labels.var()),
            "pearson": float(np.corrcoef(scores, labels)[0, 1]) if varied else 0.0,
        }
