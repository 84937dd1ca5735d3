"""How a run differs from the one in its folder, in words: input files, templates, and everything else by its path."""

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.manifest import ABSENT, Difference, differences

_DERIVED = ("settings", "shards")
"""The path of a setting that follows from the size of the inputs unless a flag sets it."""
_SHOWN = 5
_FILE_KEYS = ("files", "inputs", "held_out", "candidates")
_READ_OTHERWISE = "is read in another way than when the run was begun"
_NAMED = {
    ("model", "template"): "the template (--template, or the one in the model's files)",
    ("model", "template_hash"): "the template (--template, or the one in the model's files)",
    ("settings", "prompt_template"): "the prompt template (--prompt-template)",
    ("reuse",): "what --reuse takes over (its folders, or the scores in them)",
}


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any], *, growing: bool = False) -> str:
    """Return the differences between two sets of fingerprint inputs, joined by semicolons; "" if there are none.

    Of more than five the rest is counted. Differences that follow from others are left out; with `growing` new entries
    of `files` are none.
    """
    found = list(differences(before, now))
    told = [change for change in found if change.path != _DERIVED] or found
    if growing:
        told = [change for change in told if not (change.path[0] == "files" and change.before is ABSENT)]
    changes = list(dict.fromkeys(_in_words(change, found) for change in told))
    more = f" and {len(changes) - _SHOWN:,} more" if len(changes) > _SHOWN else ""
    return "; ".join(changes[:_SHOWN]) + more


def _in_words(change: Difference, all_changes: Sequence[Difference]) -> str:
    path = change.path
    for place in range(len(path) - 1):
        if not path[place + 1].startswith("["):
            continue
        owner = f" of {_name(path[place - 1])}" if place and path[place - 1].startswith("[") else ""
        if path[place] in _FILE_KEYS:
            return _of_file(path[: place + 2], f"input {_name(path[place + 1])}{owner}", all_changes)
        if path[place] == "templates":
            return _of_template(change, f"template {_name(path[place + 1])!r}{owner}")
    if path[0] == "datasets" and ABSENT in (change.before, change.now):
        return f"dataset {_name(path[-1])} {'was added' if change.before is ABSENT else 'is gone'}"
    for start, name in _NAMED.items():
        if path[: len(start)] == start:
            return f"{name} has changed"
    return str(change)


def _name(step: str) -> str:
    return step.removeprefix("[").removesuffix("]")


def _of_template(change: Difference, template: str) -> str:
    if change.before is ABSENT:
        return f"{template} was added"
    if change.now is ABSENT:
        return f"{template} is gone"
    return f"{template} has another id" if change.path[-1] == "id" else f"{template} has changed"


def _of_file(path: tuple[str, ...], file: str, all_changes: Sequence[Difference]) -> str:
    """Describe what became of the file whose entry is at `path`."""
    own = [change for change in all_changes if change.path[: len(path)] == path]
    if own[0].path == path:
        return f"{file} is new" if own[0].before is ABSENT else f"{file} is gone{_moved(own[0], all_changes)}"
    fields = {change.path[-1]: (change.before, change.now) for change in own}
    if "size" in fields:
        return f"{file} has changed since the run was begun (size {_from_to(*fields['size'])} bytes)"
    if "ends" in fields:
        return f"{file} has changed since the run was begun (the same size, other content)"
    if "rows" in fields:
        return f"{file} has another number of rows to read ({_from_to(*fields['rows'])})"
    return f"{file} {_READ_OTHERWISE} ({'; '.join(map(str, own))})"


def _from_to(before: int, now: int) -> str:
    return f"{before:,} -> {now:,}"


def _moved(gone: Difference, all_changes: Sequence[Difference]) -> str:
    """Name the new file that has the content of one that is gone: its name depends on where the pattern begins."""
    new = [change for change in all_changes if change.before is ABSENT and change.path[:-1] == gone.path[:-1]]
    moved = next((change for change in new if _content(change.now) == _content(gone.before)), None)
    if moved is None:
        return ""
    return (
        f" ({_name(moved.path[-1])} has its content; files are known by their names below the folder that the pattern "
        "begins with: keep it, and put new files or links to them below that folder)"
    )


def _content(file: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if key != "name"}
