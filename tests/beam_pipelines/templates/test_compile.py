"""Rendering: the separator, truncation, choices, randomness, rejects."""

import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment

from beam_pipelines.templates.compile import (
    SENTINEL,
    CompiledTemplate,
    Rendered,
    RenderError,
    check_label,
)
from beam_pipelines.templates.files import Template, TemplateError, load_templates

SHARED = Path(__file__).parents[4] / "shared"
TEMPLATES = SHARED / "promptsource" / "templates"


def compiled(jinja: str, choices: str | None = None, *, truncate: int | None = None, seed: int = 0) -> CompiledTemplate:
    return CompiledTemplate(Template("id", "name ", jinja, choices), truncate=truncate, seed=seed)


def render(jinja: str, row: dict[str, Any], choices: str | None = None, *, truncate: int | None = None) -> Rendered:
    rendered = compiled(jinja, choices, truncate=truncate).render(row, "file#0")
    assert rendered is not None
    return rendered


def test_a_template_that_cannot_be_compiled_says_where() -> None:
    template = Template("the-id", "the name", "first\n{% if %}", file="root/templates.yaml")
    with pytest.raises(
        TemplateError, match=r"root/templates.yaml: template 'the name' \(the-id\), line 2 of its jinja"
    ):
        CompiledTemplate(template, truncate=None, seed=0)
    with pytest.raises(TemplateError, match="line 1 of its answer_choices"):
        compiled("x ||| y", "{{ a | nosuchfilter }}")
    with pytest.raises(TemplateError, match="field answer_choices: list object has no element 0"):
        compiled("x ||| y", "{{ [][0].x }}")
    with pytest.raises(ValueError, match="at least 3 characters"):
        compiled("x ||| y", truncate=2)


# ----------------------------------------------------------------------------------------------------------- separator


def test_both_sides_are_stripped_and_choices_listed() -> None:
    rendered = render(
        " {{text}}\n|||\n{{answer_choices[label]}} ", {"text": " a ", "label": 1}, "no ||| yes ||| ||| yes"
    )
    assert rendered == Rendered("a", ["yes"], ["no", "yes", "", "yes"])


@pytest.mark.parametrize(
    ("jinja", "row", "parts"),
    [
        ("{{a}} ||| {{b}}", {"a": "x ||| y", "b": "|||"}, ("x ||| y", "|||")),
        ("{{a}}|||{{b}}", {"a": "x|", "b": "|y"}, ("x|", "|y")),
        ("{{a}}||||{{b}}", {"a": "x", "b": "y"}, ("x", "|y")),
        ("{{a[0]}} ||| {{b.c}}", {"a": ["|||"], "b": {"c": "x|||y"}}, ("|||", "x|||y")),
        ("{{a | join('|')}} ||| {{a}}", {"a": ["x", "|", "y"]}, ("x|||y", "['x', '|', 'y']")),
        ("{% if a %}{{a}} ||| {{b}}{% endif %}", {"a": "x", "b": "y"}, ("x", "y")),
        ("{% for c in a %}{{c}}{% if loop.first %}|||{% endif %}{% endfor %}", {"a": ["x", "y", "z"]}, ("x", "yz")),
        ("{{ [a, b] | join('|||') }}", {"a": "x", "b": "y"}, ("x", "y")),
        ("{{ a ~ '|||' ~ b }}", {"a": "x", "b": "y"}, ("x", "y")),
        ("{% set t %}{{a}} ||| {{b}}{% endset %}{{ t }}", {"a": "x", "b": "y"}, ("x", "y")),
        ("{# no ||| here #}{{a}} ||| {{b}}", {"a": "{{ b }}", "b": "{% raw %}"}, ("{{ b }}", "{% raw %}")),
    ],
)
def test_only_the_template_separates(jinja: str, row: dict[str, Any], parts: tuple[str, str]) -> None:
    assert render(jinja, row)[:2] == (parts[0], [parts[1]])


def test_choices_may_hold_the_separator() -> None:
    row = {"options": ["a|||b", "c|"], "label": 0}
    rendered = render(
        "{{ answer_choices | join(' or ') }} ||| {{ answer_choices[label] }}", row, "{{ options | join('|||') }}"
    )
    assert rendered == Rendered("a|||b or c|", ["a|||b"], ["a|||b", "c|"])


def test_the_word_that_hides_separators_in_promptsource_is_understood() -> None:
    jinja = '{{ text.split("3ed2dface8203c4c9dfb1a5dc58e41e0||") | join("; ") }} ||| x'
    assert render(jinja, {"text": "one|||||two|||||three"}).instruction == "one;two;three".replace(";", "; ")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters=SENTINEL), min_size=1) | st.text("|{}%# a\n", min_size=1)
SHORT = st.text("a|{ ", max_size=3)
NESTED = st.recursive(
    SHORT | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3),
    max_leaves=6,
)


WHOLE = compiled("<{{a}}|{{b[0]}}|||{{c.d}}>", "({{a}})|||{{b | join}}]|||[{{c.d}}")


