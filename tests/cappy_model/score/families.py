"""Tiny models of the families that `docs/models.md` lists: random weights, real architectures, own tokenizers.

Their weights are spread so wide that the scores of two pairs differ by far more than any tolerance of the tests.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as t
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.cappy_model.score.tokenizers import decoder_tokenizer, encoder_tokenizer

SPREAD = 0.3
_NARROW = ("albert", "convbert")  # embeddings have fewer columns than layers
_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_COMMON = {**_BERT, "initializer_range": SPREAD, "num_labels": 1}
_POSITIONS = 64

Settings = Mapping[str, Any]


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    return {"vocab_size": len(tokenizer), **{name: getattr(tokenizer, name) for name in names}}


def _with_positions(model: Any, config: Any) -> Callable[[Settings], PreTrainedModel]:
    return lambda settings: model(config(**{**_COMMON, "max_position_embeddings": _POSITIONS, **settings}))


def _fairseq(model: Any, config: Any) -> Callable[[Settings], PreTrainedModel]:
    """Positions begin after the padding id, 1."""
    settings = {"max_position_embeddings": _POSITIONS + 2, "type_vocab_size": 1}
    return lambda more: model(config(**{**_COMMON, **settings, **more}))


def _distilbert(settings: Settings) -> PreTrainedModel:
    shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": _POSITIONS}
    config = t.DistilBertConfig(**{**shape, "initializer_range": SPREAD, "num_labels": 1, **settings})
    return t.DistilBertForSequenceClassification(config)


def _deberta(model: Any, config: Any, **more: Any) -> Callable[[Settings], PreTrainedModel]:
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    fixed = {**_COMMON, **relative, "type_vocab_size": 0, "max_position_embeddings": _POSITIONS, **more}
    return lambda settings: model(config(**{**fixed, **settings}))


def _xlnet(settings: Settings) -> PreTrainedModel:
    shape = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "initializer_range": SPREAD, "num_labels": 1}
    return t.XLNetForSequenceClassification(t.XLNetConfig(**{**shape, **settings}))


def _modernbert(settings: Settings) -> PreTrainedModel:
    """Windows of 8 tokens in every layer but the first, so that the texts of the tests are longer than a window."""
    more = {"num_hidden_layers": 3, "global_attn_every_n_layers": 3, "local_attention": 8, "hidden_size": 32}
    more |= {
        "max_position_embeddings": _POSITIONS,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "initializer_cutoff_factor": 3.0,
    }
    return t.ModernBertForSequenceClassification(t.ModernBertConfig(**{**_COMMON, **more, **settings}))


def _t5(settings: Settings) -> PreTrainedModel:
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    return t.T5ForSequenceClassification(
        t.T5Config(**{**shape, "num_labels": 1, "initializer_factor": 1.0, **settings})
    )


def _bart(settings: Settings) -> PreTrainedModel:
    sides = ("encoder", "decoder")
    shape = {f"{side}_{name}": 2 for side in sides for name in ("layers", "attention_heads")}
    shape |= {f"{side}_ffn_dim": 64 for side in sides} | {"d_model": 32, "max_position_embeddings": _POSITIONS}
    more = {"init_std": SPREAD, "num_labels": 1, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
    return t.BartForSequenceClassification(t.BartConfig(**{**shape, **more, **settings}))


ENCODERS: dict[str, Callable[[Settings], PreTrainedModel]] = {
    "roberta": _fairseq(t.RobertaForSequenceClassification, t.RobertaConfig),
    "xlm-roberta": _fairseq(t.XLMRobertaForSequenceClassification, t.XLMRobertaConfig),
    "bert": _with_positions(t.BertForSequenceClassification, t.BertConfig),
    "electra": _with_positions(t.ElectraForSequenceClassification, t.ElectraConfig),
    "albert": _with_positions(t.AlbertForSequenceClassification, t.AlbertConfig),
    "distilbert": _distilbert,
    "mpnet": _fairseq(t.MPNetForSequenceClassification, t.MPNetConfig),
    "deberta": _deberta(t.DebertaForSequenceClassification, t.DebertaConfig),
    "deberta-v2": _deberta(
        t.DebertaV2ForSequenceClassification, t.DebertaV2Config, position_buckets=16, share_att_key=True
    ),
    "xlnet": _xlnet,
    "modernbert": _modernbert,
    "t5": _t5,
    "bart": _bart,
    "fnet": _with_positions(t.FNetForSequenceClassification, t.FNetConfig),
    "convbert": _with_positions(t.ConvBertForSequenceClassification, t.ConvBertConfig),
}
"""Encoders, encoder-decoders with a head (t5, bart), and two whose scores depend on padding (fnet, convbert)."""


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Write a model and its tokenizer as `save_pretrained` does; return `folder`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder(folder: Path, family: str, *, seed: int = 0, **settings: Any) -> Path:
    """Write a scorer of one of `ENCODERS`, 64 tokens long; `settings` are of its configuration."""
    tokenizer = encoder_tokenizer(family)
    torch.manual_seed(seed)
    given = {name: value for name, value in _ids(tokenizer).items() if value is not None}
    model = ENCODERS[family]({**given, **({"embedding_size": 16} if family in _NARROW else {}), **settings})
    return save(folder, model, tokenizer)


_DECODER = {**_COMMON, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512}
_WINDOW = {"sliding_window": 8}
_GEMMA = {"query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"], **_WINDOW}
_SOFTCAP = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": SPREAD, "num_labels": 1}

DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "llama", {}),
    "qwen2": ("Qwen2", "qwen", {}),
    "qwen3": ("Qwen3", "qwen", {}),
    "mistral": ("Mistral", "mistral", _WINDOW),
    "gemma": ("Gemma", "gemma", {}),
    "gemma2": ("Gemma2", "gemma", {**_GEMMA, **_SOFTCAP}),
    "gemma3": ("Gemma3Text", "gemma", _GEMMA),
    "gpt2": ("GPT2", "gpt2", {}),
}
"""Of each decoder: the stem of transformers' names, its tokenizer, and settings of its own."""

_CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou judge.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_TEMPLATES = {
    "llama": (
        "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "qwen": _CHATML,
    # Thoughts of an answer are left out, as Qwen3 does it.
    "qwen3": _CHATML.replace("{{ message['content'] }}", "{{ message['content'].split('</think>')[-1].lstrip('\n') }}"),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
        "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
        "{% else %} {{ message['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for message in messages %}<start_of_turn>"
        "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
        "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "gpt2": "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{{ eos_token }}{% endfor %}",
}
"""Chat templates as the makers of these families write them."""

_LANGUAGE_MODELS = {"gemma3": "Gemma3ForCausalLM", "gpt2": "GPT2LMHeadModel"}


def save_decoder(
    folder: Path,
    family: str,
    *,
    kind: str = "reward",
    seed: int = 0,
    chat_template: str | None = "makers",
    tokens: Settings | None = None,
    **settings: Any,
) -> Path:
    """Write a decoder of `DECODERS`, 512 positions long, with one logit (reward) or as a language model (causal).

    `chat_template`: the makers' own, none (None), or a jinja text; `tokens`: changes of the tokenizer's special tokens
    and padding side; `settings` are of the model's configuration.
    """
    stem, kind_of_tokenizer, own = DECODERS[family]
    tokenizer = decoder_tokenizer(kind_of_tokenizer, **{"model_max_length": 512, **(tokens or {})})
    if chat_template == "makers":
        chat_template = CHAT_TEMPLATES.get(family, CHAT_TEMPLATES[kind_of_tokenizer])
    tokenizer.chat_template = chat_template
    torch.manual_seed(seed)
    shape = _GPT2 if family == "gpt2" else _DECODER
    causal = {"tie_word_embeddings": False} if kind == "causal" else {}
    name = (
        _LANGUAGE_MODELS.get(family, f"{stem}ForCausalLM") if kind == "causal" else f"{stem}ForSequenceClassification"
    )
    config = getattr(t, f"{stem}Config")(**{**shape, **_ids(tokenizer), **own, **causal, **settings})
    model = getattr(t, name)(config)
    return save(folder, model, tokenizer)


def edit_json(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
