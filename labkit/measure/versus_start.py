"""How long until the first token, and how much memory? Each engine in a fresh process, the same way for all.

The process imports the engine's library, then loads the model: an engine that needs a server starts it, and the server's
processes are children, so their memory counts. Memory is the growth of the proportional set size (PSS) of the whole process
tree from before loading to after one answer; the library itself, imported before, does not count.

>>> versus_start.fresh("llamacpp", models.resolve("smollm2-135m"), prompt, threads=1)["ready_s"]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from labkit.core.errors import LabkitError, RunFailed
from labkit.core.records import Message, ModelRef
from labkit.measure import versus


def fresh(
    engine: str, model: ModelRef, prompt: versus.Prompt, threads: int, context: int = 1024, max_tokens: int = 8, seconds: float = 180
) -> dict[str, Any]:
    """One engine in a process of its own.

    Returns: `engine`, `import_s` (its library; a server has its own in the next figure), `ready_s` (import and first loading,
    server included), `first_token_s` (from before the import to the first token), `again_s` (closed, and loaded a second
    time), `memory_bytes`, `processes`, `includes_http`.
    Raises: RunFailed with the process's own sentence.
    """
    task = {
        "engine": engine,
        "model": model.model_dump(mode="json"),
        "messages": [m.model_dump() for m in prompt.messages],
        "text": prompt.text,
        "tokens": prompt.tokens,
        "threads": threads,
        "context": context,
        "max_tokens": max_tokens,
    }
    command = [sys.executable, "-m", "labkit.measure.versus_start"]
    try:
        done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RunFailed(f"{engine} gave no token within {seconds:.0f} s", "labkit doctor") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RunFailed(f"{engine} did not start: {lines[-1] if lines else 'it was killed'}", "labkit doctor")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _child(task: dict[str, Any]) -> dict[str, Any]:
    import psutil

    from labkit import engines
    from labkit.measure import clock, memory
    from labkit.servers import keeper

    prompt = versus.Prompt(tuple(Message(**m) for m in task["messages"]), task["text"], tuple(task["tokens"]))
    model = ModelRef(**task["model"] | {"path": Path(task["model"]["path"])})
    limits = versus.load_options(task["engine"], task["threads"], task["context"])
    started = time.perf_counter()
    engine = engines.open(task["engine"])
    engine.missing()  # loads the library where the engine has one
    before, loading = memory.of_tree(os.getpid()), time.perf_counter()
    session = engine.load(model, **limits)
    ready = time.perf_counter()
    try:
        one = versus.contender(task["engine"], session)
        found = clock.one(session, one.request(prompt, task["max_tokens"]))
        used = memory.of_tree(os.getpid()) - before
        for child in (children := psutil.Process().children(recursive=True)):
            if keeper.__file__ in child.cmdline():  # labkit's own watchman, no part of the engine
                used, children = used - memory.of(child), [c for c in children if c != child]
    finally:
        session.close()
    again = time.perf_counter()
    engine.load(model, **limits).close()
    return {
        "engine": task["engine"],
        "import_s": loading - started,
        "ready_s": ready - started,
        "first_token_s": ready - started + (found.ttft_s or 0),
        "again_s": time.perf_counter() - again,
        "includes_http": one.way.includes_http,
        "memory_bytes": used,
        "processes": 1 + len(children),
    }


if __name__ == "__main__":
    try:
        print(json.dumps(_child(json.load(sys.stdin))))  # noqa: T201 - this is the child's answer
    except LabkitError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
