"""The direction of imports: schemas <- cappy_model <- beam_pipelines."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "schemas": {"cappy_model", "beam_pipelines", "apache_beam", "torch", "transformers", "fsspec"},
    "cappy_model": {"beam_pipelines", "apache_beam"},
    "beam_pipelines": {"tests", "benchmarks"},
}


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_nothing_reaches_back(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & FORBIDDEN[package], path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("cappy_model.metrics.rouge", "torch"),
        ("cappy_model.generate.endpoint.engine", "torch"),
        ("beam_pipelines.cli", "torch"),
        ("schemas.records", "apache_beam"),
    ],
)
def test_imports_stay_light(module: str, unwanted: str) -> None:
    code = f"import sys, {module}; sys.exit({unwanted!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
