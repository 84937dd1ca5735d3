"""Rendering against compiling the template at each call, as PromptSource does.

    python benchmarks/rendering.py [--shared ../shared] [--rows 100] [--runs 5]

The peer is plain jinja2, used the way PromptSource uses it: for every row and template the source is rewritten to
truncate, `|||` in data is hidden, and answer choices and template are compiled and rendered anew. Both sides' outputs
are compared before anything is timed. Prints a Markdown table of medians.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq
import yaml

from beam_pipelines.templates.compile import CompiledTemplate
from beam_pipelines.templates.files import Template, load_templates

HIDDEN = "\ue000" * 3
TRUNCATE = 2048
Row = dict[str, Any]
Dataset = tuple[str, list[Template], list[Row]]

PLAIN = jinja2.Environment()
PLAIN.globals["zip"] = zip


def hide(value: Any) -> Any:
    return value.replace("|||", HIDDEN) if isinstance(value, str) else value


def split(text: str) -> list[str]:
    return [part.strip().replace(HIDDEN, "|||") for part in text.split("|||")]


def compile_at_each_call(template: Template, row: Row) -> tuple[list[str], list[str] | None]:
    """One row by one template, everything compiled anew."""
    names = {name: hide(value) for name, value in row.items()}
    choices = None
    if template.answer_choices is not None:
        choices = split(PLAIN.from_string(template.answer_choices).render(**names))
    source = template.jinja.replace("}}", f" | string | truncate({TRUNCATE}) }}}}")
    return split(PLAIN.from_string(source).render(**names, answer_choices=choices)), choices


def real_datasets(shared: Path, count: int) -> Iterator[Dataset]:
    mixture = yaml.safe_load((shared / "mixtures" / "real.yaml").read_text())
    for entry in mixture["datasets"]:
        templates = load_templates(str(shared / "promptsource" / "templates"), entry["name"], entry.get("subset"))
        table = pq.read_table(shared / "mixtures" / entry["paths"])
        yield entry["name"], list(templates), table.slice(0, count).to_pylist()


def example_datasets(count: int) -> Iterator[Dataset]:
    """Made up here, for where no real data is at hand."""
    jinja = "{{ text }}\nIs this review {{ answer_choices | join(' or ') }}?\n|||\n{{ answer_choices[label] }}"
    listing = (
        "{% for a in answer_choices %}{{ loop.index }}. {{ a }}\n{% endfor %}{{ text }} ||| {{ answer_choices[label] }}"
    )
    templates = [Template("1", "question", jinja, "bad ||| good"), Template("2", "listing", listing, "bad ||| good")]
    rows = [{"text": f"The film number {n} held my attention throughout.", "label": n % 2} for n in range(count)]
    yield "example", templates, rows


def check_equal(templates: list[Template], ready: list[CompiledTemplate], rows: list[Row]) -> None:
    for template, compiled in zip(templates, ready, strict=True):
        for number, row in enumerate(rows):
            parts, choices = compile_at_each_call(template, row)
            rendered = compiled.render(row, str(number))
            ours = None if rendered is None else ([rendered.instruction, *rendered.references], rendered.choices)
            theirs = (parts, choices) if len(parts) == 2 and any(parts) else None
            if ours != theirs:
                raise SystemExit(f"{template.name!r}, row {number}: {ours} differs from {theirs}")


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(templates: list[Template], rows: list[Row], runs: int) -> tuple[float, float]:
    """Median renders per second, ours and the peer's; run in turns, so that both see the same machine."""
    ready = [CompiledTemplate(template, truncate=TRUNCATE, seed=0) for template in templates]
    few = rows[: max(1, len(rows) // 20)]  # the peer is slow
    check_equal(templates, ready, few)

    def ours() -> None:
        for number, row in enumerate(rows):
            for compiled in ready:
                compiled.render(row, str(number))

    def peer() -> None:
        for row in few:
            for template in templates:
                compile_at_each_call(template, row)

    times = [(seconds(ours), seconds(peer)) for _ in range(runs)]
    count = len(templates)
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return len(rows) * count / mine, len(few) * count / theirs


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--rows", type=int, default=200, help="rows of each dataset")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    real = (args.shared / "mixtures" / "real.yaml").is_file()
    datasets = real_datasets(args.shared, args.rows) if real else example_datasets(args.rows)
    print(f"{processor()}, one core; Python {platform.python_version()}, jinja2 {jinja2.__version__}; ", end="")
    print(f"{args.rows} rows a dataset, medians of {args.runs} runs\n")
    print("| dataset | templates | ours, renders/s | µs | compiled at each call, renders/s | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    total = ours_time = peer_time = 0.0
    for name, templates, rows in datasets:
        ours, peer = measure(templates, rows, args.runs)
        print(f"| {name} | {len(templates)} | {ours:,.0f} | {1e6 / ours:.1f} | {peer:,.0f} | x{ours / peer:.0f} |")
        total += len(templates)
        ours_time += len(templates) / ours
        peer_time += len(templates) / peer
    ours, peer = total / ours_time, total / peer_time
    print(f"| all | {total:.0f} | {ours:,.0f} | {1e6 / ours:.1f} | {peer:,.0f} | x{ours / peer:.0f} |")


if __name__ == "__main__":
    main()
