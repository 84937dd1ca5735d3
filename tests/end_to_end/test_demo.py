"""`cappy demo`, and its recorded candidates."""

import os
import re
from collections import Counter
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from beam_pipelines.jobs.adapt.job import EVALUATION, SCORED, SCORER, SELECTIONS
from beam_pipelines.jobs.demo import encoder
from beam_pipelines.jobs.demo.job import CORPUS
from beam_pipelines.runs.release import install_command
from cappy_model.generate.decodings import PAPER, PRESETS
from schemas.records import CANDIDATE, GENERATED
from tests.conftest import build, cappy, metrics_of, rows_of
from tools.demo import make_candidates

MOST_BYTES = 2_000_000
EXAMPLES = 40
STAGES = {CORPUS, SCORER, SCORED, SELECTIONS, EVALUATION}
BASELINES = {"self-score:sum", "self-score:mean", "random", *(f"first:{name}" for name in PAPER)}
METHODS = {"scorer:score", "oracle", *BASELINES}
MIDDLE = (0.2, 0.8)
"""Labels that are neither correct nor wrong."""


def candidates(split: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(make_candidates.FOLDER / f"{split}.parquet").to_pylist()
    return found


def test_recorded_candidates_are_small_and_have_the_schema() -> None:
    files = sorted(make_candidates.FOLDER.glob("*.parquet"))
    assert {file.stem for file in files} == set(make_candidates.MIXTURES)
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
    assert all(pq.read_schema(file).equals(CANDIDATE) for file in files)


@pytest.mark.parametrize("split", make_candidates.MIXTURES)
def test_every_instruction_has_the_papers_17_candidates(split: str) -> None:
    rows = candidates(split)
    each = Counter(row["instruction_id"] for row in rows)
    assert set(each.values()) == {17}
    assert Counter(row["decoding"] for row in rows) == {name: PRESETS[name].samples * len(each) for name in PAPER}
    assert {row["dataset"] for row in rows} == {make_candidates.TASK}
    assert all(row["log_likelihood_sum"] is not None for row in rows)


@pytest.mark.parametrize("split", make_candidates.MIXTURES)
def test_candidates_answer_instructions_of_their_split(split: str, tmp_path: Path) -> None:
    assert build(make_candidates.MIXTURES[split], tmp_path / "out", "--instructions-only") == 0
    instructions = ds.dataset(tmp_path / "out" / "instructions").to_table(columns=["instruction_id", "instruction"])
    known = dict(zip(*instructions.to_pydict().values(), strict=True))
    assert all(known[row["instruction_id"]] == row["instruction"] for row in candidates(split))


def check_complete(folder: Path) -> None:
    """Check every stage against its manifest, and that the table has every method with its interval."""
    assert {path.name for path in folder.iterdir()} == STAGES
    for stage in STAGES:
        assert cappy("verify", folder / stage) == 0
        assert (folder / stage / "report.html").is_file() or stage == SCORER
    measure = metrics_of(folder / EVALUATION)["measures"]["rouge_l"]
    assert measure["macro"]["methods"].keys() == METHODS
    for entry in measure["macro"]["methods"].values():
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1 and entry["count"] == EXAMPLES
    assert len(rows_of(folder / SELECTIONS)) == len(rows_of(folder / EVALUATION)) == EXAMPLES


@pytest.mark.slow
def test_all_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--pairs", 32, "--direct_num_workers=1"]
    assert cappy("demo", "--output", tmp_path / "out", *flags) == 0
    printed = capsys.readouterr().out
    check_complete(tmp_path / "out")
    assert all(re.search(rf"^{method} +0\.\d+ +0\.\d+ to 0\.\d+", printed, re.MULTILINE) for method in METHODS)
    assert printed.endswith(f"report: {tmp_path / 'out' / EVALUATION / 'report.html'}\n")
    generated = [row for row in rows_of(tmp_path / "out" / CORPUS / "pairs") if row["label_source"] == GENERATED]
    assert {row["generator"] for row in generated} == {"gemma-3-270m"}
    between = [row for row in generated if MIDDLE[0] < row["label"] < MIDDLE[1]]
    assert len(between) > len(generated) / 4
    capsys.readouterr()
    assert cappy("demo", "--output", tmp_path / "out", *flags) == 0  # all stages are finished
    assert capsys.readouterr().out == printed


@pytest.mark.skipif("DEMO" not in os.environ, reason="DEMO does not name the output folder of `make demo`")
def test_output_of_make_demo() -> None:
    check_complete(Path(os.environ["DEMO"]))


def test_without_the_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "PACKAGE", "not_there")
    assert cappy("demo", "--output", tmp_path / "out") == 1
    assert install_command("demo") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
