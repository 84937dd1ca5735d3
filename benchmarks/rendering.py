"""Rendering against compiling the template at each call, as PromptSource does.

    python -m benchmarks.rendering [--shared ../shared] [--rows 200] [--runs 5]

The peer is plain jinja2, used as PromptSource uses it: for every row and template, the source is rewritten to truncate,
`|||` in data is escaped, and answer choices and template are compiled and rendered. The outputs of both sides are
compared before anything is timed. Prints a Markdown table of medians.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq
import yaml

from beam_pipelines.templates.compile import CompiledTemplate
from beam_pipelines.templates.files import Template, load_templates
from benchmarks.machine import describe, make_parser, markdown_table, ratio, timed

ESCAPED = "3ed2dface8203c4c9dfb1a5dc58e41e0"  # PromptSource's own, for `|||` in data
TRUNCATE = 2048
Row = dict[str, Any]
Dataset = tuple[str, list[Template], list[Row]]

PLAIN = jinja2.Environment()
PLAIN.globals["zip"] = zip


def escape(value: Any) -> Any:
    """Replace the separator `|||` in a text."""
    return value.replace("|||", ESCAPED) if isinstance(value, str) else value


def split(text: str) -> list[str]:
    """Split a rendered text at `|||` and restore the separators in data."""
    return [part.strip().replace(ESCAPED, "|||") for part in text.split("|||")]


def compile_at_each_call(template: Template, row: Row) -> tuple[list[str], list[str] | None]:
    """Compile the template and render one row; return the parts of the prompt, and the answer choices."""
    names = {name: escape(value) for name, value in row.items()}
    choices = None
    if template.answer_choices is not None:
        choices = split(PLAIN.from_string(template.answer_choices).render(**names))
    source = template.jinja.replace("}}", f" | string | truncate({TRUNCATE}) }}}}")
    return split(PLAIN.from_string(source).render(**names, answer_choices=choices)), choices


def real_datasets(shared: Path, count: int) -> Iterator[Dataset]:
    """Yield the first `count` rows of each dataset of real.yaml with its templates."""
    mixture = yaml.safe_load((shared / "mixtures" / "real.yaml").read_text())
    for entry in mixture["datasets"]:
        templates = load_templates(str(shared / "promptsource" / "templates"), entry["name"], entry.get("subset"))
        table = pq.read_table(shared / "mixtures" / entry["paths"])
        yield entry["name"], list(templates), table.slice(0, count).to_pylist()


def example_datasets(count: int) -> Iterator[Dataset]:
    """Yield a synthetic dataset, for use without real data."""
    question = "{{ text }}\nIs this review {{ answer_choices | join(' or ') }}?\n|||\n{{ answer_choices[label] }}"
    listing = (
        "{% for a in answer_choices %}{{ loop.index }}. {{ a }}\n{% endfor %}{{ text }} ||| {{ answer_choices[label] }}"
    )
    sources = {"question": question, "listing": listing}
    templates = [Template(name, name, jinja, "bad ||| good") for name, jinja in sources.items()]
    rows = [{"text": f"The film number {n} held my attention throughout.", "label": n % 2} for n in range(count)]
    yield "example", templates, rows


def check_equal(templates: list[Template], compiled: list[CompiledTemplate], rows: list[Row]) -> None:
    """Raise SystemExit if both sides render a row differently."""
    for template, ours in zip(templates, compiled, strict=True):
        for number, row in enumerate(rows):
            parts, choices = compile_at_each_call(template, row)
            rendered = ours.render(row, str(number))
            found = None if rendered is None else ([rendered.instruction, *rendered.references], rendered.choices)
            expected = (parts, choices) if len(parts) == 2 and any(parts) else None
            if found != expected:
                raise SystemExit(f"{template.name!r}, row {number}: {found} differs from {expected}")


def measure(templates: list[Template], rows: list[Row], runs: int) -> tuple[float, float]:
    """Return the median renders per second, ours and the peer's, which run in turns."""
    compiled = [CompiledTemplate(template, truncate=TRUNCATE, seed=0) for template in templates]
    few = rows[: max(1, len(rows) // 20)]  # the peer is slow
    check_equal(templates, compiled, few)

    def ours() -> None:
        for number, row in enumerate(rows):
            for each in compiled:
                each.render(row, str(number))

    def peer() -> None:
        for row in few:
            for template in templates:
                compile_at_each_call(template, row)

    times = [(timed(ours)[0], timed(peer)[0]) for _ in range(runs)]
    our_time, peer_time = (statistics.median(column) for column in zip(*times, strict=True))
    return len(rows) * len(templates) / our_time, len(few) * len(templates) / peer_time


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, shared=True)
    parser.add_argument("--rows", type=int, default=200, help="rows of each dataset (default 200)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs (default 5)")
    arguments = parser.parse_args(argv)
    real = (arguments.shared / "mixtures" / "real.yaml").is_file()
    datasets = real_datasets(arguments.shared, arguments.rows) if real else example_datasets(arguments.rows)
    rates = {name: (len(templates), *measure(templates, rows, arguments.runs)) for name, templates, rows in datasets}
    count = sum(templates for templates, _, _ in rates.values())
    ours, peer = (sum(found[0] / found[side] for found in rates.values()) for side in (1, 2))
    rates["all"] = (count, count / ours, count / peer)
    rows = [
        {
            "dataset": name,
            "templates": templates,
            "ours, renders/s": f"{ours:,.0f}",
            "µs": f"{1e6 / ours:.1f}",
            "compiled at each call, renders/s": f"{peer:,.0f}",
            "ratio": ratio(ours, peer),
        }
        for name, (templates, ours, peer) in rates.items()
    ]
    print(f"{describe('jinja2')} One core, {arguments.rows} rows a dataset, medians of {arguments.runs} runs.\n")
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
