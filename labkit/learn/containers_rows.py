"""What lab 16 asks real containers, one function a question, as rows: both sides, starts, layers, the cache, the model's place, variants.

Limits, hardening and health are in containers_limits.py, the Compose stack in containers_stack.py.

>>> with Desk(models.resolve("smollm2-135m")) as desk:
...     layer_rows(desk.image("file"))
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from labkit import servers
from labkit.core.records import ModelRef
from labkit.facts.live.world import World
from labkit.learn import containers_desk as desks
from labkit.learn.containers_desk import STORE, Desk, Rows, ask, told
from labkit.measure import memory
from labkit.models import inspect
from labkit.quant import blocks, gguf
from labkit.servers import images, runtimes

LATE = ("--interval=10s", "--interval=12s")  # in the Containerfile: sets something, makes no layer
SCRIPT = ("it was told to stop", "it has been told to end")  # in the script `healthy`
SPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")
_SEES = {
    "mnt": "files and mounts",
    "pid": "processes",
    "net": "network interfaces and ports",
    "ipc": "shared memory",
    "uts": "host name",
    "cgroup": "its place among the control groups",
    "user": "user numbers",
}


def image_rows(desk: Desk) -> Rows:
    """Build the stack's two images: seconds and bytes. What they are built on is fetched or made before the clock starts."""
    images.ensure("docker.io/ollama/ollama:0.24.0")
    rows = []
    for kind in ("none", "file"):
        begin = time.perf_counter()
        made = desk.image(kind)
        rows.append({"image": kind, "bytes": made.bytes, "seconds": time.perf_counter() - begin, "layers": len(_ids(made))})
    tool = images.tool()
    return [{**row, "tool": f"{tool.name} {tool.version}", "base": images.stand_in("docker.io/ollama/ollama:0.24.0")} for row in rows]


# -- from both sides


def side_rows(container: images.Container) -> Rows:
    """about "sides": the same question here and inside. about "spaces": which kinds of namespace are its own."""

    def inside(*words: str) -> str:
        return container.exec(words, check=True).stdout.strip()

    pid = container.pid
    processes = inside("sh", "-c", "ls -d /proc/[0-9]* | wc -l")
    about = Path(f"/proc/{pid}/status")
    outer = about.read_text().split("Uid:", 1)[1].split()[0] if pid and about.is_file() else "not of this machine"
    limit = images.hardening(container)["memory_limit_bytes"]
    pairs = [
        ("kernel", platform.release(), inside("uname", "-r")),
        ("its first process is number", str(pid or "not of this machine"), "1"),
        ("processes in sight", str(len(psutil.pids())), processes),
        ("user of the server", outer, inside("sed", "-n", "s/^Uid:\\t\\([0-9]*\\).*/\\1/p", "/proc/1/status")),
        ("host name", socket.gethostname(), inside("cat", "/proc/sys/kernel/hostname")),
        ("cores in sight", str(os.cpu_count()), inside("nproc", "--all")),
        ("memory in sight", _gib(psutil.virtual_memory().total), _gib(_meminfo(inside("cat", "/proc/meminfo")))),
        ("memory that it may use", "all", _gib(limit) if limit else "all"),
    ]
    rows: Rows = [{"about": "sides", "what": what, "here": here, "inside": there} for what, here, there in pairs]
    for kind in SPACES:
        here, there = Path(f"/proc/self/ns/{kind}"), inside("readlink", f"/proc/1/ns/{kind}")
        own = not here.is_symlink() or str(here.readlink()) != there
        rows.append({"about": "spaces", "namespace": kind, "separates": _SEES[kind], "own": own})
    return rows


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _meminfo(text: str) -> int:
    return int(text.split("MemTotal:", 1)[1].split()[0]) * 1024


def start_rows(desk: Desk, rounds: int) -> Rows:
    """A process and a container of the same program, in turn: seconds until it answers, and memory with the model loaded.

    Memory is the proportional set size of its processes, the same measure for both.
    """
    ref, rows = desk.require(), []
    desk.image("none")
    for turn in range(rounds):
        for way in ("process", "container") if turn % 2 == 0 else ("container", "process"):
            begin = time.perf_counter()
            rows.append({"way": way, "turn": turn, **(_process(desk, ref, begin) if way == "process" else _container(desk, ref, begin))})
    return rows


def _process(desk: Desk, ref: ModelRef, begin: float) -> dict[str, Any]:
    kind = servers.open("ollama")
    with kind.launch(ref, context=1024, parallel=1) as running:
        running.wait(60)
        seconds = time.perf_counter() - begin
        kind.ready(running, ref, {"threads": desk.threads} if desk.threads else {})
        desks.told(desks.post(running.url, ref.name, tokens=1))
        return {"start_s": seconds, "memory_bytes": memory.of_tree(running.pid), "group_bytes": None}


def _container(desk: Desk, ref: ModelRef, begin: float) -> dict[str, Any]:
    with desk.run("none") as container:
        container.wait("/api/version")
        seconds = time.perf_counter() - begin
        desk.give(container, ref)
        told(ask(container))
        used = container.stats()
        whole = memory.of_tree(container.pid) if container.pid else used["memory_bytes"]
        return {"start_s": seconds, "memory_bytes": whole, "group_bytes": used["memory_bytes"]}


# -- layers


def layer_rows(image: images.Image) -> Rows:
    """The layers, the lowest first: what made each, and its bytes."""
    return [{"bytes": size, "command": command} for size, command in reversed(image.layers)]


