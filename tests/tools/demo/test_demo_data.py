"""The demo's shipped data, templates and mixture: reproducible, balanced, disjoint, and fitting each other."""

import collections
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tools.demo import grammar, make_data

DEMO = make_data.DEMO
NAMES = [dataset.name for dataset in make_data.DATASETS]
MAX_BYTES = 1_500_000
CHOICES = {"handy_things": "choices", "short_passages": "options"}
CLASSES = {"town_news": ("label", 4), "shop_remarks": ("liked", 2)}


class TemplateLoader(yaml.SafeLoader):
    """PromptSource's two tags as plain mappings."""


def construct_fields(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


for tag in ("!Template", "!TemplateMetadata"):
    TemplateLoader.add_constructor(tag, construct_fields)


def jinja_environment() -> jinja2.Environment:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters["choice"] = lambda items: items[0]
    return environment


def text_of(path: Path) -> str:
    """Return the uncompressed text of a shipped text file."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode()
    if path.suffix == ".zst":
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            return bytes(stream.read()).decode()
    return path.read_text(encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if ".csv" in path.suffixes:
        return [row | {"liked": int(row["liked"])} for row in csv.DictReader(text_of(path).splitlines())]
    return [json.loads(line) for line in text_of(path).splitlines()]


def shipped(name: str, split: str) -> list[dict[str, Any]]:
    (path,) = (DEMO / "data" / name).glob(f"{split}.*")
    return read_rows(path)


def mixture() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEMO / "mixture.yaml").read_text(encoding="utf-8"))
    return loaded


def template_rows(name: str) -> list[dict[str, Any]]:
    """Return the training rows of a dataset with the column names of its templates."""
    (entry,) = (entry for entry in mixture()["datasets"] if entry["name"] == name)
    rename = entry.get("rename", {})
    return [{rename.get(column, column): value for column, value in row.items()} for row in shipped(name, "train")]


def templates(name: str) -> dict[str, dict[str, Any]]:
    text = (DEMO / "templates" / name / "templates.yaml").read_text(encoding="utf-8")
    loaded = yaml.load(text, Loader=TemplateLoader)
    assert loaded["dataset"] == name
    found: dict[str, dict[str, Any]] = loaded["templates"]
    return found


def test_generator_reproduces_the_shipped_files(tmp_path: Path) -> None:
    written = make_data.write_all(tmp_path)
    assert sorted(path.relative_to(tmp_path) for path in written) == sorted(
        path.relative_to(DEMO / "data") for path in (DEMO / "data").rglob("*.*")
    )
    for path in written:
        original = DEMO / "data" / path.relative_to(tmp_path)
        if path.suffix == ".parquet":
            assert pq.read_table(path).equals(pq.read_table(original)), path.name
        else:
            assert text_of(path) == text_of(original), path.name


def test_generator_writes_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = (make_data.write_all(tmp_path / run) for run in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_everything_stays_small() -> None:
    sizes = [path.stat().st_size for path in DEMO.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(sizes) < MAX_BYTES


@pytest.mark.parametrize("dataset", make_data.DATASETS, ids=lambda dataset: dataset.name)
def test_splits_have_their_rows_and_share_none(dataset: make_data.Dataset) -> None:
    train, validation = shipped(dataset.name, "train"), shipped(dataset.name, "validation")
    assert (len(train), len(validation)) == (dataset.train, dataset.validation)
    assert len({json.dumps(row, sort_keys=True) for row in train + validation}) == dataset.train + dataset.validation


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_distinct(name: str) -> None:
    # What a model is shown, without the answer: equal inputs across splits would leak.
    hidden = {"label", "liked", "kind", "answer", "choices", "options", "notice", "headline", "lead", "question"}
    rows = shipped(name, "train") + shipped(name, "validation")
    seen = collections.Counter(tuple(value for column, value in row.items() if column not in hidden) for row in rows)
    assert max(seen.values()) == 1


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", list(CLASSES))
def test_labels_are_balanced(name: str, split: str) -> None:
    column, classes = CLASSES[name]
    rows = shipped(name, split)
    counts = collections.Counter(row[column] for row in rows)
    assert counts == {label: len(rows) // classes for label in range(classes)}


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", list(CHOICES))
def test_choices_hold_the_answer_once_at_any_place(name: str, split: str) -> None:
    rows = shipped(name, split)
    for row in rows:
        choices = row[CHOICES[name]]
        assert len(choices) == len(set(choices)) == 4
        assert choices.count(row["answer"]) == 1
    places = collections.Counter(row[CHOICES[name]].index(row["answer"]) for row in rows)
    assert min(places[place] for place in range(4)) > 0.12 * len(rows)


def test_passages_hold_every_option_and_questions_hold_none() -> None:
    for row in shipped("short_passages", "train") + shipped("short_passages", "validation"):
        for option in row["options"]:
            assert option.lower() in row["passage"].lower()
            assert option not in row["question"]


def test_notices_state_every_fact() -> None:
    for row in shipped("event_notices", "train") + shipped("event_notices", "validation"):
        facts = [
            row[fact] for fact in ("event", "place", "day", "time", "price", "bring") if row[fact] not in (None, "free")
        ]
        assert all(fact.lower() in row["notice"].lower() for fact in facts), row
        assert all(row[fact].lower() in row["headline"].lower() for fact in ("event", "place", "day")), row


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_clean(name: str) -> None:
    for row in shipped(name, "train") + shipped(name, "validation"):
        for text in (value for value in row.values() if isinstance(value, str)):
            assert text == text.strip()
            assert text
            assert not any(
                flaw in text for flaw in ("{", "}", "  ", "..", "|", " a a", " a e", " a i", " a o", " an b")
            )


@pytest.mark.parametrize("name", NAMES)
def test_templates_are_well_formed(name: str) -> None:
    found = templates(name)
    columns = set(template_rows(name)[0])
    environment = jinja_environment()
    assert 3 <= len(found) <= 5
    assert len({template["name"] for template in found.values()}) == len(found)
    for key, template in found.items():
        assert key == template["id"]
        assert set(template) == {"answer_choices", "id", "jinja", "metadata", "name", "reference"}
        assert set(template["metadata"]) == {"choices_in_prompt", "languages", "metrics", "original_task"}
        for source, known in (
            (template["jinja"], columns | {"answer_choices"}),
            (template["answer_choices"] or "", columns),
        ):
            assert jinja2.meta.find_undeclared_variables(environment.parse(source)) <= known, template["name"]
    assert {template["metadata"]["original_task"] for template in found.values()} == {True, False}


@pytest.mark.parametrize("name", NAMES)
def test_templates_render_every_row_they_apply_to(name: str) -> None:
    environment = jinja_environment()
    rows = template_rows(name)
    for template in templates(name).values():
        body, choice_source = environment.from_string(template["jinja"]), template["answer_choices"]
        choice_body = environment.from_string(choice_source) if choice_source else None
        rendered = 0
        for row in rows:
            choices = [part.strip() for part in choice_body.render(row).split("|||")] if choice_body else None
            parts = [part.strip() for part in body.render(row, answer_choices=choices).split("|||")]
            if parts == [""]:
                continue
            rendered += 1
            prompt, target = parts
            assert prompt
            assert target
            assert choices is None or (len(set(choices)) == len(choices) and target in choices)
        conditional = template["jinja"].startswith("{% if")
        assert (0 < rendered < len(rows)) if conditional else rendered == len(rows), template["name"]


def test_template_ids_are_unique_across_datasets() -> None:
    ids = [key for name in NAMES for key in templates(name)]
    assert len(set(ids)) == len(ids) == 20


def test_mixture_lists_the_training_files_alone() -> None:
    loaded = mixture()
    assert set(loaded) == {"templates", "truncate", "datasets", "negatives"}
    assert [entry["name"] for entry in loaded["datasets"]] == NAMES
    for entry in loaded["datasets"]:
        assert entry["split"] == "train"
        assert (DEMO / entry["paths"]).is_file()
        assert Path(entry["paths"]).name.startswith("train.")


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("owl", "an owl"),
        ("torch", "a torch"),
        ("hour", "an hour"),
        ("unicorn", "a unicorn"),
        ("one-way street", "a one-way street"),
    ],
)
def test_article_follows_the_sound(noun: str, expected: str) -> None:
    assert grammar.with_article(noun) == expected


def test_writer_repeats_nothing_within_a_row() -> None:
    writer = grammar.Writer(grammar.Draw("seed"), {"town": ["A", "B"], "club": ["{town} Rovers"]})
    assert sorted(writer.fill("{club}, {club}").split(", ")) == ["A Rovers", "B Rovers"]
    with pytest.raises(ValueError, match="'town'"):
        writer.pick("town")
