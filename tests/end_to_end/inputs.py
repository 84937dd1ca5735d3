"""Small inputs, good and bad, and checks that every finished run must pass."""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import data_bytes, manifest_of, rows_of, template, write_templates

Templates = Sequence[dict[str, Any]]
PLAIN = [template("p-0", "plain", "{{ text }}|||{{ answer }}")]
HUGE = "x" * 20_000_000
ONE_PROCESS = ["--direct_num_workers=1"]
TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
TWO_THREADS = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
PORTABLE = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
ALL_MAY_FAIL = ("--max-reject-rate", "1")


def mixture_of(root: Path, datasets: Mapping[str, tuple[Mapping[str, bytes], Templates]]) -> Path:
    """Write files, templates and a mixture of them; return its path. Template ids differ between datasets."""
    entries = []
    for name, (contents, templates) in datasets.items():
        (root / "data" / name).mkdir(parents=True)
        for file, content in contents.items():
            (root / "data" / name / file).write_bytes(content)
        write_templates(root / "templates", name, [{**each, "id": f"{name} {each['id']}"} for each in templates])
        entries.append({"name": name, "paths": f"data/{name}/*"})
    path = root / "mixture.yaml"
    path.write_text(yaml.safe_dump({"templates": "templates", "datasets": entries}))
    return path


def parquet(rows: Sequence[dict[str, Any]] | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows)), sink, **options)
    return sink.getvalue()


def json_lines(*rows: dict[str, Any] | bytes) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


_REPEATABLE = ("--held-out", "--reuse", "--score-column", "--stop")


def settled(*words: object) -> list[str]:
    """Return the words of a command without the flags that later words give again, so that tests may change some."""
    flags: list[list[str]] = []
    for word in map(str, words):
        if word.startswith("--") or not flags:
            flags.append([word])
        else:
            flags[-1].append(word)
    last = {flag[0].split("=")[0]: number for number, flag in enumerate(flags)}
    kept = [
        flag for number, flag in enumerate(flags) if flag[0] in _REPEATABLE or last[flag[0].split("=")[0]] == number
    ]
    return [word for flag in kept for word in flag]


def good(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"question {i}", "answer": f"answer {i}"} for i in range(start, start + count)]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the stderr of the command; fail for a traceback or an unexpected error."""
    error = capsys.readouterr().err
    assert "Traceback" not in error and "--debug shows" not in error, error
    return error


def rejects_of(output: Path, dataset: str) -> list[tuple[str, str]]:
    """Return (position, reason) of the rejects of a dataset, sorted."""
    rows = [row for row in rows_of(output / "rejects") if row["source"].startswith(f"{dataset}/")]
    return sorted((row["position"], row["reason"]) for row in rows)


def damaged(data: bytes, group: int) -> bytes:
    """Return a Parquet file with an intact footer and a damaged row group."""
    chunk = pq.read_metadata(pa.BufferReader(data)).row_group(group).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    stop = start + chunk.total_compressed_size
    return data[:start] + bytes(byte ^ 0xFF for byte in data[start:stop]) + data[stop:]


def check_accounts(output: Path) -> dict[str, Any]:
    """Check every count of a manifest against the files; return the manifest."""
    manifest = manifest_of(output)
    instructions, rejects = rows_of(output / "instructions"), rows_of(output / "rejects")
    rendered = Counter(row["template_id"] for row in instructions)
    for label, dataset in manifest["datasets"].items():
        lost = Counter(row["stage"] for row in rejects if row["source"].startswith(f"{label}/"))
        for identifier, counts in dataset["templates"].items():
            assert counts["rendered"] == rendered[identifier]
            assert dataset["rows"] == sum(
                counts[name] for name in ("rendered", "sampled_out", "not_applicable", "rejected")
            )
        rejected = sum(counts["rejected"] for counts in dataset["templates"].values())
        assert rejected == (lost["read"] + lost["check"]) * len(dataset["templates"]) + lost["render"]
    pairs = rows_of(output / "pairs")
    written = Counter(row["label_source"] for row in pairs)
    for source, counts in manifest["pairs"].items():
        assert counts["written"] == counts["made"] - counts["merged"] == written[source]
    by_template = Counter()
    for dataset in manifest["datasets"].values():
        for counts in dataset["templates"].values():
            by_template.update(counts["pairs"])
    assert by_template == written
    for source, histogram in manifest["labels"].items():
        assert sum(histogram) == written[source] == sum(manifest["lengths"]["response"][source])
    assert manifest["totals"]["pairs"] == len(pairs)
    assert manifest["totals"]["instructions"] == len(instructions)
    assert manifest["rejects"]["rows"] == len(rejects)
    assert {entry["path"] for entry in manifest["files"]} == set(data_bytes(output))
    return manifest
