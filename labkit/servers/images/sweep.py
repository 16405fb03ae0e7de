"""Removes what a run of labkit made in podman or Docker. Also a program of its own, which waits until the run is gone.

    python sweep.py PARENT TOOL LABEL STORE     lines on standard input: "+pid 12", "-pid 12", "+project NAME", "+folder PATH"

It outlives a killed parent (SIGKILL too) and ends with it. Standard library alone: it runs without labkit's packages.
STORE is podman's folder of half-made containers, "" where there is none on this machine: an interrupted build leaves its
working container there, and the processes of its step. They are known by the host name that `build` gives them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_S = 5.0
PASSES = 5
TRIES = 6  # of a listing: what another process removes meanwhile can make it fail
COMPOSE_LABELS = ("io.podman.compose.project", "com.docker.compose.project")


def mark(label: str) -> str:
    """A host name that marks a build's containers: "labkit.run=12-ab" -> "labkit-run-12-ab"."""
    return label.replace(".", "-").replace("=", "-")


def filters(label: str, projects: list[str]) -> list[str]:
    return [f"label={label}", *(f"label={key}={project}" for project in projects for key in COMPOSE_LABELS)]


def found(tool: str, label: str, projects: list[str]) -> dict[str, list[str]]:
    """What is there of this run: containers, images (their tags, else ids), volumes and networks.

    Podman keeps each step of a build as an image without a tag, under the label of the run that took it first. Those are the layers
    that make the next build quick, whoever's it is: they stay, as Docker's own cache does. `podman image prune` removes them.
    """
    out: dict[str, list[str]] = {}
    listings = {
        "container": ["ps", "--all", "--quiet", "--no-trunc"],
        "image": ["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"],
        "volume": ["volume", "ls", "--quiet"],
        "network": ["network", "ls", "--quiet"],
    }
    for kind, words in listings.items():
        lines = {line for one in filters(label, projects) for line in _lines(tool, [*words, "--filter", one])}
        if kind == "image":
            lines = _names(lines if docker(tool) else {line for line in lines if "<none>" not in line})
        out[kind] = sorted(lines)
    return out


def sweep(tool: str, label: str, store: str = "", projects: list[str] | None = None) -> None:
    """Remove all of it. What is gone already is no error; what something else of it still used goes in a later pass."""
    unfinished(tool, label, store)
    for number in range(PASSES):
        here = found(tool, label, projects or [])
        if not any(here.values()):
            return
        if number:
            time.sleep(1)  # what an interrupted command of the tool still holds, it lets go in a moment
        for kind, names in here.items():
            if names:
                _run(tool, [*removal(kind, docker(tool)), *names])


def docker(tool: str) -> bool:
    return Path(tool).stem == "docker"


def removal(kind: str, docker: bool) -> list[str]:
    """The words that remove things of that kind, up to their names."""
    if kind == "container":
        return ["rm", "--force", "--volumes", *([] if docker else ["--time", "0"])]
    if kind == "image":
        return ["rmi", "--no-prune", *(["--force"] if docker else [])]  # the layers stay, and make the next build quick
    return [kind, "rm", *([] if docker and kind == "network" else ["--force"])]


def unfinished(tool: str, label: str, store: str) -> None:
    """End the steps of interrupted builds, and remove their working containers."""
    for record in Path(store).glob("*-containers/*/userdata/buildah.json") if store else ():
        try:
            text = record.read_text(encoding="utf-8")
            if mark(label) not in text:
                continue
            about = json.loads(text)
        except (OSError, ValueError):
            continue  # it is being removed right now
        layer = Path(about.get("mountpoint") or "/none/none").parent.name
        for _ in range(5):  # a step may be starting another process
            if not end_processes(layer):
                break
        _run(tool, ["rm", "--force", about["container-id"]])
    if store:
        _lines(tool, ["images", "--quiet"])  # an image that was being written: see there


def end_processes(layer: str) -> int:
    """SIGKILL to each process whose root is this layer of the overlay; how many there were."""
    ended = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            roots = [line for line in (folder / "mountinfo").read_text().splitlines() if line.split()[4] == "/"]
            if any(f"/{layer}/" in line for line in roots):
                os.kill(int(folder.name), signal.SIGKILL)
                ended += 1
    return ended


def _lines(tool: str, words: list[str]) -> list[str]:
    """What a listing says. Raises OSError where it fails every time: nothing seen is not nothing there.

    A podman that is killed while it writes an image leaves one without its manifest, and no listing of images works until it is
    removed. One that is being written right now looks the same for a moment, so it goes only when it is seen twice.
    """
    seen = None
    for _ in range(TRIES):
        done = subprocess.run([tool, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return [line.strip() for line in done.stdout.splitlines() if line.strip()]
        broken = re.search(r'item named "manifest" for image with ID "([0-9a-f]{64})"', done.stderr)
        if broken and broken[1] == seen:
            _run(tool, ["rmi", "--force", broken[1]])
        seen = broken[1] if broken else None
        time.sleep(1)
    raise OSError(f"{tool} {' '.join(words)}: {done.stderr.strip()[-300:]}")


def _names(lines: set[str]) -> set[str]:
    """ "<none>:<none> 12ab" -> "12ab"; "localhost/x:1 12ab" -> "localhost/x:1"."""
    return {line.split()[1] if "<none>" in line else line.split()[0] for line in lines}


def _run(tool: str, words: list[str]) -> None:
    subprocess.run([tool, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def end_group(pid: int) -> None:
    """SIGTERM to a command and what it started, SIGKILL after GRACE_S. It leads a process group of its own."""
    end = time.monotonic() + GRACE_S
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGTERM)
        while time.monotonic() < end:
            time.sleep(0.1)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            os.killpg(pid, 0)
        os.killpg(pid, signal.SIGKILL)


def wait(parent: int) -> tuple[set[int], list[str], list[str]]:
    """Until the parent is gone; then the commands of it that still ran, its Compose projects and its temporary folders."""
    pids: set[int] = set()
    projects: list[str] = []
    folders: list[str] = []
    text = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], 0.5)[0]:
            continue
        got = os.read(0, 65536)
        if not got:
            break  # the parent is gone, or has let go
        text += got
        *lines, text = text.split(b"\n")
        for word, value in (line.decode().split(" ", 1) for line in lines):
            if word == "+pid":
                pids.add(int(value))
            elif word == "-pid":
                pids.discard(int(value))
            else:
                (folders if word == "+folder" else projects).append(value)
    return pids, projects, folders


def main(parent: int, tool: str, label: str, store: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids, projects, folders = wait(parent)
    for pid in pids:
        end_group(pid)
    try:
        sweep(tool, label, store, projects)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:5])
