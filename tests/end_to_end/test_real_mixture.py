"""build-corpus over the real mixture: five of T0's datasets with PromptSource's templates."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import SHARED, build, cappy, manifest_of, needs_shared, rows_of
from tests.end_to_end.inputs import check_accounts

INSTRUCTIONS = {
    "ag_news:test": 7600 * 7,
    "dream:train": 6116 * 5,
    "cos_e/v1.0:train": 7610 * 11,
    "cosmos_qa:validation": 2985 * 13,
    "rotten_tomatoes:train": 8474 * 10,
}


@needs_shared
@pytest.mark.slow
def test_the_real_mixture_gives_291_035_instructions(tmp_path: Path) -> None:
    output = tmp_path / "corpus"
    command = ["build-corpus", "--mixture", SHARED / "mixtures" / "real.yaml", "--output", output]
    assert cappy(*command) == 0
    manifest = check_accounts(output)
    assert manifest["totals"]["instructions"] == sum(INSTRUCTIONS.values()) == 291_035
    found = {
        label: sum(template["rendered"] for template in dataset["templates"].values())
        for label, dataset in manifest["datasets"].items()
    }
    assert found == INSTRUCTIONS
    assert manifest["rejects"]["rows"] == 0
    assert cappy("verify", output) == 0
    assert compare_with_golden(output) == 813, "golden rows of ag_news and cosmos_qa, the files that both have"


def compare_with_golden(output: Path) -> int:
    """Check ground-truth pairs against PromptSource's own renderings of the same rows; return the number compared."""
    instructions = {
        (row["template_id"], row["dataset"], row["example_id"]): row for row in rows_of(output / "instructions")
    }
    truths = {(p["instruction"], p["response"]) for p in rows_of(output / "pairs") if p["label"] == 1.0}
    compared = 0
    for row in pq.read_table(SHARED / "promptsource" / "golden.parquet").to_pylist():
        example = f"{Path(row['source_file']).name}#{row['row']}"
        found = instructions.get((row["template_id"], row["dataset"], example))
        if found is None:
            continue  # a row of another file, or of a dataset outside of the mixture
        instruction, response = row["parts"]
        assert (found["instruction"], found["references"]) == (instruction, [response])
        assert found["choices"] == row["answer_choices"]
        assert (instruction, response) in truths
        compared += 1
    return compared


@needs_shared
@pytest.mark.slow
def test_limited_real_mixture_is_the_same_in_one_process(tmp_path: Path) -> None:
    mixture = SHARED / "mixtures" / "real.yaml"
    assert build(mixture, tmp_path / "one", "--limit", 300) == 0
    command = ["build-corpus", "--mixture", mixture, "--limit", 300, "--output", tmp_path / "two"]
    assert cappy(*command, "--direct_num_workers=2") == 0
    digests = [{f["path"]: f["digest"] for f in manifest_of(tmp_path / name)["files"]} for name in ("one", "two")]
    assert digests[0] == digests[1]
