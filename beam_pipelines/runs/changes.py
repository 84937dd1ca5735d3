"""How a run differs from the one in its folder, in words: input files, templates, and everything else by its path."""

from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

from schemas.manifest import ABSENT, Difference, differences

_DERIVED = ("settings", "shards")
"""The path of a setting that follows from the size of the inputs unless a flag sets it."""
_SHOWN = 5
_FILE_KEYS = ("files", "inputs", "held_out", "candidates")
_TEMPLATES = "templates"
_READ_OTHERWISE = "is read in another way than when the run started"
_NAMED = {
    ("model", "content"): "the model (the content of its files)",
    ("model", "template"): "the template (--template, or the one in the model's files)",
    ("model", "template_hash"): "the template (--template, or the one in the model's files)",
    ("settings", "prompt_template"): "the prompt template (--prompt-template)",
    ("reuse",): "the source of reused scores (--reuse, or the rows in its folders)",
}

_Path = tuple[str, ...]


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the differences between two sets of fingerprint inputs, joined by semicolons; "" if there are none.

    Of more than five the rest is counted. Differences that follow from others are left out.
    """
    found = list(differences(before, now))
    return _in_words(_grouped(found), found, file="input ")


def describe_other_run(before: Mapping[str, Any], now: Mapping[str, Any], *, growing: bool = False) -> str:
    """Return what makes a run another one than that in its folder, as a clause about the folder; "" if nothing does.

    With `growing`, new entries of `files` are no difference.
    """
    found = list(differences(before, now))
    groups = _grouped(
        [change for change in found if not (growing and change.path[0] == "files" and change.before is ABSENT)]
    )
    if not groups:
        return ""
    if all(len(path) > 1 and path[-2] in _FILE_KEYS for path in groups):
        return f"its input has changed: {_in_words(groups, found, file='')}"
    return f"holds another run: {_in_words(groups, found, file='input ')}"


def _grouped(found: Sequence[Difference]) -> dict[_Path, list[Difference]]:
    """Return differences by the path of what they are described as: a file, a template, or something by itself."""
    groups: dict[_Path, list[Difference]] = {}
    for change in found:
        groups.setdefault(_described_as(change.path), []).append(change)
    return {path: group for path, group in groups.items() if path != _DERIVED} or groups


def _described_as(path: _Path) -> _Path:
    for place, (step, entry) in enumerate(pairwise(path)):
        if step in (*_FILE_KEYS, _TEMPLATES) and entry.startswith("["):
            return path[: place + 2]
    return next(((name,) for start, name in _NAMED.items() if path[: len(start)] == start), path)


def _in_words(groups: Mapping[_Path, Sequence[Difference]], found: Sequence[Difference], *, file: str) -> str:
    """Describe the first groups and count the others; `file` stands before the name of a file."""
    shown = [_of_group(path, group, found, file) for path, group in islice(groups.items(), _SHOWN)]
    more = f" and {len(groups) - _SHOWN:,} more" if len(groups) > _SHOWN else ""
    return "; ".join(shown) + more


def _of_group(path: _Path, group: Sequence[Difference], found: Sequence[Difference], file: str) -> str:
    first = group[0]
    kind = path[-2] if len(path) > 1 and path[-1].startswith("[") else None
    owner = f" of {_name(path[-3])}" if len(path) > 2 and path[-3].startswith("[") else ""
    if kind in _FILE_KEYS:
        return _of_file(path, f"{file}{_name(path[-1])}{owner}", group, found)
    if kind == _TEMPLATES:
        return _of_template(group, f"template {_name(path[-1])!r}{owner}")
    if kind == "datasets" and ABSENT in (first.before, first.now):
        return f"dataset {_name(path[-1])} was {'added' if first.before is ABSENT else 'removed'}"
    return f"{path[0]} has changed" if path[0] in _NAMED.values() else str(first)


def _name(step: str) -> str:
    return step.removeprefix("[").removesuffix("]")


def _of_template(group: Sequence[Difference], template: str) -> str:
    if group[0].before is ABSENT:
        return f"{template} was added"
    if group[0].now is ABSENT:
        return f"{template} was removed"
    other_id = all(change.path[-1] == "id" for change in group)
    return f"{template} has another id" if other_id else f"{template} has changed"


def _of_file(path: _Path, file: str, group: Sequence[Difference], found: Sequence[Difference]) -> str:
    """Describe what became of the file whose entry is at `path`."""
    if group[0].path == path:
        return f"{file} is new" if group[0].before is ABSENT else f"{file} is missing{_moved(group[0], found)}"
    fields = {change.path[-1]: (change.before, change.now) for change in group}
    if "size" in fields:
        return f"{file} has another size ({_from_to(*fields['size'])} bytes)"
    if "ends" in fields:
        return f"{file} has the same size and other content"
    if "rows" in fields:
        return f"{file} has another number of rows to read ({_from_to(*fields['rows'])})"
    return f"{file} {_READ_OTHERWISE} ({'; '.join(map(str, group))})"


def _from_to(before: int, now: int) -> str:
    return f"{before:,} -> {now:,}"


def _moved(missing: Difference, found: Sequence[Difference]) -> str:
    """Name the new file that has the content of a missing one: its name depends on where the pattern begins."""
    new = (change for change in found if change.before is ABSENT and change.path[:-1] == missing.path[:-1])
    content = _content(missing.before)
    moved = next((change for change in new if _content(change.now) == content), None)
    if moved is None:
        return ""
    return (
        f" ({_name(moved.path[-1])} has the same content: names are relative to the fixed part of the pattern; keep "
        "that part, and add files below it)"
    )


def _content(file: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if key != "name"}
