"""Recipes of training: what learns from thousands of pairs, and what from millions. Without torch."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

GROUPED, RANDOM = "grouped", "random"
"""How pairs are put into batches: all responses to an instruction together, or pairs in any order."""

MSE, LISTWISE = "mse", "mse+listwise"
"""The losses (see `losses`)."""

MANY_STEPS = 10_000
"""The steps of 32 pairs from which on the recipe for a large corpus is taken."""

VERSION = 1
"""Changes with the numbers below and those of `losses`: a run that was begun with others does not go on."""

MINILM_WIDTH = 384
"""The hidden size of MiniLM-L6, which the rate for few pairs was measured with."""


class Recipe(NamedTuple):
    """Settings that a training run takes unless flags say otherwise.

    `batches`: `grouped` or `random`. `loss`: a name of `losses.LOSSES`. `dropout`: the probability of every dropout of
    the model; None: the model's own. `batch_size`: maximum pairs of a batch. `accumulation`: batches of an optimiser
    step, in each process. `learning_rate`: the peak.
    """

    name: str
    batches: str
    loss: str
    dropout: float | None
    batch_size: int
    accumulation: int
    learning_rate: float

    def describe(self) -> str:
        """Describe the recipe in a line."""
        dropout = "the model's own dropout" if self.dropout is None else f"dropout {self.dropout:g}"
        return (
            f"recipe for {self.name}: {self.batches} batches of at most {self.batch_size} pairs, {self.accumulation} "
            f"per step; loss {self.loss}, learning rate {self.learning_rate:.3g}, {dropout}"
        )


OLDER = Recipe("pairs in any order", RANDOM, MSE, None, 8, 16, 2e-5)
"""The recipe of the paper's adaptation: steps of 128 pairs in any order."""

FEW_PAIRS = Recipe("few pairs", GROUPED, LISTWISE, 0.0, 32, 1, 1e-4)
"""Dropout hides the small difference between two responses in which learning begins."""

MANY_PAIRS = Recipe("many pairs", GROUPED, LISTWISE, 0.0, 32, 4, 2e-5)
"""The steps and the rate of the paper, in whole groups."""


def recipe_for(batches: str, pairs: int, hidden_size: int = MINILM_WIDTH) -> Recipe:
    """Return the recipe for training on `pairs` pairs in all, those of every epoch counted.

    With few pairs the learning rate of wider encoders than MiniLM-L6 is lowered in proportion to the hidden size.
    """
    if batches == RANDOM:
        return OLDER
    if pairs >= MANY_STEPS * FEW_PAIRS.batch_size:
        return MANY_PAIRS
    width = max(1.0, hidden_size / MINILM_WIDTH)
    return FEW_PAIRS._replace(learning_rate=FEW_PAIRS.learning_rate / width)


def dropouts(config: "PreTrainedConfig") -> dict[str, float | None]:
    """Return the dropout probabilities of a model's configuration by name; None: it takes another one's value."""
    return {
        name: value
        for name, value in config.to_dict().items()
        if ("dropout" in name or name.endswith("pdrop"))
        and not isinstance(value, bool)
        and (value is None or isinstance(value, float | int))
    }
