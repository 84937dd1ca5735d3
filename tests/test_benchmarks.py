"""Benchmarks of scoring, runners and start-up over small inputs, and the arithmetic behind their figures."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.flink_profile import name_of
from benchmarks.scoring_families import candidates
from benchmarks.scoring_inputs import LARGE, model_flops, union_length
from cappy_model.devices import settle_dtype
from tests.conftest import SHARED, needs_shared

ROOT = Path(__file__).resolve().parents[1]


def run_benchmark(folder: Path, *flags: str) -> tuple[str, dict[str, Any]]:
    """Run `python -m benchmarks.scoring --tiny`; return its output and its JSON."""
    command = [sys.executable, "-m", "benchmarks.scoring", "--tiny", "--repeat", "1", "--json", str(folder / "found")]
    command += ["--shared", str(SHARED), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((folder / "found").read_text())


def row(printed: str, first: str) -> list[str]:
    """Return the cells of the first table row that starts with `first`."""
    line = next(line for line in printed.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@needs_shared
@pytest.mark.slow
def test_the_cpu_part_compares_the_scorer_and_the_job(tmp_path: Path) -> None:
    settled = settle_dtype("auto", "cpu")  # by the processor
    printed, found = run_benchmark(tmp_path, "--pairs", "12", "--contenders", settled)
    assert {settled, "job", "profile"} <= found.keys()
    assert row(printed, f"Scorer, {settled}")[2] == "x1.00"
    assert row(printed, "cappy score, whole")[1] > "0"
    shares = [float(row(printed, part)[1].rstrip("%")) for part in ("attention", "matrix multiplications")]
    assert 0 < sum(shares) <= 100


@needs_shared
@pytest.mark.slow
def test_the_gpu_part_proves_itself_on_the_cpu(tmp_path: Path) -> None:
    parts = ("check", "scorer", "busy", "modernbert", "decoder")
    printed, found = run_benchmark(tmp_path, "--pairs", "12", "--gpu", "--parts", *parts)
    assert printed.count("| passed |") == 15
    assert "FAILED" not in printed
    assert "No GPU" in printed
    assert row(printed, "Scorer |")[1] == "12"
    assert row(printed, "Scorer, padded")[3] == row(printed, "Scorer, instructions read for each")[3] == "x1.00"
    assert found["modernbert"]["pairs"] == 12 and found["decoder"]["pairs"] == 2 * 17


@needs_shared
@pytest.mark.slow
def test_candidates_of_a_decoder_have_the_same_scores_however_their_instruction_is_read(tmp_path: Path) -> None:
    printed, found = run_benchmark(tmp_path, "--pairs", "34", "--decoder")
    once, each, plain = list(found["ways"].values())[:3]
    assert once["median"] > 0 and each["difference"] == 0
    assert max(once["difference"], plain["difference"]) < 1e-5 < found["spread"]
    assert row(printed, "Scorer, instructions read once")[4] == f"{once['difference']:.1e}"


@needs_shared
@pytest.mark.slow
def test_the_check_before_a_run_is_measured_by_the_job_without_it(tmp_path: Path) -> None:
    printed, found = run_benchmark(tmp_path, "--pairs", "20", "--check-cost")
    without, checked = found["--check-pairs 0"], found["--check-pairs 16"]
    assert row(printed, "--check-pairs 0")[2] == row(printed, "--check-pairs 0")[4] == "0.0"
    assert row(printed, "--check-pairs 16")[2] == f"{checked['seconds'] - without['seconds']:.1f}"


def test_prompts_are_four_times_as_long_as_their_candidates() -> None:
    pairs = pa.table({"instruction": ["a b c d"] * 200, "response": ["e f g h i"] * 200})
    rows = candidates(pairs, 3).to_pylist()
    assert len(rows) == 3 * 17 and len({row["instruction"] for row in rows}) == 3
    for each in rows:
        assert len(each["instruction"].split()) == 4 * len(each["response"].split())


def test_operations_are_counted_as_on_paper() -> None:
    config = SimpleNamespace(**LARGE)
    one = model_flops(config, np.array([1]))
    # 24 layers of 12 x 1024² weights, and attention of one token to itself; the head.
    assert one == 24 * (2 * 12 * 1024**2 + 4 * 1024) + 2 * 1024**2 + 2 * 1024
    assert model_flops(config, np.array([512, 512])) == 2 * model_flops(config, np.array([512]))
    # Another token: 23 whole layers and the keys and values of the last, and attention within both.
    second = 23 * (2 * 12 * 1024**2 + (2**2 - 1) * 4 * 1024) + 4 * 1024**2 + 4 * 1024
    assert model_flops(config, np.array([2])) == one + second


@pytest.mark.parametrize(
    ("spans", "covered"),
    [([], 0), ([(1, 3)], 2), ([(1, 3), (2, 5)], 4), ([(4, 5), (0, 1)], 2), ([(0, 9), (1, 2), (3, 10)], 10)],
)
def test_spans_that_overlap_count_once(spans: list[tuple[float, float]], covered: float) -> None:
    assert union_length(spans) == covered


@needs_shared
@pytest.mark.slow
def test_every_runner_has_the_files_of_bare_processes() -> None:
    command = [sys.executable, "-m", "benchmarks.runners", "--shared", str(SHARED), "--repeat", "1"]
    command += ["--pairs", "500", "--scored", "40", "--contenders", "bare", "one"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    corpus, scored = done.stdout.split("`cappy score`: 40 rows, the same 16 files")
    assert "`cappy build-corpus`: " in corpus
    for printed in (corpus, scored):
        for contender in ("two bare processes", "in-process runner, 1 worker"):
            start_up, total, work = map(float, row(printed, contender)[1:4])
            assert total > 0 and work == pytest.approx(total - start_up, abs=0.11)


def test_start_up_is_compared_with_bare_imports(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.startup", "--repeat", "1", "--jobs", "rerank"]
    done = subprocess.run([*command, "--json", str(tmp_path / "found")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found").read_text())
    assert found["commands"].keys() == {"--help", "--version", "score --tokens-per-batch x"}
    for each in (*found["commands"].values(), found["jobs"]["rerank"]):
        assert each["cpu"] > each["bare"] > 0
    assert row(done.stdout, "cappy rerank")[2] == "`import apache_beam, pyarrow`"


@pytest.mark.slow
def test_known_scores_are_the_same_by_all_contenders(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.reuse", "--tiny", "--json", str(tmp_path / "found")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert row(done.stdout, "cappy score --reuse")[5] == "x1.00" and "2,000 pairs" in done.stdout
    for whole, one in json.loads((tmp_path / "found").read_text()).values():
        assert whole["seconds"] > 0 and one["tree"] > 0


def run_units(*flags: str) -> str:
    """Run `python -m benchmarks.units`; return its output."""
    command = [sys.executable, "-m", "benchmarks.units", "--shared", str(SHARED), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_shared
@pytest.mark.slow
def test_small_units_are_compared_with_large_ones() -> None:
    printed = run_units("--cost", "--gpu", "--tiny", "--pairs", "150", "--repeat", "1")
    small, large = row(printed, "units by work"), row(printed, "units of 16,384 rows")
    assert int(small[1]) > int(large[1]) == 1


@needs_shared
@pytest.mark.long
def test_kills_are_measured_by_the_units_that_they_leave_unfinished() -> None:
    printed = run_units("--kills", "2", "--tiny", "--pairs", "3000")
    assert [row(printed, str(number))[0] for number in (1, 2)] == ["1", "2"] and "Most seconds lost" in printed


@needs_shared
@pytest.mark.long
def test_a_run_of_many_units_is_weighed() -> None:
    printed = run_units("--many", "40")
    assert all(float(row(printed, f"cappy {command}")[1]) > 0 for command in ("score, all units", "verify", "report"))


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("DataSource (Impulse)", "DataSource (Impulse)"),
        ("MapPartition (MapPartition at [3]{Ask, Probe})", "{Ask, Probe}"),
        (
            "CHAIN MapPartition (MapPartition at [1]Datasets/FlatMap(<lambda at core.py:4094>)) "
            "-> FlatMap (FlatMap at ExtractOutput[0])",
            "Datasets/FlatMap(<lambda at core.py:4094>)",
        ),
    ],
)
def test_stages_of_flink_are_named_by_their_steps(stage: str, name: str) -> None:
    assert name_of(stage) == name
