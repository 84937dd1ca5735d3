"""A Flink cluster of separate processes on this machine, for tests and trials: `python -m tools.flink up|down|flags`.

One JobManager, two TaskManagers, Beam's job server, and a pool of Python workers of this environment; all on the
loopback interface. Their jar, configuration, logs and process ids are in `flink/` of the environment (`sys.prefix`).
The jar of the job server contains Flink, so the cluster has the job server's version.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from tools.flink_config import SLOTS, configure, java

HOME = Path(sys.prefix) / "flink"
POM = Path(__file__).with_name("flink-job-server.xml")
STATE = "cluster.yaml"
TASK_MANAGERS = 2
PORTS = {"rest": 8081, "rpc": 6123, "job": 8099, "artifact": 8098, "expansion": 8097, "workers": 50000}
"""Preferred ports; a port in use is replaced by a free one."""

_START_SECONDS, _STOP_SECONDS, _REST_SECONDS = 180, 10, 10
_CACHE_MILLIS = 5_000  # otherwise each stage starts a new worker


class FlinkError(Exception):
    """The cluster cannot be started; the message has the reason and the remedy."""


def job_server_jar(folder: Path, *, version: str, series: str, beam: str) -> Path:
    """Return the jar of Flink of a `version` and of Beam's job server for a `series` of Flink ("1.19"), built once.

    Raises FlinkError if Maven is missing or does not find these versions.
    """
    jar = folder / f"job-server-{version}-by-{series}-{beam}.jar"
    if jar.exists():
        return jar
    if not shutil.which("mvn"):
        raise FlinkError(f"Maven is needed to build {jar.name}: install it, or give a job server's jar with --jar FILE")
    print(f"Building {jar} from Maven Central, which takes some minutes", flush=True)
    build = folder / "build"
    versions = [f"-Dflink.version={version}", f"-Drunner.series={series}", f"-Dbeam.version={beam}"]
    command = ["mvn", "--batch-mode", "--file", str(POM), "package", f"-Dfolder={build}", *versions]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "[ERROR]" in line]
        raise FlinkError(f"{jar.name} cannot be built: {errors[0] if errors else done.stderr}\nOther versions: --help")
    (build / "job-server.jar").rename(jar)
    shutil.rmtree(build)
    return jar


def up(folder: Path, jar: Path) -> dict[str, Any]:
    """Start the cluster; return its state. Raises FlinkError, with nothing left running, if a part does not start."""
    if not shutil.which("java"):
        raise FlinkError("Java 11 or 17 is needed, and there is no `java` on the PATH")
    if processes(folder):
        raise FlinkError(f"a cluster is running already, see {folder / STATE}; `python -m tools.flink down` ends it")
    ports = {name: _free(port) for name, port in PORTS.items()}
    logs = folder / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    configure(folder, ports)
    state: dict[str, Any] = {"jar": str(jar), "ports": ports, "processes": {}}
    try:
        for name, command in _commands(folder, jar, ports).items():
            state["processes"][name] = start(command, logs / f"{name}.log")
            save(folder, state)
        wait(folder, state["processes"], lambda: task_managers(ports["rest"]) == TASK_MANAGERS)
        wait(folder, state["processes"], lambda: _listens(ports["job"]) and _listens(ports["workers"]))
    except FlinkError:
        down(folder)
        raise
    return state


def down(folder: Path) -> int:
    """End the processes that `up` started and their workers; return the number of processes."""
    ended = [process for root in processes(folder).values() for process in (root, *root.children(recursive=True))]
    for process in ended:
        _signal(process, signal.SIGTERM)
    for process in psutil.wait_procs(ended, timeout=_STOP_SECONDS)[1]:
        _signal(process, signal.SIGKILL)
    (folder / STATE).unlink(missing_ok=True)
    return len(ended)


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state written by `save` (jar, ports, processes), or None if no cluster was started since `down`."""
    path = folder / STATE
    return yaml.safe_load(path.read_text()) if path.exists() else None


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state of the cluster, for `read_state`."""
    (folder / STATE).write_text(yaml.safe_dump(dict(state)))


def processes(folder: Path) -> dict[str, psutil.Process]:
    """Return the running processes of the cluster by name. A reused process id does not count."""
    found = {}
    for name, (pid, created) in (read_state(folder) or {"processes": {}})["processes"].items():
        if psutil.pid_exists(pid) and psutil.Process(pid).create_time() == created:
            found[name] = psutil.Process(pid)
    return found


def running(folder: Path) -> dict[str, Any]:
    """Return the state of the running cluster. Raises FlinkError if none is running."""
    state = read_state(folder)
    if state is None or not processes(folder):
        raise FlinkError("no Flink cluster is running; `make flink-up` starts one")
    return state


def flags(state: Mapping[str, Any], *, parallelism: int) -> list[str]:
    """Return the flags with which `cappy` runs a job on the cluster."""
    ports = state["ports"]
    return [
        "--runner=FlinkRunner",
        f"--flink_master=localhost:{ports['rest']}",
        f"--job_endpoint=localhost:{ports['job']}",
        "--environment_type=EXTERNAL",
        f"--environment_config=localhost:{ports['workers']}",
        f"--environment_cache_millis={_CACHE_MILLIS}",
        f"--parallelism={parallelism}",
    ]


def start(command: Sequence[str], log: Path) -> list[float]:
    """Start a process that outlives this one; return its id and creation time."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("a") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
        )
    return [process.pid, psutil.Process(process.pid).create_time()]


