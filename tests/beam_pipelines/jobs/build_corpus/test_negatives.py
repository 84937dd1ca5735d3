import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.jobs.build_corpus.negatives import add_wrong_responses, wrong_choices
from beam_pipelines.templates.mixture import Negatives
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import from_rows
from schemas.records import INSTRUCTION
from schemas.stats import Stats

words = st.text("ab ", max_size=3)


@given(choices=st.lists(words, max_size=9), references=st.lists(words, min_size=1, max_size=2), limit=st.integers(0, 5))
def test_wrong_choices_are_distinct_wrong_and_few(choices: list[str], references: list[str], limit: int) -> None:
    found = wrong_choices(choices, references, limit, 0, "id")
    possible = {choice.strip() for choice in choices} - {reference.strip() for reference in references} - {""}
    assert set(found) <= possible
    assert len(found) == len(set(found)) == min(limit, len(possible))
    assert found == wrong_choices(choices, references, limit, 0, "id")


@pytest.mark.parametrize(
    ("choices", "references", "expected"),
    [
        (["Yes", "No"], ["No"], ["Yes"]),
        (["A", "B", "B", "A"], ["B"], ["A"]),  # trec lists a choice twice: by text, never by index
        (["A", "B"], ["C"], ["A", "B"]),  # wiqa has targets outside of its choices
        ([" A ", "", "A"], ["A"], []),
    ],
)
def test_wrong_choices_by_text(choices: list[str], references: list[str], expected: list[str]) -> None:
    assert wrong_choices(choices, references, 5, 0, "id") == expected


def test_which_wrong_choices_depends_on_seed_and_id() -> None:
    choices = [f"choice {i}" for i in range(20)]
    picks = {tuple(wrong_choices(choices, ["choice 0"], 3, seed, name)) for seed in range(5) for name in "abcde"}
    assert len(picks) > 15


def chunk(references: list[str], choices: list[list[str] | None] | None = None, templates: str = "") -> pa.RecordBatch:
    rows = [
        {
            "instruction_id": f"id-{i}",
            "dataset": "d",
            "subset": None,
            "split": None,
            "template_id": templates[i] if templates else "t",
            "template_name": "n",
            "example_id": f"f#{i}",
            "instruction": f"instruction {i}",
            "references": [reference],
            "choices": choices[i] if choices else None,
        }
        for i, reference in enumerate(references)
    ]
    return from_rows(rows, INSTRUCTION)


def label(batch: pa.RecordBatch, seed: int = 0, **settings: float) -> tuple[list[list[str]], Stats]:
    negatives, stats = Negatives(**settings), Stats()
    return add_wrong_responses(batch, RougeL(), negatives=negatives, seed=seed, stats=stats)["wrong"].to_pylist(), stats


@given(references=st.lists(st.text("abc ", min_size=1, max_size=8), min_size=1, max_size=12), count=st.integers(0, 3))
def test_mismatched_are_other_rows_references_and_not_alike(references: list[str], count: int) -> None:
    rouge = RougeL()
    wrong, stats = label(chunk(references), mismatched=count)
    for own, drawn in zip(references, wrong, strict=True):
        assert len(drawn) == len(set(drawn)) <= count
        for response in drawn:
            assert response in references and response != own
            assert rouge.score([own], response) < 0.5
            assert not rouge.tokens(own) or rouge.tokens(own) != rouge.tokens(response)
    assert stats.counts["notes", "mismatch_skipped"] == count * len(references) - sum(map(len, wrong))


def test_mismatched_come_from_the_same_template() -> None:
    wrong, _ = label(chunk([f"{name}{i} word{i}" for i in range(20) for name in "xy"], templates="ab" * 20))
    assert all(drawn[0].startswith("xy"[row % 2]) for row, drawn in enumerate(wrong))


def test_texts_without_a_rouge_token_are_told_apart_as_texts() -> None:
    wrong, stats = label(chunk(["北京", "上海", "北京"]))
    assert wrong[1] == ["北京"] and wrong[0] == wrong[2] == ["上海"]
    assert stats.counts["notes", "mismatch_skipped"] == 0


def test_a_row_without_company_is_counted() -> None:
    wrong, stats = label(chunk(["alone"]))
    assert wrong == [[]]
    assert stats.counts == {("notes", "mismatch_skipped"): 1, ("without_wrong", "d", "", "", "t"): 1}


def test_choices_without_the_target_are_counted_and_used() -> None:
    wrong, stats = label(chunk(["maybe", "yes"], choices=[["yes", "no"], ["yes", "no"]]))
    assert wrong == [["yes", "no"], ["no"]]
    assert stats.counts["notes", "target_not_in_choices"] == 1
