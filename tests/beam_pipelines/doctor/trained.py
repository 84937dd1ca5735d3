"""Small scorers that are really trained, in seconds, and their task.

A response is right if it repeats the last word of its instruction. There is an encoder, and a decoder that reads pairs
through a chat template.
"""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

_TEXT = "sun moon star tree leaf root rain snow wind fire lake hill sand wolf bear deer hawk fish frog rose fern moss"
WORDS = _TEXT.split()
CANDIDATES = 4
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[USER]", "[REPLY]", "[END]"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '[USER] ' if message['role'] == 'user' else ' [REPLY] ' }}"
    "{{ message['content'] }}{% endfor %} [END]"
)
_GROUPS = 16
_LENGTH = 4
_SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "num_labels": 1,
    "initializer_range": 0.1,
    "max_position_embeddings": 32,
}


def examples(count: int, seed: int) -> list[tuple[str, list[str]]]:
    """Return instructions with their candidates, the right one first; the others are of the instruction or not."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        words = rng.sample(WORDS, _LENGTH + CANDIDATES - 2)
        found.append((" ".join(words[:_LENGTH]), [words[_LENGTH - 1], words[0], *words[_LENGTH:]]))
    return found


def _tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*_SPECIAL, *WORDS])}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32, **names)


def _trained(model: Any, head: torch.nn.Module, encode: Any, steps: int) -> Any:
    """Train on groups of candidates: the right one shall have the largest score. No dropout.

    What the head reads shall tell the texts, too, as it does in a large model: otherwise it has the score alone, and
    a head of any weights would order pairs as the trained one does, or the other way round.
    """
    read: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    words = torch.nn.Linear(model.config.hidden_size, 2 * len(WORDS))
    optimizer = torch.optim.AdamW([*model.parameters(), *words.parameters()], lr=1e-3, weight_decay=0.0)
    model.train()
    for step in range(steps):
        groups = examples(_GROUPS, seed=step)
        pairs = [(a, b) for a, candidates in groups for b in candidates]
        inputs = encode(pairs)
        scores = model(**inputs).logits.view(_GROUPS, CANDIDATES)
        state = read.pop()
        if state.dim() == 3:
            state = state[torch.arange(len(pairs)), inputs["attention_mask"].sum(dim=1) - 1]
        told = words(state).view(-1, len(WORDS))
        texts = torch.tensor([WORDS.index(word) for a, b in pairs for word in (a.split()[0], b)])
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(_GROUPS, dtype=torch.long))
        loss = loss + torch.nn.functional.cross_entropy(told, texts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hook.remove()
    evaluating: torch.nn.Module = model.eval()
    return evaluating


def save_trained_encoder(folder: Path, steps: int = 200) -> Path:
    """Train a BERT with one logit, and write it."""
    tokenizer = _tokenizer()
    frame = [(token, _SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=frame
    )
    torch.manual_seed(0)
    silent = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), pad_token_id=0, **silent, **_SHAPE))

    def encode(pairs: list[tuple[str, str]]) -> Any:
        return tokenizer([a for a, _ in pairs], [b for _, b in pairs], return_tensors="pt", padding=True)

    _trained(model, model.classifier, encode, steps).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_trained_decoder(folder: Path, steps: int = 250) -> Path:
    """Train a Llama with one logit through its chat template, and write it."""
    tokenizer = _tokenizer()
    tokenizer.chat_template = _CHAT_TEMPLATE
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, **_SHAPE))

    def encode(pairs: list[tuple[str, str]]) -> Any:
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": a}, {"role": "assistant", "content": b}], tokenize=False
            )
            for a, b in pairs
        ]
        return tokenizer(
            texts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False
        )

    _trained(model, model.score, encode, steps).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
