"""What a run says of itself: `run.json` before it starts, `manifest.json` when it is done, and the dataset card."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

FORMAT_VERSION = 1
RUN = "run.json"
MANIFEST = "manifest.json"
FAILURE = "failure.json"
CARD = "README.md"
REPORT = "report.html"


def to_json(content: Mapping[str, Any]) -> bytes:
    """Readable JSON, its keys in the order given."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def fingerprint(facts: Mapping[str, Any]) -> str:
    """A 128-bit hash of everything that shapes the bytes of a run's output, as 32 hex characters."""
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """What differs between two fingerprinted sets of facts, as `path: before -> now` lines."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{path}[{index}]")
    elif before != now:
        yield f"{path}: {_short(before)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = f"{len(value)} entries" if isinstance(value, (list, Mapping)) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def dataset_card(title: str, text: str, configs: Mapping[str, str]) -> str:
    """A README.md with which `datasets.load_dataset(DIR)` finds the Parquet files.

    `configs` maps configuration names to patterns; the first one is the default.
    """
    lines = ["configs:"]
    for index, (name, pattern) in enumerate(configs.items()):
        lines += [f"- config_name: {name}", f"  data_files: {pattern}"]
        lines += ["  default: true"] if index == 0 else []
    return "\n".join(["---", *lines, "---", f"# {title}", "", text, ""])
