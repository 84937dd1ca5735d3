"""What the tests share: the program in this process, and a small corpus of three datasets in three formats."""

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import settings

from beam_pipelines.program import main

# No deadline: the time of one example says nothing on a busy machine.
settings.register_profile("cappy", deadline=None)
settings.load_profile("cappy")

SHARED = Path(__file__).resolve().parents[2] / "shared"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the folder of real data, {SHARED}, is not there")


def template(
    identifier: str, name: str, jinja: str, choices: str | None = None, original_task: bool = True
) -> dict[str, Any]:
    return {
        "id": identifier,
        "name": name,
        "jinja": jinja,
        "answer_choices": choices,
        "reference": "",
        "metadata": {
            "original_task": original_task,
            "choices_in_prompt": True,
            "languages": ["en"],
            "metrics": ["Accuracy"],
        },
    }


class _Tagged(dict[str, Any]):
    pass


class _Dumper(yaml.SafeDumper):
    pass


def _represent(dumper: yaml.SafeDumper, data: _Tagged) -> yaml.MappingNode:
    tag = "!TemplateMetadata" if "original_task" in data else "!Template"
    return dumper.represent_mapping(tag, dict(data))


_Dumper.add_representer(_Tagged, _represent)


def write_templates(root: Path, dataset: str, templates: Sequence[dict[str, Any]], subset: str | None = None) -> None:
    folder = root / dataset / subset if subset else root / dataset
    folder.mkdir(parents=True, exist_ok=True)
    tagged = {t["id"]: _Tagged({**t, "metadata": _Tagged(t["metadata"])}) for t in templates}
    content = {"dataset": dataset, **({"subset": subset} if subset else {}), "templates": tagged}
    (folder / "templates.yaml").write_text(yaml.dump(content, Dumper=_Dumper))


COLOURS = ["red", "green", "blue"]
TOPICS = [
    template(
        "t-0", "colour", "What colour is the {{ thing }}?\n|||\n{{ answer_choices[label] }}", " ||| ".join(COLOURS)
    ),
    template(
        "t-1",
        "is it",
        "Is the {{ thing }} {{ answer_choices[0] }}?|||{{ 'yes' if label == 0 else 'no' }}",
        "red ||| green ||| blue",
    ),
    template("t-2", "only blue", "{% if label == 2 %}Name it: {{ thing }}|||blue{% endif %}", "red ||| green ||| blue"),
]
QUIZ = [template("q-0", "pick", "{{ question }}|||{{ answer }}", "{{ options | join('|||') }}")]
NOTES = [
    template("n-0", "headline", "Write a headline: {{ note }}|||{{ headline }}"),
    template("n-1", "shuffled", "{{ ['Sum up', 'Shorten', 'Condense'] | choice }}: {{ note }}|||{{ headline }}"),
]
WORDS = ["apple", "river", "engine", "violin", "market", "glacier", "teacher", "novel", "carpet", "signal", "meadow"]


def sentence(seed: int, words: int) -> str:
    """Words that differ from sentence to sentence."""
    return " ".join(f"{WORDS[(seed * 7 + i * (seed % 5 + 1)) % len(WORDS)]}{(seed + i) % 13}" for i in range(words))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return the mixture file of three datasets (Parquet, JSON Lines, compressed CSV) of 120 rows each."""
    data, templates = tmp_path / "data", tmp_path / "templates"
    data.mkdir()
    labels = [i % 3 for i in range(120)]
    things = pa.table({"thing": [f"{sentence(i, 3)} {i}" for i in range(120)], "label": labels, "unused": labels})
    pq.write_table(things, data / "things.parquet", row_group_size=50)
    with (data / "quiz.jsonl").open("w") as file:
        for i in range(120):
            options = [f"{WORDS[(i + j) % len(WORDS)]}" for j in range(4)]
            file.write(
                json.dumps({"question": f"Which one, {i}?", "options": options, "answer": options[i % 4]}) + "\n"
            )
    with gzip.open(data / "notes.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "head-line"])
        writer.writerows([f"{sentence(i, 12)}, number {i}", sentence(i, 4)] for i in range(120))
    write_templates(templates, "things", TOPICS)
    write_templates(templates, "quiz", QUIZ, subset="easy")
    write_templates(templates, "notes", NOTES)
    mixture = {
        "templates": "templates",
        "datasets": [
            {"name": "things", "split": "train", "paths": "data/things.parquet"},
            {"name": "quiz", "subset": "easy", "split": "train", "paths": "data/*.jsonl"},
            {"name": "notes", "split": "train", "paths": ["data/notes.csv.gz"], "rename": {"head-line": "headline"}},
        ],
        "negatives": {"wrong_choices": 2, "mismatched": 1, "overlap_limit": 0.5},
    }
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump(mixture))
    return path


def edit_mixture(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change a mixture file in place."""
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return path


def cappy(*arguments: object) -> int:
    """Run the program in this process with one worker; return its exit status."""
    try:
        return main([*map(str, arguments)])
    except SystemExit as error:  # argparse
        return int(error.code or 0)


def build(mixture: Path, output: Path, *arguments: object) -> int:
    """`cappy build-corpus` in this process with one worker; its exit status."""
    return cappy("build-corpus", "--mixture", mixture, "--output", output, "--direct_num_workers=1", *arguments)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows of the Parquet files of a folder, or of the table of the run in it, in the order of their names."""
    folder = next((folder / name for name in ("rows", "candidates", "selections") if (folder / name).is_dir()), folder)
    files = sorted(map(str, folder.glob("*.parquet")))
    return ds.dataset(files, format="parquet").to_table().to_pylist() if files else []


def manifest_of(output: Path) -> dict[str, Any]:
    """Return the manifest of a finished run."""
    content: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    return content


def metrics_of(output: Path) -> dict[str, Any]:
    """Return the metrics.json of a finished run."""
    content: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return content


def data_bytes(output: Path) -> dict[str, bytes]:
    """Return the bytes of every data file of a run, by path."""
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*.parquet"))}
