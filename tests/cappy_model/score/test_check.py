"""The check before a run: the scorer against the plain forward pass of the model that it is made of."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cappy_model.checkpoints import ModelSource, find_checkpoint
from cappy_model.score.check import TOLERANCES, BrokenModel, CheckFailed, Plain, checked_scorer, compare, plain_scores
from cappy_model.score.forward import padded_inputs
from cappy_model.score.layouts import Padded
from cappy_model.score.loading import LoadedScorer, load_scorer, settle_scorer
from cappy_model.score.scorer import Scorer
from tests.cappy_model.score.families import ENCODERS, save_decoder, save_encoder
from tests.cappy_model.score.pairs import long_pairs, short_pairs

PAIRS = [*short_pairs()[::4], *long_pairs(60)[:3]]
FLOAT32_ALONE = {"deberta", "xlnet", "fnet"}  # the others fail in the code of transformers or torch


def loaded(folder: Path, dtype: str = "float32", **settings: Any) -> LoadedScorer:
    checkpoint = find_checkpoint(ModelSource(str(folder)))
    return load_scorer(settle_scorer(checkpoint, **settings), getattr(torch, dtype))


def scorer(model: LoadedScorer) -> Scorer:
    return Scorer(model, device="cpu", tokens_per_batch=500)


class Shifted:
    """A scorer with a fault: it adds `shift` to the score of the last pair, or refuses it."""

    def __init__(self, model: LoadedScorer, *, shift: float = 0.0, reason: str | None = None) -> None:
        self._scorer, self._shift, self._reason = scorer(model), shift, reason

    def score_pairs(self, instructions: list[str], responses: list[str]) -> Any:
        scored = self._scorer.score_pairs(instructions, responses)
        last = len(instructions) - 1
        scored.scores[last] += np.nan if self._reason else self._shift
        return scored._replace(errors={last: self._reason} if self._reason else {})


def save_reward(folder: Path) -> Path:
    return save_decoder(folder, "llama")


def save_judge(folder: Path) -> Path:
    return save_decoder(folder, "qwen2", kind="causal")


MODELS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    **{family: (lambda folder, family=family: save_encoder(folder, family), {}) for family in ENCODERS},
    "reward": (save_reward, {}),
    "judge": (save_judge, {"head": "yes,no", "template": "{{ instruction }} Is it {{ response }}? "}),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_family_passes_and_keeps_its_scores(tmp_path: Path, name: str) -> None:
    save, settings = MODELS[name]
    folder = save(tmp_path)
    for dtype in ("float32",) if name in FLOAT32_ALONE else ("float32", "bfloat16", "float16"):
        checked = checked_scorer(loaded(folder, dtype, **settings), scorer, PAIRS, "cpu")
        texts = [a for a, _ in PAIRS], [b for _, b in PAIRS]
        found, unchecked = (one.score(*texts) for one in (checked, scorer(loaded(folder, dtype, **settings))))
        assert found.tobytes() == unchecked.tobytes() and found.std() > 0.1


def test_a_difference_stops_the_run_with_both_numbers_and_the_remedy(tmp_path: Path) -> None:
    save_encoder(tmp_path, "bert")
    pairs = PAIRS[:3]
    plain = plain_scores(loaded(tmp_path), pairs, "cpu").scores
    with pytest.raises(CheckFailed) as error:
        checked_scorer(loaded(tmp_path), lambda model: Shifted(model, shift=0.01), pairs, "cpu")
    message = str(error.value)
    numbers = [float(number) for number in re.findall(r"gives (-?[\d.]+)", message)]
    assert numbers == pytest.approx([plain[2] + 0.01, plain[2]], abs=1e-5)
    for part in (str(tmp_path), "float32 on cpu", f"cappy doctor --model {tmp_path}", "--check-pairs 0"):
        assert part in message
    assert checked_scorer(loaded(tmp_path), lambda model: Shifted(model, shift=1e-5), pairs, "cpu")


def test_padding_on_the_wrong_side_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_encoder(tmp_path, "xlnet")
    monkeypatch.setattr("cappy_model.score.scorer.layout_for", lambda *_, **__: Padded())
    with pytest.raises(CheckFailed, match="XLNetForSequenceClassification"):
        checked_scorer(loaded(tmp_path), scorer, PAIRS, "cpu")


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_missing_mask_is_noticed_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    save_encoder(tmp_path, "bert")

    def without_mask(*arguments: Any) -> dict[str, np.ndarray]:
        inputs = padded_inputs(*arguments)
        return {**inputs, "attention_mask": np.ones_like(inputs["attention_mask"])}

    monkeypatch.setattr("cappy_model.score.forward.padded_inputs", without_mask)
    with pytest.raises(CheckFailed, match=f"in {dtype} on cpu"):
        checked_scorer(loaded(tmp_path, dtype), scorer, PAIRS, "cpu")


def test_a_pair_that_only_the_scorer_refuses_stops_the_run(tmp_path: Path) -> None:
    save_encoder(tmp_path, "bert")
    with pytest.raises(CheckFailed, match=r"refuses \(model error: ValueError: odd\)"):
        checked_scorer(loaded(tmp_path), lambda m: Shifted(m, reason="model error: ValueError: odd"), PAIRS, "cpu")
    too_long = "out of memory: 9 tokens do not fit on cpu"  # an error of its row, which the path has no part in
    assert checked_scorer(loaded(tmp_path), lambda model: Shifted(model, reason=too_long), PAIRS, "cpu")


def test_a_pair_without_tokens_is_no_fault_of_the_path(tmp_path: Path) -> None:
    save_decoder(tmp_path, "qwen2")
    pairs = [("", ""), ("yes", "no")]
    model = loaded(tmp_path, template="none")
    assert np.isnan(plain_scores(model, pairs, "cpu").scores).tolist() == [True, False]
    assert checked_scorer(model, scorer, pairs, "cpu").score_pairs(["", "yes"], ["", "no"]).errors.keys() == {0}


def test_a_model_that_fails_in_a_number_format_names_one_that_works(tmp_path: Path) -> None:
    save_encoder(tmp_path, "xlnet")
    with pytest.raises(
        CheckFailed, match=r"XLNetForSequenceClassification in bfloat16 fails for all of .*: .* --dtype float32"
    ):
        plain_scores(loaded(tmp_path, "bfloat16"), PAIRS, "cpu")


def test_broken_weights_are_told(tmp_path: Path) -> None:
    model = loaded(save_encoder(tmp_path, "bert"))
    torch.nn.init.constant_(model.model.classifier.weight, float("nan"))
    with pytest.raises(BrokenModel, match="the model gives nan for the instruction .* weights are broken"):
        checked_scorer(model, scorer, PAIRS, "cpu")


def test_without_pairs_nothing_is_checked(tmp_path: Path) -> None:
    assert checked_scorer(loaded(save_encoder(tmp_path, "bert")), lambda m: Shifted(m, shift=1.0), [], "cpu")


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_tolerance_grows_with_the_scores(dtype: str) -> None:
    absolute, relative = TOLERANCES[dtype]
    plain = np.array([0.5, -100.0, np.nan, 3.0], dtype=np.float32)
    limit = absolute + relative * 100
    within = compare(plain + np.float32(0.9 * limit), Plain(plain, 100.0), dtype)
    beyond = compare(plain + np.array([0, 1.1 * limit, 9, np.nan], dtype=np.float32), Plain(plain, 100.0), dtype)
    assert within.agrees and within.compared == 3 and within.tolerance == pytest.approx(limit)
    assert not beyond.agrees and (beyond.row, beyond.compared) == (1, 2)
    assert beyond.largest == pytest.approx(1.1 * limit, rel=1e-3)


def test_the_plain_forward_has_one_thread_and_leaves_the_others_to_the_caller(tmp_path: Path) -> None:
    model, before, seen = loaded(save_encoder(tmp_path, "bert")), torch.get_num_threads(), set[int]()
    model.model.register_forward_pre_hook(lambda *_: seen.add(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        plain_scores(model, PAIRS[:2], "cpu")
        assert seen == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
