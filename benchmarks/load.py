"""What does the load generator itself cost, and does it keep its schedule? Against an echo server in another process.

Two figures matter: the share of one core at 50 requests of 8 pieces a second, held against the same requests by httpx; and how late
the requests of a long open-loop run are sent, held against a loop that only sleeps until each is due.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from labkit import measure
from labkit.measure import load
from labkit.measure.load import Plan
from labkit.servers import echo

PIECES, RATE, SECONDS, REPEATS = 8, 50, 10, 5
MOST_OF_A_CORE = 0.15
SCHEDULE_RATE, SCHEDULE_REQUESTS, MOST_LATE_S = 200, 10_000, 0.005


def load_overhead() -> str:
    """Processor time over httpx's; target: under 15 % of one core at 50 requests of 8 pieces a second."""
    plan = Plan(rate=RATE, seconds=SECONDS, arrivals="constant", output_tokens=PIECES)
    with echo.start(ttft_s=0.02, tpot_s=0.01) as running:
        sides = {
            "labkit": lambda: _core(lambda: _ours(running.base_url, plan)),
            "bare": lambda: _core(lambda: asyncio.run(_httpx(running.base_url, plan))),
        }
        found = measure.ab(sides, repeats=REPEATS)
    ratio = statistics.median(a / b for a, b in zip(found["labkit"], found["bare"], strict=True))
    ours, bare = (statistics.median(found[side]) for side in ("labkit", "bare"))
    line = f"load_overhead ratio={ratio:.2f} (labkit {100 * ours:.1f} / bare {100 * bare:.1f} % of a core, n={REPEATS})"
    assert ours < MOST_OF_A_CORE, line
    return f"{line} [{RATE} requests/s of {PIECES} pieces; bare is httpx]"


def load_schedule() -> str:
    """p99 of sent - scheduled over that of a loop that only sleeps; target: under 5 ms over 10,000 requests at 200/s."""
    plan = Plan(rate=SCHEDULE_RATE, requests=SCHEDULE_REQUESTS, output_tokens=1, prompt_tokens=8)
    with echo.start() as running:
        found = load.run(running.base_url, "echo", plan)
    assert len(found) == SCHEDULE_REQUESTS and all(outcome.status == "ok" for outcome in found)
    ours = float(np.quantile([outcome.lateness_s for outcome in found], 0.99))
    bare = float(np.quantile(asyncio.run(_only_sleep(plan.schedule_s()[:2000])), 0.99))
    middle = float(np.median([outcome.lateness_s for outcome in found]))
    line = f"load_schedule ratio={ours / bare:.2f} (labkit {1e3 * ours:.2f} / bare {1e3 * bare:.2f} ms, n={SCHEDULE_REQUESTS})"
    assert ours < MOST_LATE_S, line
    return f"{line} [p99 lateness at {SCHEDULE_RATE} requests/s; median {1e3 * middle:.2f} ms; bare only sleeps]"


def _core(work: Callable[[], object]) -> float:
    """Share of one core that this process takes for it: over the time that was planned, so that a busy machine, where it takes longer,
    does not make the share look smaller."""
    used = time.process_time()
    work()
    return (time.process_time() - used) / SECONDS


def _ours(url: str, plan: Plan) -> None:
    found = load.run(url, "echo", plan)
    assert {(outcome.status, len(outcome.chunk_ns)) for outcome in found} == {("ok", PIECES)}


async def _httpx(url: str, plan: Plan) -> None:
    """The same requests at the same times, each line of a stream parsed and marked."""
    import httpx

    texts, start = plan.texts("bare"), time.perf_counter()
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:

        async def one(text: str) -> None:
            marks = []
            async with client.stream("POST", f"{url}/chat/completions", json=plan.body("echo", text)) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: {") and any(c["delta"]["content"] for c in json.loads(line[6:])["choices"]):
                        marks.append(time.perf_counter_ns())
            assert len(marks) == PIECES

        async with asyncio.TaskGroup() as group:
            for due in plan.schedule_s().tolist():
                await asyncio.sleep(start + due - time.perf_counter())
                group.create_task(one(next(texts)))


async def _only_sleep(times_s: np.ndarray) -> list[float]:
    """How late an event loop with nothing to do wakes up."""
    start, late = time.perf_counter(), []
    for due in times_s.tolist():
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        late.append(time.perf_counter() - start - due)
    return late
