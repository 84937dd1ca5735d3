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
"""The weight of the cross-entropy beside the squared error."""

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Scores float32[n], labels float32[n] and ascending group numbers int64[n] -> the sum over the n pairs, a scalar."""


def squared_error(scores: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Return the sum of the squared differences between scores and labels."""
    return torch.nn.functional.mse_loss(scores, labels, reduction="sum")


def listwise(scores: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy between the softmax of a group's scores and its labels, each group times its size.

    The labels' distribution is in proportion to how far they lie above the lowest label of their group. A group whose
    labels are all equal, such as a single pair, prefers nothing and contributes 0.
    """
    sizes = torch.bincount(groups)
    inside = torch.arange(int(sizes.max()), device=groups.device) < sizes[:, None]  # bool[groups, largest]
    above = _by_group(labels, sizes, torch.inf)
    above = (above - above.amin(1, keepdim=True)).where(inside, 0.0)
    total = above.sum(1, keepdim=True)
    log_shares = torch.log_softmax(_by_group(scores / TEMPERATURE, sizes, -torch.inf), 1).where(inside, 0.0)
    cross_entropy = -(above / total.where(total > 0, 1.0) * log_shares).sum(1)
    return (cross_entropy * sizes).sum()


def _by_group(values: torch.Tensor, sizes: torch.Tensor, fill: float) -> torch.Tensor:
    """Return the values of each group as a row, float32[groups, largest], with `fill` after the end of smaller ones."""
    return torch.nn.utils.rnn.pad_sequence(values.split(sizes.tolist()), batch_first=True, padding_value=fill)


def squared_error_and_choice(scores: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Return the squared error plus `WEIGHT` times the listwise loss."""
    return squared_error(scores, labels, groups) + WEIGHT * listwise(scores, labels, groups)


LOSSES: Mapping[str, Loss] = {MSE: squared_error, LISTWISE: squared_error_and_choice}
"""The losses by name."""
