"""The head of a scorer: how the logits of a pair become its score."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cappy_model.checkpoints import ModelError

EXPECTED = "expected"
"""Name of the head that scores by the mean of the values of the labels."""

LOGIT = "logit"
"""Name of the head of a model with one logit."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_VOCABULARY_MARKS = ("▁", "Ġ")  # a word that begins with one names an entry of the vocabulary as it stands there


@dataclass(frozen=True)
class Head:
    """How the logits of a pair become its score.

    `name` is shown to users. Exactly one of these applies: `label`, the position of the logit that is the score;
    `values`, one for each label, whose mean under the softmax of the logits is the score; `tokens`, one or two entries
    of the vocabulary of a causal language model, whose logits at the last position (the first minus the second) are
    the score.
    """

    name: str = LOGIT
    label: int = 0
    values: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()

    def reduce(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the scores float32[n] of logits [n, labels], or of logits [n, tokens] of a language model."""
        logits = logits.float()
        if self.values:
            return logits.softmax(dim=1) @ torch.tensor(self.values, device=logits.device)
        if len(self.tokens) == 2:
            return logits[:, 0] - logits[:, 1]
        return logits[:, self.label]


def classifier_head(asked: str | None, config: PreTrainedConfig, *, model: str) -> Head:
    """Return the head of a sequence classifier.

    `asked` is the name or the position of a label, or `expected`; None is the only logit. `model` is named in errors.
    Raises ModelError for several logits of which none is asked for, for an unknown label, and for `expected` with
    labels that hold no numbers.
    """
    labels = label_names(config)
    named = ", ".join(labels)
    if len(labels) == 1:
        if asked in (None, "0", labels[0]):
            return Head()
        raise ModelError(f"{model}: has one logit ({named}), which is the score; leave --head {asked} out")
    if asked is None:
        numbered = all(map(_NUMBER.search, labels))
        mean = ", or give --head expected for the mean of the labels' values" if numbered else ""
        raise ModelError(
            f"{model}: has a head of {len(labels)} logits ({named}); name the one that is the score with --head NAME"
            f"{mean}"
        )
    if asked in labels:
        return Head(asked, labels.index(asked))
    if asked.isdecimal() and int(asked) < len(labels):
        return Head(labels[int(asked)], int(asked))
    if asked == EXPECTED:
        return Head(EXPECTED, values=_values(labels, model))
    raise ModelError(f"{model}: --head {asked}: there is no such label; there are {named}, and {EXPECTED}")


def label_names(config: Any) -> list[str]:
    """Return the name of each logit of a sequence classifier."""
    return [str(config.id2label[position]) for position in range(config.num_labels)]


def _values(labels: list[str], model: str) -> tuple[float, ...]:
    """Return the number in each label, such as 4 in `4 stars`."""
    numbers = [_NUMBER.search(label) for label in labels]
    for label, number in zip(labels, numbers, strict=True):
        if number is None:
            raise ModelError(f"{model}: --head {EXPECTED}: the label {label!r} holds no number; name one label instead")
    return tuple(float(number[0]) for number in numbers if number)


def words_head(asked: str, tokenizer: PreTrainedTokenizerBase, *, model: str) -> Head:
    """Return the head of a causal language model that answers with one of two words, such as `yes,no`.

    The score is the logit of the first word minus that of the second; with one word it is the logit of that word.
    Raises ModelError for a word that is not exactly one token.
    """
    words = [word.strip() for word in asked.split(",")]
    if len(words) > 2 or not all(words):
        raise ModelError(f"{model}: --head {asked}: give the two words of the answer, such as --head yes,no")
    return Head(asked, tokens=tuple(_token(word, asked, tokenizer, model) for word in words))


def _token(word: str, asked: str, tokenizer: Any, model: str) -> int:
    vocabulary = tokenizer.get_vocab()
    if word.startswith(_VOCABULARY_MARKS) and word in vocabulary:
        return int(vocabulary[word])
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
        return int(ids[0])
    pieces = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ids)))
    raise ModelError(
        f"{model}: --head {asked}: {word!r} is not one token of this model ({pieces}); give the words that its makers "
        "name, with their spelling and case"
    )
