"""What lab 16 asks of a container's limits: is the hardening there, does health mean it, and what happens when a limit is reached.

>>> memory_rows(desk, limits_mib=[24, 384, 768], context=4096, parallel=4)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import httpx

from labkit.core.errors import RunFailed
from labkit.learn.containers_desk import NAME, STORE, Desk, Rows, ask, told
from labkit.learn.containers_view import MIB, need_bytes
from labkit.measure import memory
from labkit.models import inspect
from labkit.servers import images
from labkit.servers import ollama as server

# what a hardened container refuses: a name, and the words tried inside
TRIES = {
    "write into the system": ["sh", "-c", "echo mine > /usr/local/bin/tool"],
    "give a file to another user": ["sh", "-c", "echo mine > /tmp/note && chown 12345 /tmp/note"],
    "write into /tmp": ["sh", "-c", "echo mine > /tmp/other"],
}


def hardening_rows(desk: Desk) -> Rows:
    """The same image started without options, as root, and hardened: each promise, read inside of both."""
    found = {}
    for way in ("plain", "hardened"):
        options: dict[str, Any] = {} if way == "hardened" else {"hardened": False, "user": "0:0", "memory_mb": None, "cpus": None}
        with desk.run("none", **options) as container:
            container.wait("/api/version")
            seen = images.hardening(container)
            tried = {name: container.exec(words).returncode == 0 for name, words in TRIES.items()}
        found[way] = {**_in_words(seen), **{f"may {name}": "yes" if worked else "no" for name, worked in tried.items()}}
    return [{"what": name, **{way: found[way][name] for way in found}} for name in found["plain"]]


def _in_words(seen: dict[str, Any]) -> dict[str, str]:
    limit = seen["memory_limit_bytes"]
    return {
        "user number": str(seen["uid"]),
        "capabilities in force": f"{seen['cap_eff']:016x}",
        "no new privileges": "yes" if seen["no_new_privs"] else "no",
        "system calls filtered (seccomp)": "yes" if seen["seccomp"] == 2 else "no",
        "root folder read-only": "yes" if seen["read_only_root"] else "no",
        "memory limit": f"{limit / MIB:,.0f} MiB" if limit else "none",
        "processor limit": f"{seen['cpus']:g} cores" if seen["cpus"] else "none",
        "process limit": str(seen["pids_limit"] or "none"),
    }


def health_rows(desk: Desk) -> Rows:
    """The image's own health check at each moment of a life: no model, created, answering, deleted, server stopped."""
    rows: Rows = []

    def look(moment: str, container: images.Container) -> None:
        begin = time.perf_counter()
        healthy = container.health()
        rows.append({"moment": moment, "healthy": healthy, "running": container.alive(), "check_s": time.perf_counter() - begin})

    with images.volume("health") as volume, desk.run("none", volumes=[(volume, STORE, "rw")]) as container:
        container.wait("/api/version")
        look("no model yet", container)
        desk.give(container)
        look("the model is there", container)
        told(ask(container))
        look("it has answered", container)
        server.delete(container.url, NAME)
        look("the model was deleted", container)
        desk.give(container)
        look("it is there again", container)
    return rows


# -- memory


def program_bytes(desk: Desk, context: int = 512) -> int:
    """What the two programs take beside the model: measured once, at a small context, minus the computed parts."""
    parts = need_bytes(inspect.read(desk.require().path), context, 1, 0)
    with desk.run("file", env={"OLLAMA_CONTEXT_LENGTH": str(context)}) as container:
        container.wait()
        told(ask(container))
        whole = memory.of_tree(container.pid) if container.pid else container.stats()["memory_bytes"]
    return int(max(0, whole - sum(parts.values())))


def memory_rows(desk: Desk, limits_mib: Sequence[float], context: int, parallel: int) -> Rows:
    """A container at each memory limit, asked once: did it answer, was the model's process killed, or the container?

    The need is computed, the programs' part measured at a small setting. oom_kills is the kernel's count in the container's
    control group; None where the container is gone with its group.
    """
    parts = need_bytes(inspect.read(desk.require().path), context, parallel, program_bytes(desk))
    setting = {"OLLAMA_CONTEXT_LENGTH": str(context), "OLLAMA_NUM_PARALLEL": str(parallel)}
    rows = []
    for limit in limits_mib:
        with desk.run("file", memory_mb=limit, env=setting) as container:
            answer = _asked_once(container)
            alive = container.alive()
            end = "answered" if answer.get("status") == 200 else "model killed" if alive else "container killed"
            rows.append(
                {
                    "limit_mib": limit,
                    "predicted_mib": sum(parts.values()) / MIB,
                    "end": end,
                    **answer,
                    "exit_code": container.exit_code,
                    "state_says_oom": bool(container.state.get("OOMKilled")),
                    "oom_kills": oom_kills(container) if alive else None,
                    "peak_mib": container.peak_memory_bytes / MIB,
                    "parts": parts,
                }
            )
    return rows


def _asked_once(container: images.Container) -> dict[str, Any]:
    """Status and words of one request; without a status where no answer came."""
    try:
        container.wait("/api/version", seconds=30)
        reply = ask(container, tokens=4)
    except (RunFailed, httpx.TransportError) as error:
        return {"status": None, "said": str(error)[:200]}
    return {"status": reply.status_code, "said": reply.json().get("error", reply.json().get("response", ""))[:200]}


def oom_kills(container: images.Container) -> int | None:
    """How many processes the kernel has killed in it for want of memory; None where it does not count them."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        done = container.exec(["cat", path])
        counts = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
        if done.returncode == 0 and "oom_kill" in counts:
            return int(counts["oom_kill"])
    return None


# -- processor, processes


def cpu_rows(desk: Desk, limits: Sequence[float], rounds: int, tokens: int) -> Rows:
    """Tokens a second of one container whose CPU limit is changed while it runs, the limits in turn."""
    tool, rows = images.tool(), []
    with desk.run("file", cpus=max(limits)) as container:
        container.wait()
        told(ask(container, tokens=tokens))  # load it, and warm up
        for turn in range(rounds):
            for limit in limits if turn % 2 == 0 else reversed(limits):
                tool.run(["update", f"--cpus={limit}", container.id])
                answer = told(ask(container, tokens=tokens, prompt=f"Tell me about the sea, part {turn}."))
                rate = answer["eval_count"] / (answer["eval_duration"] / 1e9)
                rows.append({"cpus": limit, "turn": turn, "tokens_per_s": rate, "tokens": answer["eval_count"]})
    return rows


def process_rows(desk: Desk, limit: int = 48, tries: int = 100) -> Rows:
    """A container with a limit of processes: what the server takes of it, and what happens when a command wants many more."""
    many = f"i=0; while [ $i -lt {tries} ]; do sleep 3 & i=$((i+1)); done"
    with desk.run("file", pids=limit) as container:
        container.wait()
        told(ask(container))
        before = container.stats()["pids"]
        done = container.exec(["sh", "-c", many])
        answer = ask(container)
        row = {"limit": limit, "taken_by_the_server": before, "asked_for": tries, "exit_code": done.returncode}
        return [{**row, "said": (done.stderr or done.stdout).strip()[-160:], "still_answers": answer.status_code == 200}]
