"""Java commands and Flink configuration of the cluster of `tools.flink`."""

from collections.abc import Mapping
from pathlib import Path

import yaml

SLOTS = 2
"""Task slots of each TaskManager."""

_ATTEMPTS = 3
_DELAY = "10 s"  # longer than --environment_cache_millis, during which a dead worker may be reused
_HEAP = {"jobmanager": "512m", "taskmanager": "512m", "job-server": "512m"}
_MEMORY = {
    "framework.heap.size": "128m",
    "framework.off-heap.size": "64m",
    "task.heap.size": "384m",
    "task.off-heap.size": "0m",
    "network.min": "256m",
    "network.max": "256m",
    "managed.size": "128m",
    "jvm-metaspace.size": "256m",
    "jvm-overhead.min": "64m",
    "jvm-overhead.max": "64m",
}
"""Memory of a TaskManager, which Flink's own scripts would compute."""
_OPENS = (
    *(f"--add-exports=java.{name}=ALL-UNNAMED" for name in ("rmi/sun.rmi.registry", "security.jgss/sun.security.krb5")),
    *(
        f"--add-opens=java.base/java.{name}=ALL-UNNAMED"
        for name in ("io", "lang", "lang.invoke", "lang.reflect", "math", "net", "nio", "text", "time", "util")
    ),
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED",
    "--add-opens=java.base/sun.net.util=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
)
"""Internals that Flink and Kryo access, under Java 17."""


def java(part: str, jar: Path, main: str, *arguments: str) -> list[str]:
    """Return the command that runs the class `main` of the jar as a part of the cluster."""
    return [
        "java",
        f"-Xmx{_HEAP[part]}",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        *_OPENS,
        "-cp",
        str(jar),
        main,
        *arguments,
    ]


def configure(folder: Path, ports: Mapping[str, int]) -> None:
    """Write Flink's configuration: small, loopback only, failures detected in seconds, failed jobs restarted."""
    settings = {
        "jobmanager.rpc.address": "localhost",
        "jobmanager.rpc.port": ports["rpc"],
        "jobmanager.bind-host": "localhost",
        "rest.address": "localhost",
        "rest.bind-address": "localhost",
        "rest.port": ports["rest"],
        "taskmanager.host": "localhost",
        "taskmanager.bind-host": "localhost",
        "taskmanager.numberOfTaskSlots": SLOTS,
        "taskmanager.cpu.cores": 1.0,
        **{f"taskmanager.memory.{name}": size for name, size in _MEMORY.items()},
        "parallelism.default": 1,
        "heartbeat.interval": 2000,
        "heartbeat.timeout": 20000,
        "slot.request.timeout": 60000,
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": _ATTEMPTS,
        "restart-strategy.fixed-delay.delay": _DELAY,
        "classloader.resolve-order": "parent-first",  # the jar of a job is that of the cluster
        "io.tmp.dirs": str(folder / "tmp"),
    }
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "config.yaml").write_text(yaml.safe_dump(settings))
