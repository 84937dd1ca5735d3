"""Metadata of a run: the fingerprint, the names of its files (`run.json`, `manifest.json`, ...), the dataset card."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from schemas.ids import digest_of

RUN = "run.json"
MANIFEST = "manifest.json"
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


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield the differences between two sets of fingerprint inputs, as lines `path: before -> now`.

    List entries that have a `name` are compared with the entry of the same name.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(now, list):
        yield from _differences_of_lists(before, now, path)
    elif before != now:
        yield f"{path}: {_short(before)} -> {_short(now)}"


def _differences_of_lists(before: list[Any], now: list[Any], path: str) -> Iterator[str]:
    old, new = _by_name(before), _by_name(now)
    if old is not None and new is not None:
        common = [name for name in old if name in new]
        yield from (f"{path}[{name}]: present -> missing" for name in old if name not in new)
        yield from (f"{path}[{name}]: missing -> present" for name in new if name not in old)
        if common != [name for name in new if name in old]:
            yield f"{path}: different order"
        for name in common:
            yield from differences(old[name], new[name], f"{path}[{name}]")
    elif len(before) != len(now):
        yield f"{path}: {_short(before)} -> {_short(now)}"
    else:
        for index, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")


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
