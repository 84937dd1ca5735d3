"""Templates of a scorer: how the instruction and the response become the text that the model reads.

Without a template the tokenizer joins the two texts as a pair. With one, they are rendered into a single text, by the
chat template of the tokenizer or by a jinja template of the user's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cappy_model.architectures import DECODERS
from cappy_model.checkpoints import ModelError
from cappy_model.sandbox.budget import Draw
from cappy_model.sandbox.environment import NEVER, compile_source
from cappy_model.sandbox.guard import SENTINEL, SEPARATOR
from cappy_model.sandbox.values import Names
from schemas.ids import digest

AUTO, NONE, CHAT, FILE = "auto", "none", "chat", "file"

_TURNS = (("user", "assistant"), ("query", "document"))
_NOW = "strftime_now"
# The day that Llama's templates name where they know none, in the formats of chat templates.
_DAYS = {form: date(2024, 7, 26).strftime(form) for form in ("%d %b %Y", "%B %d, %Y", "%Y-%m-%d")}
_FIXED_DAY = f"{{%- macro {_NOW}(form) -%}}{{{{ {_DAYS}.get(form, '{_DAYS['%d %b %Y']}') }}}}{{%- endmacro -%}}"
_MARKS = ("instructionmark", "responsemark")


@dataclass(frozen=True)
class Template:
    """How a pair becomes what the tokenizer reads.

    `kind`: none, the tokenizer's own pair of texts; chat, the tokenizer's chat template over two messages with
    `roles`; file, the jinja template `source`. `prompt` is a text that the model's makers have stored: it precedes the
    instruction, and in a chat it is the system's message. `options` are further arguments of the chat template.
    """

    kind: str = NONE
    source: str = ""
    roles: tuple[str, str] = _TURNS[0]
    prompt: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint_inputs(self) -> dict[str, Any]:
        """The part of the fingerprint that describes the template: empty without one."""
        if self == Template():
            return {}
        parts = (self.source, self.prompt, *self.roles, str(sorted(self.options.items())))
        return {"template": self.kind, "template_hash": digest(*parts)}


Render = Callable[[str, str], str]


def settle_template(
    asked: str,
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    *,
    stored: Template | None,
    answers: bool,
    model: str,
) -> Template:
    """Return the template that `asked` denotes: auto, none, chat, or the text of a jinja template.

    auto is what the model says: the `cappy` block of its config, else `stored`, the template of a CrossEncoder; else
    the chat template for a decoder-only model, none for others. A model that `answers` with a word, as yes/no rerankers
    do, is asked by its template, so auto takes a chat template only if it knows queries and documents.
    Raises ModelError for a decoder that says nothing, a missing chat template, and a template that is broken or drops
    one of the two texts.
    """
    block = getattr(config, "cappy", None) or {}
    if asked == AUTO:
        asked = block.get("template", AUTO)
    if asked == AUTO and stored is not None:
        template = stored
    elif asked == NONE or (asked == AUTO and config.model_type not in DECODERS):
        return Template()
    elif asked == AUTO and answers and not all(role in str(tokenizer.chat_template) for role in _TURNS[1]):
        raise ModelError(
            f"{model}: is a language model that answers with a word, and has no template that asks for it; give "
            "--template FILE with the prompt of its makers"
        )
    elif asked in (AUTO, CHAT):
        template = _chat(asked, tokenizer, model, _TURNS[::-1] if answers else _TURNS)
    else:
        template = Template(FILE, asked)
    if template.kind != NONE:
        _check_renders(template, tokenizer, model)
    return template


def _chat(asked: str, tokenizer: PreTrainedTokenizerBase, model: str, turns: Sequence[tuple[str, str]]) -> Template:
    """Return the chat template with the first roles of `turns` that it renders."""
    if not tokenizer.chat_template:
        if asked == AUTO:
            raise ModelError(
                f"{model}: is a decoder without a chat template, so it does not say how it reads a pair; give "
                "--template FILE with the template that it was trained with, or --template none for the plain pair"
            )
        raise ModelError(f"{model}: the tokenizer has no chat template; give --template FILE or --template none")
    for roles in turns:
        template = Template(CHAT, roles=roles)
        try:
            text = renderer(template, tokenizer)(*_MARKS)
        except Exception:  # a chat template raises errors of any type for roles that it does not know
            continue
        if all(mark in text for mark in _MARKS):
            return template
    raise ModelError(
        f"{model}: its chat template shows neither the roles user and assistant nor query and document; give "
        "--template FILE"
    )


def template_block(template: Template, config: PreTrainedConfig) -> dict[str, str]:
    """Return the entry of the `cappy` block by which auto finds the template of a trained model again.

    Empty for an encoder without a template, which auto gives by itself.
    """
    if template.kind == NONE and config.model_type not in DECODERS:
        return {}
    return {"template": template.source or template.kind}


def _check_renders(template: Template, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    try:
        text = renderer(template, tokenizer)(*_MARKS)
    except ModelError as error:
        raise ModelError(f"{model}: {error}") from error
    except Exception as error:  # a template can raise anything
        raise ModelError(f"{model}: its template cannot be rendered: {type(error).__name__}: {error}") from error
    for name, mark in zip(("instruction", "response"), _MARKS, strict=True):
        if mark not in text:
            raise ModelError(
                f"{model}: the template ignores the {name}: it must show both texts, such as "
                "'{{ instruction }} {{ response }}'"
            )


def renderer(template: Template, tokenizer: PreTrainedTokenizerBase) -> Render:
    """Return the function that renders an instruction and a response.

    A jinja template of the user's own also has the special tokens of the tokenizer, such as `bos_token`. Raises
    ModelError for a template that is not valid, or reads anything else.
    """
    if template.kind == CHAT:
        return _chat_renderer(template, tokenizer)
    special = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    try:
        program = compile_source(template.source)
    except (TemplateSyntaxError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise ModelError(f"the template is not valid jinja: {error}") from error
    unknown = sorted(program.variables - {"instruction", "response", *special})
    if unknown:
        known = ", ".join(["instruction", "response", *sorted(special)])
        raise ModelError(f"the template reads {unknown[0]!r}, which a pair does not have; there are {known}")

    def render(instruction: str, response: str) -> str:
        names = Names({**special, "instruction": instruction, "response": response})
        return program.render(names, Draw(0, "", ""), NEVER).replace(SENTINEL, SEPARATOR)

    return render


def _chat_renderer(template: Template, tokenizer: Any) -> Render:
    system = [{"role": "system", "content": template.prompt}] if template.prompt else []
    options = {"chat_template": tokenizer.get_chat_template(), **template.options}
    if _NOW in options["chat_template"]:  # as in Llama 3.2's; scores may not depend on the day of a run
        options["chat_template"] = _FIXED_DAY + options["chat_template"]

    def render(instruction: str, response: str) -> str:
        turns = zip(template.roles, (instruction, response), strict=True)
        messages: Sequence[dict[str, str]] = [*system, *({"role": role, "content": text} for role, text in turns)]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))

    return render
