"""The recipe follows from the number of pairs, the width of the encoder, and the flags."""

from typing import Any

import pytest
from transformers import BertConfig, DistilBertConfig, GPT2Config, ModernBertConfig, RobertaConfig, T5Config

from beam_pipelines.jobs.train import TrainConfig
from cappy_model.train.recipe import FEW_PAIRS, GROUPED, MANY_PAIRS, OLDER, RANDOM, dropouts, recipe_for
from schemas.errors import UsageError


def test_few_and_many_pairs() -> None:
    assert recipe_for(GROUPED, 319_999) == FEW_PAIRS and recipe_for(GROUPED, 320_000, 1_024) == MANY_PAIRS
    assert recipe_for(RANDOM, 10) == OLDER == recipe_for(RANDOM, 10**9, 1_024)


def test_wider_encoders_learn_at_lower_rates() -> None:
    assert recipe_for(GROUPED, 10, 768).learning_rate == pytest.approx(FEW_PAIRS.learning_rate / 2)
    assert recipe_for(GROUPED, 10, 128).learning_rate == FEW_PAIRS.learning_rate
    assert recipe_for(GROUPED, 10, 768)._replace(learning_rate=FEW_PAIRS.learning_rate) == FEW_PAIRS


def config_of(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"corpus": "c", "model": "m", "output": "o", **changes})


def test_flags_go_before_the_recipe() -> None:
    given = {"batch_size": 7, "accumulation": 3, "learning_rate": 1e-3, "loss": "mse"}
    found = config_of(**given, dropout="model").recipe(GROUPED, 100)
    assert found == FEW_PAIRS._replace(**given, dropout=None)
    assert config_of(dropout="0.25").recipe(GROUPED, 100).dropout == 0.25
    assert config_of().recipe(GROUPED, 100) == FEW_PAIRS


@pytest.mark.parametrize("unknown", [{"batches": "group"}, {"loss": "list"}, {"labels": "row"}, {"dtype": "float16"}])
def test_unknown_values_are_refused_from_python_too(unknown: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(unknown))} .* is not known; there are "):
        config_of(**unknown).check()


def test_a_description_names_every_setting() -> None:
    assert FEW_PAIRS.describe() == (
        "recipe for few pairs: grouped batches of at most 32 pairs, 1 per step; loss mse+listwise, learning rate "
        "0.0001, dropout 0"
    )
    assert OLDER.describe().endswith("loss mse, learning rate 2e-05, the model's own dropout")


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (BertConfig(), {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"}),
        (RobertaConfig(), {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"}),
        (DistilBertConfig(), {"dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"}),
        (ModernBertConfig(), {"attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"}),
        (T5Config(), {"dropout_rate", "classifier_dropout"}),
        (GPT2Config(), {"resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, set) else "",
)
def test_every_dropout_of_a_family_is_known(config: Any, names: set[str]) -> None:
    assert set(dropouts(config)) == names
