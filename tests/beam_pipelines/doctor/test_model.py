"""`cappy doctor --model` over scorers that are really trained, then broken: each fault is told by its code."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from beam_pipelines.doctor import model as doctor
from beam_pipelines.doctor.examples import built_in_examples, examples_of, find_columns
from beam_pipelines.doctor.questions import QUESTIONS
from beam_pipelines.io.inputs import open_input
from cappy_model.score.scorer import Scorer
from tests.beam_pipelines.doctor.trained import examples, save_trained_decoder, save_trained_encoder
from tests.conftest import cappy

FLOAT32 = ("--device", "cpu", "--dtype", "float32")
torch.set_num_threads(1)  # over one short pair several only wait for each other


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_trained_encoder(tmp_path_factory.mktemp("trained") / "encoder")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_trained_decoder(tmp_path_factory.mktemp("trained") / "decoder")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candidates of 150 instructions, with references and labels."""
    found = [
        {
            "instruction": a,
            "response": b,
            "references": [right[0]],
            "label": b == right[0],
            "stars": 5 * (b == right[0]),
        }
        for a, right in examples(150, seed=-1)
        for b in right
    ]
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(found), path)
    return path


def broken(folder: Path, to: Path, change: Callable[[Any], None]) -> Path:
    """Write a model with a change of its weights."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        change(model)
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


def shuffle_head(model: Any) -> None:
    mixed = torch.Generator().manual_seed(5)
    for layer in (model.bert.pooler.dense, model.classifier):
        layer.weight.copy_(
            layer.weight.flatten()[torch.randperm(layer.weight.numel(), generator=mixed)].view_as(layer.weight)
        )


def turn_sign(model: Any) -> None:
    model.classifier.weight.neg_()


def make_constant(model: Any) -> None:
    model.classifier.weight.zero_()


def codes(text: str) -> dict[str, str]:
    """The codes of a report, each with its status."""
    found = re.findall(r"^  (wrong|warn) +\w+ +([a-z_]+):", text, re.MULTILINE)
    return {code: status for status, code in found}


def statuses(text: str) -> dict[str, str]:
    """The status of each finding of a report."""
    found = re.findall(r"^  (ok|warn|wrong|unknown) +(\w+) ", text, re.MULTILINE)
    return {name: status for status, name in found}


@pytest.mark.parametrize("values", [(), ("--reference-column", "none")], ids=["references", "labels"])
def test_a_healthy_encoder(
    encoder: Path, rows: Path, capsys: pytest.CaptureFixture[str], values: tuple[str, ...]
) -> None:
    assert cappy("doctor", "--model", encoder, "--input", rows, *FLOAT32, *values) == 0
    text = capsys.readouterr().out
    assert not codes(text)
    assert set(statuses(text).values()) == {"ok"}
    assert re.search(r"right +a row's right response beats another row's: (9\d|100)% of 1\d\d \(95% interval", text)
    assert text.endswith(f"No fault of {encoder} was found; all is known.\n")


FAULTS = {"chance": shuffle_head, "sign": turn_sign, "constant": make_constant}


@pytest.mark.parametrize("code", FAULTS)
def test_a_broken_head_is_told(
    encoder: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    folder = broken(encoder, tmp_path, FAULTS[code])
    assert cappy("doctor", "--model", folder, "--input", rows, *FLOAT32) == 1
    text = capsys.readouterr().out
    assert codes(text) == {code: "wrong"}
    assert text.endswith(f"Do not score with {folder} like this: {code}.\n")


def test_a_decoder_with_its_template_and_without(decoder: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("doctor", "--model", decoder, "--input", rows, *FLOAT32)
    assert cappy(*command) == 0
    healthy = capsys.readouterr().out
    assert not codes(healthy) and statuses(healthy)["template"] == "ok"
    assert cappy(*command, "--template", "none") == 1
    lost = capsys.readouterr().out
    assert codes(lost) == {"template": "wrong"}
    assert "-> give --template chat" in lost


def test_a_decoder_without_any_template_is_at_chance_and_unknown(
    decoder: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = broken(decoder, tmp_path, lambda model: None)
    (folder / "chat_template.jinja").unlink()
    assert cappy("doctor", "--model", folder, "--input", rows, *FLOAT32, "--template", "none") == 1
    text = capsys.readouterr().out
    assert codes(text) == {"chance": "wrong"} and statuses(text)["template"] == "unknown"


def test_a_response_that_does_not_reach_the_model(
    encoder: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ instruction }} {{ response if 'mark' in response else 'moss' }}")
    assert cappy("doctor", "--model", encoder, "--input", rows, *FLOAT32, "--template", template) == 1
    assert codes(capsys.readouterr().out)["ignores_response"] == "wrong"


def test_paths_that_differ(
    encoder: Path, rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Scorer.score_pairs

    def shifted(self: Scorer, instructions: list[str], responses: list[str]) -> Any:
        scored = real(self, instructions, responses)
        return scored._replace(scores=scored.scores + np.arange(len(responses), dtype=np.float32) / 100)

    monkeypatch.setattr(Scorer, "score_pairs", shifted)
    assert cappy("doctor", "--model", encoder, "--input", rows, *FLOAT32) == 1
    text = capsys.readouterr().out
    assert codes(text) == {"paths_differ": "wrong"} and "-> do not score with it" in text


def test_weights_that_are_broken(encoder: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = broken(encoder, tmp_path, lambda model: model.classifier.weight.fill_(float("nan")))
    assert cappy("doctor", "--model", folder, "--input", rows, *FLOAT32) == 1
    assert codes(capsys.readouterr().out) == {"broken": "wrong"}


def test_float32_is_compared_where_it_fits(
    encoder: Path, rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("doctor", "--model", encoder, "--input", rows, "--device", "cpu", "--dtype", "bfloat16", "--pairs", 16)
    assert cappy(*command) == 0
    assert re.search(r"precision +(precision_flips: )?largest difference \S+ of bfloat16 to", capsys.readouterr().out)
    monkeypatch.setattr(doctor, "_free_memory", lambda device: 1_000)
    assert cappy(*command) == 0
    text = capsys.readouterr().out
    assert "not compared with float32: the model needs" in text and statuses(text)["precision"] == "unknown"


def test_what_cannot_be_known_is_said(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table({"instruction": [a for a, _ in examples(9, 0)], "response": [b[0] for _, b in examples(9, 0)]}), path
    )
    assert cappy("doctor", "--model", encoder, "--input", path, *FLOAT32) == 0
    text = capsys.readouterr().out
    assert statuses(text)["right"] == "unknown" and text.endswith("unknown: right.\n")
    assert "no instruction has two responses here" in text


def test_built_in_questions_accuse_no_scorer_of_other_texts(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Words that the model does not know are all the same to it, so that the score moves with their number alone."""
    assert len(QUESTIONS) >= 36 and len({answer for _, answer in QUESTIONS}) == len(QUESTIONS)
    cappy("doctor", "--model", encoder, *FLOAT32)
    found = codes(capsys.readouterr().out)
    assert found.get("chance", "warn") == "warn" and not {"paths_differ", "template"} & found.keys()


