"""Metadata of a run: the fingerprint, the names of its files (`run.json`, `manifest.json`, ...), the dataset card."""

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from schemas.ids import digest_of

RUN = "run.json"
MANIFEST = "manifest.json"
EARLIER = "manifest.earlier.json"
LOCK = ".lock"
FAILURE = "failure.json"
CARD = "README.md"
REPORT = "report.html"
METRICS = "metrics.json"


def to_json(content: Mapping[str, Any]) -> bytes:
    """Return indented JSON in UTF-8, with keys in the given order."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Return a 128-bit hash of the fingerprint inputs as 32 hex characters.

    The inputs are all that determines the bytes of a run's output: see `run.json`, where they are kept as `facts`.
    """
    return digest_of(json.dumps(inputs, sort_keys=True).encode())


class Difference(NamedTuple):
    """A place where two sets of fingerprint inputs differ; `str` gives `path: before -> now`.

    Args:
      path: the keys that lead there; an entry of a list is `[name]`, or `[index]` where entries have no name.
      before, now: the values; ABSENT for a named entry that one of the lists lacks, REORDERED for a list whose entries
        are the same in another order.
    """

    path: tuple[str, ...]
    before: Any
    now: Any

    def __str__(self) -> str:
        path = "".join(step if step.startswith("[") else f".{step}" for step in self.path).removeprefix(".")
        if REORDERED in (self.before, self.now):
            return f"{path}: different order"
        if ABSENT in (self.before, self.now):
            return f"{path}: {'missing -> present' if self.before is ABSENT else 'present -> missing'}"
        return f"{path}: {_short(self.before)} -> {_short(self.now)}"


class _Mark(Enum):
    ABSENT, REORDERED = "absent", "reordered"


ABSENT, REORDERED = _Mark.ABSENT, _Mark.REORDERED
"""In place of a value of a `Difference`."""


def differences(before: Any, now: Any, path: tuple[str, ...] = ()) -> Iterator[Difference]:
    """Yield the differences between two sets of fingerprint inputs.

    List entries that have a `name` are compared with the entry of the same name.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), (*path, str(key)))
    elif isinstance(before, list) and isinstance(now, list):
        yield from _differences_of_lists(before, now, path)
    elif before != now:
        yield Difference(path, before, now)


def _differences_of_lists(before: list[Any], now: list[Any], path: tuple[str, ...]) -> Iterator[Difference]:
    old, new = _by_name(before), _by_name(now)
    if old is not None and new is not None:
        common = [name for name in old if name in new]
        yield from (Difference((*path, f"[{name}]"), old[name], ABSENT) for name in old if name not in new)
        yield from (Difference((*path, f"[{name}]"), ABSENT, new[name]) for name in new if name not in old)
        if common != [name for name in new if name in old]:
            yield Difference(path, REORDERED, REORDERED)
        for name in common:
            yield from differences(old[name], new[name], (*path, f"[{name}]"))
    elif len(before) != len(now):
        yield Difference(path, before, now)
    else:
        for index, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, (*path, f"[{index}]"))


def _by_name(entries: list[Any]) -> dict[str, Any] | None:
    """Return the entries by their `name`, or None unless each has a unique one."""
    named = {entry["name"]: entry for entry in entries if isinstance(entry, Mapping) and "name" in entry}
    return named if len(named) == len(entries) else None


def _short(value: Any) -> str:
    text = f"{len(value)} entries" if isinstance(value, (list, Mapping)) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def dataset_card(title: str, text: str, configs: Mapping[str, str]) -> str:
    """Return a README.md that lets `datasets.load_dataset(DIR)` find the Parquet files.

    `configs` maps configuration names to file patterns; the first one is the default.
    """
    lines = ["configs:"]
    for index, (name, pattern) in enumerate(configs.items()):
        lines += [f"- config_name: {name}", f"  data_files: {pattern}"]
        lines += ["  default: true"] if index == 0 else []
    return "\n".join(["---", *lines, "---", f"# {title}", "", text, ""])
