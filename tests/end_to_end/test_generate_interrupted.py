"""`cappy generate` under SIGKILL: it goes on, and no unit is generated twice."""

from pathlib import Path

import pytest

from tests.cappy_model.models import save_tiny_generator
from tests.conftest import cappy, data_bytes, sentence
from tests.end_to_end.inputs import TWO_THREADS, json_lines
from tests.end_to_end.kills import Launcher, check_what_kills_cost, kill_again_and_again

FILES, UNITS_PER_FILE, ROWS, KILLS = 54, 3, 2, 20


@pytest.mark.slow
def test_killed_twenty_times_and_the_bytes_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for file in range(FILES):
        first = file * UNITS_PER_FILE * ROWS
        numbers = range(first, first + UNITS_PER_FILE * ROWS)
        rows = [{"instruction_id": f"id-{number:04d}", "instruction": sentence(number, 8)} for number in numbers]
        (tmp_path / "in" / f"{file:02d}.jsonl").write_bytes(json_lines(*rows))
    model = save_tiny_generator(tmp_path / "model")
    words = ["generate", "--input", tmp_path / "in" / "*.jsonl", "--model", model, "--device", "cpu"]
    words += ["--decodings", "sampling,beam4", "--max-new-tokens", "8", "--unit-rows", ROWS, *TWO_THREADS]
    output, plain, units = tmp_path / "out", tmp_path / "plain", FILES * UNITS_PER_FILE

    modules = ("beam_pipelines.jobs.generate.job", "transformers.models.llama.modeling_llama")
    with Launcher(tmp_path / "begun", *modules) as launcher:
        command = [*words, "--output", output]
        killed = kill_again_and_again(launcher, command, output / "candidates", kills=KILLS, seed=0)
        assert 0 < len(killed[-1].after) < units
        check_what_kills_cost(killed)
        launcher.start(command)
        assert launcher.wait() == 0
        assert len(launcher.begun()) == units - len(killed[-1].after)
        launcher.start([*words, "--output", plain])
        assert launcher.wait() == 0
    assert data_bytes(output) == data_bytes(plain)
    assert not list(output.rglob(".*"))
    assert cappy("verify", output) == 0
