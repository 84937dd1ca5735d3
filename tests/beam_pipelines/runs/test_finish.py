import json
from collections import Counter
from pathlib import Path

import apache_beam as beam
import pytest
import yaml
from apache_beam import coders

from beam_pipelines.io.output import OutputDir
from beam_pipelines.runs.card import Card, Part, draw_card
from beam_pipelines.runs.finish import FinishRun, MergeStats
from schemas.errors import CappyError
from schemas.stats import FileEntry, Stats

PARTS = [Part(name, f"{name}/*.parquet", "what they are") for name in ("scored", "pairs", "rejects")]


def test_the_card_has_a_config_for_each_pattern_that_matches(tmp_path: Path) -> None:
    card = Card("A title", lambda manifest: f"{manifest['totals']['rows']} rows", PARTS)
    finish = FinishRun(OutputDir(str(tmp_path)), summarise, card, 0.0)
    paths = ("scored/part-00000-00000-00000.parquet", "rejects/part-00000-00000-00000.parquet")
    with beam.Pipeline(runner="FnApiRunner") as root:
        root | beam.Create([Stats(files={FileEntry(path, 1, 1, "")}) for path in paths]) | finish
    _, front, text = (tmp_path / "README.md").read_text().split("---\n")
    assert [config["config_name"] for config in yaml.safe_load(front)["configs"]] == ["scored", "rejects"]
    assert "3 rows" in text and "`scored/*.parquet`" in text and "pairs" not in text
    assert "cappy 0.1.0" in text and "`0f0f`" in text


def summarise(stats: Stats) -> dict[str, object]:
    return {
        "versions": {"cappy": "0.1.0"},
        "fingerprint": "0f0f",
        "totals": {"rows": 3},
        "rejects": {"rate": 0.0, "of": "rows", "by_reason": {}},
        "files": [entry._asdict() for entry in sorted(stats.files)],
    }


def test_too_many_rejects_name_their_reasons_and_their_files(tmp_path: Path) -> None:
    known = {**summarise(Stats()), "rejects": {"rate": 0.25, "of": "pairs", "rows": 0, "by_reason": {}}}
    finish = FinishRun(OutputDir(str(tmp_path)), lambda stats: known, Card("", lambda manifest: "", []), 0.1)
    with pytest.raises(CappyError, match=r"25.00% of the pairs .* 10.00%\. .*failure.json counts the reasons"):
        finish._finish(Stats())
    known["rejects"] = {"rate": 0.25, "of": "pairs", "rows": 2, "by_reason": {"read": {"broken_json": 2}}}
    with pytest.raises(CappyError, match=rf"reason: 2 broken_json\. See {tmp_path}/rejects"):
        finish._finish(Stats())
    assert not (tmp_path / "manifest.json").exists()


def rejected(reason: str, position: str, detail: str, source: str = "d.jsonl") -> dict[str, object]:
    return {"stage": "read", "reason": reason, "source": source, "position": position, "detail": detail}


def failure(tmp_path: Path, **parts: object) -> str:
    known = {**summarise(Stats()), **parts}
    finish = FinishRun(OutputDir(str(tmp_path)), lambda stats: known, Card("", lambda manifest: "", []), 0.1)
    with pytest.raises(CappyError) as refused:
        finish._finish(Stats())
    assert json.loads((tmp_path / "failure.json").read_text())["reason"] == str(refused.value)
    return str(refused.value)


def test_too_many_rejects_show_the_first_of_the_most_frequent_reason(tmp_path: Path) -> None:
    by_reason = {"read": {"wrong_type": 20, "broken_json": 3}, "label": {"unknown_instruction": 1}}
    sampled = [
        rejected("broken_json", "@1", "Expecting value"),
        rejected("wrong_type", "@400", "column 'n': '1 000' is no int64; --text-columns n reads it as text."),
        rejected("wrong_type", "@1000", "column 'm'"),
        rejected("wrong_type", "@2", "column 'o'", source="e.jsonl"),
    ]
    rejects = {"rate": 0.25, "of": "rows", "rows": 24, "by_reason": by_reason}
    said = {
        failure(tmp_path, rejects=rejects, samples={"rejects": order}) for order in (sampled, list(reversed(sampled)))
    }
    assert said == {
        "25.00% of the rows were rejected, more than --max-reject-rate 10.00%. Reject rows by reason: 20 wrong_type, "
        "3 broken_json, 1 unknown_instruction. For example d.jsonl@400: column 'n': '1 000' is no int64; "
        f"--text-columns n reads it as text. See {tmp_path}/rejects; fix the input, or raise the rate."
    }


def test_a_long_detail_is_cut(tmp_path: Path) -> None:
    rejects = {"rate": 1.0, "of": "rows", "rows": 1, "by_reason": {"read": {"a": 1}}}
    said = failure(tmp_path, rejects=rejects, samples={"rejects": [rejected("a", "#0", "x\n" * 5_000)]})
    assert len(said) < 600 and "\n" not in said


def test_pairs_without_a_score_are_counted_and_one_is_shown(tmp_path: Path) -> None:
    rejects = {"rate": 0.5, "of": "rows and pairs", "rows": 0, "by_reason": {}}
    sampled = [{"error": None, "position": "d#0"}, {"error": "null response", "position": "d#7"}]
    said = failure(tmp_path, rejects=rejects, errors={"null_response": 2, "not_encoded": 1}, samples={"any": sampled})
    assert (
        "Pairs without a score by reason: 2 null_response, 1 not_encoded. For example d#7: null response; fix" in said
    )


def test_a_run_that_its_manifest_calls_a_failure_is_not_finished(tmp_path: Path) -> None:
    none = {"rate": 0.0, "of": "rows", "rows": 0, "by_reason": {}}
    assert failure(tmp_path, rejects=none, failure="No pair was made; give other templates") == (
        "No pair was made; give other templates"
    )
    assert not (tmp_path / "manifest.json").exists()


def test_columns_of_a_part_are_a_table() -> None:
    part = Part("pairs", "*.parquet", "pairs", {"label": ("float32", "1 | 0")})
    manifest = {**summarise(Stats()), "files": [{"path": "a.parquet"}]}
    drawn = draw_card(Card("A title", lambda manifest: "", [part]), manifest)
    assert (
        "## Columns of `pairs`\n\n| column | type |  |\n| --- | --- | --- |\n| `label` | float32 | 1 \\| 0 |" in drawn
    )


def test_the_statistics_of_thousands_of_units_are_merged_in_small_messages() -> None:
    coder, merge = coders.registry.get_coder(Stats), MergeStats()
    units = [
        Stats(
            Counter({("rows", "read"): 3}), files={FileEntry(f"rows/part-{n:05d}.parquet", 3, 900, f"{n * 7**40:032x}")}
        )
        for n in range(4_000)
    ]
    messages = []
    for first in range(0, len(units), 50):
        total = merge.create_accumulator()
        for stats in units[first : first + 50]:
            total = merge.add_input(total, coder.decode(coder.encode(stats)))
        messages.append(coder.encode(total))
    whole = merge.merge_accumulators(map(coder.decode, messages[::-1]))
    assert whole == Stats(Counter({("rows", "read"): 12_000}), files={entry for unit in units for entry in unit.files})
    assert len(coder.encode(whole)) < 40 * len(units)
