"""The Flink cluster of `tools.flink` as a contender: its flags, its CPU time, and where the time of a job goes."""

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
_MIN_SECONDS = 0.5  # of a stage shown in the profile


@dataclass(frozen=True)
class Cluster:
    """A running cluster with the state recorded by `tools.flink`."""

    state: Mapping[str, Any]

    def flags(self, parallelism: int) -> list[str]:
        """Return the flags of a job on the cluster."""
        return flink.flags(self.state, parallelism=parallelism)

    @property
    def pool(self) -> psutil.Process:
        """The process that starts the Python workers."""
        return flink.processes(flink.HOME)["workers"]

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds so far by kind of process, descendants included."""
        seconds = dict.fromkeys(_KINDS.values(), 0.0)
        for name, process in flink.processes(flink.HOME).items():
            seconds[_KINDS[re.sub(r"-\d+$", "", name)]] += _cpu_of(process)
        return seconds

    def profile(self, run: Callable[[], Usage]) -> str:
        """Run a job; return its CPU seconds by kind of process, and Flink's metrics of its longest stages."""
        before = self.cpu()
        usage = run()
        spent = {kind: now - before[kind] for kind, now in self.cpu().items()}
        spent["the command (with what it starts)"] = usage.cpu - sum(spent.values())
        job = max(self._ask("jobs/overview")["jobs"], key=lambda job: job["start-time"])
        stages = self._ask(f"jobs/{job['jid']}")["vertices"]
        shown = [_row(stage) for stage in stages if stage["duration"] >= 1000 * _MIN_SECONDS]
        return "\n\n".join(
            [
                f"{usage.seconds:.1f} s, of which {job['duration'] / 1000:.1f} s on the cluster.",
                markdown_table([{"": kind, "CPU, s": f"{seconds:.1f}"} for kind, seconds in spent.items()]),
                markdown_table(shown),
                f"{len(stages) - len(shown)} stages of less than {_MIN_SECONDS} s are omitted. The seconds of a stage "
                "are from its start to its end and include waiting for input.",
            ]
        )

    def _ask(self, path: str) -> Any:
        return flink.ask(self.state["ports"]["rest"], path)


def cluster_here() -> Cluster | None:
    """Return the running cluster of `tools.flink up` in this environment, or None."""
    return Cluster(flink.running(flink.HOME)) if flink.processes(flink.HOME) else None


def _cpu_of(process: psutil.Process) -> float:
    """Return the CPU seconds of a process, its descendants, and those that they waited for."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            total += sum(each.cpu_times()[:4])  # user, system, and both of children
        except psutil.NoSuchProcess:
            continue
    return total


def _row(stage: Mapping[str, Any]) -> dict[str, str]:
    metrics = stage["metrics"]
    return {
        "stage": name_of(stage["name"]),
        "seconds": f"{stage['duration'] / 1000:.1f}",
        "records in": f"{metrics['read-records']:,}",
        "MB in": megabytes(metrics["read-bytes"]),
        "records out": f"{metrics['write-records']:,}",
        "MB out": megabytes(metrics["write-bytes"]),
    }


def name_of(vertex: str) -> str:
    """Return the steps of a stage, without the words that Flink and Beam add to them."""
    steps = re.findall(r" at (?:\[\d+\])?(.+?)\)(?= ->|$)", vertex)
    return " + ".join(step for step in steps if not step.startswith("ExtractOutput")) or vertex
