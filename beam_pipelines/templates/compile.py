"""Compile PromptSource templates, and render rows with them.

Format and semantics are PromptSource's (github.com/bigscience-workshop/promptsource, commit 7dab96a3);
`docs/semantics.md` lists the intended differences. The main ones: a template is compiled once, not at each call; `|||`
separates only if it is part of the template, never if it is data; and only the input side is truncated.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jinja2 import TemplateError as JinjaError
from jinja2 import TemplateSyntaxError, UndefinedError
from jinja2.exceptions import SecurityError

from beam_pipelines.templates.files import Template, TemplateError
from cappy_model.sandbox.budget import Draw, RenderError, represent
from cappy_model.sandbox.environment import LEEWAY, NEVER, Program, compile_source
from cappy_model.sandbox.guard import SENTINEL, SEPARATOR
from cappy_model.sandbox.values import Names, copy_value

__all__ = ["SENTINEL", "CompiledTemplate", "RenderError", "Rendered", "check_label"]

_CHOICES = "answer_choices"

_RAISED_BY_TEMPLATES = (
    *(JinjaError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(RuntimeError, MemoryError),  # RecursionError is a RuntimeError, UnicodeError a ValueError
)
_NOT_COMPILED = (JinjaError, RecursionError, MemoryError, SyntaxError, ValueError, AssertionError)


class Rendered(NamedTuple):
    """A row rendered by a template: both sides stripped and not empty; `choices` is None if the template has none."""

    instruction: str
    references: list[str]
    choices: list[str] | None


def check_label(row: Mapping[str, object]) -> None:
    """Raise RenderError("missing_label") if a row's `label` is null, NaN or a negative integer.

    Published datasets hide labels as -1, and `answer_choices[-1]` would silently be the last choice. Call it once for a
    row, if any template uses `label`.
    """
    label = row.get("label", 0)
    negative = isinstance(label, int | float) and label < 0 and float(label).is_integer()
    if label is None or label != label or negative:
        raise RenderError("missing_label", f"label is {label}; rows without a label cannot be rendered")


class CompiledTemplate:
    """A compiled template. Compile it once per process; one object serves several threads.

    Attributes:
      template: the template.
      variables: the columns that the template may read; `answer_choices` is one only if the template has none of its
        own.

    Args:
      template: the template.
      truncate: characters to keep of each value on the input side, at least 3; None for all.
      seed: seed of the run.

    Raises TemplateError for an invalid template, or one that uses a construct outside the sandbox.
    """

    def __init__(self, template: Template, *, truncate: int | None, seed: int) -> None:
        if truncate is not None and truncate < 3:
            raise ValueError(f"truncate must be at least 3 characters, or None for no truncation, not {truncate}")
        self.template = template
        self._seed = seed
        self._cut = NEVER if truncate is None else truncate + LEEWAY
        self._body = _compile(template, "jinja", template.jinja)
        self._choices: Program | None = None
        self._fixed_choices: list[str] | None = None
        variables = set(self._body.variables)
        if template.answer_choices is not None:
            program = _compile(template, "answer_choices", template.answer_choices)
            variables = (variables - {_CHOICES}) | program.variables
            if program.variables or program.draws:
                self._choices = program
            else:
                self._fixed_choices = self._fix_choices(program)
        self.variables = frozenset(variables)
        self._mutates = self._body.mutates or (self._choices is not None and self._choices.mutates)

    def __repr__(self) -> str:
        return f"CompiledTemplate({self.template.name!r}, id={self.template.id!r})"

    def render(self, row: Mapping[str, object], example_id: str) -> Rendered | None:
        """Render a row; return None if the template does not apply to it.

        Args:
          row: values by the names of `variables`; not modified.
          example_id: id of the row. Random picks depend only on the seed, the template and this id.

        Raises RenderError with a reason: too_many_parts, empty_target, empty_instruction, null_value, undefined,
        unsafe, unusable_value, too_many_iterations, output_too_large, too_much_work or template_error.
        """
        names = Names(row)
        draw = Draw(self._seed, self.template.id, example_id)
        choices = None
        try:
            if self._mutates:
                names.update({name: copy_value(value) for name, value in names.items()})
            if self._choices is not None:
                choices = _split(self._choices.render(Names(names), draw, NEVER))
            elif self._fixed_choices is not None:
                choices = self._fixed_choices.copy()
            if choices is not None:
                names[_CHOICES] = choices.copy() if self._mutates else choices
            parts = _split(self._body.render(names, draw, self._cut))
        except RenderError as error:
            raise self._name_nulls(error, row) from error
        except UndefinedError as error:
            raise RenderError("undefined", str(error)[:500]) from error
        except SecurityError as error:
            raise RenderError("unsafe", str(error)[:500]) from error
        except _RAISED_BY_TEMPLATES as error:
            raise RenderError("template_error", f"{type(error).__name__}: {error}"[:500]) from error
        if len(parts) == 2 and parts[0] and parts[1]:
            return Rendered(parts[0], [parts[1]], choices)
        _check_parts(parts, row, choices)
        return None

    def _fix_choices(self, program: Program) -> list[str]:
        """Render answer choices that depend on no row."""
        try:
            return _split(program.render(Names(), Draw(0, "", ""), NEVER))
        except (RenderError, *_RAISED_BY_TEMPLATES) as error:
            raise TemplateError(f"{_where(self.template)}, field answer_choices: {error}") from error

    def _name_nulls(self, error: RenderError, row: Mapping[str, object]) -> RenderError:
        """Add the null columns of the row to the detail of a null_value error."""
        if error.reason != "null_value":
            return error
        nulls = sorted(name for name in self.variables if name in row and row[name] is None)
        return RenderError("null_value", f"{error.detail}; null columns: {', '.join(nulls) or 'none (a nested value)'}")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(SENTINEL)]


def _check_parts(parts: list[str], row: Mapping[str, object], choices: list[str] | None) -> None:
    """Raise RenderError for surplus or empty parts; return if the template does not apply to the row."""
    if len(parts) < 2 or not any(parts):
        return
    if len(parts) > 2:
        raise RenderError("too_many_parts", f"{len(parts)} parts between {SEPARATOR}; a template has two")
    notes = [f"label is {represent(row['label'])}"] if "label" in row else []
    notes += [f"there are {len(choices)} choices"] if choices is not None else []
    detail = f" ({', '.join(notes)})" if notes else ""
    if parts[0]:
        raise RenderError("empty_target", f"nothing follows {SEPARATOR}{detail}")
    raise RenderError("empty_instruction", f"nothing precedes {SEPARATOR}{detail}")


def _where(template: Template) -> str:
    return f"{template.file or 'template'}: template {template.name!r} ({template.id})"


def _compile(template: Template, field: str, source: str) -> Program:
    try:
        return compile_source(source)
    except TemplateSyntaxError as error:
        shown = str(error.message).replace(SENTINEL, SEPARATOR).replace(repr(SENTINEL)[1:-1], SEPARATOR)
        message = f"{_where(template)}, line {error.lineno} of its {field}: {shown}"
        raise TemplateError(f"{message}; correct it, or leave the template out of the mixture's `templates`") from error
    except _NOT_COMPILED as error:
        message = f"{_where(template)}, field {field}: cannot be compiled ({type(error).__name__}: {error})"
        raise TemplateError(
            f"{message}; simplify it, or leave the template out of the mixture's `templates`"
        ) from error
