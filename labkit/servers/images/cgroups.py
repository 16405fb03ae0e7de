"""What a container may use and what it does use, read from control groups (v1 and v2) and from inside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.core.errors import RunFailed

if TYPE_CHECKING:
    from labkit.servers.images.container import Container

ROOT = Path("/sys/fs/cgroup")
# (name, file in v2, controller and file in v1)
_FILES = {
    "memory_bytes": ("memory.current", "memory", "memory.usage_in_bytes"),
    "peak_memory_bytes": ("memory.peak", "memory", "memory.max_usage_in_bytes"),
    "pids": ("pids.current", "pids", "pids.current"),
    "memory_limit_bytes": ("memory.max", "memory", "memory.limit_in_bytes"),
    "pids_limit": ("pids.max", "pids", "pids.max"),
}
_UNLIMITED = 1 << 60


def usage(container: Container) -> dict[str, Any]:
    """memory_bytes peak_memory_bytes anonymous_bytes file_bytes pids cpu_s oom_kills; None where the kernel does not say."""
    read = _reader(container)
    out: dict[str, Any] = {name: _number(read(*_FILES[name])) for name in ("memory_bytes", "peak_memory_bytes", "pids")}
    stat = _pairs(read("memory.stat", "memory", "memory.stat"))
    out["anonymous_bytes"] = stat.get("anon", stat.get("total_rss"))
    out["file_bytes"] = stat.get("file", stat.get("total_cache"))
    microseconds = _pairs(read("cpu.stat", "", "")).get("usage_usec")
    nanoseconds = _number(read("", "cpuacct", "cpuacct.usage"))
    out["cpu_s"] = microseconds / 1e6 if microseconds is not None else nanoseconds / 1e9 if nanoseconds is not None else None
    events = _pairs(read("memory.events", "memory", "memory.oom_control"))
    out["oom_kills"] = events.get("oom_kill")
    return out


def hardening(container: Container) -> dict[str, Any]:
    """What holds for the container's first process, read inside it.

    uid gid · cap_eff cap_bnd: capabilities, as numbers · no_new_privs · seccomp (2: a filter is on) · read_only_root, by
    trying to write · memory_limit_bytes cpus pids_limit: None where there is no limit. Raises RunFailed where it cannot be read.
    """
    status = dict(line.split(":\t", 1) for line in _inside(container, "/proc/1/status").splitlines() if ":\t" in line)
    tried = container.exec(["sh", "-c", ": > /labkit-wrote-here && rm /labkit-wrote-here"])
    said = (tried.stdout + tried.stderr).lower()
    read = _reader(container, inside=True)
    return {
        "uid": int(status["Uid"].split()[0]),
        "gid": int(status["Gid"].split()[0]),
        "cap_eff": int(status["CapEff"], 16),
        "cap_bnd": int(status["CapBnd"], 16),
        "no_new_privs": status.get("NoNewPrivs", "0").strip() == "1",
        "seccomp": int(status.get("Seccomp", "0")),
        "read_only_root": tried.returncode != 0 and "read-only" in said,
        "memory_limit_bytes": _number(read(*_FILES["memory_limit_bytes"])),
        "cpus": _cpus(read),
        "pids_limit": _number(read(*_FILES["pids_limit"])),
    }


def _cpus(read: Any) -> float | None:
    text = read("cpu.max", "", "")
    if text:  # v2: "50000 100000", or "max 100000"
        quota, period = text.split()
        return None if quota == "max" else int(quota) / int(period)
    given, every = _number(read("", "cpu", "cpu.cfs_quota_us")), _number(read("", "cpu", "cpu.cfs_period_us"))
    return given / every if given and given > 0 and every else None


def _reader(container: Container, inside: bool = False) -> Any:
    """read(file in v2, controller, file in v1) -> its text, "" where there is none."""
    folders = None if inside else _folders(container)

    def read(two: str, controller: str, one: str) -> str:
        if folders is not None:
            for path in ([folders[""] / two] if two and "" in folders else []) + (
                [folders[controller] / one] if controller in folders else []
            ):
                if path.is_file():
                    return path.read_text().strip()
            return ""
        for name in ([two] if two else []) + ([f"{controller}/{one}"] if controller else []):
            done = container.exec(["cat", f"{ROOT}/{name}"])
            if done.returncode == 0:
                return done.stdout.strip()
        return ""

    return read


def _folders(container: Container) -> dict[str, Path] | None:
    """The container's folder for each v1 controller, "" for v2; None where its process is not this machine's."""
    if sys.platform != "linux" or not (pid := container.pid) or not (listing := Path(f"/proc/{pid}/cgroup")).is_file():
        return None
    out = {}
    for line in listing.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            base = ROOT / controller if controller and (ROOT / controller).is_dir() else ROOT
            folder = base / path.lstrip("/")
            if folder.is_dir():
                out[controller] = folder
    return out or None


def _inside(container: Container, path: str) -> str:
    done = container.exec(["cat", path])
    if done.returncode:
        raise RunFailed(
            f"{path} of container {container.name} cannot be read: {(done.stderr or done.stdout).strip()[:200]}", "is it running?"
        )
    return done.stdout


def _number(text: str) -> int | None:
    """None for "max", for v1's huge number that means the same, and for nothing."""
    digits = text.strip()
    if not digits.lstrip("-").isdigit():
        return None
    return int(digits) if int(digits) < _UNLIMITED else None


def _pairs(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
