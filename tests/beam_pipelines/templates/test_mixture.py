from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from beam_pipelines.templates.mixture import MixtureFile, load_mixture
from schemas.errors import CappyError
from tests.conftest import SHARED, edit_mixture, needs_shared

T0 = Path(__file__).resolve().parents[3] / "mixtures" / "t0.yaml"


def test_paths_are_relative_to_the_file(corpus: Path) -> None:
    mixture = load_mixture(str(corpus), {})
    assert [dataset.label for dataset in mixture.datasets] == ["things:train", "quiz/easy:train", "notes:train"]
    assert mixture.datasets[0].paths == (str(corpus.parent / "data/things.parquet"),)
    assert mixture.datasets[2].variable("head-line") == "headline"
    assert mixture.datasets[2].variable("other-one") == "other_one"


@pytest.mark.parametrize(
    ("selection", "names"),
    [("all", ["colour", "is it", "only blue"]), (["only blue", "colour"], ["colour", "only blue"])],
)
def test_templates_are_selected_by_name(corpus: Path, selection: object, names: list[str]) -> None:
    edit_mixture(corpus, lambda m: m["datasets"][0].update(templates=selection))
    assert [template.name for template in load_mixture(str(corpus), {}).datasets[0].templates] == names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(negative={}), "mixture.yaml: unknown key 'negative'; did you mean 'negatives'?"),
        (lambda m: m["datasets"][1].update(path="x"), "dataset 2 (quiz): unknown key 'path'; did you mean 'paths'?"),
        (lambda m: m["negatives"].update(zzz=1), "negatives: unknown key 'zzz'; the keys here are wrong_choices, mism"),
        (lambda m: m["datasets"][0].pop("paths"), "dataset 1 (things): the key 'paths' is missing"),
        (lambda m: m["datasets"][0].pop("name"), "dataset 1: the key 'name' is missing"),
        (lambda m: m.update(datasets=["x"]), "dataset 1: 'x': Input should be a valid dictionary"),
        (lambda m: m.update(datasets=[]), "'datasets' is []: "),
        (lambda m: m.update(truncate="long"), "'truncate' is 'long': Input should be a valid integer"),
        (lambda m: m.update(truncate=0), "greater than or equal to 3"),
        (lambda m: m.update(rouge="rouge1"), "'parity' or 'unicode'"),
        (lambda m: m["negatives"].update(overlap_limit=1.5), "negatives: 'overlap_limit' is 1.5: "),
        (lambda m: m["negatives"].update(wrong_choices=-1), "negatives: 'wrong_choices' is -1: "),
        (lambda m: m["datasets"][0].update(max_examples=0), "dataset 1 (things): 'max_examples' is 0: "),
        (lambda m: m["datasets"].append(m["datasets"][0]), "duplicate entry things:train"),
        (lambda m: m["datasets"][0].update(templates=["nosuch"]), "has no template 'nosuch'; there are 'colour'"),
        (lambda m: m["datasets"][0].update(csv_delimiter="ab"), "'ab' is not a character that separates fields"),
        (lambda m: m["datasets"][0].update(encoding="klingon"), "'klingon' is not an encoding of text"),
        (lambda m: m["datasets"][0].update(text_columns="a"), "dataset 1 (things): 'text_columns' is 'a': "),
        (lambda m: m["datasets"][0].update(templates="some"), "dataset 1 (things): 'templates' is 'some': "),
        (lambda m: m["datasets"][0].update(name="thing"), "things"),
        (lambda m: m.update(templates="nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_named(corpus: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit_mixture(corpus, change)
    with pytest.raises(CappyError) as caught:
        load_mixture(str(corpus), {})
    assert message in str(caught.value)
    assert str(corpus) in str(caught.value) or "templates" in str(caught.value)


def test_files_that_are_no_mixture(tmp_path: Path) -> None:
    with pytest.raises(CappyError, match="no such file; --mixture requires a YAML file"):
        load_mixture(str(tmp_path / "m.yaml"), {})
    (tmp_path / "m.yaml").write_text("a: [")
    with pytest.raises(CappyError, match="is not YAML"):
        load_mixture(str(tmp_path / "m.yaml"), {})
    (tmp_path / "m.yaml").write_text("just text")
    with pytest.raises(CappyError, match=r"m\.yaml: "):
        load_mixture(str(tmp_path / "m.yaml"), {})


def test_the_mixture_of_t0_has_its_38_datasets() -> None:
    file = MixtureFile.model_validate(yaml.safe_load(T0.read_text()))
    assert len(file.datasets) == len({(entry.name, entry.subset) for entry in file.datasets}) == 38
    assert {entry.max_examples for entry in file.datasets} == {500_000}


@needs_shared
def test_the_mixture_of_t0_finds_its_templates(tmp_path: Path) -> None:
    path = tmp_path / "t0.yaml"
    path.write_text(T0.read_text())
    edit_mixture(path, lambda m: m.update(templates=str(SHARED / "promptsource" / "templates")))
    assert sum(len(dataset.templates) for dataset in load_mixture(str(path), {}).datasets) > 300
