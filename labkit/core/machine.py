"""What machine is this, and how much of it may we use?

Limits are those of the container (cgroup v1 and v2) where they are lower than the machine's.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import psutil

# the instruction sets that decide how fast quantized matrix products run
_ISA = (
    "avx",
    "avx2",
    "f16c",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
_NO_LIMIT = 1 << 60


def cores() -> int:
    """Cores this process may use: affinity and the container's CPU quota, at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(count, int(quota + 0.5)) if quota else count)


def memory_limit_bytes() -> int:
    """Memory this process could have at most: the machine's, or the container's limit where that is lower."""
    return min(psutil.virtual_memory().total, _cgroup_limit())


def memory_available_bytes() -> int:
    """Memory free for a new model now, within the container's limit."""
    limit = _cgroup_limit()
    free = psutil.virtual_memory().available
    return min(free, max(0, limit - _cgroup_usage())) if limit < _NO_LIMIT else free


@functools.cache
def fingerprint() -> dict[str, Any]:
    """What a measurement must carry so that others can read it. No name, no address, no path."""
    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": cores(),
        "isa": sorted(_cpu_flags() & set(_ISA)),
        "memory_bytes": memory_limit_bytes(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }
    facts["id"] = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:12]
    return facts


def caption() -> str:
    """One line for under a plot."""
    f = fingerprint()
    return f"{f['cpu']}, {f['cores']} cores, {f['memory_bytes'] / 2**30:.1f} GiB, {f['system']} {f['architecture']}"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass  # not Linux: the platform module knows
    return platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"asimd"} if platform.machine().lower() in ("arm64", "aarch64") else set()
    words: set[str] = set()
    for line in text.splitlines():
        if line.split(":")[0].strip() in ("flags", "Features"):
            words |= set(line.split(":", 1)[1].split())
    return words


def _cgroup_folders(controller: str) -> list[Path]:
    """This process's cgroup folders from the innermost out: v1 under its controller, v2 unified."""
    folders: list[Path] = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = Path("/sys/fs/cgroup") / (controller if names else "")
        here = root / path.lstrip("/")
        folders += [p for p in (here, *here.parents) if p == root or root in p.parents]
        folders.append(root)
    return folders


def _read_int(folders: list[Path], names: tuple[str, ...]) -> list[int]:
    found = []
    for folder in folders:
        for name in names:
            try:
                found.append(int((folder / name).read_text().split()[0]))
            except (OSError, ValueError, IndexError):
                continue  # no such file in this version, or "max"
    return found


def _cgroup_limit() -> int:
    values = _read_int(_cgroup_folders("memory"), ("memory.max", "memory.limit_in_bytes"))
    return min([v for v in values if 0 < v < _NO_LIMIT], default=_NO_LIMIT)


def _cgroup_usage() -> int:
    """Used memory without the page cache that the kernel gives back."""
    folders = _cgroup_folders("memory")
    used = _read_int(folders[:1], ("memory.current", "memory.usage_in_bytes"))
    inactive = 0
    for folder in folders[:1]:
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            inactive = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        except (OSError, ValueError):
            pass  # no statistics: count all of it as used
    return max(0, max(used, default=0) - inactive)


def _cpu_quota() -> float | None:
    for folder in _cgroup_folders("cpu"):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                return int(quota) / int(period)
        except (OSError, ValueError):
            pass  # cgroup v1, or no limit here
        found = _read_int([folder], ("cpu.cfs_quota_us",)), _read_int([folder], ("cpu.cfs_period_us",))
        if found[0] and found[0][0] > 0 and found[1]:
            return found[0][0] / found[1][0]
    return None
