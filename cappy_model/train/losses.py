"""Losses of training: the squared error of each pair, and beside it the choice among the responses to an instruction.

Both are sums over the pairs of a batch, in float32, so that a step's loss is their sum over all of its batches, in all
processes, divided by its number of pairs.
"""

from collections.abc import Callable, Mapping

import torch

from cappy_model.train.recipe import LISTWISE, MSE

TEMPERATURE = 0.25
"""Scores are divided by it in the softmax: two scores that differ by 1 are chosen between with odds of 55 to 1."""

WEIGHT = 1.0
"""The weight of the listwise loss beside the squared error."""

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Scores float32[n], labels float32[n] and ascending group numbers int64[n] -> the sum over the n pairs, a scalar."""


def squared_error(scores: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Return the sum of the squared differences between scores and labels."""
    return torch.nn.functional.mse_loss(scores, labels, reduction="sum")


def listwise(scores: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Return the divergence of the softmax of a group's scores from that of its labels, each group times its size.

    It is Kullback and Leibler's, of both divided by `TEMPERATURE`: 0 where the scores of a group are its labels plus
    any constant, so the squared error, which also asks for the constant, has the same minimum.
    """
    sizes = torch.bincount(groups)
    inside = torch.arange(int(sizes.max()), device=groups.device) < sizes[:, None]  # bool[groups, largest]
    wanted, found = (
        torch.log_softmax(_by_group(values / TEMPERATURE, sizes), 1).where(inside, 0.0) for values in (labels, scores)
    )
    divergence = (wanted.exp() * (wanted - found)).where(inside, 0.0).sum(1)
    return (divergence * sizes).sum()


def _by_group(values: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Return the values of each group as a row, float32[groups, largest], filled up with -inf."""
    rows = values.split(sizes.tolist())
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-torch.inf)


def squared_error_and_choice(scores: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Return the squared error plus `WEIGHT` times the listwise loss."""
    return squared_error(scores, labels, groups) + WEIGHT * listwise(scores, labels, groups)


LOSSES: Mapping[str, Loss] = {MSE: squared_error, LISTWISE: squared_error_and_choice}
"""The losses by name."""
