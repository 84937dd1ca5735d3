"""Templates of a scorer: what they may read, how far they may run, and what a trained model keeps of them."""

from datetime import date
from typing import Any

import pytest
from transformers import LlamaConfig, RobertaConfig

from cappy_model.checkpoints import ModelError
from cappy_model.sandbox.budget import RenderError
from cappy_model.score.templates import (
    CHAT,
    FILE,
    NONE,
    Template,
    renderer,
    settle_template,
    template_block,
)
from tests.cappy_model.models import tiny_tokenizer

TOKENIZER = tiny_tokenizer("roberta")
DATED = "{% for m in messages %}{{ strftime_now('%d %b %Y') }} {{ m.role }}: {{ m.content }} {% endfor %}"


def settled(asked: str, config: Any = None, chat: str | None = None) -> Template:
    tokenizer = tiny_tokenizer("roberta")
    tokenizer.chat_template = chat
    return settle_template(asked, tokenizer, config or RobertaConfig(), stored=None, answers=False, model="mine")


def test_the_day_of_a_run_is_not_in_a_chat_template() -> None:
    tokenizer = tiny_tokenizer("roberta")
    tokenizer.chat_template = DATED
    text = renderer(settled(CHAT, chat=DATED), tokenizer)("why", "so")
    assert text == "26 Jul 2024 user: why 26 Jul 2024 assistant: so "
    assert date.today() > date(2024, 7, 26)


def test_special_tokens_are_known_and_separators_are_text() -> None:
    render = renderer(Template(FILE, "{{ bos_token }}{{ instruction }}|||{{ response }}{{ eos_token }}\n"), TOKENIZER)
    assert render("a ||| b", "c") == "<s>a ||| b|||c</s>"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{{ instruction }} {{ response }} {{ answer }}",
            "mine: the template reads 'answer', .* there are instruction",
        ),
        ("{{ instruction }} {{ response }} {% include 'x' %}", "mine: the template is not valid jinja"),
        ("{{ instruction }} {{ response }}" + "{{ 'a' * 10**9 }}", "mine: its template cannot be rendered"),
        (
            "{{ instruction }}{{ response }}" + "{% for i in range(9999) %}" * 2 + "{% endfor %}" * 2,
            "cannot be rendered",
        ),
    ],
)
def test_templates_that_are_refused_at_once(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        settled(source)


def test_a_text_that_a_template_cannot_hold_fails_alone() -> None:
    render = renderer(Template(FILE, "{{ instruction * 3 }}{{ response }}"), TOKENIZER)
    with pytest.raises(RenderError):
        render("a" * 3_000_000, "b")
    assert render("a", "b") == "aaab"


@pytest.mark.parametrize(
    ("config", "asked", "block"),
    [
        (RobertaConfig(), NONE, {}),
        (LlamaConfig(), NONE, {"template": NONE}),
        (LlamaConfig(), CHAT, {"template": CHAT}),
        (RobertaConfig(), "{{ instruction }}: {{ response }}", {"template": "{{ instruction }}: {{ response }}"}),
    ],
)
def test_a_trained_model_keeps_its_template(config: Any, asked: str, block: dict[str, str]) -> None:
    template = settled(asked, config, DATED)
    assert template_block(template, config) == block
    config.cappy = block
    assert settled("auto", config, DATED) == template
