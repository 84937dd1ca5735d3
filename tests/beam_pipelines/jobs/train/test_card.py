"""The model card: its front matter for the hub, and what it says."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from beam_pipelines.jobs.train.card import describe_origin, draw_model_card, read_front_matter
from cappy_model.checkpoints import Checkpoint, ModelSource, find_checkpoint
from tests.beam_pipelines.jobs.train.invented import manifest_of, trained
from tests.cappy_model.checkpoints.hub_stub import files_in, serving, use_hub
from tests.cappy_model.models import save_tiny_scorer

CARD = "---\nlicense: apache-2.0\nlanguage: en\ntags:\n- encoder\n---\n# An encoder\n"


def checkpoint_at(folder: Path, name: str | None = None) -> Checkpoint:
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text("{}")
    return Checkpoint(ModelSource(name or str(folder)), folder, "ab")


def test_the_hub_reads_its_front_matter() -> None:
    model = {"name": "them/encoder@main", "hub_id": "them/encoder", "license": {"license": "mit"}}
    data = ModelCard(draw_model_card(manifest_of(model=model))).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert (data.base_model, data.license) == ("them/encoder", "mit")
    found = {(result.metric_type, result.metric_name): result.metric_value for result in data.eval_results}
    assert found == {("mse", "loss"): 0.1432, ("pearsonr", "pearson"): 0.6571, ("accuracy", "accuracy"): 0.823}


def test_without_license_hub_id_and_evaluation() -> None:
    card = draw_model_card(manifest_of(trained(evaluates=False)))
    data = ModelCard(card).data
    assert data.license is None and data.base_model is None and data.eval_results is None
    assert "The files of `MiniLM` name no licence; that of the base model applies." in card
    assert "## Evaluation" not in card and "lowest evaluation loss" not in card and "/somewhere" not in card


def test_what_it_says() -> None:
    card = draw_model_card(manifest_of())
    assert "3,840 pairs seen of 1,500 selected (2.56 epochs), of 600 instructions, 7 of them with one response" in card
    assert "Of 2,000 read, 20 were dropped for 10 held-out instructions, 30 left out by weights, 50 not drawn" in card
    assert (
        "Trained from `MiniLM` for 120 steps with the recipe for few pairs; the weights are those of step 120" in card
    )
    assert "| `accuracy` | 0.8230 | share of instructions for which the response with the highest score has the" in card
    assert "| rotten_tomatoes | 500 | 500 |\n| cos_e | 100 | 400 |" in card and "| dropout | 0.0 |" in card
    assert 'hf upload USER/NAME DIR . --exclude run.json "checkpoints/*"' in card
    assert "## Warnings" not in card


def test_warnings_raw_labels_and_the_dropout_of_the_model() -> None:
    manifest = manifest_of(trained(spread=0.001))
    manifest["settled"]["dropout"], manifest["configuration"]["columns"] = None, {"raw": True}
    card = draw_model_card(manifest)
    assert "## Warnings\n\n- The scores are nearly equal" in card and "| dropout | the model's own |" in card
    assert "on the scale of the labels that it was trained on" in card and "near 1" not in card


def test_the_license_of_the_base_model(tmp_path: Path) -> None:
    folder = checkpoint_at(tmp_path)
    assert describe_origin(folder) == {"hub_id": None, "license": {}}
    (tmp_path / "config.json").write_text(json.dumps({"license": "mit"}))
    assert describe_origin(folder)["license"] == {"license": "mit"}
    (tmp_path / "README.md").write_text(CARD)
    assert describe_origin(folder)["license"] == {"license": "apache-2.0"}
    own = CARD.replace("license: apache-2.0", "license: other\nlicense_name: ours\nlicense_link: LICENSE")
    (tmp_path / "README.md").write_text(own)
    assert describe_origin(folder)["license"] == {"license": "other", "license_name": "ours", "license_link": "LICENSE"}


def test_the_hub_id_of_the_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert describe_origin(checkpoint_at(tmp_path, "them/encoder@refs/pr/1"))["hub_id"] == "them/encoder"
    assert describe_origin(checkpoint_at(tmp_path, "memory://models/encoder"))["hub_id"] is None


def test_a_model_of_the_hub_comes_with_its_license(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**files_in(save_tiny_scorer(tmp_path / "model")), "README.md": CARD.encode()}
    with serving({"their/encoder": {"main": files}}) as endpoint:
        use_hub(endpoint, tmp_path / "hub", monkeypatch)
        found = describe_origin(find_checkpoint(ModelSource("their/encoder@main")))
    assert found == {"hub_id": "their/encoder", "license": {"license": "apache-2.0"}}


@pytest.mark.parametrize(
    "text", ["", "# Title\n---\nlicense: mit\n---\n", "---\n{\n---\n", "---\n- a\n---\n", "---\na: 1"]
)
def test_files_without_front_matter(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_front_matter(tmp_path / "README.md") == {}
    assert read_front_matter(tmp_path / "missing.md") == {}
