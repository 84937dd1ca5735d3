"""The forecast of a training run's duration: what it measures, what it adds up, and that the model stays."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from beam_pipelines.jobs.train import forecast as forecasting
from beam_pipelines.jobs.train.forecast import Speed, Work, forecast, measure, sample_batches
from cappy_model.checkpoints import ModelSource, find_checkpoint
from cappy_model.score.encoding import PairEncoder
from cappy_model.train.corpus import Columns
from cappy_model.train.start import load_to_train
from tests.cappy_model.models import save_tiny_scorer, tiny_tokenizer
from tests.cappy_model.train.corpora import write_corpus


def batch_of(pairs: int, tokens: int) -> dict[str, torch.Tensor]:
    inputs = torch.full((pairs, tokens), 5)
    return {"input_ids": inputs, "attention_mask": torch.ones_like(inputs), "labels": torch.ones(pairs)}


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 90)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save_tiny_scorer(tmp_path_factory.mktemp("model"))
    return load_to_train(find_checkpoint(ModelSource(str(folder))), seed=0)[0]


def sample(urls: list[str], batch_size: int = 8) -> list[Any]:
    encoder = PairEncoder(tiny_tokenizer("roberta"), policy="keep_response", max_length=64)
    return list(sample_batches(urls, Columns(), encoder, 1, batch_size, storage={}))


def test_it_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "measure", lambda *_, **__: Speed(0.001, 0.00025, 0.5, 2))
    batches = iter([batch_of(4, 20), batch_of(8, 15)])  # 100 tokens and 6 pairs each on average: 0.1 s
    said = forecast(None, batches, Work(100, 2), device="cpu", dtype="float32")
    # 100 steps of 2 x 0.1 + 0.5 s; a step has 12 pairs.
    assert said == "about 1 min 10 s for 100 steps, at 17 pairs per second in each process, measured on 2 batches"
    # 4 evaluations of 100 batches at a quarter of 0.1 s, beside the 70 s.
    said = forecast(None, iter([batch_of(5, 20)]), Work(100, 2, 4, 500), device="cpu", dtype="float32")
    assert said.startswith("about 1 min 20 s for 100 steps and 4 evaluations, at 14 pairs per second")


def test_nothing_to_measure() -> None:
    said = forecast(None, iter([]), Work(100, 2), device="cpu", dtype="float32")
    assert said == "no duration is known, since no pair could be measured"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_measures_and_leaves_the_weights(dtype: str, model: Any, urls: list[str]) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    batches = sample(urls)
    speed = measure(model, batches, device="cpu", dtype=dtype)
    assert speed.batches == len(batches) == 12
    assert min(speed.evaluation, speed.training, speed.update) > 0
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_a_slow_model_is_timed_on_few_rows(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)

    def step(model: Any, optimiser: Any, batch: Any, *_: Any) -> tuple[float, float, float]:
        timed.append(len(batch["labels"]))
        clock.now += 2.0 * timed[-1]
        return 0.5 * timed[-1], 1.0 * timed[-1], 0.5 * timed[-1]

    monkeypatch.setattr(forecasting, "time", clock)
    monkeypatch.setattr(forecasting, "_timed", step)
    speed = measure(model, [batch_of(32, 10)] * 8, device="cpu", dtype="float32")
    assert timed == [1, 1, 1, 1, 7]
    assert speed == Speed(training=3.5 / 70, evaluation=3.5 / 70, update=7.0, batches=1)


def test_the_sample_is_the_first_pairs(urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(len(batch["labels"]) for batch in sample(urls)) == 90
    monkeypatch.setattr(forecasting, "_SAMPLED_BATCHES", 3)
    batches = sample(urls)
    assert [len(batch["labels"]) for batch in batches] == [8, 8, 8]
    assert sum(float(batch["labels"].sum()) for batch in batches) == 12  # of two responses the first is right


def test_preferences_are_two_pairs(tmp_path: Path) -> None:
    table = pa.table({"instruction": ["a", "b"], "good": ["yes", "so"], "bad": ["no", "so"]})
    pq.write_table(table, tmp_path / "preferences.parquet")
    encoder = PairEncoder(tiny_tokenizer("roberta"), policy="keep_response", max_length=64)
    columns = Columns(chosen="good", rejected="bad")
    (batch,) = sample_batches([str(tmp_path / "preferences.parquet")], columns, encoder, 1, 4, storage={})
    assert sorted(batch["labels"].tolist()) == [0.0, 1.0]