def ask(rest: int, path: str) -> Any:
    """Return the JobManager's REST response, at its port `rest`. Raises OSError if it does not respond."""
    with urllib.request.urlopen(f"http://localhost:{rest}/{path}", timeout=_REST_SECONDS) as answer:
        return json.load(answer)


def task_managers(rest: int) -> int:
    """Return the number of registered TaskManagers; 0 if the JobManager does not respond."""
    try:
        return int(ask(rest, "overview")["taskmanagers"])
    except OSError:
        return 0


def wait(folder: Path, parts: Mapping[str, Any], ready: Callable[[], bool]) -> None:
    """Wait until the cluster of these `parts` is `ready`.

    Raises FlinkError, naming the log, if a part ends or does not start in time.
    """
    end = time.monotonic() + _START_SECONDS
    while not ready():
        ended = sorted(parts.keys() - processes(folder).keys())
        if ended or time.monotonic() > end:
            reason = f"{ended[0]} ended" if ended else f"the cluster did not start within {_START_SECONDS} s"
            raise FlinkError(f"{reason}; see {folder / 'logs' / f'{ended[0] if ended else chr(42)}.log'}")
        time.sleep(0.5)


def task_manager(folder: Path, jar: Path) -> list[str]:
    """Return the command of a TaskManager."""
    name = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
    return java("taskmanager", jar, name, "--configDir", str(folder / "conf"))


def _commands(folder: Path, jar: Path, ports: Mapping[str, int]) -> dict[str, list[str]]:
    entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
    server = {
        "flink-master": f"localhost:{ports['rest']}",
        "job-host": "localhost",
        "job-port": ports["job"],
        "artifact-port": ports["artifact"],
        "expansion-port": ports["expansion"],
        "artifacts-dir": folder / "artifacts",
    }
    driver = "org.apache.beam.runners.flink.FlinkJobServerDriver"
    return {
        "jobmanager": java("jobmanager", jar, entry, "--configDir", str(folder / "conf")),
        **{f"taskmanager-{number}": task_manager(folder, jar) for number in range(TASK_MANAGERS)},
        "job-server": java("job-server", jar, driver, *(f"--{name}={value}" for name, value in server.items())),
        "workers": [sys.executable, str(Path(__file__).with_name("worker_pool.py")), str(ports["workers"])],
    }


def _free(preferred: int) -> int:
    """Return a free port: the preferred one if possible."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("localhost", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise FlinkError("no free port on the loopback interface")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def main() -> None:
    """Start or end the cluster, or print the flags for a job on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("up", "down", "flags"))
    parser.add_argument("--flink", default="1.20.0", help="version of Flink (default: 1.20.0)")
    parser.add_argument("--series", default="1.19", help="series of Flink of Beam's runner (default: 1.19)")
    parser.add_argument("--beam", default="2.62.0", help="version of Beam's runner (default: 2.62.0)")
    parser.add_argument("--jar", type=Path, help="a job server's jar, such as beam-runners-flink-1.20-job-server-*.jar")
    parser.add_argument("--parallelism", type=int, default=TASK_MANAGERS * SLOTS)
    arguments = parser.parse_args()
    try:
        _act(arguments)
    except FlinkError as error:
        sys.exit(f"tools.flink: {error}")


def _built(arguments: argparse.Namespace) -> Path:
    return job_server_jar(HOME, version=arguments.flink, series=arguments.series, beam=arguments.beam)


def _act(arguments: argparse.Namespace) -> None:
    if arguments.action == "down":
        print(f"{down(HOME)} processes ended")
        return
    if arguments.action == "up":
        HOME.mkdir(exist_ok=True)
        up(HOME, arguments.jar or _built(arguments))
    print(" ".join(flags(running(HOME), parallelism=arguments.parallelism)))


if __name__ == "__main__":
    main()