@given(first=TEXT, second=TEXT, third=TEXT)
@settings(deadline=None)
def test_data_comes_through_unharmed(first: str, second: str, third: str) -> None:
    """Whatever the data hold (separators, braces, pipes), each text lands whole on its side."""
    row = {"a": first, "b": [second], "c": {"d": third}}
    rendered = WHOLE.render(row, "e")
    assert rendered is not None
    assert rendered.instruction == f"<{first}|{second}".strip()
    assert rendered.references == [f"{third}>".strip()]
    assert rendered.choices == [part.strip() for part in (f"({first})", f"{second}]", f"[{third}")]


MUTATING = compiled(
    "{% set x = a.append(1) %}{% set x = a.insert(0, [b]) %}{% set x = b.update({'k': a}) %}{% set x = a.reverse() %}"
    "{% for v in a %}{% if v is sequence and v is not string and v is not mapping %}{% set x = v.append(2) %}"
    "{% elif v is mapping %}{% set x = v.pop('k', 0) %}{% endif %}{% endfor %}{% set x = b.clear() %}"
    "{{ a | length }} {{ answer_choices.pop() }} ||| {% set x = answer_choices.append('z') %}t",
    "p ||| q",
)


@given(row=st.fixed_dictionaries({"a": st.lists(NESTED, max_size=3), "b": st.dictionaries(SHORT, NESTED, max_size=3)}))
@settings(max_examples=50, deadline=None)
def test_rendering_never_changes_the_row(row: dict[str, Any]) -> None:
    before = deepcopy(row)
    results = [MUTATING.render(row, "e") for _ in range(2)]
    assert row == before
    assert results[0] == results[1]
    assert results[0] is not None
    assert results[0].choices == ["p", "q"]


def test_the_caller_may_change_the_choices_it_gets() -> None:
    template = compiled("{{answer_choices[0]}} ||| t", "a ||| b")
    for _ in range(2):
        rendered = template.render({}, "e")
        assert rendered is not None
        assert rendered.choices == ["a", "b"]
        rendered.choices.clear()


# ---------------------------------------------------------------------------------------------------------- truncation


@given(text=st.text(st.sampled_from("ab \n"), max_size=60), length=st.integers(3, 40))
@settings(deadline=None)
def test_truncation_is_that_of_jinja(text: str, length: int) -> None:
    expected = Environment().from_string("{{ text | string | truncate(length) }}").render(text=text, length=length)
    rendered = compiled(".{{text}}. ||| .{{text}}.", truncate=length).render({"text": text}, "e")
    assert rendered is not None
    assert rendered.instruction == f".{expected}."
    assert rendered.references == [f".{text}."]


def test_truncation_stops_where_the_separator_is_written() -> None:
    row = {"a": "word " * 10, "yes": True, "rows": [{"t": "word " * 10}] * 2}
    whole, cut = ("word " * 10).strip(), "word word..."
    target = "{% if yes %}{{a}} ||| {{a}}{% else %}||| {% endif %}"
    assert render(target, row, truncate=15)[:2] == (cut, [whole])
    looped = "{% for r in rows %}{{r.t}}{% if loop.first %} ||| {% endif %}{% endfor %}"
    assert render(looped, row, truncate=15)[:2] == (cut, [whole])
    nested = "{% for r in rows recursive %}{{r.t}}{% if loop.first %} ||| {% endif %}{% endfor %}"
    assert render(nested, row, truncate=15)[:2] == (cut, [whole])
    captured = "{% set t %}{{a}}{% endset %}{{t}} ||| {{t}}"
    assert render(captured, row, truncate=15)[:2] == (cut, [whole])
    assert render("{{ [a, a] | join('|||') }}", row, truncate=15)[:2] == (whole, [whole])
    assert render("{{a}} ||| {{answer_choices[0]}}", row, "{{a}}", truncate=15) == Rendered(cut, [whole], [whole])
    assert render("{{ 'word ' * 5 + a }} ||| t", row, truncate=15).instruction == cut
    assert render("{{a}} ||| t", row, truncate=None).instruction == whole


# ---------------------------------------------------------------------------------------------- applicability, rejects


@pytest.mark.parametrize(
    "jinja", ["", "  ", "no separator", "{% if no %}a ||| b{% endif %}", " ||| ", "{{no}}|||{{no}}|||"]
)
def test_what_does_not_apply_gives_nothing(jinja: str) -> None:
    assert compiled(jinja).render({"no": ""}, "e") is None


