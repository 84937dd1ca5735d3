"""The Flink cluster of `tools.flink`, as a contender: its flags, its CPU time, and where a job's time goes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.machine import Usage, markdown_table, megabytes
from tools import flink

_KINDS = {
    "taskmanager": "TaskManagers (Java)",
    "jobmanager": "JobManager (Java)",
    "job-server": "Beam's job server (Java)",
    "workers": "Python workers",
}
_SHORTEST = 0.5  # seconds of a stage that the profile shows


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs: what `tools.flink` wrote down of it."""

    state: Mapping[str, Any]

    def flags(self, parallelism: int) -> list[str]:
        """Those of a job on it."""
        return flink.flags(self.state, parallelism=parallelism)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each kind of process, with the descendants of each."""
        found = dict.fromkeys(_KINDS.values(), 0.0)
        for name, process in flink.processes(flink.HOME).items():
            found[_KINDS[re.sub(r"-\d+$", "", name)]] += _cpu_of(process)
        return found

    def profile(self, run: Callable[[], Usage]) -> str:
        """Runs a job; CPU seconds by kind of process, and what Flink counted of the stages that took long."""
        before = self.cpu()
        usage = run()
        spent = {kind: now - before[kind] for kind, now in self.cpu().items()}
        spent["the command (with what it starts)"] = usage.cpu - sum(spent.values())
        kinds = [[kind, f"{seconds:.1f}"] for kind, seconds in spent.items()]
        job = max(self._ask("jobs/overview")["jobs"], key=lambda job: job["start-time"])
        stages = [_stage(vertex) for vertex in self._ask(f"jobs/{job['jid']}")["vertices"]]
        header = ["stage", "seconds", "records in", "MB in", "records out", "MB out"]
        shown = [row for seconds, row in stages if seconds >= _SHORTEST]
        return "\n\n".join(
            [
                f"{usage.seconds:.1f} s, of which {job['duration'] / 1000:.1f} s on the cluster.",
                markdown_table(["", "CPU, s"], kinds),
                markdown_table(header, shown),
                f"{len(stages) - len(shown)} stages of less than {_SHORTEST} s are left out. A stage's seconds are "
                "from its start to its end, with waiting for what it reads.",
            ]
        )

    def _ask(self, path: str) -> Any:
        return flink.ask(self.state["ports"]["rest"], path)


def cluster_here() -> Cluster | None:
    """The cluster that `tools.flink up` has started in this environment; None where none runs."""
    return Cluster(flink.running(flink.HOME)) if flink.processes(flink.HOME) else None


def _cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process and of its descendants, those that have ended included where they were waited for."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _stage(vertex: Mapping[str, Any]) -> tuple[float, list[str]]:
    """Seconds of a stage, and its row of the table."""
    seconds, counted = vertex["duration"] / 1000, vertex["metrics"]
    records = [f"{counted[f'{way}-records']:,}" for way in ("read", "write")]
    moved = [megabytes(counted[f"{way}-bytes"]) for way in ("read", "write")]
    return seconds, [name_of(vertex["name"]), f"{seconds:.1f}", records[0], moved[0], records[1], moved[1]]


def name_of(vertex: str) -> str:
    """The steps of a stage, without what Flink and Beam say around them."""
    steps = re.findall(r" at (?:\[\d+\])?(.+?)\)(?= ->|$)", vertex)
    return " + ".join(step for step in steps if not step.startswith("ExtractOutput")) or vertex
