"""Tiny models, written where a test needs them: random weights, real architectures, a tokenizer of their own."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

_TEXTS = ["the quick brown fox jumps over the lazy dog", "What is the answer? 0123456789", "yes no maybe ABC xyz,.!"]
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
# Wide enough that scores differ by tenths, narrow enough that float32 stays within 1e-5 of itself.
_SPREAD = 0.3


def tiny_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE of a few hundred tokens, framed as RoBERTa frames a pair, or as BERT does."""
    special = ["<s>", "<pad>", "</s>", "<unk>"] if family == "roberta" else ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(_TEXTS, trainer)
    ids = {token: backend.token_to_id(token) for token in special}
    if family == "roberta":
        backend.post_processor = processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
        names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        inputs = ["input_ids", "attention_mask"]
    else:
        frame = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
        pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
        backend.post_processor = processors.TemplateProcessing(
            pair="".join(pair), single="[CLS] $A [SEP]", special_tokens=frame
        )
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, model_input_names=inputs, **names)


def save_tiny_scorer(folder: Path, family: str = "roberta", *, seed: int = 0, **changes: Any) -> Path:
    """A scorer of `family` (roberta or bert), 64 tokens long, in `folder`; `changes` are of its configuration."""
    tokenizer = tiny_tokenizer(family)
    common = {"vocab_size": len(tokenizer), "num_labels": 1, "initializer_range": _SPREAD, **_SHAPE}
    torch.manual_seed(seed)
    if family == "roberta":
        settings = {
            **common,
            "max_position_embeddings": 66,
            "pad_token_id": tokenizer.pad_token_id,
            "type_vocab_size": 1,
        }
        model: Any = RobertaForSequenceClassification(RobertaConfig(**{**settings, **changes}))
    else:
        settings = {**common, "max_position_embeddings": 64, "pad_token_id": tokenizer.pad_token_id}
        model = BertForSequenceClassification(BertConfig(**{**settings, **changes}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_CHAT_TEMPLATE = "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}maybe "


def save_tiny_generator(folder: Path, family: str = "llama", *, seed: int = 0) -> Path:
    """A language model of `family` (t5, bart or llama) in `folder`, 128 positions long where it has any."""
    tokenizer = tiny_tokenizer("roberta")
    tokenizer.chat_template = _CHAT_TEMPLATE
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "vocab_size": len(tokenizer)}
    torch.manual_seed(seed)
    if family == "t5":
        shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
        model: Any = T5ForConditionalGeneration(T5Config(**ids, **shape, decoder_start_token_id=1))
    elif family == "bart":
        sides = ("encoder", "decoder")
        shape = {f"{side}_{name}": 2 for side in sides for name in ("layers", "attention_heads")}
        shape |= {f"{side}_ffn_dim": 64 for side in sides}
        model = BartForConditionalGeneration(
            BartConfig(**ids, **shape, d_model=32, max_position_embeddings=128, init_std=0.4, decoder_start_token_id=2)
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(**ids, **_SHAPE, max_position_embeddings=128, initializer_range=0.4, tie_word_embeddings=False)
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
