"""report.html of score: complete, safe, and with the right numbers, even if there is little to show."""

from collections import Counter
from typing import Any

import pytest

from beam_pipelines.jobs.score.manifest import COUNTED, joint_manifest, score_manifest
from beam_pipelines.runs.report import render_report
from schemas.stats import REAL_TOKENS, FileEntry, Stats
from tests.beam_pipelines.report.pages import check_page, read

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; </details></svg>"


def stats_of(scored: int, unscored: int = 0, *, text: str = "Name a river.") -> Stats:
    """Return the counts of a run over rows of one pair each."""
    stats = Stats()
    stats.counts.update({("rows", "read"): scored + unscored, ("pairs", "scored"): scored})
    stats.counts.update({("pairs", "distinct"): scored, ("pairs", "truncated"): scored // 2})
    stats.counts.update({REAL_TOKENS: 30 * scored, ("tokens", "padding"): scored, ("launch", "tokens"): 30 * scored})
    stats.counts.update({("tokens", "out_of_memory"): 1, ("scores", "2007"): scored - 1, ("scores", "3999"): 1})
    stats.counts.update({("lengths", "2"): scored, ("errors", "no_instruction"): unscored})
    row = {"instruction": text, "response": text, "position": "a.parquet 3", "num_tokens": 1}
    stats.sample("highest", 1, {**row, "score": -0.25, "error": None})
    stats.sample("any", 1, {**row, "score": None, "error": "no_instruction"})
    stats.files.add(FileEntry("rows/part-00000.parquet", scored + unscored, 1000, "ab"))
    return stats


def manifest_of(stats: Stats) -> dict[str, Any]:
    hashed = {
        "model": {"type": "roberta", "dtype": "float32", "max_length": 128},
        "files": [{"name": "a", "size": 1, "ends": "c", "rows": 9}],
    }
    return {
        "job": "score",
        "versions": {"cappy": "0.1.0"},
        "fingerprint": "5f0c",
        "started": "2026-11-23T08:00:00+00:00",
        "seconds": 60.0,
        "configuration": {"score_column": "score"},
        **score_manifest(
            stats,
            hashed=hashed,
            model={"name": "models/mine", "head": "logit", "template": "none", "activation": "identity"},
        ),
        "files": [entry._asdict() for entry in stats.files],
    }


@pytest.mark.parametrize("stats", [stats_of(40, 3), stats_of(1), Stats()])
def test_page_is_whole_and_needs_nothing_from_outside(stats: Stats) -> None:
    check_page(lambda: manifest_of(stats))


def test_numbers_are_there() -> None:
    text = read(render_report(manifest_of(stats_of(40, 3)))).text
    assert "40 pairs scored in 43 rows" in text and "3 pairs could not be scored." in text
    assert "Warning: 50.0% of the pairs are longer than 128 tokens and were cut; give a greater --max-length" in text
    assert "Memory ran out 1 time:" in text
    assert "tokens per second 20" in text and "no instruction: 3 reject" in text
    assert "The first and the last bin hold 1 score, those beyond ±100 among them." in text
    assert "models/mine" in text and "−0.250" in text


def test_one_of_each_is_singular() -> None:
    text = read(render_report(manifest_of(stats_of(1)))).text
    assert "1 pair scored in 1 row" in text and "row 1 1 input file" in text and "distinct pair 1 equal" in text


def test_what_is_missing_is_said() -> None:
    text = read(render_report(manifest_of(Stats()))).text
    assert "No pair has a score" in text and "There are no rows to show" in text


def test_hostile_texts_stay_texts() -> None:
    checker = read(render_report(manifest_of(stats_of(2, text=HOSTILE))))
    assert not {"script", "img"} & checker.tags and HOSTILE in checker.text


def test_pairs_that_were_taken_over_are_counted() -> None:
    manifest = manifest_of(stats_of(40))
    assert "reused" not in read(render_report(manifest)).text
    manifest["totals"]["reused"] = 10
    assert "reused pairs 10 with the score of an earlier run" in read(render_report(manifest)).text


def manifest_of_several(**stats: Stats) -> dict[str, Any]:
    """Return the manifest of a table with the scores of several scorers, by column."""
    runs = {name: manifest_of(of_one) for name, of_one in stats.items()}
    first, joint = next(iter(runs.values())), Stats()
    joint.counts["rows", "read"] = first["totals"]["rows"]
    for name, run in runs.items():
        joint.counts["pairs", name, "scored"] = run["totals"]["scored"]
        joint.counts["pairs", name, "unscored"] = run["totals"]["unscored"]
    found = {name: {"score": -0.25, "error": None} for name in stats}
    found["last"] = {"score": None, "error": "null_response"}
    texts = {"instruction": HOSTILE, "response": "The Rhine.", "position": "a.parquet#3"}
    joint.sample("any", 1, {**texts, "scores": found})
    counted = {name: {part: run[part] for part in COUNTED} for name, run in runs.items()}
    header = {name: first[name] for name in ("job", "versions", "fingerprint", "started", "seconds", "files")}
    settings = {"configuration": {"scorers": list(stats), "limit": None}}
    return {**header, **settings, **joint_manifest(joint, hashed={"files": first["inputs"]}, runs=counted)}


def test_page_of_several_scorers() -> None:
    none = stats_of(0, 43)
    none.counts = Counter({key: count for key, count in none.counts.items() if key[0] != "scores"})
    make = {"mine": stats_of(40, 3), "the/other.one": stats_of(43), "none": none}
    manifest = manifest_of_several(**make)
    assert manifest["rejects"]["rate"] == 1.0 and manifest["rejects"]["of"] == "rows and pairs of 'none'"
    check_page(lambda: manifest_of_several(**make))
    checker = read(render_report(manifest))
    assert "43 rows scored by 3 scorers" in checker.text and "scores 83 of 3 scorers" in checker.text
    assert "3 pairs could not be scored by mine. Memory ran out 1 time: batches were halved" in checker.text
    assert "No pair has a score" in checker.text and "null_response" in checker.text and HOSTILE in checker.text
    assert "scorers/the%2Fother%2Eone/report.html" in checker.text
    assert not {"script", "img"} & checker.tags


def test_page_of_several_scorers_without_rows() -> None:
    check_page(lambda: manifest_of_several(a=Stats(), b=Stats()))
