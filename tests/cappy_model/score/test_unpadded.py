"""The forward pass without padding, against the plain forward of each pair alone; and which models are called so."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    ElectraConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from cappy_model.score import unpadded
from cappy_model.score.encoding import EncodedPairs
from cappy_model.score.forward import keep_head_precise
from cappy_model.score.scorer import Scorer
from cappy_model.score.unpadded import unpadded_layout
from tests.cappy_model.models import save_tiny_scorer

CPU = torch.device("cpu")
TOLERANCE = 1e-5
HALF_TOLERANCE = 2e-2
"""Of the spread of the logits."""

VOCABULARY, PAD = 50, 1
WINDOW = 8
LENGTHS = [3, 61, 4, WINDOW // 2, WINDOW // 2 + 1, WINDOW // 2 + 2, WINDOW, WINDOW + 1, 17, 40, 64, 3]
FAMILIES: dict[str, tuple[type, dict[str, Any]]] = {
    "bert": (BertConfig, {}),
    "roberta": (RobertaConfig, {"type_vocab_size": 1}),
    "xlm-roberta": (XLMRobertaConfig, {"type_vocab_size": 1}),
    "camembert": (CamembertConfig, {"type_vocab_size": 1}),
    "modernbert": (ModernBertConfig, {"classifier_pooling": "cls"}),
    "modernbert, mean": (ModernBertConfig, {"classifier_pooling": "mean"}),
}


def tiny_model(config: type, labels: int = 1, **changes: Any) -> Any:
    """Return a random model of four layers, so that ModernBERT has two with a window and two without."""
    shape = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    special = {"pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    settings = {**shape, **special, "vocab_size": VOCABULARY, "max_position_embeddings": 80, "num_labels": labels}
    if config is ModernBertConfig:
        settings |= {"local_attention": WINDOW, "global_attn_every_n_layers": 3}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config(**{**settings, "initializer_range": 0.3, **changes}))
    return model.eval()


def random_pairs(model: Any) -> EncodedPairs:
    """Return pairs of all `LENGTHS` in tokens of any kind, the padding token among them, the second half a segment."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCABULARY, sum(LENGTHS)).astype(np.int32)
    types = np.concatenate([np.arange(length) >= length // 2 for length in LENGTHS]).astype(np.uint8)
    if getattr(model.config, "type_vocab_size", 1) == 1:
        types[:] = 0
    places = np.arange(len(LENGTHS))
    return EncodedPairs(tokens, types, np.array(LENGTHS), places < 0, places)


def plain_logits(model: Any, pairs: EncodedPairs) -> torch.Tensor:
    """Return the logits of the plain forward, one pair at a time, [n, labels]."""
    found = []
    for row in range(len(pairs.lengths)):
        pair = pairs.take(np.array([row]))
        inputs = {"input_ids": torch.from_numpy(pair.tokens.astype(np.int64))[None]}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if pairs.types.any():
            inputs["token_type_ids"] = torch.from_numpy(pair.types.astype(np.int64))[None]
        with torch.inference_mode():
            found.append(model(**inputs).logits)
    return torch.cat(found)


def unpadded_logits(model: Any, pairs: EncodedPairs, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the logits of the whole batch by the layout of a copy of the model."""
    model = copy.deepcopy(model).to(dtype)
    layout = unpadded_layout(model)
    assert layout is not None
    layout.first_tokens(model)
    layout.prepare(model)
    keep_head_precise(model)
    with torch.inference_mode():
        return layout.logits(model, pairs, CPU)


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_plain_forward_of_each_pair_alone(family: str, labels: int) -> None:
    config, changes = FAMILIES[family]
    model = tiny_model(config, labels, **changes)
    model.set_attn_implementation("eager")
    pairs = random_pairs(model)
    plain, found = plain_logits(model, pairs), unpadded_logits(model, pairs)
    assert found.dtype == torch.float32 and found.shape == (len(LENGTHS), labels)
    assert np.ptp(plain.numpy(), axis=0).min() > 100 * TOLERANCE
    assert (found - plain).abs().max() < TOLERANCE


@pytest.mark.parametrize("family", ["bert", "modernbert", "modernbert, mean"])
def test_the_head_is_precise_in_half_precision(family: str) -> None:
    config, changes = FAMILIES[family]
    model = tiny_model(config, **changes)
    pairs = random_pairs(model)
    plain, found = plain_logits(model, pairs), unpadded_logits(model, pairs, torch.bfloat16)
    assert (found.to(torch.bfloat16).float() != found).any()  # more than the eight bits of bfloat16
    assert (found - plain).abs().max() < HALF_TOLERANCE * np.ptp(plain.numpy())


def test_the_windows_of_modernbert_count_in_the_comparison() -> None:
    narrow, wide = (tiny_model(ModernBertConfig, local_attention=size) for size in (WINDOW, 2 * WINDOW))
    pairs = random_pairs(narrow)
    assert (plain_logits(narrow, pairs) - plain_logits(wide, pairs)).abs().max() > 100 * TOLERANCE
    assert (unpadded_logits(wide, pairs) - plain_logits(wide, pairs)).abs().max() < TOLERANCE


def kernel(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """Compute what torch documents of `varlen_attn`, which runs on GPUs only."""
    assert q.shape[-1] % 8 == 0
    assert (longest_query, longest_key) == (int(query_bounds.diff().max()), int(key_bounds.diff().max()))
    found = []
    for (a, b), (c, d) in zip(query_bounds.unfold(0, 2, 1), key_bounds.unfold(0, 2, 1), strict=True):
        products = torch.einsum("qhs,khs->hqk", q[a:b], k[c:d]) * scale
        away = torch.arange(d - c) - torch.arange(b - a)[:, None]
        left, right = (size if size >= 0 else int(d - c) for size in window_size)
        products[:, (away < -left) | (away > right)] = -torch.inf
        found.append(torch.einsum("hqk,khs->qhs", products.softmax(-1), v[c:d]))
    return torch.cat(found)


@pytest.mark.parametrize("heads", [2, 4, 8])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_kernel_gets_the_bounds_the_window_and_heads_of_a_size_that_it_has(
    family: str, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, changes = FAMILIES[family]
    model = tiny_model(config, num_attention_heads=heads, **changes)
    pairs = random_pairs(model)
    plain = plain_logits(model, pairs)
    monkeypatch.setattr(unpadded, "varlen_attn", kernel)
    monkeypatch.setattr(unpadded, "_attend_pair_by_pair", unpadded._attend_by_kernel)
    assert (unpadded_logits(model, pairs) - plain).abs().max() < TOLERANCE


def test_subclasses_decoders_and_other_families_have_no_layout() -> None:
    class Ours(BertForSequenceClassification):
        """BERT, as far as its configuration says."""

    model = tiny_model(BertConfig)
    assert unpadded_layout(model) is not None
    assert unpadded_layout(Ours(model.config)) is None
    assert unpadded_layout(tiny_model(BertConfig, is_decoder=True)) is None
    assert unpadded_layout(tiny_model(ElectraConfig)) is None


LAST_TOKEN_CODE = """
import torch
from transformers import BertForSequenceClassification as Bert
from transformers.modeling_outputs import SequenceClassifierOutput

class BertForSequenceClassification(Bert):
    def forward(self, input_ids, attention_mask, token_type_ids=None):
        hidden = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
        last = hidden[torch.arange(len(hidden)), attention_mask.sum(dim=1) - 1]
        return SequenceClassifierOutput(logits=self.classifier(last))
"""


def test_code_of_the_model_that_calls_itself_bert_takes_the_plain_path(tmp_path: Path) -> None:
    folder = save_tiny_scorer(tmp_path / "theirs", "bert")
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "bert"
    own = {"AutoModelForSequenceClassification": "model.BertForSequenceClassification"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": own}))
    (folder / "model.py").write_text(LAST_TOKEN_CODE)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    assert type(model).__name__ == BertForSequenceClassification.__name__ and unpadded_layout(model) is None
    tokenizer, texts = (
        AutoTokenizer.from_pretrained(folder),
        (["what", "the fox", "0"], ["yes", "no, maybe", "ABC xyz"]),
    )
    with torch.inference_mode():
        plain = [float(model(**tokenizer(*pair, return_tensors="pt")).logits) for pair in zip(*texts, strict=True)]
    scorer = Scorer.from_pretrained(str(folder), device="cpu", dtype="float32", trust_remote_code=True)
    assert np.abs(scorer.score(*texts) - plain).max() < TOLERANCE
