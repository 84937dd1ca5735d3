"""What this machine grants a process: cores and memory, within the limits of its control groups, and a cache."""

import os
from pathlib import Path

CACHE = "CAPPY_CACHE"
"""Environment variable: where copies of what is elsewhere are kept; default ~/.cache/cappy."""

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")


def cache_folder() -> Path:
    """Where copies of what is elsewhere are kept on this machine: models of URLs, checkpoints on their way there."""
    return Path(os.environ.get(CACHE, Path.home() / ".cache" / "cappy"))


def cores_within(quota: float | None) -> int:
    """Cores for this process, at least 1: the least of its affinity and `quota`, that of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(quota))) if quota is not None else cores


def usable_cores() -> int:
    """Cores that this process may use, at least 1."""
    quota, _ = cgroup_limits(CGROUP_ROOT, read_text(CGROUP_MEMBERSHIP))
    return cores_within(quota)


def cgroup_limits(root: Path, membership: str) -> tuple[float | None, int | None]:
    """The tightest limits of a process's control groups: cores, and bytes of memory; None where there is no limit.

    `membership` is the text of /proc/self/cgroup; versions 1 and 2 are read. A group's own folder may be hidden inside
    a container, which then shows it as the root, so the parents up to `root` are looked at as well.
    """
    cores: list[float] = []
    memory: list[int] = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        mount = root / controllers if controllers else root
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == mount.parent:
                break
            cores += _quota(folder)
            found = (read_text(folder / name).strip() for name in ("memory.max", "memory.limit_in_bytes"))
            # Version 1 writes "no limit" as a number near 2**63.
            memory += [int(text) for text in found if text.isdigit() and int(text) < 2**60]
    return min(cores, default=None), min(memory, default=None)


def _quota(group: Path) -> list[float]:
    both = (
        read_text(group / "cpu.max")
        or f"{read_text(group / 'cpu.cfs_quota_us')} {read_text(group / 'cpu.cfs_period_us')}"
    )
    parts = both.split()
    return [int(parts[0]) / int(parts[1])] if len(parts) == 2 and all(map(str.isdigit, parts)) else []


def read_text(path: Path) -> str:
    """The text of a file, empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
