"""A running container: hardened unless told otherwise, published on loopback alone, removed with this process.

>>> with images.run(image, port=8080, memory_mb=512) as running:
...     print(running.base_url)
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from labkit.core.errors import BadInput, RunFailed
from labkit.servers.base import HOST
from labkit.servers.images import cgroups, runs, sweep
from labkit.servers.images.build import Image
from labkit.servers.images.tool import Tool, last_line

HARDENED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")
TMPFS = "/tmp"  # noqa: S108 - a folder inside the container
NOBODY = "65532:65532"  # for an image that names no user of its own
LIMITS: dict[str, Any] = {"memory_mb": 512, "cpus": 1.0, "pids": 128}


class Container:
    """A container of this run. Stop it, or use it as a context manager; it is also removed when this process ends."""

    def __init__(self, run: runs.Run, name: str, id: str, ports: Mapping[int, int], notes: Path) -> None:
        self._run, self.name, self.id, self.ports = run, name, id, dict(ports)
        self._notes = notes  # the folder that it was started in: podman's watcher leaves a file "oom" there
        self._peak = 0
        self._last: dict[str, Any] = {}  # what was known of it before it was removed

    @property
    def tool(self) -> Tool:
        return self._run.tool

    @property
    def url(self) -> str:
        """Of its first published port: http://127.0.0.1:PORT. Raises BadInput where it publishes none."""
        if not self.ports:
            raise BadInput(f"container {self.name} publishes no port", "port=8080")
        return f"http://{HOST}:{next(iter(self.ports.values()))}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def inspect(self) -> dict[str, Any]:
        """What the tool knows of it; the last known state once it is removed."""
        if self._gone() and not self._last:
            raise RunFailed(f"container {self.name} is gone", "start it again")
        return self._last

    @property
    def state(self) -> dict[str, Any]:
        return dict(self.inspect()["State"])

    def alive(self) -> bool:
        return bool(self.state["Running"])

    @property
    def pid(self) -> int | None:
        """Its first process, as this machine counts; None where that runs elsewhere, or has ended."""
        return int(self.state.get("Pid") or 0) or None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        state = self.state
        return None if state["Running"] else int(state["ExitCode"])

    @property
    def oom_killed(self) -> bool:
        """Did the kernel kill it, or a process in it, since its memory limit was reached?"""
        state = self.state
        if state["Running"]:
            return bool(cgroups.usage(self)["oom_kills"])
        # podman 4.3 does not find the note of its own watcher, which lies in the folder where podman was started
        return bool(state.get("OOMKilled")) or ((self._notes / "oom").exists() and int(state["ExitCode"]) == 137)

    def exec(self, words: Sequence[str], *, check: bool = False, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command inside it. Raises RunFailed where `check` and it fails."""
        return self.tool.run(["exec", *(["--interactive"] if stdin is not None else []), self.id, *words], check=check, stdin=stdin)

    def logs(self) -> str:
        """What it wrote, both streams."""
        done = self.tool.run(["logs", self.id], check=False)
        return done.stdout + done.stderr

    def health(self) -> bool:
        """Run the image's own HEALTHCHECK once, now. Raises BadInput where the image has none."""
        test = (self.inspect()["Config"].get("Healthcheck") or {}).get("Test") or []
        if not test or test[0] == "NONE":
            raise BadInput(f"the image of {self.name} has no HEALTHCHECK", "a line HEALTHCHECK CMD … in its Containerfile")
        if self.tool.name == "podman":
            return self.tool.run(["healthcheck", "run", self.id], check=False).returncode == 0
        # Docker has no command for it: its engine runs the same words inside, by a timer
        words = ["sh", "-c", *test[1:]] if test[0] == "CMD-SHELL" else test[1:]
        return self.exec(words).returncode == 0

    healthy = health

    def wait(self, path: str | None = None, seconds: float = 60) -> Container:
        """Until its health check passes, or PATH answers 200. Raises RunFailed with the end of its log."""
        end = time.monotonic() + seconds
        while not (self.health() if path is None else self._answers(path)):
            alive = self.alive()
            if not alive or time.monotonic() > end:
                why = "took too long to get ready" if alive else f"ended with code {self.exit_code}"
                why += ", out of memory" if self.oom_killed else ""
                raise RunFailed(f"container {self.name} {why}: {last_line(self.logs())}", f"{self.tool.name} logs {self.id[:12]}")
            time.sleep(0.1)
        return self

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(self.url + path, timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def stats(self) -> dict[str, Any]:
        """Of its control group: memory_bytes peak_memory_bytes anonymous_bytes file_bytes pids cpu_s oom_kills; None where unknown."""
        found = cgroups.usage(self)
        self._peak = max(self._peak, found["peak_memory_bytes"] or found["memory_bytes"] or 0)  # kernels before 5.19 keep no peak
        return found

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory that its control group held, with the file pages it read; what was seen last, once it has ended."""
        if self.alive():
            self.stats()
        return self._peak

    def signal(self, name: str) -> None:
        """Send SIGTERM, SIGHUP, … to its first process."""
        self.tool.run(["kill", "--signal", name, self.id])

    def kill(self) -> None:
        """SIGKILL, as a crash would be; it stays to be looked at until it is stopped."""
        self.signal("KILL")
        self.tool.run(["wait", self.id], check=False)

    def stop(self, seconds: int = 10) -> float:
        """SIGTERM, SIGKILL after `seconds`, then removed with its anonymous volumes. Returns the seconds until it had ended."""
        if self._gone():
            return 0.0
        took = 0.0
        if self._last["State"]["Running"]:
            self.stats()
            start = time.monotonic()
            self.tool.run(["stop", "--time", str(seconds), self.id], check=False)
            took = time.monotonic() - start
            self.inspect()
        self.tool.run(["rm", "--force", "--volumes", self.id], check=False)
        return took

    def _gone(self) -> bool:
        """Has it been removed? Its state is known afresh where not."""
        done = self.tool.run(["container", "inspect", self.id], check=False)
        if done.returncode == 0:
            self._last = json.loads(done.stdout)[0]
        return done.returncode != 0

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def run(
    image: Image | str,
    *,
    port: int | None = None,
    ports: Sequence[int] = (),
    memory_mb: float | None = None,
    cpus: float | None = None,
    pids: int | None = None,
    env: Mapping[str, str] | None = None,
    volumes: Sequence[tuple[Any, str, str]] = (),
    tmpfs: Sequence[str] = (),
    command: Sequence[str] = (),
    entrypoint: Sequence[str] | None = None,
    user: str | None = None,
    hardened: bool = True,
    network: Any = None,
    name: str = "",
    options: Sequence[str] = (),
) -> Container:
    """Start a container. Inside ports `port` or `ports` are published on free ones of 127.0.0.1 (Container.ports).

    Hardened: not root, a read-only root with a /tmp in memory, no capabilities, no new privileges, and limits (512 MB, 1 CPU,
    128 processes) unless given. `volumes`: (folder here or Volume, path, "ro" or "rw"). `tmpfs`: "/run" or "/run:size=10m".
    `network`: a Network of this run, "none", or "host" (its listeners are then this machine's). Raises RunFailed, BadInput.
    """
    used = runs.current()
    used.kept()
    title = used.name(name)
    inside = [*([port] if port else []), *ports]
    words = [
        *command_line(used.tool, used.label, title, inside, memory_mb, cpus, pids, env or {}, volumes, tmpfs, user, hardened, network),
        *_user(used.tool, image, user, hardened),
        *options,
        *([f"--entrypoint={json.dumps(list(entrypoint)) if used.tool.name == 'podman' else entrypoint[0]}"] if entrypoint else []),
        image.ref if isinstance(image, Image) else image,
        *([*entrypoint[1:]] if entrypoint and used.tool.name != "podman" else []),
        *command,
    ]
    try:
        notes = used.folder("notes")
        made = used.tool.run(words, folder=notes).stdout.strip().splitlines()[-1]
        return Container(used, title, made, {one: _published(used.tool, made, one) for one in inside}, notes)
    except BaseException:
        used.tool.run([*sweep.removal("container", docker=used.tool.name == "docker"), title], check=False)
        raise


def command_line(
    tool: Tool,
    label: str,
    title: str,
    ports: Sequence[int],
    memory_mb: float | None,
    cpus: float | None,
    pids: int | None,
    env: Mapping[str, str],
    volumes: Sequence[tuple[Any, str, str]],
    tmpfs: Sequence[str],
    user: str | None,
    hardened: bool,
    network: Any,
) -> list[str]:
    """The words up to the image: the same for podman and Docker."""
    words = ["run", "--detach", "--label", label, "--name", title]
    if tool.name == "podman":
        words.append("--pull=never")
    if hardened:
        memory_mb, cpus, pids = memory_mb or LIMITS["memory_mb"], cpus or LIMITS["cpus"], pids or LIMITS["pids"]
        words += HARDENED
        if TMPFS not in {one.split(":")[0] for one in tmpfs}:
            tmpfs = [TMPFS, *tmpfs]
    if memory_mb:
        # without --memory-swap as much again could go to the swap file, and the limit would not be one
        words += [f"--memory={round(memory_mb * 1024 * 1024)}b", f"--memory-swap={round(memory_mb * 1024 * 1024)}b"]
    words += [f"--cpus={cpus}"] if cpus else []
    words += [f"--pids-limit={pids}"] if pids else []
    words += [f"--user={user}"] if user else []
    words += [f"--network={getattr(network, 'name', network)}"] if network else []
    words += [f"--publish={HOST}::{one}" for one in ports]
    words += [f"--env={key}={value}" for key, value in env.items()]
    words += [f"--tmpfs={one}" for one in tmpfs]
    return words + [f"--volume={_source(source)}:{path}:{mode}" for source, path, mode in volumes]


def _source(source: Any) -> str:
    if name := getattr(source, "name", None) if not isinstance(source, Path) else None:
        return str(name)
    path = Path(source).resolve()
    if not path.exists():
        raise BadInput(f"there is no {path} to mount", "a folder or file that is here, or a Volume")
    return str(path)


def _user(tool: Tool, image: Image | str, user: str | None, hardened: bool) -> list[str]:
    """A user for a hardened container whose image would run as root."""
    if user or not hardened:
        return []
    ref = image.ref if isinstance(image, Image) else image
    about = json.loads(tool.run(["image", "inspect", ref]).stdout)[0]
    named = str((about.get("Config") or {}).get("User") or "")
    return [f"--user={NOBODY}"] if named.split(":")[0] in {"", "0", "root"} else []


def _published(tool: Tool, id: str, port: int) -> int:
    """The port of this machine for one inside. A container that has ended already has none: that is said with its log."""
    done = tool.run(["port", id, str(port)], check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(f"{HOST}:")]
    if not lines:
        said = tool.run(["logs", id], check=False)
        raise RunFailed(f"the container ended at once: {last_line(said.stdout + said.stderr)}", "its command or its image")
    return int(lines[0].rsplit(":", 1)[1])
