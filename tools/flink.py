"""A Flink cluster of separate processes on this machine, for tests and trials: `python -m tools.flink up|down|flags`.

One JobManager, two TaskManagers, Beam's job server, and a pool of Python workers of this very environment; all on the
loopback interface. They live in `flink/` within the environment (`sys.prefix`): jar, configuration, logs, process ids.
The jar of the job server holds Flink as well, so the cluster is of the job server's version.
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
"""Preferred; one that is taken is replaced by a free one."""

_START_SECONDS, _STOP_SECONDS, _REST_SECONDS = 180, 10, 10
_CACHE_MILLIS = 5_000  # else each stage starts its worker anew


class FlinkError(Exception):
    """The cluster cannot be started; says why, and what to do."""


def job_server_jar(folder: Path, *, version: str, series: str, beam: str) -> Path:
    """The jar of Flink of a `version`, and of Beam's job server for a `series` of Flink ("1.19"), built once.

    Raises FlinkError where Maven is missing or has not got these versions.
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
        said = [line for line in done.stdout.splitlines() if "[ERROR]" in line]
        raise FlinkError(f"{jar.name} cannot be built: {said[0] if said else done.stderr}\nOther versions: --help")
    (build / "job-server.jar").rename(jar)
    shutil.rmtree(build)
    return jar


def up(folder: Path, jar: Path) -> dict[str, Any]:
    """Starts the cluster; its state. Raises FlinkError, and leaves nothing running, where a part does not start."""
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
    """Ends what `up` started, and the workers that it has started in turn; how many processes those were."""
    ended = [process for root in processes(folder).values() for process in (root, *root.children(recursive=True))]
    for process in ended:
        _signal(process, signal.SIGTERM)
    for process in psutil.wait_procs(ended, timeout=_STOP_SECONDS)[1]:
        _signal(process, signal.SIGKILL)
    (folder / STATE).unlink(missing_ok=True)
    return len(ended)


def read_state(folder: Path) -> dict[str, Any] | None:
    """What was started there last, by `save`: jar, ports, processes; None where nothing was, or `down` has ended it."""
    path = folder / STATE
    return yaml.safe_load(path.read_text()) if path.exists() else None


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes down what runs, for `read_state`."""
    (folder / STATE).write_text(yaml.safe_dump(dict(state)))


def processes(folder: Path) -> dict[str, psutil.Process]:
    """The processes of the cluster that still run, by name. A process id that is used again is not one of them."""
    found = {}
    for name, (pid, created) in (read_state(folder) or {"processes": {}})["processes"].items():
        if psutil.pid_exists(pid) and psutil.Process(pid).create_time() == created:
            found[name] = psutil.Process(pid)
    return found


def running(folder: Path) -> dict[str, Any]:
    """The state of the cluster that runs there. Raises FlinkError where none does."""
    state = read_state(folder)
    if state is None or not processes(folder):
        raise FlinkError("no Flink cluster is running; `make flink-up` starts one")
    return state


def flags(state: Mapping[str, Any], *, parallelism: int) -> list[str]:
    """The flags with which `cappy` runs a job on the cluster."""
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
    """Starts a process that outlives this one; its id and the time of its creation."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("a") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
        )
    return [process.pid, psutil.Process(process.pid).create_time()]


def ask(rest: int, path: str) -> Any:
    """What the JobManager answers over REST, at its port `rest`. Raises OSError where it does not answer."""
    with urllib.request.urlopen(f"http://localhost:{rest}/{path}", timeout=_REST_SECONDS) as answer:
        return json.load(answer)


def task_managers(rest: int) -> int:
    """How many TaskManagers have registered; 0 where the JobManager does not answer."""
    try:
        return int(ask(rest, "overview")["taskmanagers"])
    except OSError:
        return 0


def wait(folder: Path, parts: Mapping[str, Any], ready: Callable[[], bool]) -> None:
    """Waits until the cluster of these `parts` is `ready`.

    Raises FlinkError, naming the log, where a part ends or never comes.
    """
    end = time.monotonic() + _START_SECONDS
    while not ready():
        ended = sorted(parts.keys() - processes(folder).keys())
        if ended or time.monotonic() > end:
            what = f"{ended[0]} ended" if ended else f"the cluster did not start within {_START_SECONDS} s"
            raise FlinkError(f"{what}; see {folder / 'logs' / f'{ended[0] if ended else chr(42)}.log'}")
        time.sleep(0.5)


def task_manager(folder: Path, jar: Path) -> list[str]:
    """The command of a TaskManager."""
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
    """A port that nobody listens at: the preferred one if possible."""
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
    """Starts or ends the cluster, or prints the flags for a job on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("up", "down", "flags"))
    parser.add_argument("--flink", default="1.20.0", help="version of Flink (default: 1.20.0)")
    parser.add_argument("--series", default="1.19", help="of Flink, that Beam's runner is for (default: 1.19)")
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
