"""Resources of this machine: cores and memory within the limits of the control groups, and the cache folder."""

import os
from pathlib import Path

CACHE = "CAPPY_CACHE"
"""Environment variable with the cache folder; default ~/.cache/cappy."""

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")


def cache_folder() -> Path:
    """Return the local cache folder: copies of models from URLs, and checkpoints before their upload."""
    return Path(os.environ.get(CACHE, Path.home() / ".cache" / "cappy"))


def cores_within(quota: float | None) -> int:
    """Return the cores of this process, at least 1: the minimum of its affinity and its control group's `quota`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(quota))) if quota is not None else cores


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    quota, _ = cgroup_limits(CGROUP_ROOT, read_text(CGROUP_MEMBERSHIP))
    return cores_within(quota)


def cgroup_limits(root: Path, membership: str) -> tuple[float | None, int | None]:
    """Return the tightest limits of a process's control groups: cores, and bytes of memory; None is no limit.

    `membership` is the text of /proc/self/cgroup, version 1 or 2. A container may hide the group's own folder and show
    it as the root, so the parents up to `root` are read too.
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
            limits = (read_text(folder / name).strip() for name in ("memory.max", "memory.limit_in_bytes"))
            # Version 1 writes "no limit" as a number near 2**63.
            memory += [int(text) for text in limits if text.isdigit() and int(text) < 2**60]
    return min(cores, default=None), min(memory, default=None)


def _quota(group: Path) -> list[float]:
    both = (
        read_text(group / "cpu.max")
        or f"{read_text(group / 'cpu.cfs_quota_us')} {read_text(group / 'cpu.cfs_period_us')}"
    )
    parts = both.split()
    return [int(parts[0]) / int(parts[1])] if len(parts) == 2 and all(map(str.isdigit, parts)) else []


def read_text(path: Path) -> str:
    """Return the text of a file, or "" if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
