"""How much memory does a model really take? A fresh process loads it, fills the context, and says how it grew.

Growth is that of the resident set: every page that the process holds, the mapped weights in full, even when another
process maps the same file. Sums over processes use the proportional set size (PSS) where the system has it: private
pages plus each one's share of the common ones, so that nothing is counted twice.

>>> memory.growth(ref, context=2048)["measured_bytes"]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from labkit.core.errors import LabkitError, RunFailed
from labkit.core.records import ModelRef, Request


def of(process: psutil.Process) -> int:
    """PSS of one process in bytes; its resident set where the system has no PSS."""
    try:
        return int(process.memory_full_info().pss)
    except (AttributeError, psutil.AccessDenied):
        return int(process.memory_info().rss)


def of_tree(pid: int) -> int:
    """PSS of a process and all its children; processes that end meanwhile count as 0."""
    try:
        root = psutil.Process(pid)
        members = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for process in members:
        try:
            total += of(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total


def growth(
    model: ModelRef,
    context: int = 2048,
    kv: str = "f16",
    threads: int = 1,
    fill: int | None = None,
    output_tokens: int = 1,
    ubatch: int = 512,
) -> dict[str, Any]:
    """Growth of a fresh process from before loading to after `fill` tokens of the context were computed (None: all).

    `ubatch` is the step of prefill: the buffers for a step are touched when a step of that length is computed.
    The KV cache is allocated and cleared as a whole when the context is made, so a short fill shows the same size.

    Returns: `loaded_bytes` (model and context are there, nothing computed), `measured_bytes` (at the end),
    `filled_tokens`, and with `output_tokens` > 1 the `decode_tokens_per_s` and `prefill_tokens_per_s` of a second
    request, of 32 prompt tokens.
    Raises: RunFailed with the child's own sentence.
    """
    task = {
        "path": str(model.path),
        "name": model.name,
        "context": context,
        "kv": kv,
        "threads": threads,
        "fill": fill,
        "output_tokens": output_tokens,
        "ubatch": ubatch,
    }
    done = subprocess.run([sys.executable, "-m", "labkit.measure.memory", json.dumps(task)], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RunFailed(
            f"measuring the memory of {model.name} failed: {lines[-1] if lines else 'killed'}", f"labkit footprint {model.path}"
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _child(task: dict[str, Any]) -> dict[str, Any]:
    from labkit import engines
    from labkit.measure import clock

    me = psutil.Process()
    engine = engines.open("llamacpp")
    engine.missing()  # loads the library, which does not count as the model's
    ref = ModelRef(name=task["name"], path=Path(task["path"]), format="gguf")
    before = me.memory_info().rss
    session = engine.load(ref, context=task["context"], kv=task["kv"], threads=task["threads"], ubatch=task["ubatch"])
    loaded = me.memory_info().rss
    count = min(task["fill"] or task["context"], task["context"]) - 2
    tokens = tuple(10 + i % 97 for i in range(max(1, count)))
    clock.one(session, Request(tokens=tokens, max_tokens=1, ignore_eos=True))
    out: dict[str, Any] = {"loaded_bytes": loaded - before, "measured_bytes": me.memory_info().rss - before, "filled_tokens": len(tokens)}
    if task["output_tokens"] > 1:
        timed = clock.one(session, Request(tokens=tokens[:32], max_tokens=task["output_tokens"], ignore_eos=True))
        out |= {"decode_tokens_per_s": timed.decode_tokens_per_s, "prefill_tokens_per_s": timed.prefill_tokens_per_s}
    return out


if __name__ == "__main__":
    try:
        print(json.dumps(_child(json.loads(sys.argv[1]))))  # noqa: T201 - this is the child's answer
    except LabkitError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
