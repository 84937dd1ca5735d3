"""report.html of rerank: complete, safe, and with the right numbers, even if there is little to show."""

from typing import Any

import pytest

from beam_pipelines.jobs.rerank.manifest import selection_manifest
from beam_pipelines.runs.report import render_report
from schemas.stats import SCORE_BINS, FileEntry, Stats
from tests.beam_pipelines.report.pages import check_page, read

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; </details></svg>"


def stats_of(sizes: dict[int, int], *, unmeasured: int = 0, text: str = "Name a river.") -> Stats:
    """Return the counts of a run over a number of groups of each bucket of sizes."""
    stats = Stats()
    groups = sum(sizes.values())
    for bucket, count in sizes.items():
        sums = {"best": 3 * count, "first": count, "mean": count // 2}
        stats.counts.update({("gain", f"{bucket:02d}", name): total << 20 for name, total in sums.items()})
        stats.counts["gain", f"{bucket:02d}", "groups"] += count + unmeasured
        stats.counts["gain", f"{bucket:02d}", "measured"] += count
    compared = sum(count << bucket for bucket, count in sizes.items())
    for outcome, number in {"read": compared + 5, "compared": compared, "rejected": 5, "unscored": 4}.items():
        stats.counts["candidates", outcome] += number
    stats.counts.update({("rows",): compared + 5, ("groups",): groups, ("selected",): groups})
    stats.counts.update({("rejects", "read", "unscored"): 4, ("rejects", "select", "mixed_instructions"): 1})
    for name, number in (("all", compared), ("best", groups)):
        stats.counts["scores", name, f"{SCORE_BINS // 2 + 7}"] += number
    row = {"instruction_id": "7", "instruction": text, "response": text, "score": 3.25, "first": -1.5, "mean": 0.5}
    stats.sample("selections", 1, {**row, "num_candidates": 4})
    stats.files.add(FileEntry("selections/shard-00000-of-00001.parquet", groups, 1000, "ab"))
    return stats


def manifest_of(stats: Stats, *, top_k: int = 1) -> dict[str, Any]:
    inputs = [{"name": "scored.parquet", "size": 10, "ends": "cd", "rows": 100}]
    return {
        "job": "rerank",
        "versions": {"cappy": "0.1.0"},
        "fingerprint": "5f0c",
        "started": "2026-11-23T08:00:00+00:00",
        "seconds": 245.3,
        "configuration": {"top_k": top_k, "columns": {"group": "id", "score": "cappy"}},
        **selection_manifest(stats, hashed={"inputs": inputs}),
        "files": [entry._asdict() for entry in stats.files],
    }


MANIFESTS = {
    "some": lambda: manifest_of(stats_of({0: 10, 3: 40, 13: 1})),
    "unmeasured": lambda: manifest_of(stats_of({1: 0}, unmeasured=3)),
    "one group": lambda: manifest_of(stats_of({2: 1}), top_k=4),
    "nothing": lambda: manifest_of(Stats()),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_page_is_whole_and_needs_nothing_from_outside(name: str) -> None:
    check_page(MANIFESTS[name])


def test_numbers_are_there() -> None:
    manifest = MANIFESTS["some"]()
    text = read(render_report(manifest)).text
    compared = 10 + 40 * 8 + 8192
    assert f"51 responses selected from {compared + 5:,} candidates in 51 groups" in text
    assert "The best candidate of a group scores 3.000 on average, a random one 0.490 and the first one 1.000" in text
    assert "+2.510" in text and "top 1 of each group" in text
    assert "1 candidate" in text and "5 to 8 candidates" in text and "4,097 to 8,192 candidates" in text
    assert "0.35 to 0.40: 51 scores" in text
    assert "best of 4 candidates (first −1.500, mean 0.500)" in text
    assert "select: mixed instructions" in text


def test_what_is_missing_is_said() -> None:
    text = read(render_report(MANIFESTS["nothing"]())).text
    assert "No group could be measured" in text and "No candidate has a score" in text
    assert "Every candidate was compared" in text and "There are no selections to show" in text
    text = read(render_report(MANIFESTS["unmeasured"]())).text
    assert "No group could be measured" in text
    text = read(render_report(manifest_of(stats_of({1: 2}, unmeasured=3)))).text
    assert "3 groups with a score beyond ±1 million are left out" in text


def test_hostile_texts_stay_texts() -> None:
    checker = read(render_report(manifest_of(stats_of({1: 2}, text=HOSTILE))))
    assert not {"script", "img"} & checker.tags and HOSTILE in checker.text
