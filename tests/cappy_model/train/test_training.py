"""Training against a plain loop, interrupted at every step, overfitting, and when it cannot go on."""

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Speech2TextConfig,
)

from cappy_model.checkpoints import ModelError, ModelSource, find_checkpoint
from cappy_model.score.encoding import PairEncoder
from cappy_model.score.forward import keep_head_out_of_autocast
from cappy_model.train import training
from cappy_model.train.assessment import Assessment, choice_accuracy
from cappy_model.train.checkpoints import WHOLE, last_checkpoint
from cappy_model.train.corpus import Columns, LabelledPairs
from cappy_model.train.data import Place, Stream, evaluation_pairs
from cappy_model.train.environment import check_report_to, settle_arithmetic
from cappy_model.train.losses import TEMPERATURE, WEIGHT, listwise
from cappy_model.train.start import load_to_train
from cappy_model.train.training import Settings, Trained, TrainingError, train
from schemas.errors import UsageError
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer, tiny_tokenizer
from tests.cappy_model.train.corpora import some_rows, write_corpus, write_pairs
from tests.cappy_model.train.selections import selection_of

STEPS, ACCUMULATION = 6, 2
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 300)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without dropout."""
    return save_tiny_scorer(tmp_path_factory.mktemp("calm"), **NO_DROPOUT)


def settings_of(**changes: Any) -> Settings:
    usual = {
        "recipe": "few pairs",
        "batches": "grouped",
        "loss": "mse",
        "dropout": None,
        "steps": STEPS,
        "batch_size": 8,
        "accumulation": ACCUMULATION,
        "learning_rate": 1e-3,
        "warm_up": 0.34,
        "dtype": "float32",
        "device": "cpu",
        "seed": 0,
        "evaluate_every": 2,
        "save_every": 2,
        "patience": None,
        "report_to": (),
    }
    return Settings(**{**usual, **changes})


def parts_of(
    corpus: Sequence[str], settings: Settings, share: float = 0.2, columns: Columns | None = None
) -> tuple[Stream, Assessment | None]:
    encoder = PairEncoder(tiny_tokenizer("roberta"), policy="keep_response", max_length=64)
    grouped = settings.batches == "grouped"
    selection = selection_of(corpus, evaluation_share=share, rows_per_range=100, grouped=grouped, columns=columns)
    held = Assessment(evaluation_pairs(selection, {}), encoder, 512) if share else None
    return Stream(selection, encoder, 1, settings.batch_size, 100, settings.seed), held


def trained(
    model: Path,
    corpus: Sequence[str],
    folder: Path,
    *,
    share: float = 0.2,
    saved: Callable[[Path], None] = lambda path: None,
    columns: Columns | None = None,
    **changes: Any,
) -> tuple[Weights, Trained]:
    settings = settings_of(**changes)
    loaded, _ = load_to_train(find_checkpoint(ModelSource(str(model))), seed=0)
    found = train(loaded, *parts_of(corpus, settings, share, columns), settings, folder, saved=saved)
    return loaded.state_dict(), found


def same(first: Weights, second: Weights) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def plain_loss(scores: torch.Tensor, batch: dict[str, Any], settings: Settings) -> torch.Tensor:
    """The sum of the losses of a batch's pairs, group by group."""
    labels, groups = batch["labels"], batch["groups"]
    loss = ((scores - labels) ** 2).sum()
    for group in groups.unique() if settings.loss == "mse+listwise" else ():
        loss = loss + WEIGHT * plain_divergence(scores[groups == group], labels[groups == group])
    return loss


def plain_divergence(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The listwise loss of one group, by the cross-entropy of PyTorch."""
    wanted = torch.softmax(labels / TEMPERATURE, 0)
    entropy = -(wanted * torch.log_softmax(labels / TEMPERATURE, 0)).sum()
    return (torch.nn.functional.cross_entropy(scores / TEMPERATURE, wanted) - entropy) * len(scores)


def plain_steps(model: Any, stream: Stream, settings: Settings) -> tuple[list[float], list[Weights]]:
    """Losses and gradients of the steps, by PyTorch alone; the model is trained."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    batches = stream.batches(0, Place())
    warm = round(settings.warm_up * settings.steps)
    losses, gradients = [], []
    for step in range(settings.steps):
        together = list(itertools.islice(batches, settings.accumulation))
        count = sum(len(batch["labels"]) for batch in together)
        optimiser.zero_grad()
        loss = 0.0
        for batch in together:
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
            part = plain_loss(logits, batch, settings) / count
            part.backward()
            loss += float(part.detach())
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters()})
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = step / warm if step < warm else (settings.steps - step) / (settings.steps - warm)
        optimiser.param_groups[0]["lr"] = settings.learning_rate * rate
        optimiser.step()
        losses.append(loss)
    return losses, gradients