def _ids(image: images.Image) -> list[str]:
    """The layers' checksums, the lowest first."""
    return list(image.inspect()["RootFS"]["Layers"])


def _sizes(image: images.Image) -> list[int]:
    """Bytes of each layer in the order of `_ids`: steps that only set something (ENV, USER) make no layer."""
    filled = [size for size, _ in reversed(image.layers) if size]
    count = len(_ids(image))
    return filled if len(filled) == count else [*filled, *[0] * count][:count]


def changes(desk: Desk, quick: bool) -> dict[str, Any]:
    """What the lab changes: nothing, a line near the end, the health check's script, the model."""
    found: dict[str, Any] = {
        "nothing": None,
        "the line HEALTHCHECK": ("Containerfile", LATE),
        "the model": gguf.as_type(desk.require(), "Q5_0", progress=False).path,
    }
    return found if quick else {**found, "a script below the model": ("healthy", SCRIPT)}


def cache_rows(desk: Desk, changes: Mapping[str, tuple[str, tuple[str, str]] | Path | None]) -> Rows:
    """Build the image again after each change: which layers are the same as before, by checksum, and how long it took.

    changes: what to call it -> a file of the stack with (old text, new text); a path: another model; None: nothing changes.
    The seconds are those of making it only where this machine has not made the same before.
    """
    model, before = desk.require().path, desk.image("file")
    first, rows = _ids(before), []
    for number, (name, change) in enumerate(changes.items()):
        edits = {change[0]: change[1]} if isinstance(change, tuple) else None
        begin = time.perf_counter()
        image = desk.build(f"change{number}", change if isinstance(change, Path) else model, edits, MODEL="file")
        seconds = time.perf_counter() - begin
        sizes = dict(zip(_ids(image), _sizes(image), strict=True))
        new = [id for id in sizes if id not in first]
        rows.append(
            {
                "change": name,
                "kept": len(sizes) - len(new),
                "new": len(new),
                "kept_bytes": sum(size for id, size in sizes.items() if id in first),
                "new_bytes": sum(sizes[id] for id in new),
                "seconds": seconds,
            }
        )
        image.remove()
    return rows


# -- the model's place


def way_rows(desk: Desk, other: ModelRef, rounds: int) -> Rows:
    """The model in the image and in a volume: bytes stored, seconds from start to healthy; then `other` takes its place.

    Updating is timed from the decision until the new model answers: a build and a new container, or a request to the old one.
    """
    rows = []
    image = desk.image("file")
    times = [_healthy_s(desk, image, ()) for _ in range(rounds)]
    begin = time.perf_counter()
    new = desk.build("update", other.path, MODEL="file")
    with desk.run(new) as container:
        container.wait()
        told(ask(container))
    seconds = time.perf_counter() - begin
    moved = sum(size for id, size in zip(_ids(new), _sizes(new), strict=True) if id not in _ids(image))
    new.remove()
    rows.append({"way": "in the image", "image_bytes": image.bytes, "volume_bytes": 0, "update_bytes": moved, "update_s": seconds})
    with images.volume("store") as volume:
        places = [(volume, STORE, "rw")]
        with desk.run("none", volumes=places) as container:
            desk.give(container)
            stored = _used(container)
        later = [_healthy_s(desk, desk.image("none"), places) for _ in range(rounds)]
        with desk.run("none", volumes=places) as container:
            container.wait()
            begin = time.perf_counter()
            desk.give(container, other)
            told(ask(container))
            seconds = time.perf_counter() - begin
    plain = desk.image("none").bytes
    size = other.path.stat().st_size
    rows.append({"way": "in a volume", "image_bytes": plain, "volume_bytes": stored, "update_bytes": size, "update_s": seconds})
    return [{**row, "healthy_s": min(found), "all_healthy_s": found} for row, found in zip(rows, (times, later), strict=True)]


def _healthy_s(desk: Desk, image: images.Image, volumes: Sequence[tuple[Any, str, str]]) -> float:
    begin = time.perf_counter()
    with desk.run(image, volumes=volumes) as container:
        container.wait()
        return time.perf_counter() - begin


def _used(container: images.Container) -> int:
    return int(container.exec(["du", "-sb", STORE], check=True).stdout.split()[0])


# -- variants


def variant_rows(desk: Desk, kinds: Sequence[str]) -> Rows:
    """One image for each quantization, built with another model: its bytes, and the model's, computed and measured.

    Computed from the number of weights and the type's bits a weight alone; llama.cpp keeps some tensors in another type.
    """
    ref, rows = desk.require(), []
    count = inspect.read(ref.path).parameters
    for kind in kinds:
        path = gguf.as_type(ref, kind, progress=False).path
        image = desk.build(kind.lower(), path, MODEL="file")
        with desk.run(image) as container:
            container.wait()
            answer = told(ask(container, tokens=8))
        size = path.stat().st_size
        rows.append(
            {
                "variant": kind,
                "image_bytes": image.bytes,
                "model_bytes": size,
                "predicted_bytes": int(count * blocks.bits_per_weight(kind) / 8),
                "tokens": answer["eval_count"],
            }
        )
        image.remove()
    return rows


def world() -> World:
    """This machine's containers and Ollama, for claims that they decide (labkit.facts.live)."""
    found = runtimes.open("ollama").find()
    return World(containers_tool=images, ollama_program=str(found.path) if found else None)
