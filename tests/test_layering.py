"""The direction of imports: between the packages, and between the rooms of beam_pipelines; and what imports cost."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from beam_pipelines.runs.job import JOBS, package_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("schemas", "cappy_model", "beam_pipelines")
FORBIDDEN = {
    "schemas": {"cappy_model", "beam_pipelines", "apache_beam", "torch", "transformers", "fsspec"},
    "cappy_model": {"beam_pipelines", "apache_beam"},
    "beam_pipelines": {"tests", "benchmarks", "experiments", "tools"},
}
LAYERS = (
    ("io", "report", "templates"),
    ("runs",),
    ("runners", "transforms", "models"),
    ("jobs",),
    ("doctor",),
    ("cli",),
    ("program",),
)
"""The rooms of beam_pipelines. A module imports rooms of its own layer and of those before."""

# `options` re-exports a public name; the `__main__` of a job or of the doctor starts the program.
UNLAYERED = {"beam_pipelines", "beam_pipelines.options"}
FUNCTIONS_ONLY = {"scipy"}
NOWHERE = {"matplotlib", "pandas"}
JOBS_ROOM = "beam_pipelines.jobs"
HEAVY = ("apache_beam", "pyarrow", "torch", "numpy")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def nodes_run(tree: ast.AST, *, functions: bool) -> Iterator[ast.AST]:
    """Yield the nodes that run: without `if TYPE_CHECKING`, and without functions unless `functions`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not functions:
            continue
        yield node
        yield from nodes_run(node, functions=functions)


def imported(module: str, *, functions: bool) -> set[str]:
    """Return the modules that a module imports, ours by the name of their file."""
    found: set[str] = set()
    for node in nodes_run(TREES[module], functions=functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found


def components(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the groups of two or more nodes that reach each other."""
    reach = {node: reachable(graph, node) for node in graph}
    groups = [{other for other in reach[node] if node in reach[other]} for node in graph]
    return [group for group in groups if group]


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return the nodes that edges lead to from `start`."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found


def layer_of(module: str) -> int:
    room = module.split(".")[1]
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_in_one_direction(package: str) -> None:
    modules = [module for module in FILES if module.split(".")[0] == package]
    assert modules
    for module in modules:
        assert not {name.split(".")[0] for name in imported(module, functions=True)} & FORBIDDEN[package], module


def test_rooms_import_in_one_direction() -> None:
    wrong = [
        f"{module} -> {target}"
        for module in FILES
        if module.startswith("beam_pipelines.") and module not in UNLAYERED and not module.endswith(".__main__")
        for target in imported(module, functions=True)
        if target.startswith("beam_pipelines.") and target not in UNLAYERED and layer_of(target) > layer_of(module)
    ]
    assert not wrong


def test_no_modules_import_each_other() -> None:
    graph = {module: imported(module, functions=False) & FILES.keys() for module in FILES}
    assert not components(graph)


def test_no_jobs_import_each_other() -> None:
    graph: dict[str, set[str]] = {name.replace("-", "_"): set() for name in JOBS}
    for module in FILES:
        if module.startswith(f"{JOBS_ROOM}."):
            job = module.split(".")[2]
            targets = {
                name.split(".")[2] for name in imported(module, functions=True) if name.startswith(f"{JOBS_ROOM}.")
            }
            graph[job] |= targets - {job}
    assert not components(graph)


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for module in FILES:
        everywhere = {name.split(".")[0] for name in imported(module, functions=True)}
        at_start = {name.split(".")[0] for name in imported(module, functions=False)}
        assert not everywhere & NOWHERE, module
        assert not at_start & FUNCTIONS_ONLY, module


LIGHT = [
    ("cappy_model.metrics.rouge", ("torch",)),
    ("cappy_model.generate.endpoint.engine", ("torch",)),
    ("schemas.records", ("apache_beam",)),
    ("beam_pipelines.program", HEAVY),
    ("beam_pipelines.cli", HEAVY),
    *((package_of(job), HEAVY) for job in JOBS),
]


@pytest.mark.parametrize(("module", "unwanted"), LIGHT, ids=[module for module, _ in LIGHT])
def test_imports_stay_light(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(name for name in {unwanted!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
