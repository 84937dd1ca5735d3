"""report.html of score: complete, safe, and with the right numbers, even if there is little to show."""

from typing import Any

import pytest

from beam_pipelines.jobs.score.manifest import score_manifest
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
        "model": {"type": "roberta", "max_length": 128},
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