def test_long_pairs_are_counted(encoder: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cappy("doctor", "--model", encoder, "--input", rows, *FLOAT32, "--max-length", 7)
    assert codes(capsys.readouterr().out)["truncated"] == "warn"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--head", "x"), "--head belongs to a scorer: name it with --model"),
        (("--model", "m", "--output", "o"), "--output does not go with --model"),
        (("--model", "m", "--runner=FlinkRunner"), "--runner=FlinkRunner does not go with --model"),
    ],
)
def test_flags_that_do_not_go_together(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cappy("doctor", *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--response-column", "x"), "--response-column: the input has no column 'x'"),
        (("--label-column", "response"), "--label-column: column 'response' is string and must be numbers"),
        (("--instruction-column", "references"), "--instruction-column: column 'references' is list<item: string>"),
    ],
)
def test_columns_that_are_not_there(
    encoder: Path, rows: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cappy("doctor", "--model", encoder, "--input", rows, *arguments) == 1
    assert message in capsys.readouterr().err


def test_examples_are_whole_groups_with_a_right_response_of_another_one(tmp_path: Path) -> None:
    lists = [{"q": f"question {i}", "choices": [f"{i} yes", f"{i} no"], "right": [f"{i} yes"]} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(lists), tmp_path / "rows.parquet")
    source = open_input([str(tmp_path / "rows.parquet")], {})
    columns = find_columns(source.schema, "q", "choices", None, "right", None)
    found = examples_of(source, columns, 9)
    assert len(found.pairs) == 10 and len(set(found.groups)) == 5
    assert len(found.right) == 18
    for instruction, right, wrong in found.right:
        number = instruction.removeprefix("question ")
        assert right == f"{number} yes" and wrong.endswith(" yes") and wrong != right
    for place, other in enumerate(found.swapped):
        assert found.pairs[place][0] != found.pairs[other][0] and found.pairs[place][1] != found.pairs[other][1]
    assert found == examples_of(source, columns, 9)


def test_one_instruction_has_nothing_to_swap_with() -> None:
    one = built_in_examples()._replace(pairs=[("a", "b"), ("a", "c")])
    assert one.swapped == [0, 1]


def test_references_may_be_one_text(tmp_path: Path) -> None:
    table = pa.table({"instruction": ["a", "b"], "response": ["x", "y"], "references": ["x", ""]})
    lists = table.set_column(2, "references", pa.array([["x"], []]))
    found = []
    for name, content in {"texts": table, "lists": lists}.items():
        pq.write_table(content, tmp_path / f"{name}.parquet")
        source = open_input([str(tmp_path / f"{name}.parquet")], {})
        columns = find_columns(source.schema, "instruction", "response", None, "references", None)
        found.append(examples_of(source, columns, 4))
    assert found[0] == found[1]
    assert columns.references == "references"
