"""Dataset cards: the README.md of an output folder, for readers and for `datasets.load_dataset`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from schemas.manifest import dataset_card


@dataclass(frozen=True)
class Part:
    """Files of a run that are one configuration of its dataset.

    `pattern` matches their paths below the output folder. `columns` maps names to type and meaning, if these are the
    same in all runs.
    """

    name: str
    pattern: str
    text: str
    columns: Mapping[str, tuple[str, str]] | None = None


REJECTS = Part(
    "rejects",
    "rejects/*.parquet",
    "rows that could not be used, each with `stage`, `reason`, `source`, `position`, `detail` and `excerpt`",
)


@dataclass(frozen=True)
class Card:
    """A job's description of its results: title, text from the manifest, and parts, the most important first.

    The title may depend on the manifest, too.
    """

    title: str | Callable[[Mapping[str, Any]], str]
    text: Callable[[Mapping[str, Any]], str]
    parts: Sequence[Part]


def draw_card(card: Card, manifest: Mapping[str, Any]) -> str:
    """Return the README.md of a run, a function of its manifest. Parts without files are left out."""
    paths = [entry["path"] for entry in manifest["files"]]
    parts = [part for part in card.parts if any(fnmatchcase(path, part.pattern) for path in paths)]
    files = "\n".join(f"- `{part.pattern}` (`{part.name}`): {part.text}" for part in parts)
    made = (
        "`manifest.json` has all counts and the digest of each file; `report.html` shows them. Made by cappy "
        f"{manifest['versions']['cappy']}; the fingerprint of everything that shapes the bytes is "
        f"`{manifest['fingerprint']}`."
    )
    columns = [
        f"## Columns of `{part.name}`\n\n"
        + table(["column", "type", ""], [[f"`{n}`", *c] for n, c in part.columns.items()])
        for part in parts
        if part.columns
    ]
    sections = [card.text(manifest), *([f"## Files\n\n{files}"] if parts else []), made, *columns]
    title = card.title if isinstance(card.title, str) else card.title(manifest)
    return dataset_card(title, "\n\n".join(sections), {part.name: part.pattern for part in parts})


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