@pytest.mark.parametrize(
    "changes", [{"batches": "random"}, {"batches": "grouped"}, {"batches": "grouped", "loss": "mse+listwise"}]
)
def test_losses_gradients_and_weights_are_those_of_a_plain_loop(
    calm: Path, corpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    seen: list[Weights] = []
    clip = training._Trainer._clip_grad_norm

    def record(self: Any, model: Any) -> Any:
        seen.append({name: value.grad.clone() for name, value in model.named_parameters()})
        return clip(self, model)

    monkeypatch.setattr(training._Trainer, "_clip_grad_norm", record)
    weights, found = trained(calm, corpus, tmp_path, save_every=1, evaluate_every=STEPS, **changes)
    model = AutoModelForSequenceClassification.from_pretrained(calm).train()
    settings = settings_of(**changes)
    losses, gradients = plain_steps(model, parts_of(corpus, settings)[0], settings)
    assert np.allclose([entry["loss"] for entry in found.losses], losses, atol=1e-6)
    for ours, theirs in zip(seen, gradients, strict=True):
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 1e-5
    # The true gradient of a key's bias is zero, and Adam makes steps of its rounding.
    for name in model.state_dict().keys() - {name for name in weights if name.endswith("key.bias")}:
        assert torch.allclose(weights[name], model.state_dict()[name], atol=2e-5), name


@pytest.mark.parametrize("size", [1, 3, 40, 10_000])
def test_every_pair_of_a_step_counts_whatever_its_label(
    calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """transformers ignores labels of -100; here they may be another scorer's scores."""
    counted: list[int] = []
    count = training._Trainer._get_num_items_in_batch

    def record(self: Any, batches: list[Any], device: Any) -> torch.Tensor:
        pairs = count(self, batches, device)
        counted.append(int(pairs))
        assert int(pairs) == sum(len(batch["pair_ids"]) for batch in batches)
        return pairs

    monkeypatch.setattr(training._Trainer, "_get_num_items_in_batch", record)
    rows = [
        {**row, "label": (-100.0, 3.0, 7.5)[n % 3]} for n, row in enumerate(some_rows(max(90, size), responses=size))
    ]
    path = str(write_pairs(tmp_path / "raw.parquet", rows, group=5_000))
    _, found = trained(
        calm, [path], tmp_path, share=0.0, columns=Columns(raw=True), learning_rate=1e-5, accumulation=3, save_every=6
    )
    assert len(counted) == STEPS and found.pairs_seen == sum(counted)
    assert found.losses[0]["loss"] > 1_000  # a third of the labels is -100


def test_the_schedule_counts_steps_of_the_optimiser(calm: Path, corpus: list[str], tmp_path: Path) -> None:
    _, found = trained(calm, corpus, tmp_path, steps=10, warm_up=0.2, save_every=1, accumulation=3, learning_rate=1e-4)
    expected = [0.0, 0.5, *(1 - step / 8 for step in range(8))]
    assert [entry["step"] for entry in found.losses] == list(range(1, 11))
    assert np.allclose([entry["learning_rate"] for entry in found.losses], [1e-4 * rate for rate in expected])


class Interrupted(BaseException):
    """As a signal would be."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with dropout, so that the state of the random numbers counts."""
    return save_tiny_scorer(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, corpus: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Trained]:
    return trained(tiny, corpus, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("calls", [2, 5, 8, 11])
def test_interrupted_at_any_step_it_ends_with_the_same_bits(
    calls: int,
    tiny: Path,
    corpus: list[str],
    undisturbed: tuple[Weights, Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = training._Trainer.training_step
    left = [calls]

    def interrupted(self: Any, *arguments: Any) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted
        return step(self, *arguments)

    monkeypatch.setattr(training._Trainer, "training_step", interrupted)
    with pytest.raises(Interrupted):
        trained(tiny, corpus, tmp_path)
    torch.manual_seed(calls)  # what was drawn meanwhile must not matter
    weights, found = trained(tiny, corpus, tmp_path)
    assert same(weights, undisturbed[0])
    assert found == undisturbed[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6"]


def test_interrupted_at_each_checkpoint_and_after_the_last(
    tiny: Path, corpus: list[str], undisturbed: tuple[Weights, Trained], tmp_path: Path
) -> None:
    def stop(path: Path) -> None:
        raise Interrupted

    for _ in range(3):
        with pytest.raises(Interrupted):
            trained(tiny, corpus, tmp_path, saved=stop)
    weights, found = trained(tiny, corpus, tmp_path, saved=stop)
    assert same(weights, undisturbed[0]) and found == undisturbed[1]


def test_a_full_disk_at_a_checkpoint(
    tiny: Path,
    corpus: list[str],
    undisturbed: tuple[Weights, Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save = torch.save

    def full(content: Any, path: Any, *rest: Any) -> None:
        if "checkpoint-4" in str(path) and str(path).endswith("optimizer.pt"):
            raise OSError(28, "No space left on device")
        save(content, path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(TrainingError, match=r"checkpoint-4: the checkpoint cannot be written: .*No space left"):
            trained(tiny, corpus, tmp_path)
    assert (tmp_path / "checkpoint-4" / "model.safetensors").is_file()
    found = last_checkpoint(tmp_path)
    assert found is not None and found.name == "checkpoint-2"
    assert same(trained(tiny, corpus, tmp_path)[0], undisturbed[0])


def test_a_full_disk_at_the_mark_of_a_checkpoint(
    tiny: Path,
    corpus: list[str],
    undisturbed: tuple[Weights, Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = Path.write_text

    def full(path: Path, text: str, *rest: Any) -> int:
        if path.parent.name == "checkpoint-4" and path.name == WHOLE:
            write(path, text[:20])
            raise OSError(28, "No space left on device")
        return write(path, text, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(TrainingError, match=r"checkpoint-4: the checkpoint cannot be written: .*No space left"):
            trained(tiny, corpus, tmp_path)
    assert (tmp_path / "checkpoint-4" / WHOLE).stat().st_size == 20
    assert same(trained(tiny, corpus, tmp_path)[0], undisturbed[0])


@pytest.mark.parametrize("part", ["optimizer.pt", "whole"])
def test_a_checkpoint_of_which_a_part_is_not_whole_does_not_count(
    part: str, tiny: Path, corpus: list[str], undisturbed: tuple[Weights, Trained], tmp_path: Path
) -> None:
    trained(tiny, corpus, tmp_path)
    (tmp_path / "checkpoint-6" / part).write_bytes(b"")
    weights, found = trained(tiny, corpus, tmp_path)
    assert same(weights, undisturbed[0]) and found == undisturbed[1]


def test_it_learns_64_pairs_by_heart(calm: Path, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "few.parquet", some_rows(64))
    few = {"steps": 150, "batch_size": 16, "accumulation": 1, "learning_rate": 3e-3, "warm_up": 0.1, "save_every": 50}
    _, found = trained(calm, [str(path)], tmp_path / "work", share=0.0, **few)
    assert found.losses[0]["loss"] > 0.1 and found.losses[-1]["loss"] < 0.003
    assert not found.evaluations


def test_patience_stops_and_keeps_the_best(calm: Path, corpus: list[str], tmp_path: Path) -> None:
    wild = {"steps": 40, "learning_rate": 0.02, "warm_up": 0.0, "patience": 2, "evaluate_every": 1, "save_every": 1}
    weights, found = trained(calm, corpus, tmp_path, **wild)
    losses = [entry["loss"] for entry in found.evaluations]
    assert found.step == 1 + int(np.argmin(losses)) < found.steps_done == len(losses) < 40
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / f"checkpoint-{found.step}").state_dict()
    assert same(kept, weights)
    again, told = trained(calm, corpus, tmp_path, **wild)
    assert same(again, weights) and told == found


def test_patience_is_not_forgotten_over_an_interruption(calm: Path, corpus: list[str], tmp_path: Path) -> None:
    wild = {"steps": 40, "learning_rate": 0.02, "warm_up": 0.0, "patience": 2, "evaluate_every": 1, "save_every": 1}
    weights, found = trained(calm, corpus, tmp_path / "undisturbed", **wild)

    def stop(path: Path) -> None:
        raise Interrupted

    for _ in range(found.steps_done):
        with pytest.raises(Interrupted):
            trained(calm, corpus, tmp_path / "disturbed", saved=stop, **wild)
    again, told = trained(calm, corpus, tmp_path / "disturbed", saved=stop, **wild)
    assert same(again, weights) and told == found


def test_bfloat16_computes_the_head_and_the_loss_in_float32(calm: Path, corpus: list[str], tmp_path: Path) -> None:
    _, exact = trained(calm, corpus, tmp_path / "float32", save_every=1)
    weights, found = trained(calm, corpus, tmp_path / "bfloat16", save_every=1, dtype="bfloat16")
    assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())
    pairs = [(entry["loss"], other["loss"]) for entry, other in zip(found.losses, exact.losses, strict=True)]
    assert all(abs(loss - other) < 0.05 * max(1.0, other) for loss, other in pairs)
    assert any(loss != other for loss, other in pairs)
    model = AutoModelForSequenceClassification.from_pretrained(calm)
    keep_head_out_of_autocast(model)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.arange(4, 20).reshape(2, 8)).logits
        again = torch.nn.functional.linear(logits, torch.ones(1, 1))
    assert logits.dtype == torch.float32 and again.dtype == torch.bfloat16
    assert not torch.equal(logits, logits.bfloat16().float())


def test_a_loss_that_is_no_number_names_the_pairs(calm: Path, corpus: list[str], tmp_path: Path) -> None:
    settings = settings_of()
    model, _ = load_to_train(find_checkpoint(ModelSource(str(calm))), seed=0)
    with torch.no_grad():
        model.classifier.out_proj.bias.fill_(torch.nan)
    stream, held = parts_of(corpus, settings)
    first = next(stream.batches(0, Place()))["pair_ids"]
    with pytest.raises(TrainingError, match=f"step 1: the loss is nan; .*pair_ids: {', '.join(first)}"):
        train(model, stream, held, settings, tmp_path, saved=lambda path: None)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_weights_that_the_last_step_spoils_are_no_result(calm: Path, corpus: list[str], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 1: a score of the evaluation is nan: .* a lower --learning-rate"):
        trained(calm, corpus, tmp_path, steps=1, learning_rate=1e38, warm_up=0.0)


def test_gradients_that_are_no_numbers_name_the_pairs_of_the_step(
    calm: Path, corpus: list[str], tmp_path: Path
) -> None:
    settings = settings_of()
    model, _ = load_to_train(find_checkpoint(ModelSource(str(calm))), seed=0)
    model.classifier.dense.weight.register_hook(lambda gradient: gradient * torch.inf)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stream, held = parts_of(corpus, settings)
    batches = [batch["pair_ids"] for batch in itertools.islice(stream.batches(0, Place()), ACCUMULATION)]
    names = ", ".join(each for batch in batches for each in batch)
    with pytest.raises(TrainingError, match=f"step 1: the norm of the gradients is .*pair_ids: {names}"):
        train(model, stream, held, settings, tmp_path, saved=lambda path: None)
    assert same(model.state_dict(), before)


def test_an_encoder_gets_a_head_by_its_seed(tmp_path: Path) -> None:
    scorer = AutoModelForSequenceClassification.from_pretrained(save_tiny_scorer(tmp_path / "scorer", "bert"))
    scorer.bert.save_pretrained(tmp_path / "encoder")
    tiny_tokenizer("bert").save_pretrained(tmp_path / "encoder")
    source = find_checkpoint(ModelSource(str(tmp_path / "encoder")))
    first, again, other = (load_to_train(source, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert same(first, again)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed == {"classifier.weight"}
    assert same({f"bert.{name}": value for name, value in scorer.bert.state_dict().items()}, first)


def headless(folder: Path) -> Path:
    """A Llama as its base model alone is saved: no architecture of its configuration generates."""
    save_tiny_generator(folder, "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}))
    return folder


def test_a_decoder_is_no_start_unless_it_is_a_scorer(tmp_path: Path) -> None:
    for folder in (save_tiny_generator(tmp_path / "llama", "llama"), headless(tmp_path / "headless")):
        with pytest.raises(ModelError, match="is a llama, a decoder-only language model; give an encoder such as"):
            load_to_train(find_checkpoint(ModelSource(str(folder))), seed=0)
    ids = {"vocab_size": len(tiny_tokenizer("roberta")), "pad_token_id": 1}
    scorer = LlamaForSequenceClassification(
        LlamaConfig(**ids, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_labels=1)
    )
    scorer.save_pretrained(tmp_path / "scorer")
    tiny_tokenizer("roberta").save_pretrained(tmp_path / "scorer")
    model, _ = load_to_train(find_checkpoint(ModelSource(str(tmp_path / "scorer"))), seed=0)
    assert same(model.state_dict(), scorer.state_dict())


def test_a_model_without_a_scoring_head_is_no_start(tmp_path: Path) -> None:
    save_tiny_scorer(tmp_path)
    Speech2TextConfig(architectures=["Speech2TextForConditionalGeneration"]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a speech_to_text, for which transformers has no scoring head; give an"):
        load_to_train(find_checkpoint(ModelSource(str(tmp_path))), seed=0)


def test_models_that_are_no_start(tmp_path: Path) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(ModelError) as caught:
            load_to_train(find_checkpoint(ModelSource(str(folder))), seed=0)
        return str(caught.value)

    assert "has a head of 3 logits; a scorer has one" in refused(save_tiny_scorer(tmp_path / "three", num_labels=3))
    broken = save_tiny_scorer(tmp_path / "broken")
    shutil.copy(save_tiny_scorer(tmp_path / "bert", "bert") / "model.safetensors", broken / "model.safetensors")
    assert "lacks weights" in refused(broken)
    generator = save_tiny_generator(tmp_path / "generator", "bart")
    shutil.copy(broken / "model.safetensors", generator / "model.safetensors")
    assert "lacks weights" in refused(generator)


def test_an_integration_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="--report-to notepad: notepad is not supported, only"):
        check_report_to(("notepad",))


def test_metrics_of_an_assessment() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.random(50).astype(np.float32), rng.random(50).astype(np.float32)
    encoder = PairEncoder(tiny_tokenizer("roberta"), policy="keep_response", max_length=64)
    found = Assessment(LabelledPairs([""] * 50, [""] * 50, [""] * 50, labels), encoder, 100).metrics(scores)
    assert found["loss"] == pytest.approx(((labels - scores) ** 2).mean(), rel=1e-5)
    assert found["constant_loss"] == pytest.approx(labels.var(), rel=1e-5)
    assert found["pearson"] == pytest.approx(np.corrcoef(labels, scores)[0, 1], rel=1e-5)
    assert found["spread"] == pytest.approx(scores.std(), rel=1e-5)
    assert Assessment(LabelledPairs([""] * 50, [], [], labels), encoder, 100).metrics(np.ones(50))["pearson"] == 0.0
    same = Assessment(LabelledPairs(["a", "b"], [], [], np.zeros(2, np.float32)), encoder, 100).metrics(np.ones(2))
    assert "accuracy" not in same and same["loss"] == 1.0


@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=60),
)
def test_accuracy_of_choosing_against_a_plain_count(rows: list[tuple[int, int, int]]) -> None:
    scores, labels, groups = map(np.array, zip(*rows, strict=True))
    found = choice_accuracy(scores.astype(float), labels.astype(float), np.unique(groups, return_inverse=True)[1])
    by_group: dict[int, list[tuple[int, int]]] = {}
    for score, label, group in rows:
        by_group.setdefault(group, []).append((score, label))
    shares = []
    for pairs in by_group.values():
        best = [label for score, label in pairs if score == max(pairs)[0]]
        if len({label for _, label in pairs}) > 1:
            shares.append(best.count(max(label for _, label in pairs)) / len(best))
    assert (found is None) == (not shares)
    if found is not None:
        assert found.share == pytest.approx(np.mean(shares)) and found.groups == len(shares)


@given(
    rows=st.lists(
        st.tuples(st.floats(-3, 3, width=32), st.sampled_from([0.0, 0.25, 1.0, -100.0]), st.integers(0, 4)),
        min_size=1,
        max_size=40,
    )
)
def test_the_listwise_loss_is_that_of_each_group_by_itself(rows: list[tuple[float, float, int]]) -> None:
    scores, labels, groups = (torch.tensor(column) for column in zip(*sorted(rows, key=itemgetter(2)), strict=True))
    groups = torch.unique_consecutive(groups, return_inverse=True)[1]
    scores = scores.requires_grad_()
    expected = torch.zeros(())
    for group in groups.unique():
        expected = expected + plain_divergence(scores[groups == group], labels[groups == group])
    found = listwise(scores, labels, groups)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3)
    (ours,) = torch.autograd.grad(found, scores)
    (theirs,) = torch.autograd.grad(expected, scores)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(ours).all()
    assert float(listwise(labels + 7.0, labels, groups)) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(("batch_size", "plain"), [(2, True), (10**9, False)])
def test_plain_attention_only_where_its_weights_fit(calm: Path, batch_size: int, plain: bool) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(calm)
    assert model.config._attn_implementation == "sdpa"
    settle_arithmetic(model, "float32", "cpu", batch_size=batch_size, max_length=64)
    assert model.config._attn_implementation == "sdpa"
    settle_arithmetic(model, "bfloat16", "cpu", batch_size=batch_size, max_length=64)
    assert model.config._attn_implementation == ("eager" if plain else "sdpa")
