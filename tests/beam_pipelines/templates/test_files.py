"""Template files: the format, and what is wrong with one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from beam_pipelines.templates.files import Template, TemplateError, load_templates
from schemas.errors import CappyError

FILE = """dataset: tasks
subset: small
templates:
  b-id: !Template
    answer_choices: no ||| yes
    id: b-id
    jinja: '{{text}} ||| {{answer_choices[label]}}'
    metadata: &shared !TemplateMetadata
      choices_in_prompt: false
      languages: [en]
      metrics: [Accuracy]
      original_task: true
    name: 'Ends in a space '
    reference: somewhere
    task_template: true
  a-id: !Template
    answer_choices: null
    id: a-id
    jinja: 'x ||| y'
    metadata: *shared
    name: Second
    reference: ''
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def _write(text: str | bytes, folder: str = "tasks/small") -> str:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        path = tmp_path / folder / "templates.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path)

    return _write


def test_a_file_loads_in_its_order_and_to_the_character(write: Callable[..., str]) -> None:
    root = write(FILE)
    first, second = load_templates(root, "tasks", "small")
    assert first == Template(
        id="b-id",
        name="Ends in a space ",
        jinja="{{text}} ||| {{answer_choices[label]}}",
        answer_choices="no ||| yes",
        original_task=True,
        reference="somewhere",
        languages=("en",),
        metrics=("Accuracy",),
        file=f"{root}/tasks/small/templates.yaml",
    )
    assert (second.name, second.answer_choices, second.original_task) == ("Second", None, True)


def test_templates_load_from_any_file_system(write: Callable[..., str]) -> None:
    root = write(FILE)
    assert [template.id for template in load_templates(f"file://{root}/", "tasks", "small")] == ["b-id", "a-id"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("subset: small", "subset: large", r"subset \('tasks', 'large'\), not \('tasks', 'small'\)"),
        ("dataset: tasks", "dataset: other", "correct the file or move it"),
        ("    id: a-id", "    id: b-id", "have the same id b-id"),
        ("  a-id:", "  b-id:", "duplicate key 'b-id'"),
        ("jinja: 'x ||| y'", "jinja: 3", "template 'Second': field jinja must be text, not 3"),
        ("answer_choices: null", "answer_choices: [a]", "field answer_choices must be text or null"),
        ("name: Second", "name: true", "field name must be text, not True; quote it"),
        ("metadata: *shared", "metadata: none", "field metadata must be a mapping"),
        ("metadata: *shared", "metadata: *absent", "line 2"),
        ("a-id: !Template", "a-id: !Other", "not a valid template file"),
        ("a-id: !Template", "a-id: !!python/object/apply:os.getcwd", "not a valid template file"),
        ("templates:", "prompts:", "no mapping `templates`"),
        (FILE, "", "no mapping `templates`"),
        (FILE, "just text", "no mapping `templates`"),
        (FILE, "a: [", "not a valid template file"),
    ],
)
def test_a_broken_file_is_refused_by_name(write: Callable[..., str], before: str, after: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message) as raised:
        load_templates(write(FILE.replace(before, after)), "tasks", "small")
    assert "tasks/small/templates.yaml" in str(raised.value)


def test_a_file_that_is_not_text_is_refused(write: Callable[..., str]) -> None:
    with pytest.raises(TemplateError, match="not UTF-8"):
        load_templates(write(b"dataset: \xff\xfe"), "tasks", "small")


def test_a_missing_file_lists_near_names(write: Callable[..., str], tmp_path: Path) -> None:
    root = write(FILE)
    write(FILE, "tasks/large")
    write(FILE, "plain")
    with pytest.raises(TemplateError, match="near: tasks/large, tasks/small"):
        load_templates(root, "tasks", None)
    with pytest.raises(TemplateError, match="near: tasks/small"):
        load_templates(root, "tasks", "smal")
    with pytest.raises(TemplateError, match="near: plain"):
        load_templates(root, "plain", "subset")
    with pytest.raises(TemplateError, match="none of the 3 others has a near name"):
        load_templates(root, "zzzzzz", None)
    with pytest.raises(TemplateError, match="no folder of templates"):
        load_templates(str(tmp_path / "nowhere"), "tasks", None)


def test_a_file_system_that_cannot_be_used_is_explained(remote: dict[str, bytes]) -> None:
    remote["/root/tasks/small/templates.yaml"] = FILE.encode()
    assert len(load_templates("remote://host/root", "tasks", "small")) == 2
    with pytest.raises(TemplateError, match="near: tasks/small"):
        load_templates("remote://host/root", "tasks", "smal")
    with pytest.raises(CappyError, match="foo://x.*: cannot be opened: .* `cappy doctor`"):
        load_templates("foo://x", "tasks", None)
    with pytest.raises(CappyError, match="remote://locked/.*: cannot be read: NoCredentials"):
        load_templates("remote://locked/root", "tasks", None)
