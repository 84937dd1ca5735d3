"""`cappy demo`, and the candidates that were recorded for it."""

from collections import Counter
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from beam_pipelines.demo import make_candidates
from cappy_model.decodings import PAPER, PRESETS
from schemas.records import CANDIDATE, GENERATED
from tests.conftest import build, cappy, manifest_of, rows_of

MOST_BYTES = 2_000_000
MIDDLE = (0.2, 0.8)
"""Labels that are neither right nor wrong."""


def candidates(split: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(make_candidates.FOLDER / f"{split}.parquet").to_pylist()
    return found


def test_recorded_candidates_are_small_and_of_their_schema() -> None:
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


def test_the_demo_labels_them(tmp_path: Path) -> None:
    assert cappy("demo", "--output", tmp_path / "out", "--direct_num_workers=1") == 0
    assert manifest_of(tmp_path / "out")["rejects"]["rows"] == 0
    generated = [row for row in rows_of(tmp_path / "out" / "pairs") if row["label_source"] == GENERATED]
    assert {row["generator"] for row in generated} == {"gemma-3-270m"}
    between = [row for row in generated if MIDDLE[0] < row["label"] < MIDDLE[1]]
    assert len(between) > len(generated) / 4
    assert cappy("verify", tmp_path / "out") == 0
