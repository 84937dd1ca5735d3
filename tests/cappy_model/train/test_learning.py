"""Training on labels that hang on how the response goes with the instruction, as XOR hangs on both of its inputs."""

import random
from pathlib import Path

import pytest
import torch

from cappy_model.checkpoints import ModelSource, find_checkpoint
from cappy_model.score.encoding import PairEncoder
from cappy_model.train.assessment import Assessment
from cappy_model.train.data import Stream, evaluation_pairs
from cappy_model.train.recipe import GROUPED, LISTWISE, MSE, RANDOM
from cappy_model.train.start import load_to_train
from cappy_model.train.training import Settings, train
from tests.cappy_model.models import save_tiny_scorer, tiny_tokenizer
from tests.cappy_model.train.corpora import some_rows, write_pairs
from tests.cappy_model.train.selections import selection_of

STEPS, RATE = 130, 2e-3
PRAISE = ["lovely", "bright", "gentle", "cheerful", "splendid", "charming"]
BLAME = ["dreadful", "bleak", "clumsy", "gloomy", "awful", "tedious"]
PEOPLE = ["Anna", "Boris", "Carla", "Dmitri", "Elena", "Felix"]
THINGS = ["film", "song", "book", "meal", "garden", "story"]


def write_opinions(path: Path, count: int) -> str:
    """Opinions, with a response that agrees (label 1) and one that does not; neither text alone tells the label."""
    rng, some = random.Random(0), some_rows(1)[0]
    rows = []
    for number in range(count):
        praised = rng.random() < 0.5
        opinion = f"{rng.choice(PEOPLE)}'s {rng.choice(THINGS)} is {rng.choice(PRAISE if praised else BLAME)}"
        for response, label in (("a delight", praised), ("a bore", not praised)):
            pair = {"instruction": f"{number}: {opinion}", "response": response, "label": float(label)}
            rows.append({**some, **pair, "pair_id": f"{number} {response}"})
    return str(write_pairs(path, rows, group=len(rows)))


def learned(folder: Path, corpus: str, batches: str, loss: str, seed: int = 0) -> float:
    """The accuracy of choosing after some steps of training, with equal settings but for the batches and the loss."""
    encoder = PairEncoder(tiny_tokenizer("bert"), policy="keep_response", max_length=48)
    selection = selection_of([corpus], evaluation_share=0.1, grouped=batches == GROUPED, rows_per_range=100_000)
    settings = Settings(
        recipe="test", batches=batches, loss=loss, dropout=0.0, steps=STEPS, batch_size=32, accumulation=1,
        learning_rate=RATE, warm_up=0.1, dtype="float32", device="cpu", seed=seed, evaluate_every=STEPS,
        save_every=STEPS, patience=None, report_to=(),
    )  # fmt: skip
    model, _ = load_to_train(find_checkpoint(ModelSource(str(folder / "init"))), seed=seed, dropout=0.0)
    stream = Stream(selection, encoder, 0, settings.batch_size, 100_000, seed)
    assessment = Assessment(evaluation_pairs(selection, {}), encoder, 4_096)
    trained = train(model, stream, assessment, settings, folder / f"{batches}-{loss}", saved=lambda path: None)
    assert trained.evaluations[-1]["groups"] > 300
    return trained.evaluations[-1]["accuracy"]


@pytest.mark.slow
def test_whole_groups_teach_what_random_batches_do_not(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    save_tiny_scorer(tmp_path / "init", "bert", seed=1)
    corpus = write_opinions(tmp_path / "pairs.parquet", 5_000)
    assert learned(tmp_path, corpus, GROUPED, LISTWISE, seed=1) > 0.9
    assert learned(tmp_path, corpus, RANDOM, MSE, seed=1) < 0.6
