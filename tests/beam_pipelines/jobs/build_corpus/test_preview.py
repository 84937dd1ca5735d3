"""What is said of templates before a run, and the examples of --show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.jobs.build_corpus import BuildCorpusConfig
from beam_pipelines.jobs.build_corpus.job import check, describe, plan
from beam_pipelines.jobs.build_corpus.preview import SAMPLE_ROWS, preview, printable, show
from beam_pipelines.runners.options import DRY_RUN
from schemas.errors import CappyError
from tests.conftest import template, write_templates

Planned = Callable[..., Any]
GOOD = template("a", "good", "{{ q }} ||| {{ r }}")
ABSENT = template("b", "absent", "{% if q == 'none' %}{{ q }} ||| {{ r }}{% endif %}")
BROKEN = template("c", "broken", "{{ q }} ||| {{ ['x'][n] }}")


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    def make(lines: list[str], *templates: dict[str, Any], **options: Any) -> Any:
        (tmp_path / "d.csv").write_text("\n".join(["q,r,n", *lines]) + "\n")
        write_templates(tmp_path, "d", templates)
        (tmp_path / "m.yaml").write_text("templates: .\ndatasets: [{name: d, paths: d.csv}]\n")
        options = {"mixture": str(tmp_path / "m.yaml"), "output": str(tmp_path / "out"), **options}
        return plan(BuildCorpusConfig(**options), DRY_RUN)

    return make


def test_a_template_that_renders_nothing_is_named_with_the_reason(planned: Planned) -> None:
    warnings = check(planned([f"q{i},r{i},0.5" for i in range(9)], GOOD, ABSENT, BROKEN))
    assert warnings == [
        "dataset d: template 'absent' renders none of its 9 rows: 9 rows not applicable",
        "dataset d: template 'broken' renders none of its 9 rows: 9 rows rejected, template_error: 0.5 is a fraction "
        "and cannot index a list or a text; write whole numbers into the column, or convert it in the template, as in "
        "choices[value | int]",
    ]


def test_reasons_are_counted(planned: Planned) -> None:
    (warning,) = check(planned(["q,r,0.5", "q,r,x", "q,r,0.25", '"unclosed'], GOOD, BROKEN))
    assert "renders none of its 4 rows: 2 rows rejected, template_error: 0.5 is a fraction" in warning
    assert "; 1 row rejected, broken_csv: " in warning
    assert "; 1 row rejected, empty_target: " in warning


def test_a_sample_of_the_rows_is_looked_at(planned: Planned) -> None:
    lines = ["q,r,0"] * (SAMPLE_ROWS + 50)
    found = planned([*lines, "none,r,0"], GOOD, ABSENT)
    rows = f"{SAMPLE_ROWS:,} rows"
    assert check(found) == [f"dataset d: template 'absent' renders none of its first {rows}: {rows} not applicable"]
    assert check(planned(lines, ABSENT))[-1] == "no template renders any of the rows looked at; the corpus may be empty"
    assert preview(found.datasets[0], examples=2).rows == SAMPLE_ROWS
    assert preview(planned(lines, GOOD).datasets[0], examples=2).rows < 100  # no more than are needed


@pytest.mark.parametrize(
    ("lines", "message"), [(["q,r,0"] * 3, "3 rows not applicable"), ([], "the input files have no rows")]
)
def test_a_corpus_that_would_be_empty_is_refused_before_the_run(
    planned: Planned, lines: list[str], message: str
) -> None:
    found = planned(lines, ABSENT)
    for refused in (check, lambda plan: describe(plan, PipelineOptions([]))):
        with pytest.raises(CappyError, match="the corpus would be empty: no template renders any row") as raised:
            refused(found)
        assert message in str(raised.value).replace("The", "the")


def test_examples_are_readable_on_a_terminal(planned: Planned) -> None:
    lines = ['"two\nlines \x1b[31m",r1,1', "q2,r2,0", f"{'x' * 5_000},r3,0"]
    choices = template("d", "choices", "{{ q }} ||| {{ answer_choices[n] }}", "no ||| yes")
    (dataset,) = planned(lines, GOOD, ABSENT, choices).datasets
    assert show(dataset, 2) == (
        "d: template 'good'\n\n"
        "  d.csv#0\n  instruction  two\n               lines \\x1b[31m\n  target       r1\n\n"
        "  d.csv#1\n  instruction  q2\n  target       r2\n\n"
        "d: template 'absent'\n\n  0 examples in 3 rows: 3 rows not applicable\n\n"
        "d: template 'choices'\n\n"
        "  d.csv#0\n  instruction  two\n               lines \\x1b[31m\n"
        "  target       yes\n  choices      no\n               yes\n\n"
        "  d.csv#1\n  instruction  q2\n  target       no\n  choices      no\n               yes"
    )
    assert "… (2,048 characters)" in show(dataset, 3)
    assert printable("a\tb\n\x9b\u202ec é") == "a\tb\n\\x9b\\u202ec é"
