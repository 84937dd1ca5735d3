"""report.html of generate: complete, safe, and with the right numbers, even if there is little to show."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines.io.formats.base import InputFile
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.generate.engines import SharedEngine
from beam_pipelines.jobs.generate.generation import Task, generate_unit
from beam_pipelines.jobs.generate.manifest import generate_manifest
from beam_pipelines.jobs.generate.sampling import Sampling
from beam_pipelines.runs.report import render_report
from cappy_model.generate.decodings import PAPER, Decoding, Drawing, decodings_named
from schemas.stats import FileEntry, Stats
from tests.beam_pipelines.jobs.generate.fake_engine import FAILS, FakeEngine
from tests.beam_pipelines.report.pages import check_page, read
from tests.conftest import sentence

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; </details></svg>"
PAPERS = Drawing(decodings_named(PAPER, {}))


def stats_of(instructions: list[str], drawing: Drawing = PAPERS, **changes: Any) -> Stats:
    """Return the counts of a unit of these instructions."""
    file = InputFile(0, 0, "/in/rows.parquet", "rows.parquet", 1, "", len(instructions), None)
    rows = pa.RecordBatch.from_pydict({"instruction": pa.array(instructions, pa.string())})
    settled = {"instruction": "instruction", "generator": "m", "sampling": Sampling(0), "seed": 0}
    task = Task(**{**settled, "drawing": drawing, **changes})
    unit = Unit(file, 0, 0, np.arange(len(instructions)), rows, [])
    output = generate_unit(unit, SharedEngine(FakeEngine(drawing)), task)
    for row in output.rejects:
        output.stats.counts["rejects", row["stage"], row["reason"]] += 1
        output.stats.sample("rejects", 1, row)
    count = sum(chunk.num_rows for chunk in output.rows)
    output.stats.files.add(FileEntry("candidates/part-00000-00000-00000.parquet", count, 1000, "ab"))
    return output.stats


def manifest_of(stats: Stats, drawing: Drawing = PAPERS) -> dict[str, Any]:
    entries = [{"name": decoding.name} for decoding in drawing.decodings]
    facts = {
        "settings": {"drawing": {"decodings": entries, "max_new_tokens": drawing.max_new_tokens}, "distinct": False},
        "model": {"type": "t5", "dtype": "float32"},
        "files": [{"name": "rows.parquet", "size": 10, "ends": "cd", "rows": 100}],
    }
    return {
        "job": "generate",
        "versions": {"cappy": "0.1.0"},
        "fingerprint": "5f0c",
        "started": "2026-11-23T08:00:00+00:00",
        "seconds": 245.3,
        "configuration": facts["settings"],
        **generate_manifest(stats, hashed=facts, model="models/mine"),
        "files": [entry._asdict() for entry in stats.files],
    }


ODD = Drawing((Decoding("bins"), Decoding("x" * 80), Decoding("greedy", temperature=0)), max_new_tokens=1000)
TEXTS = [sentence(i, 5 + i % 60) for i in range(120)]
MANIFESTS = {
    "some": lambda: manifest_of(stats_of([*TEXTS, TEXTS[0] + FAILS])),
    "sampled": lambda: manifest_of(stats_of(TEXTS, sampling=Sampling(0, 0.3), distinct=True)),
    "odd decodings": lambda: manifest_of(stats_of(TEXTS, ODD), ODD),
    "one row": lambda: manifest_of(stats_of(TEXTS[:1])),
    "nothing": lambda: manifest_of(Stats()),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_page_is_whole_and_needs_nothing_from_outside(name: str) -> None:
    check_page(MANIFESTS[name])


def test_numbers_are_there() -> None:
    manifest = MANIFESTS["some"]()
    text = read(render_report(manifest)).text
    assert "2,040 candidates for 120 instructions" in text and "17 sampled per instruction" in text
    assert "of the responses are distinct within their instruction." in text and "There is 1 reject row" in text
    empty = manifest["totals"]["empty"]
    assert empty and f"Warning: {empty:,} of 2,040 responses (" in text and "because the model ended" in text
    reasons = manifest["decodings"]["topk40"]["finish_reasons"]
    assert f"topk40: {reasons['stop']} stopped by itself" in text
    assert f"topk40: {reasons['length']} reached the token limit" in text
    assert "generate: prompt too long" in text and "models/mine" in text


def test_a_share_too_large_is_of_prompts_or_of_rows() -> None:
    rejects = manifest_of(stats_of([FAILS, *TEXTS[:3]]))["rejects"]
    assert (rejects["rate"], rejects["of"], rejects["rows"]) == (0.25, "prompts", 1)
    texts: Any = [None, None, FAILS, *TEXTS[:5]]
    rejects = manifest_of(stats_of(texts))["rejects"]
    assert (rejects["rate"], rejects["of"], rejects["rows"]) == (0.25, "rows", 3)
    assert manifest_of(Stats())["rejects"]["rate"] == 0


def endpoint_manifest() -> dict[str, Any]:
    """Return the manifest of an API of one choice per request, by which 20 instructions got 2 responses each."""
    stats = Stats()
    for name, count in (("candidates", 40), ("distinct", 20), ("empty", 1), ("tokens", 80)):
        stats.counts["decodings", "two", name] = count
    stats.counts["empty", "content_filter"] = 1
    stats.counts["rows", "read"] = stats.counts["rows", "generated"] = stats.counts["concessions", "n"] = 20
    stats.counts["candidates", "thinking"], stats.counts["beside", "image_url"] = 3, 2
    facts = {
        "settings": {
            "drawing": {"decodings": [{"name": "two", "samples": 2}], "max_new_tokens": 9},
            "engine": "openai",
        },
        "model": {},
        "files": [],
    }
    return generate_manifest(stats, hashed=facts, model="m")


def test_what_an_api_does_is_told() -> None:
    manifest = endpoint_manifest()
    assert manifest["empty"] == {"content_filter": 1} and manifest["concessions"] == {"n": 20}
    assert manifest["warnings"] == [
        "2 messages held image_url beside the text; only the text is kept",
        "3 responses of 40 hold reasoning (</think>); turn the model's thinking off, or let the server separate it "
        "(vLLM: --reasoning-parser)",
        "the 2 samples of decoding 'two' are equal for each of 20 instructions: the server seems to ignore temperature "
        "and seed, or to repeat cached answers",
    ]
    head = {key: value for key, value in MANIFESTS["nothing"]().items() if key not in manifest}
    text = read(render_report({**head, **manifest})).text
    assert "1 response (2.5%) was empty: 1 because of a content filter." in text
    assert "The server gives one choice per request" in text and "Warning: 2 messages held image_url" in text
    assert "failure" not in manifest


def test_only_empty_responses_are_a_failure() -> None:
    stats = Stats()
    stats.counts["decodings", "greedy", "candidates"] = stats.counts["decodings", "greedy", "empty"] = 12
    stats.counts["empty", "reasoning_cut"] = 12
    manifest = manifest_of(stats, Drawing((Decoding("greedy", temperature=0),)))
    assert manifest["failure"].startswith("All 12 responses are empty: 12 because all tokens went into reasoning")
    assert manifest["warnings"] == []


def test_a_manifest_of_an_earlier_version_has_its_page() -> None:
    manifest = MANIFESTS["some"]()
    empty = manifest["totals"]["empty"]
    for key in ("empty", "warnings", "concessions"):
        del manifest[key]
    assert f"{empty:,} responses (" in read(render_report(manifest)).text


def test_what_is_missing_is_said() -> None:
    text = read(render_report(MANIFESTS["nothing"]())).text
    assert "No response was sampled" in text and "There is no response to measure" in text
    assert "No candidate has a log-likelihood" in text and "There are no candidates to show" in text


def test_hostile_texts_stay_texts() -> None:
    checker = read(render_report(manifest_of(stats_of([HOSTILE, "a b c"]))))
    assert not {"script", "img"} & checker.tags and HOSTILE in checker.text
