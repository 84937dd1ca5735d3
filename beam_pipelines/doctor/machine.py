"""Checks of the machine: cores, memory, disk, and devices for models."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from beam_pipelines.doctor.findings import BASE_INSTALL, Finding
from beam_pipelines.doctor.loading import brief, is_installed, load
from beam_pipelines.runs.release import install_command
from cappy_model.host import CGROUP_MEMBERSHIP, CGROUP_ROOT, cgroup_limits, cores_within, read_text

MIN_MEMORY = 2 * 2**30  # what the runner may hold for a million instructions
MIN_FREE_DISK = 2 * 2**30  # a model or a staged worker environment


def machine() -> list[Finding]:
    """Check cores, memory and the disk of the temporary directory."""
    cores, memory = cgroup_limits(CGROUP_ROOT, read_text(CGROUP_MEMBERSHIP))
    return [_cores(cores), _memory(memory), _disk()]


def _cores(quota: float | None) -> Finding:
    limit = f", {cores_within(None)} by affinity, {quota:g} by cgroup" if quota is not None else ""
    return Finding("Machine", "cores", "ok", f"{cores_within(quota)} usable of {os.cpu_count()}{limit}")


def _memory(limit: int | None) -> Finding:
    psutil, problem = load("psutil")
    if psutil is None:
        return Finding("Machine", "memory", "missing", f"psutil {problem}", BASE_INSTALL, needed=True)
    memory = psutil.virtual_memory()
    total = min(memory.total, limit) if limit is not None else memory.total
    free = min(memory.available, total)
    detail = f"{_gigabytes(free)} free of {_gigabytes(total)}{' (cgroup limit)' if total < memory.total else ''}"
    if free >= MIN_MEMORY:
        return Finding("Machine", "memory", "ok", detail)
    remedy = "an in-process runner may hold 2 GB per million instructions: use --limit, fewer workers, or a cluster"
    return Finding("Machine", "memory", "warn", detail, remedy)


def _disk() -> Finding:
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = "set TMPDIR to a writable folder"
        return Finding("Machine", "temporary disk", "missing", str(error), remedy, needed=True)
    detail = f"{_gigabytes(free)} free in {folder}"
    if free >= MIN_FREE_DISK:
        return Finding("Machine", "temporary disk", "ok", detail)
    return Finding("Machine", "temporary disk", "warn", detail, "set TMPDIR to a folder with more room")


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"


def devices() -> list[Finding]:
    """Check the devices for models: the CPU and, if torch is installed, CUDA devices."""
    return [_cpu(read_text(Path("/proc/cpuinfo"))), *_cuda()]


def _cpu(cpuinfo: str) -> Finding:
    flags = sorted(set(re.findall(r"\b(?:avx512_bf16|amx_bf16|bf16)\b", cpuinfo)))
    detail = f"bfloat16 in hardware ({', '.join(flags)})" if flags else "no bfloat16 in hardware: float32 suits it"
    return Finding("Devices", "cpu", "ok", detail if cpuinfo else "cannot detect bfloat16 here")


def _cuda() -> list[Finding]:
    if not is_installed("torch"):
        detail = "torch is not installed, so CUDA cannot be checked"
        return [Finding("Devices", "cuda", "missing", detail, install_command("model"))]
    torch, problem = load("torch")
    if torch is None:
        return [Finding("Devices", "cuda", "missing", f"torch {problem}", "install torch again")]
    try:
        if not torch.cuda.is_available():
            return [Finding("Devices", "cuda", "missing", "no CUDA device: models run on the CPU")]
        properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError) as error:
        return [Finding("Devices", "cuda", "missing", brief(error), "check the driver with nvidia-smi")]
    return [
        Finding("Devices", f"cuda:{index}", "ok", f"{device.name}, {_gigabytes(device.total_memory)}")
        for index, device in enumerate(properties)
    ]