@pytest.mark.parametrize(
    ("jinja", "reason", "detail"),
    [
        ("a ||| b ||| c", "too_many_parts", "3 parts"),
        ("a ||| {{answer_choices[label]}}", "empty_target", "label is 5, there are 2 choices"),
        ("||| b", "empty_instruction", "label is 5"),
        ("{{null}} ||| b", "null_value", "null columns: null"),
        ("{{[null]|join}} ||| b", "null_value", "null columns: null"),
        ("{{null ~ 'x'}} ||| b", "null_value", "None"),
        ("{{null|lower}} ||| b", "null_value", "None"),
        ("{{[1].append(2)}} ||| b", "null_value", "nested"),
        ("{{absent.name}} ||| b", "undefined", "'absent' is undefined"),
        ("{{1/0}} ||| b", "template_error", "ZeroDivisionError"),
        ("{{text.index('z')}} ||| b", "template_error", "ValueError: substring not found"),
        ("{{text['__class__']}} ||| b", "unsafe", "__class__"),
    ],
)
def test_a_reject_has_a_reason_and_the_facts(jinja: str, reason: str, detail: str) -> None:
    row = {"label": 5, "null": None, "text": "abc"}
    with pytest.raises(RenderError) as raised:
        compiled(jinja, "no ||| yes").render(row, "e")
    assert raised.value.reason == reason
    assert detail in raised.value.detail


def test_a_null_that_is_not_written_is_no_reject() -> None:
    jinja = "{% if null %}x{% elif null is none %}{{ null or 'nothing' }}{% endif %} ||| b"
    assert render(jinja, {"null": None}).instruction == "nothing"


@pytest.mark.parametrize(("label", "rejected"), [(None, True), (-1, True), (0, False), (3, False), ("-1", False)])
def test_a_row_without_a_label_is_rejected(label: object, rejected: bool) -> None:
    if rejected:
        with pytest.raises(RenderError, match="missing_label"):
            check_label({"label": label})
    else:
        check_label({"label": label})
        check_label({"text": "no label column"})


def test_variables_are_the_columns_a_template_reads() -> None:
    jinja = "{% for a in rows %}{{a}}{{answer_choices[label]}}{% endfor %}{% set x = range(2) %}{{x}} ||| {{t}}"
    assert compiled(jinja, "{{one}} ||| {{zip(two)}}").variables == {"rows", "label", "t", "one", "two"}
    assert compiled("a ||| b", "no ||| yes").variables == set()


# ---------------------------------------------------------------------------------------------------------- randomness


def picks(template: CompiledTemplate, count: int) -> list[str]:
    return [
        rendered.instruction for n in range(count) if (rendered := template.render({"t": ["a", "b", "c"]}, f"f#{n}"))
    ]


def test_random_picks_depend_on_seed_template_and_example_only() -> None:
    jinja = "{{ [1, 2, 3, 4] | choice }}{{ t | random }}{{ [1, 2, 3, 4] | choice }} ||| {{ answer_choices[0] }}"
    template = compiled(jinja, "{{ t | choice }}")
    first = picks(template, 200)
    random.seed(5)
    assert picks(template, 200) == first
    assert picks(compiled(jinja, "{{ t | choice }}"), 200) == first
    assert picks(compiled(jinja, "{{ t | choice }}", seed=1), 200) != first
    other = CompiledTemplate(Template("other", "name", jinja, "{{ t | choice }}"), truncate=None, seed=0)
    assert picks(other, 200) != first
    assert len(set(first)) > 40  # of 4 * 3 * 4
    assert len(set(picks(compiled("{{ [1, 2, 3] | map('string') | list | choice }} ||| x"), 100))) == 3


def test_choices_drawn_once_are_the_same_in_the_text() -> None:
    template = compiled("{{answer_choices[0]}} ||| {{answer_choices[0]}}", "{{ ['a', 'b'] | choice }}")
    results = [template.render({}, f"f#{n}") for n in range(50)]
    assert {result and result.choices == [result.instruction] == result.references for result in results} == {True}
    assert len({result.instruction for result in results if result}) == 2


@pytest.mark.skipif(not TEMPLATES.is_dir(), reason="no folder `shared` beside the checkout")
def test_sciq_shows_all_its_orders() -> None:
    """Three templates shuffle the choices, by one of 24 orders listed; one of those gives a choice twice."""
    row = {**{f"distractor{n}": f"d{n}" for n in (1, 2, 3)}, "correct_answer": "c", "question": "q", "support": "s"}
    shuffled = [t for t in load_templates(str(TEMPLATES), "sciq", None) if "choice %}" in t.jinja]
    assert len(shuffled) == 3
    for template in shuffled:
        orders = eval(template.jinja.split("=", 1)[1].split("| choice")[0])  # a list of lists of digits
        texts = ["d1", "d2", "d3", "c"]
        listed = {"\n".join(f"- {texts[place]}" for place in order) for order in orders}
        seen = []
        for _ in range(2):
            ready = CompiledTemplate(template, truncate=2048, seed=0)
            rows = [ready.render(row, f"train.parquet#{n}") for n in range(600)]
            seen.append(["\n".join(x for x in r.instruction.split("\n") if x.startswith("- ")) for r in rows if r])
        assert len(orders) == 24
        assert set(seen[0]) == listed
        assert seen[0] == seen[1]
        assert len(listed) == len({tuple(order) for order in orders})
