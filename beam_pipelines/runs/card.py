"""Dataset cards: what a folder of results says of itself to a reader, and to `datasets.load_dataset`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from schemas.manifest import dataset_card


@dataclass(frozen=True)
class Part:
    """Files of a run that are one configuration of its dataset.

    `pattern` is of their paths below the output folder. `columns`, where all runs have the same: name -> type and
    meaning.
    """

    name: str
    pattern: str
    text: str
    columns: Mapping[str, tuple[str, str]] | None = None


REJECTS = Part(
    "rejects",
    "rejects/*.parquet",
    "what could not be used, each with `stage`, `reason`, `source`, `position`, `detail` and `excerpt`",
)


@dataclass(frozen=True)
class Card:
    """What a job says of its results: a title, a text made of the manifest, and the parts, the most important first.

    The title may depend on the manifest, too.
    """

    title: str | Callable[[Mapping[str, Any]], str]
    text: Callable[[Mapping[str, Any]], str]
    parts: Sequence[Part]


def draw_card(card: Card, manifest: Mapping[str, Any]) -> str:
    """The README.md of a run, a function of its manifest. Parts without a file are not spoken of."""
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
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
