"""report.html of evaluate: complete, safe, and with the right numbers, even if there is little to show."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines.io.formats.base import InputFile
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.evaluate.columns import evaluated_columns
from beam_pipelines.jobs.evaluate.conclusion import RESULTS, conclude
from beam_pipelines.jobs.evaluate.examples import evaluate_examples
from beam_pipelines.jobs.evaluate.manifest import evaluation_manifest, table
from beam_pipelines.jobs.evaluate.measure import measure_unit
from beam_pipelines.runs.report import render_report
from cappy_model.metrics.measures import MEASURES
from cappy_model.metrics.rouge import RougeL
from tests.beam_pipelines.report.pages import check_page, read

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; </details></svg>"
Rows = list[dict[str, Any]]


def manifest_of(
    rows: Rows, task: str, *, scores: tuple[str, ...] = ("score",), label: str | None = None
) -> dict[str, Any]:
    """Return the manifest of a run over `rows` in one unit and one shard."""
    chunk = pa.RecordBatch.from_pylist(rows)
    columns = evaluated_columns(
        chunk.schema, task=task, group="instruction", instruction="instruction", response="response", scores=scores,
        reference="references", label=label,
    )  # fmt: skip
    file = InputFile(0, 0, "a.parquet", "a.parquet", 10, "cd", len(rows), None)
    unit = Unit(file, 0, 0, np.arange(len(rows)), chunk.select(columns.schema.names), [])
    measured = measure_unit(unit, columns, RougeL())
    examples = evaluate_examples("shard-00000-of-00001", measured.rows[0], columns=columns)
    stats = measured.stats.add(examples.stats)
    for row in examples.rejects:
        stats.counts["rejects", row["stage"], row["reason"]] += 1
    stats.sample(RESULTS, 0, conclude(pa.Table.from_batches(examples.rows), columns, 0)[1])
    return {
        "job": "evaluate",
        "versions": {"cappy": "0.1.0"},
        "fingerprint": "5f0c",
        "started": "2026-11-23T08:00:00+00:00",
        "seconds": 245.3,
        "configuration": {"task": task, "columns": {"methods": dict(columns.methods), "label": label}},
        **evaluation_manifest(stats, hashed={"inputs": [file.fingerprint_inputs()]}),
        "files": [{"path": "metrics.parquet", "rows": 1, "bytes": 1000, "digest": "ab"}],
    }


def generated(count: int = 40, *, dataset: str = "dream", decoding: str = "beam4", each: int = 5) -> Rows:
    generator = np.random.default_rng(3)
    return [
        {
            "instruction": f"{dataset} {number}", "response": " ".join(generator.choice(list("abcdef"), 3)),
            "references": ["a b c"], "score": generator.random(), "adapted": generator.random() * 20,
            "decoding": decoding, "log_likelihood_sum": generator.random(), "dataset": dataset,
        }
        for number in range(count) for _ in range(each)
    ]  # fmt: skip


def ranked(count: int = 40) -> Rows:
    return [{**row, "label": float(place % 2)} for place, row in enumerate(generated(count))]


MANIFESTS = {
    "generation": lambda: manifest_of(
        [*generated(), *generated(dataset="cos_e")], "generation", scores=("score", "adapted")
    ),
    "one example": lambda: manifest_of(generated(1), "generation"),
    "one candidate": lambda: manifest_of(generated(1, each=1), "generation"),
    "ranking": lambda: manifest_of(ranked(), "ranking", label="label"),
    "nothing to rank": lambda: manifest_of(ranked(1)[:1], "ranking", label="label"),
    "classification": lambda: manifest_of(
        [{**row, "template_name": "t"} for row in ranked()], "classification", label="label"
    ),
    "hostile": lambda: manifest_of(generated(decoding=HOSTILE, dataset=HOSTILE), "generation"),
    "infinite": lambda: manifest_of([{**row, "score": float("inf")} for row in generated(3)], "generation"),
    "nothing": lambda: manifest_of(
        [{**generated(1)[0], "instruction": "i", "references": [text]} for text in "ab"], "generation"
    ),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_page_is_whole_and_needs_nothing_from_outside(name: str) -> None:
    checker = check_page(MANIFESTS[name])
    assert not {"script", "img"} & set(checker.tags)
    assert not {"nan", "inf", "−inf", "None"} & set(checker.text.split())


def test_numbers_are_there() -> None:
    manifest = MANIFESTS["generation"]()
    text, printed = read(render_report(manifest)).text, table(manifest)
    macro = manifest["results"]["measures"]["rouge_l"]["macro"]
    for method, entry in macro["methods"].items():
        assert method in text and method in printed
        assert f"{entry['value']:.4f}" in text and f"{entry['value']:.4f}" in printed
        assert f"{entry['low']:.4f} to {entry['high']:.4f}" in text
    assert "Best of n" in text and "By dataset" in text and "adapted minus score" in text
    assert "best of 4" in text and "Macro average of 2 datasets" in text
    assert "rouge_l by dataset" in printed and "cos_e" in printed


def test_every_measure_has_a_heading() -> None:
    for name in ("generation", "ranking", "classification"):
        measures = MANIFESTS[name]()["results"]["measures"]
        assert measures.keys() <= MEASURES.keys()
    assert len(MANIFESTS["ranking"]()["results"]["measures"]) == 6


def test_what_is_missing_is_said() -> None:
    manifest = MANIFESTS["nothing"]()
    text = read(render_report(manifest)).text
    assert "No example of 2 candidates could be evaluated" in text and "No candidate has a score" in text
    assert "evaluate: mixed references" in text and table(manifest) == "No example could be evaluated."


def test_hostile_names_stay_texts() -> None:
    assert HOSTILE in read(render_report(MANIFESTS["hostile"]())).text
