"""What containers do, decided on real ones: small containers of Debian's image, of this run, on no port.

The world's `containers_tool` is the package labkit.servers.images, or a stand-in that behaves as a claim says.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

from labkit.facts.live.world import Seen, World

BASE = "docker.io/library/debian:bookworm-slim"
PATIENCE_S = 15.0
_SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 120 & wait"]  # ends at once when it is told to
_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def kernel(world: World) -> Seen:
    """`container-own-kernel`"""
    tool = world.containers_tool
    with tool.run(tool.ensure(BASE), command=_SLEEP) as one:
        inside, ours = one.exec(["uname", "-r"]).stdout.strip(), platform.release()
        here = bool(one.pid) and Path(f"/proc/{one.pid}").exists()
    if not here:
        return None, f"containers run in a virtual machine here, whose kernel is {inside}"
    return inside == ours, f"uname -r says {inside} inside and {ours} outside"


def sees_limit(world: World) -> Seen:
    """`container-sees-its-limit`: what /proc/meminfo and nproc say inside a container of 64 MB and half a core."""
    tool = world.containers_tool
    with tool.run(tool.ensure(BASE), memory_mb=64, cpus=0.5, command=_SLEEP) as one:
        total = int(one.exec(["cat", "/proc/meminfo"]).stdout.split("MemTotal:", 1)[1].split()[0]) * 1024
        cores, limit = one.exec(["nproc", "--all"]).stdout.strip(), tool.hardening(one)["memory_limit_bytes"]
    if not limit:
        return None, "the limit of 64 MB is in no control group that can be read here"
    return total > 2 * limit, f"with a limit of {limit / 2**20:.0f} MiB it sees {total / 2**20:,.0f} MiB, with half a core {cores} core(s)"


def oom(world: World) -> Seen:
    """`container-oom-ends-it`: a second process takes all the memory of its container. Does the container end?"""
    tool, kills = world.containers_tool, 0
    words = ["sh", "-c", "tail /dev/zero; exec sleep 120"]
    with tool.run(tool.ensure(BASE), memory_mb=24, command=words) as one:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not kills and one.alive():
            kills = max(_kills(one.exec(["cat", path]).stdout) for path in _COUNTERS)
            time.sleep(0.2)
        alive, flag = one.alive(), bool(one.state.get("OOMKilled"))
    if alive and not kills:
        return None, "the kernel killed nothing within the time"
    state = "runs" if alive else f"ended with code {one.exit_code}"
    return alive, f"the kernel killed {kills} process(es); the container {state}, its flag OOMKilled is {str(flag).lower()}"


def _kills(text: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def published(world: World) -> Seen:
    """`container-port-loopback`: the address of a port that is published without one. The container is made, not started."""
    tool = world.containers_tool.tool()
    label = world.containers_tool.runs.current().label
    made = tool.run(["create", "--label", label, "--publish", "8080:8080", world.containers_tool.ensure(BASE), "true"]).stdout.split()[-1]
    try:
        about = json.loads(tool.run(["container", "inspect", made]).stdout)[0]
    finally:
        tool.run(["rm", "--force", made])
    address = about["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostIp"]
    return address in ("", "0.0.0.0", "::"), f"-p 8080:8080 is published on {address or 'every address (none is named)'}"  # noqa: S104
