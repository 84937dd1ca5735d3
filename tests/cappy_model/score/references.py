"""Scores of pairs by other code than ours: transformers' plain forward and sentence-transformers' CrossEncoder.

One pair at a time, in float32, on the CPU: no padding, no batch, no sharing.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

TOLERANCE = 1e-5
TextPair = tuple[str, str]


def split(pairs: Iterable[TextPair]) -> tuple[list[str], list[str]]:
    """Return the instructions and the responses of pairs."""
    pairs = list(pairs)
    return [instruction for instruction, _ in pairs], [response for _, response in pairs]


def classifier_logits(folder: Path, inputs: Iterable[Mapping[str, torch.Tensor]]) -> np.ndarray:
    """Return the logits of a sequence classifier, float64[n, labels], for inputs of one pair each."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        return np.array([model(**each).logits[0].tolist() for each in inputs])


def encoder_logits(folder: Path, pairs: Iterable[TextPair], max_length: int) -> np.ndarray:
    """Return the logits of an encoder, as `tokenizer(instruction, response, truncation="longest_first")` feeds it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    options = {"truncation": "longest_first", "max_length": max_length, "return_tensors": "pt"}
    return classifier_logits(folder, (tokenizer([a], [b], **options) for a, b in pairs))


def messages_of(pair: TextPair) -> list[dict[str, str]]:
    """Return the two turns of a pair."""
    return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]


def chat_ids(folder: Path, pairs: Iterable[TextPair]) -> list[list[int]]:
    """Return the token ids of `apply_chat_template` over the two turns of each pair."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return [tokenizer.apply_chat_template(messages_of(pair), return_dict=False) for pair in pairs]


def chat_logits(folder: Path, pairs: Iterable[TextPair]) -> np.ndarray:
    """Return the logits of a decoder with a head over `apply_chat_template`'s ids."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    options = {"return_dict": True, "return_tensors": "pt"}
    return classifier_logits(folder, (tokenizer.apply_chat_template(messages_of(pair), **options) for pair in pairs))


def word_logits(folder: Path, prompts: Iterable[str], words: Iterable[str]) -> np.ndarray:
    """Return a language model's logits of words after each prompt, float64[n, words]; prompts hold their own frame."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = tokenizer.convert_tokens_to_ids(list(words))
    with torch.inference_mode():
        inputs = (tokenizer(prompt, add_special_tokens=False, return_tensors="pt") for prompt in prompts)
        return np.array([model(**each).logits[0, -1, ids].tolist() for each in inputs])


def cross_encoder_scores(folder: Path, pairs: Iterable[TextPair], **options: Any) -> np.ndarray:
    """Return the scores of `CrossEncoder.predict` without an activation, one pair to a batch."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", **options)
    identity = torch.nn.Identity()
    return np.array([model.predict([pair], activation_fn=identity, show_progress_bar=False)[0] for pair in pairs])
